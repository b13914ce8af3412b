"""`terraform_cloud`: a run of HCP Terraform or Terraform Enterprise, by its workload identity token (developer.hashicorp.com,
"Workload identity").
"""

from typing import Final

from pydantic import Field

from machinebot.joins.claims import Audience, Claim, HostName, OIDCSettings, Platform, platform


class TerraformCloudSettings(OIDCSettings):
    """Settings of `terraform_cloud`."""

    audience: Audience | None = Field(
        default=None,
        description="Audience in TFC_WORKLOAD_IDENTITY_AUDIENCE of the workspace. Default: clusterName of the authority.",
    )
    hostname: HostName | None = Field(
        default=None, description="Host of a Terraform Enterprise. Default: app.terraform.io, HCP Terraform."
    )


CLAIMS: Final = (
    Claim("organization_id", "terraform_organization_id", "Id of the organization.", stable=True, alias="organizationID"),
    Claim("organization_name", "terraform_organization_name", "Name of the organization."),
    Claim("project_id", "terraform_project_id", "Id of the project.", stable=True, alias="projectID"),
    Claim("project_name", "terraform_project_name", "Name of the project."),
    Claim("workspace_id", "terraform_workspace_id", "Id of the workspace.", stable=True, alias="workspaceID"),
    Claim("workspace_name", "terraform_workspace_name", "Name of the workspace."),
    Claim("run_phase", "terraform_run_phase", "Phase of the run: plan or apply."),
)

METHOD: Final = platform(
    name="terraform_cloud",
    description="HCP Terraform and Terraform Enterprise, by the workload identity token of a run.",
    settings=TerraformCloudSettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(
            ("organization_id", "organization_name"),
            ("project_id", "project_name", "workspace_id", "workspace_name"),
        ),
        issuer=lambda settings: f"https://{settings.hostname or 'app.terraform.io'}",
        audience=lambda settings, cluster_name: settings.audience or cluster_name,
        ignored=frozenset({"terraform_full_workspace", "terraform_run_id"}),
    ),
    names_alone={"organization_name": "organization_id"},
)
