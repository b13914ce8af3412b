"""`circleci`: a CircleCI job, by its ID token (circleci.com/docs, "Using OpenID Connect tokens in jobs")."""

from typing import Final

from pydantic import Field

from machinebot.joins.claims import UUID, Claim, Match, OIDCSettings, Platform, platform


class CircleCISettings(OIDCSettings):
    """Settings of `circleci`."""

    organization_id: UUID = Field(
        alias="organizationID",
        description="Id of the organization, which has an issuer of its own and is the audience of its tokens.",
    )


CLAIMS: Final = (
    Claim("project_id", "oidc.circleci.com/project-id", "Id of the project.", stable=True, alias="projectID"),
    Claim(
        "context_id",
        "oidc.circleci.com/context-ids",
        "Id of a context that the job uses.",
        Match.MEMBER,
        stable=True,
        alias="contextID",
    ),
)

METHOD: Final = platform(
    name="circleci",
    description="CircleCI, by the ID token of a job that uses a context.",
    settings=CircleCISettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(("project_id", "context_id"),),
        issuer=lambda settings: f"https://oidc.circleci.com/org/{settings.organization_id}",
        audience=lambda settings, _cluster_name: settings.organization_id,
        asks_audience=False,
        ignored=frozenset(
            f"oidc.circleci.com/{name}"
            for name in (
                "job-id",
                "org-id",
                "pipeline-definition-id",
                "pipeline-id",
                "ssh-rerun",
                "vcs-origin",
                "vcs-ref",
                "workflow-id",
            )
        ),
    ),
)
