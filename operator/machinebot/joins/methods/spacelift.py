"""`spacelift`: a Spacelift run, by its ID token (docs.spacelift.io, "OpenID Connect (OIDC)").

tbot's option `enable_glob_matching` is not needed: `spaceID` and `callerID` are globs, and ids hold no wildcards.
"""

from typing import Final

from pydantic import Field

from machinebot.joins.claims import Claim, HostName, Match, OIDCSettings, Platform, platform


class SpaceliftSettings(OIDCSettings):
    """Settings of `spacelift`."""

    hostname: HostName = Field(
        description="Host of the account, such as acme.app.spacelift.io; its tokens have it as issuer and audience."
    )


CLAIMS: Final = (
    Claim("space_id", "spaceId", "Id of the space that the run belongs to.", Match.GLOB, alias="spaceID"),
    Claim("caller_id", "callerId", "Id of the stack or module of the run.", Match.GLOB, alias="callerID"),
    Claim("caller_type", "callerType", "What the run belongs to: stack or module."),
    Claim("scope", "scope", "What the token is for: read (plans) or write (applies)."),
)

METHOD: Final = platform(
    name="spacelift",
    description="Spacelift, by the ID token of a run.",
    settings=SpaceliftSettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(("space_id", "caller_id"),),
        issuer=lambda settings: f"https://{settings.hostname}",
        audience=lambda settings, _cluster_name: settings.hostname,
        asks_audience=False,
        ignored=frozenset({"runId", "runType", "spacePath"}),
    ),
)
