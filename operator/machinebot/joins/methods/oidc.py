"""`oidc`: any OpenID Connect issuer, by claims that its tokens must have."""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from machinebot.joins.base import Asked, JoinMethod, NotMatched, Outside, Proved, TokenProof
from machinebot.joins.claims import (
    MAX_PATTERN,
    REGISTERED,
    STATIC_JWKS,
    Audience,
    IssuerURL,
    StaticJWKS,
    shown,
    texts_of,
    verify_token,
)
from machinebot.joins.jwts import Expected, VerifiedClaims
from machinebot.resources.meta import Model, Rule, matches, rules

MAX_CLAIMS: Final = 16
"""Most claims in `mustMatch`."""

_MAX_PATH: Final = 200
"""Longest path of a claim, characters."""

_PATH: Final = r"^([^.\\\x00-\x1f\x7f]|\\[.\\])+(\.([^.\\\x00-\x1f\x7f]|\\[.\\])+)*$"
"""Names with dots between; a dot or a backslash within a name has a backslash before it."""

_CHECKED: Final = REGISTERED - {"sub"}
"""What every good token of the issuer has, so that it tells nobody from anybody."""

_VERIFIED: Final = "email_verified"

_CHANGEABLE: Final = frozenset({"email", "name", "nickname", "preferred_username", "unique_name", "upn", "username"})
"""Claims that people may change, or get after somebody else (OpenID Connect Core, section 5.7)."""


_TELLING: Final = (
    f"{', '.join(sorted(_CHECKED))} are checked anyway and tell nobody from anybody: match sub, or what else tells machines apart"
)
_WRITTEN: Final = "claims are names with dots between, such as sub or kubernetes\\.io.namespace, of at most 200 characters"


def _checked(wanted: Mapping[str, str]) -> Mapping[str, str]:
    if any(re.fullmatch(_PATH, path) is None for path in wanted):
        raise ValueError(_WRITTEN)
    if wanted.keys() & _CHECKED:
        raise ValueError(_TELLING)
    return wanted


_MustMatch = Annotated[
    Mapping[Annotated[str, Field(max_length=_MAX_PATH)], Annotated[str, Field(min_length=1, max_length=MAX_PATTERN)]],
    Field(min_length=1, max_length=MAX_CLAIMS),
    AfterValidator(_checked),
]


class GenericSettings(Model):
    """Settings of `oidc`."""

    issuer: IssuerURL = Field(description="The issuer, exactly as tokens have it (`iss`).")
    audience: Audience = Field(
        description="Audience that tokens must have: one that nobody else takes tokens for, such as clusterName of the authority."
    )
    static_jwks: StaticJWKS = STATIC_JWKS
    must_match: _MustMatch = Field(
        description="From claims to the values that they must all have, compared exactly: texts, whole numbers, true or false; "
        "of a list, one text. A dot leads into a nested claim; one within a name has a backslash before it.",
        json_schema_extra=rules(
            Rule(f"self.all(path, size(path) <= {_MAX_PATH} && {matches(_PATH, 'path')})", _WRITTEN),
            Rule(f"self.all(path, !(path in {sorted(_CHECKED)}))", _TELLING),
        ),
    )


def _steps(path: str) -> tuple[str, ...]:
    """The names in a path of claims, their backslashes taken away."""
    return tuple(re.sub(r"\\(.)", r"\1", name) for name in re.findall(r"(?:[^.\\]|\\.)+", path))


def _told(verified: VerifiedClaims, path: str) -> list[str]:
    """The texts that a token offers at a path."""
    value = verified.at(*_steps(path))
    if isinstance(value, bool):
        return ["true" if value else "false"]
    text = verified.text(*_steps(path))
    return texts_of(value) if text is None else [text]


async def verify(settings: GenericSettings, proof: TokenProof, asked: Asked, outside: Outside, /) -> Proved:
    """See `base.Verify`."""
    expected = Expected(issuer=settings.issuer, audience=settings.audience, now=asked.now)
    verified = await verify_token(proof, expected, settings.issuer, settings.static_jwks, outside)
    subject, wanted = shown(verified.text("sub") or ""), settings.must_match
    told = {path: _told(verified, path) for path in wanted}
    if not all(text in told[path] for path, text in wanted.items()):
        raise NotMatched(Proved(subject=subject, attributes={path: shown(", ".join(texts)) for path, texts in told.items()}))
    return Proved(subject=subject, attributes={path: shown(text) for path, text in wanted.items()})


def warnings(settings: GenericSettings) -> tuple[str, ...]:
    """What works but is probably not meant: trust in what people can change, or get after somebody else."""
    wanted = settings.must_match
    found = []
    if wanted.keys() <= _CHANGEABLE | {_VERIFIED}:
        found.append(f"mustMatch trusts {', '.join(sorted(wanted))} alone, which may become somebody else's: add sub")
    if "email" in wanted and wanted.get(_VERIFIED) != "true":
        found.append('mustMatch trusts an email address that the issuer may not have verified: add email_verified: "true"')
    return tuple(found)


METHOD: Final = JoinMethod(
    name="oidc",
    field="oidc",
    description="Any OpenID Connect issuer, by claims that its tokens must have.",
    settings=GenericSettings,
    proof=TokenProof,
    verify=verify,
    audience=lambda settings, _cluster_name: settings.audience,
    warnings=warnings,
)
