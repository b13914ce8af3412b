"""`azure_devops`: a pipeline of Azure DevOps, by its ID token (the request `oidctoken` of the Distributed Task API)."""

from collections.abc import Sequence
from typing import Final

from pydantic import Field

from machinebot.errors import Denied
from machinebot.joins.claims import UUID, Claim, OIDCSettings, Platform, platform
from machinebot.joins.jwts import VerifiedClaims

AUDIENCE: Final = "api://AzureADTokenExchange"
"""The audience of every ID token of Azure DevOps; its issuer is the organization's own."""

_PIPELINE: Final = "p://"
"""How the subject of a pipeline's own token begins; that of a service connection begins with `sc://`."""


class AzureDevOpsSettings(OIDCSettings):
    """Settings of `azure_devops`."""

    organization_id: UUID = Field(alias="organizationID", description="Id of the organization; each has an issuer of its own.")


def _names(verified: VerifiedClaims) -> tuple[str, ...]:
    """Organization, project and pipeline in the subject; none where it is not that of a pipeline."""
    subject = verified.text("sub") or ""
    names = tuple(subject.removeprefix(_PIPELINE).split("/"))
    return names if subject.startswith(_PIPELINE) and len(names) == len(("organization", "project", "pipeline")) else ()


def _project(verified: VerifiedClaims) -> Sequence[str]:
    return _names(verified)[1:2]


def _pipeline(verified: VerifiedClaims) -> Sequence[str]:
    return _names(verified)[2:3]


def check(settings: AzureDevOpsSettings, verified: VerifiedClaims) -> None:
    """Holds what is no pipeline, or one of another organization, off.

    Raises:
        Denied: `NotAPipeline`, `WrongOrganization`.
    """
    if not all(_names(verified)) or not _names(verified):
        raise Denied("NotAPipeline", "the token is not one of a pipeline, whose subject is p://ORGANIZATION/PROJECT/PIPELINE")
    if verified.text("org_id") != settings.organization_id:
        raise Denied("WrongOrganization", "the token is not one of the organization that the join token names")


CLAIMS: Final = (
    Claim("project_id", "prj_id", "Id of the project.", stable=True, alias="projectID"),
    Claim("project_name", "sub", "Name of the project.", read=_project),
    Claim("pipeline_name", "sub", "Name of the pipeline.", read=_pipeline),
    Claim("definition_id", "def_id", "Id of the pipeline's definition within its project.", alias="definitionID"),
    Claim("sub", "sub", "The subject of the token: p://ORGANIZATION/PROJECT/PIPELINE."),
    Claim("repository_uri", "rpo_uri", "Where the repository is.", alias="repositoryURI"),
    Claim("repository_version", "rpo_ver", "Commit of the run."),
    Claim("repository_ref", "rpo_ref", "Git ref of the run, such as refs/heads/main."),
)

METHOD: Final = platform(
    name="azure_devops",
    field="azureDevOps",
    description="Azure DevOps, by the ID token of a pipeline.",
    settings=AzureDevOpsSettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(("project_id", "project_name", "sub"),),
        issuer=lambda settings: f"https://vstoken.dev.azure.com/{settings.organization_id}",
        audience=lambda _settings, _cluster_name: AUDIENCE,
        asks_audience=False,
        ignored=frozenset({"org_id", "rpo_id", "run_id"}),
        check=check,
    ),
    names_alone={"project_name": "project_id", "sub": "project_id"},
)
