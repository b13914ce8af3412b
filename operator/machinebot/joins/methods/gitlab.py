"""`gitlab`: a GitLab CI/CD job, by its ID token (docs.gitlab.com, "OpenID Connect authentication using ID tokens")."""

from typing import Final

from pydantic import Field

from machinebot.joins.claims import Audience, Claim, HostName, Match, Platform, StaticKeys, platform


class GitLabSettings(StaticKeys):
    """Settings of `gitlab`."""

    audience: Audience | None = Field(
        default=None, description="Audience (`aud`) of the job's `id_tokens`. Default: clusterName of the authority."
    )
    domain: HostName | None = Field(default=None, description="Host of the GitLab. Default: gitlab.com.")


CLAIMS: Final = (
    Claim("project_id", "project_id", "Id of the project.", stable=True, alias="projectID"),
    Claim("namespace_id", "namespace_id", "Id of the group or user that owns the project.", stable=True, alias="namespaceID"),
    Claim("project_path", "project_path", "Path of the project, with its groups.", Match.GLOB),
    Claim("namespace_path", "namespace_path", "Path of the group or user that owns the project.", Match.GLOB),
    Claim("sub", "sub", "The subject of the token.", Match.GLOB),
    Claim("ref", "ref", "Git ref of the job, such as main.", Match.GLOB),
    Claim("ref_type", "ref_type", "Kind of the ref: branch or tag."),
    Claim("ref_protected", "ref_protected", "Whether the ref is protected.", Match.BOOLEAN),
    Claim("environment", "environment", "Environment that the job deploys to."),
    Claim("environment_protected", "environment_protected", "Whether that environment is protected.", Match.BOOLEAN),
    Claim("deployment_tier", "deployment_tier", "Tier of that environment, such as production."),
    Claim("pipeline_source", "pipeline_source", "What started the pipeline, such as push."),
    Claim("user_id", "user_id", "Id of the user who started the job.", stable=True, alias="userID"),
    Claim("user_login", "user_login", "Name of that user."),
    Claim("user_email", "user_email", "Email address of that user."),
    Claim("ci_config_ref_uri", "ci_config_ref_uri", "Where the pipeline is defined, with its ref.", alias="ciConfigRefURI"),
    Claim("ci_config_sha", "ci_config_sha", "Commit of that definition.", alias="ciConfigSHA"),
    Claim("project_visibility", "project_visibility", "Who sees the project: private, internal or public."),
)

METHOD: Final = platform(
    name="gitlab",
    description="GitLab CI/CD, by an ID token of the job (`id_tokens`).",
    settings=GitLabSettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(("project_id", "namespace_id", "project_path", "namespace_path", "sub", "ci_config_ref_uri"),),
        issuer=lambda settings: f"https://{settings.domain or 'gitlab.com'}",
        audience=lambda settings, cluster_name: settings.audience or cluster_name,
        ignored=frozenset(
            {
                "deployment_action",
                "environment_action",
                "groups_direct",
                "job_id",
                "job_namespace_id",
                "job_namespace_path",
                "job_project_id",
                "job_project_path",
                "pipeline_id",
                "ref_path",
                "runner_environment",
                "runner_id",
                "sha",
                "user_access_level",
                "user_identities",
            }
        ),
    ),
    names_alone={
        "project_path": "project_id",
        "namespace_path": "namespace_id",
        "ci_config_ref_uri": "project_id",
        "sub": "project_id",
    },
)
