"""`bitbucket`: a step of Bitbucket Pipelines, by its ID token (support.atlassian.com, "Integrate Pipelines with resource servers
using OIDC").
"""

from typing import Final

from pydantic import Field

from machinebot.joins.claims import Audience, Claim, IssuerURL, OIDCSettings, Platform, platform


class BitbucketSettings(OIDCSettings):
    """Settings of `bitbucket`. Both texts stand in the repository's settings, under OpenID Connect."""

    identity_provider_url: IssuerURL = Field(
        alias="identityProviderURL",
        description="Identity provider URL of the workspace, such as "
        "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc.",
    )
    audience: Audience = Field(description="Audience of the workspace, such as ari:cloud:bitbucket::workspace/UUID.")


CLAIMS: Final = (
    Claim("workspace_uuid", "workspaceUuid", "UUID of the workspace, in braces.", stable=True, alias="workspaceUUID"),
    Claim("repository_uuid", "repositoryUuid", "UUID of the repository, in braces.", stable=True, alias="repositoryUUID"),
    Claim(
        "deployment_environment_uuid",
        "deploymentEnvironmentUuid",
        "UUID of the environment that the step deploys to, in braces.",
        stable=True,
        alias="deploymentEnvironmentUUID",
    ),
    Claim("branch_name", "branchName", "Branch of the pipeline."),
)

METHOD: Final = platform(
    name="bitbucket",
    description="Bitbucket Pipelines, by the ID token of a step with `oidc: true`.",
    settings=BitbucketSettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(("workspace_uuid", "repository_uuid"),),
        issuer=lambda settings: settings.identity_provider_url,
        audience=lambda settings, _cluster_name: settings.audience,
        asks_audience=False,
        ignored=frozenset({"pipelineUuid", "pullRequestId", "stepUuid"}),
    ),
)
