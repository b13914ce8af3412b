"""Platforms with OpenID Connect: each is declared as a table of claims, from which its settings, schema and checks follow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import ConfigDict, Field, create_model

from machinebot.errors import Denied, Invalid
from machinebot.joins import jwts
from machinebot.joins.base import NOT_MATCHED, Asked, JoinMethod, Outside, Proved, TokenProof
from machinebot.joins.jwts import Expected, VerifiedClaims
from machinebot.joins.keysets import MAX_JWKS, parse_jwks
from machinebot.policy import globs
from machinebot.resources.meta import Model, Rule, rules, to_camel

MAX_RULES: Final = 32
"""Most rules of one join token: bounds the cost of CEL and of a join."""

MAX_PATTERN: Final = 512
"""Longest text in a rule, characters; the longest real ones are subjects of GitHub with some 200."""

_SHOWN: Final = 256
"""Longest value of a claim in status and the audit log, characters."""


class Match(Enum):
    """How a field of a rule is held against its claim."""

    EXACT = "exact"
    GLOB = "glob"
    BOOLEAN = "boolean"
    """The claim is true or false, or the text of one."""
    MEMBER = "member"
    """The claim is a list of texts, and the field is one of them."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of a platform's table.

    Attributes:
        field: Field of a rule, snake_case; camelCase in the resource.
        claim: The claim that it is held against; a tuple is a path into nested objects.
        description: For `kubectl explain`.
        match: How.
        stable: Whether the platform never gives the value to somebody else, as it may with names that were given back.
        alias: Name in the resource where camelCase of `field` is not it, such as `repositoryID`.
    """

    field: str
    claim: str | tuple[str, ...]
    description: str
    match: Match = Match.EXACT
    stable: bool = False
    alias: str | None = None

    @property
    def name(self) -> str:
        """Name in the resource."""
        return self.alias or to_camel(self.field)

    @property
    def path(self) -> tuple[str, ...]:
        """Where the claim stands."""
        return (self.claim,) if isinstance(self.claim, str) else self.claim


class OIDCSettings(Model):
    """Base of the settings of every platform. `allow` is added by `platform`, from the table."""

    allow: tuple[Any, ...] = ()


class StaticKeys(OIDCSettings):
    """Base where the keys may be given instead of fetched."""

    static_jwks: Annotated[str, Field(max_length=MAX_JWKS)] | None = Field(
        default=None,
        alias="staticJWKS",
        description="JSON Web Key Set of the issuer as text, where the authority cannot reach it. Default: fetched by discovery.",
    )


OIDCSettingsT = TypeVar("OIDCSettingsT", bound=OIDCSettings)


@dataclass(frozen=True, slots=True)
class Platform(Generic[OIDCSettingsT]):
    """What differs between platforms.

    Attributes:
        claims: The table.
        one_of: Of each group of fields a rule must have at least one.
        issuer: From settings to the `iss` of tokens, whose keys are fetched by discovery.
        audience: From settings and `clusterName` to the audience that tokens must have.
        ignored: Claims that are known and deliberately not checked.
        check: What else must hold of the claims; raises `Denied`.
        longest: See `Expected.longest`.
    """

    claims: tuple[Claim, ...]
    one_of: tuple[tuple[str, ...], ...]
    issuer: Callable[[OIDCSettingsT], str]
    audience: Callable[[OIDCSettingsT, str], str]
    ignored: frozenset[str] = frozenset()
    check: Callable[[OIDCSettingsT, VerifiedClaims], None] = lambda _settings, _claims: None

    async def verify(self, settings: OIDCSettingsT, proof: TokenProof, asked: Asked, outside: Outside) -> Proved:
        """See `base.Verify`."""
        unverified_token = jwts.take_apart(proof.token.get_secret_value())
        issuer, static = self.issuer(settings), getattr(settings, "static_jwks", None)
        keys = await outside.keys(issuer, unverified_token.kid) if static is None else parse_jwks(static.encode())
        expected = Expected(issuer=issuer, audience=self.audience(settings, asked.cluster_name), now=asked.now)
        verified = jwts.verified_claims(unverified_token, keys, expected)
        self.check(settings, verified)
        if not any_matches(self.claims, settings.allow, verified):
            raise Denied(NOT_MATCHED, "the token is good, and no rule of the join token lets its claims in: see the audit log")
        return Proved(
            subject=(verified.text("sub") or "")[:_SHOWN],
            attributes=attributes(self.claims, verified),
            unknown=self.unknown(verified),
        )

    def unknown(self, verified: VerifiedClaims) -> tuple[str, ...]:
        """Names of claims that stand neither in the table nor among those ignored."""
        known = {claim.path[0] for claim in self.claims} | self.ignored | _REGISTERED
        return tuple(sorted(name[:64] for name in verified.claims if name not in known))[:16]


_REGISTERED: Final = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})
"""Claims of RFC 7519, section 4.1, that every token has and `jwts` checks."""


def platform(
    *,
    name: str,
    description: str,
    settings: type[OIDCSettingsT],
    table: Platform[OIDCSettingsT],
    names_alone: Mapping[str, str] | None = None,
    field: str | None = None,
) -> JoinMethod[OIDCSettingsT, TokenProof]:
    """The join method of a platform.

    Args:
        name: See `JoinMethod.name`.
        description: See `JoinMethod.description`.
        settings: What stands beside `allow`.
        table: The platform.
        names_alone: From a field that is a name which the platform may give to somebody else, to the stable field that should
            stand beside it: status warns where it does not.
        field: See `JoinMethod.field`; camelCase of the name by default.
    """
    rule = rule_model(name, table.claims, table.one_of)
    allow: Any = Annotated[
        tuple[rule, ...],  # type: ignore[valid-type]  # a model that is made here
        Field(
            min_length=1,
            max_length=MAX_RULES,
            description="Who is let in: a rule fits when all of its fields do; one that fits is enough.",
        ),
    ]
    model: type[OIDCSettingsT] = create_model(
        settings.__name__, __base__=settings, __module__=settings.__module__, allow=(allow, ...)
    )
    model.__doc__ = settings.__doc__
    return JoinMethod(
        name=name,
        field=field or to_camel(name),
        description=description,
        settings=model,
        proof=TokenProof,
        verify=table.verify,
        audience=table.audience,
        warnings=lambda chosen: alone(table.claims, chosen.allow, names_alone or {}),
    )


def rule_model(name: str, claims: Sequence[Claim], one_of: Sequence[Sequence[str]]) -> type[Model]:
    """The model of one rule: a field for each claim, at least one of each group required, nothing that restricts nothing."""
    fields: dict[str, Any] = {claim.field: (_type_of(claim), _field_of(claim)) for claim in claims}
    by_field = {claim.field: claim.name for claim in claims}
    checks = [
        Rule(
            " || ".join(f"has(self.{by_field[field]})" for field in group),
            f"a rule must have at least one of: {', '.join(by_field[field] for field in group)}",
        )
        for group in one_of
    ]
    base = create_model(f"{to_camel(name)}Rule", __base__=Model, **fields)
    base.model_config = ConfigDict(**{**base.model_config, "json_schema_extra": rules(*checks)})
    base.__doc__ = "One rule: it fits when all of its fields do."
    base.model_rebuild(force=True)
    return base


_SOMETHING: Final = r"^[^\x00-\x1f\x7f]*[^*?\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
"""At least one character that is no wildcard: what fits everything restricts nothing."""


def _type_of(claim: Claim) -> Any:
    return (bool if claim.match is Match.BOOLEAN else str) | None


def _field_of(claim: Claim) -> Any:
    text = claim.description
    if claim.match is Match.BOOLEAN:
        return Field(default=None, alias=claim.name, description=text)
    if claim.match is Match.GLOB:
        return Field(
            default=None,
            alias=claim.name,
            description=f"{text} `*` stands for any characters, `?` for one.",
            pattern=_SOMETHING,
            max_length=MAX_PATTERN,
            json_schema_extra=rules(
                Rule(f"self.matches(r'{_SOMETHING}')", "must hold more than wildcards: what fits everything restricts nothing")
            ),
        )
    return Field(default=None, alias=claim.name, description=f"{text} Compared exactly.", min_length=1, max_length=MAX_PATTERN)


# --- the engine ---------------------------------------------------------------------------------------------------------


def any_matches(claims: Sequence[Claim], allow: Sequence[Model], verified: VerifiedClaims) -> bool:
    """Whether one of the rules fits. No rules: none does."""
    return any(matches(claims, rule, verified) for rule in allow)


def matches(claims: Sequence[Claim], rule: Model, verified: VerifiedClaims) -> bool:
    """Whether all fields of the rule fit. A rule without any fits nobody."""
    stated = [(claim, value) for claim in claims if (value := getattr(rule, claim.field)) is not None]
    return bool(stated) and all(_fits(claim, value, verified) for claim, value in stated)


def _fits(claim: Claim, wanted: str | bool, verified: VerifiedClaims) -> bool:
    """Whether one field fits its claim. A claim that is absent, empty or of another type fits nothing."""
    if claim.match is Match.MEMBER:
        listed = verified.at(*claim.path)
        return isinstance(listed, list) and wanted in [each for each in listed if isinstance(each, str)]
    if claim.match is Match.BOOLEAN:
        return verified.at(*claim.path) in (wanted, "true" if wanted else "false") and _is_boolean(verified.at(*claim.path))
    told = verified.text(*claim.path)
    if not told or not isinstance(wanted, str) or not wanted:
        return False
    return globs.matches(wanted, told) if claim.match is Match.GLOB else wanted == told


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool | str)


def attributes(claims: Sequence[Claim], verified: VerifiedClaims) -> dict[str, str]:
    """What the platform says of the claims of the table, by the names of the rules."""
    told = {claim.name: verified.text(*claim.path) for claim in claims if claim.match in (Match.EXACT, Match.GLOB)}
    return {name: value[:_SHOWN] for name, value in told.items() if value}


def alone(claims: Sequence[Claim], allow: Sequence[Model], names_alone: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings: rules that trust a name which may become somebody else's, without the id that may not."""
    by_field = {claim.field: claim for claim in claims}
    stable = [claim.field for claim in claims if claim.stable]
    found = []
    for number, rule in enumerate(allow):
        if any(getattr(rule, field) is not None for field in stable):
            continue
        for name, better in names_alone.items():
            if getattr(rule, name) is not None:
                worse, safer = by_field[name].name, by_field[better].name
                found.append(f"allow[{number}] trusts {worse} alone, a name that may become somebody else's: add {safer}")
                break
    return tuple(found[:16])


def check_host(host: str) -> str:
    """A host name as settings have it, in small letters, without scheme, port and path.

    Raises:
        Invalid: It is none.
    """
    if not host or any(character in host for character in "/:@?#"):
        raise Invalid("InvalidSpec", f"{host[:64]!r} is no host name: write one such as gitlab.example.test")
    return host.lower()
