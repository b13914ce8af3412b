"""`jwtSVID`: a signed token with a SPIFFE ID, for services that take OpenID Connect tokens (JWT-SVID); the name is tbot's."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from machinebot.outputs.base import Material, OutputType, Parts, always
from machinebot.outputs.settings import SPIFFEPath
from machinebot.policy.credential import Usage, Wish
from machinebot.policy.names import NAME_RULES, NameKind
from machinebot.resources.meta import MAX_NAME, Model, written_as

_AUDIENCE: Final = written_as(
    NAME_RULES[NameKind.JWT_AUDIENCES].whole,
    "must be an audience such as vault or https://api.example.test, without blanks and wildcards; one entry for each",
)

MAX_AUDIENCES: Final = 8
"""Most audiences of one token: whoever gets it may use it at all of them."""

KEY: Final = "jwt_svid"


class JWTSVIDSettings(Model):
    """Settings of a `jwtSVID` output."""

    audiences: Annotated[
        tuple[Annotated[str, _AUDIENCE, Field(max_length=MAX_NAME)], ...], Field(min_length=1, max_length=MAX_AUDIENCES)
    ] = Field(
        description=(
            "Who the token is for; each must fit `allow.jwtAudiences` of one of the roles. One is best: who gets the token can "
            "use it at all the others."
        ),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    path: SPIFFEPath | None = Field(
        default=None,
        description=(
            "Path of the SPIFFE ID, such as /ns/ci/web; it must fit `allow.spiffePaths` of one of the roles. Default: the bot's "
            "own, /ns/NAMESPACE/bot/NAME."
        ),
    )


def ask(settings: JWTSVIDSettings, /) -> Wish:
    """A token; no key of ours is in it."""
    paths = () if settings.path is None else (settings.path,)
    return Wish(
        usages=frozenset({Usage.WORKLOAD_TOKEN}),
        names={NameKind.SPIFFE_PATHS: paths, NameKind.JWT_AUDIENCES: settings.audiences},
    )


def render(_settings: JWTSVIDSettings, material: Material, /) -> Mapping[str, bytes]:
    """The token alone, without a newline: many programs send the file as it is."""
    return {KEY: material.issued.token or b""}


def parts(_settings: JWTSVIDSettings, data: Mapping[str, bytes], /) -> Parts:
    """The token."""
    return Parts(tokens={KEY: data[KEY]})


OUTPUT: Final = OutputType(
    name="jwtSVID",
    description="A signed token with a SPIFFE ID, which verifiers check by OpenID Connect Discovery: jwt_svid.",
    settings=JWTSVIDSettings,
    ask=ask,
    render=render,
    keys=always(KEY),
    parts=parts,
    algorithms=frozenset(),
    x509=False,
)
