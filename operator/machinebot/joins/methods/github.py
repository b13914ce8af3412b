"""`github`: a GitHub Actions workflow, by its ID token (docs.github.com, "OpenID Connect reference")."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from machinebot.joins.claims import Audience, Claim, HostName, Match, Platform, StaticKeys, platform
from machinebot.resources.meta import Rule, rules, written_as

ISSUER: Final = "https://token.actions.githubusercontent.com"


class GitHubSettings(StaticKeys):
    """Settings of `github`."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!(has(self.enterpriseServerHost) && has(self.enterpriseSlug))",
                "enterpriseServerHost is for GitHub Enterprise Server, enterpriseSlug for github.com: keep one",
            )
        )
    )

    audience: Audience | None = Field(
        default=None, description="Audience that the workflow asks for. Default: clusterName of the authority."
    )
    enterprise_server_host: HostName | None = Field(
        default=None, description="Host of a GitHub Enterprise Server. Default: github.com."
    )
    enterprise_slug: (
        Annotated[str, written_as(r"^[A-Za-z0-9-]+$", "must be the slug of an enterprise, such as acme"), Field(max_length=100)]
        | None
    ) = Field(default=None, description="Slug of the enterprise, where it has an issuer of its own on github.com.")


def issuer(settings: GitHubSettings) -> str:
    """The issuer of the tokens."""
    if settings.enterprise_server_host is not None:
        return f"https://{settings.enterprise_server_host}/_services/token"
    return f"{ISSUER}/{settings.enterprise_slug}" if settings.enterprise_slug is not None else ISSUER


CLAIMS: Final = (
    Claim("repository_id", "repository_id", "Id of the repository.", stable=True, alias="repositoryID"),
    Claim(
        "repository_owner_id", "repository_owner_id", "Id of the owner of the repository.", stable=True, alias="repositoryOwnerID"
    ),
    Claim("sub", "sub", "The subject of the token.", Match.GLOB),
    Claim("repository", "repository", "Owner and name of the repository.", Match.GLOB),
    Claim("repository_owner", "repository_owner", "Owner of the repository.", Match.GLOB),
    Claim("workflow", "workflow", "Name of the workflow.", Match.GLOB),
    Claim("job_workflow_ref", "job_workflow_ref", "The reusable workflow that the job runs.", Match.GLOB),
    Claim("environment", "environment", "Environment of the job.", Match.GLOB),
    Claim("actor", "actor", "Account that started the run.", Match.GLOB),
    Claim("ref", "ref", "Git ref of the run, such as refs/heads/main.", Match.GLOB),
    Claim("ref_type", "ref_type", "Kind of the ref: branch or tag."),
    Claim(
        "event_name",
        "event_name",
        "Event that started the run, such as push. Others, such as pull_request_target, run for forks.",
    ),
)

METHOD: Final = platform(
    name="github",
    description="GitHub Actions, by the ID token of a workflow with `id-token: write`.",
    settings=GitHubSettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(("sub", "repository", "repository_id", "repository_owner", "repository_owner_id"),),
        issuer=issuer,
        audience=lambda settings, cluster_name: settings.audience or cluster_name,
        ignored=frozenset(
            {
                "actor_id",
                "base_ref",
                "check_run_id",
                "enterprise",
                "enterprise_id",
                "environment_node_id",
                "head_ref",
                "job_workflow_sha",
                "ref_protected",
                "repository_visibility",
                "run_attempt",
                "run_id",
                "run_number",
                "runner_environment",
                "sha",
                "workflow_ref",
                "workflow_sha",
            }
        ),
    ),
    names_alone={
        "repository": "repository_id",
        "repository_owner": "repository_owner_id",
        "sub": "repository_id",
    },
)
