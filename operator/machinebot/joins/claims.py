"""Platforms with OpenID Connect: each is declared as a table of claims, from which its settings, schema and checks follow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import ConfigDict, Field, create_model, model_validator

from machinebot.joins import jwts
from machinebot.joins.base import Asked, JoinMethod, NotMatched, Outside, Proved, TokenProof, no_audience
from machinebot.joins.jwts import Expected, VerifiedClaims
from machinebot.joins.keysets import MAX_JWKS, static_keys
from machinebot.policy import globs
from machinebot.resources.meta import MAX_NAME, Model, Rule, rules, to_camel, written_as

MAX_RULES: Final = 32
"""Most rules of one join token: bounds the cost of CEL and of a join."""

MAX_PATTERN: Final = 512
"""Longest text in a rule, characters; the longest real ones are subjects of GitHub with some 200."""

MAX_LISTED: Final = 32
"""Most texts in one field of a rule that is a list."""

MAX_SHOWN: Final = 256
"""Longest value of a claim in status and the audit log, characters."""

_MAX_UNKNOWN: Final = 16
_MAX_CLAIM_NAME: Final = 64
"""Most unknown claims that are reported, and of how many characters each: whoever signs the token chooses them."""

_MAX_WARNINGS: Final = 16
"""Most warnings: the status has no place for more."""

DNS_NAME: Final = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z]([-a-z0-9]*[a-z0-9])?"
"""Host name in full. That its last label begins with a letter leaves out addresses, in each of the ways to write one."""

HostName = Annotated[
    str,
    written_as(f"^{DNS_NAME}$", "must be a host name in full such as gitlab.example.test, without https://, port and path"),
    Field(max_length=MAX_NAME),
]
"""A host in settings: small letters, no address."""

IssuerURL = Annotated[
    str,
    written_as(
        rf"^https://{DNS_NAME}(:[0-9]{{1,5}})?(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?$",
        "must be an issuer exactly as its tokens have it, such as https://login.example.test/realms/ci: https, and a host name",
    ),
    Field(max_length=MAX_PATTERN),
]
"""An issuer in settings (OpenID Connect Core, section 2: https, without query and fragment)."""

Audience = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
"""An audience in settings."""

UUID = Annotated[
    str,
    written_as(
        "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        "must be a UUID in small letters: 8, 4, 4, 4 and 12 hex digits with '-' between",
    ),
    Field(max_length=36),
]
"""The id of an organization in settings."""


class Match(Enum):
    """How a field of a rule is held against its claim."""

    EXACT = "exact"
    GLOB = "glob"
    BOOLEAN = "boolean"
    """The claim is true or false, or the text of one."""
    MEMBER = "member"
    """The claim is a list of texts, and the field is one of them."""
    ONE_OF = "one of"
    """The field is a list of texts, and the claim is one of them."""


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
        read: From all claims to the texts that stand for this one, where that is more than reading it; none fits nothing.
    """

    field: str
    claim: str | tuple[str, ...]
    description: str
    match: Match = Match.EXACT
    stable: bool = False
    alias: str | None = None
    read: Callable[[VerifiedClaims], Sequence[str]] | None = None

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


StaticJWKS = Annotated[str, Field(max_length=MAX_JWKS)] | None
"""A key set in settings."""

STATIC_JWKS: Final[Any] = Field(
    default=None,
    alias="staticJWKS",
    description="JSON Web Key Set of the issuer as text, where the authority cannot reach it. Default: fetched by discovery.",
)
"""The field of such a key set."""


class StaticKeys(OIDCSettings):
    """Base where the keys may be given instead of fetched."""

    static_jwks: StaticJWKS = STATIC_JWKS


OIDCSettingsT = TypeVar("OIDCSettingsT", bound=OIDCSettings)


async def verify_token(
    proof: TokenProof, expected: Expected, issuer: str, static_jwks: str | None, outside: Outside
) -> VerifiedClaims:
    """The claims of a token of an issuer, by the keys that the settings give or that the issuer publishes.

    Args:
        proof: What was sent.
        expected: What the token must say of itself.
        issuer: Whose keys are fetched.
        static_jwks: The key set in the settings, or None.
        outside: Fetches keys.

    Raises:
        Denied: See `jwts.take_apart` and `jwts.verified_claims`.
        Invalid: The key set in the settings is none.
        Unavailable: The keys cannot be fetched.
    """
    unverified_token = jwts.take_apart(proof.token.get_secret_value())
    keys = await outside.keys(issuer, unverified_token.kid) if static_jwks is None else static_keys(static_jwks)
    return jwts.verified_claims(unverified_token, keys, expected)


@dataclass(frozen=True, slots=True)
class Platform(Generic[OIDCSettingsT]):
    """What differs between platforms.

    Attributes:
        claims: The table.
        one_of: Of each group of fields a rule must have at least one.
        issuer: From settings to the `iss` of tokens, whose keys are fetched by discovery.
        audience: From settings and `clusterName` to the audience that tokens must have.
        asks_audience: Whether clients name that audience to the platform; else it gives each token the same.
        ignored: Claims that are known and deliberately not checked.
        check: What else must hold of the claims; raises `Denied`.
    """

    claims: tuple[Claim, ...]
    one_of: tuple[tuple[str, ...], ...]
    issuer: Callable[[OIDCSettingsT], str]
    audience: Callable[[OIDCSettingsT, str], str]
    asks_audience: bool = True
    ignored: frozenset[str] = frozenset()
    check: Callable[[OIDCSettingsT, VerifiedClaims], None] = lambda _settings, _claims: None

    async def verify(self, settings: OIDCSettingsT, proof: TokenProof, asked: Asked, outside: Outside, /) -> Proved:
        """See `base.Verify`."""
        issuer, static = self.issuer(settings), settings.static_jwks if isinstance(settings, StaticKeys) else None
        expected = Expected(issuer=issuer, audience=self.audience(settings, asked.cluster_name), now=asked.now)
        verified = await verify_token(proof, expected, issuer, static, outside)
        self.check(settings, verified)
        proved = Proved(
            subject=shown(verified.text("sub") or ""),
            attributes=attributes(self.claims, verified),
            unknown=unknown(verified, {claim.path[0] for claim in self.claims} | self.ignored),
        )
        if not any_matches(self.claims, settings.allow, verified):
            raise NotMatched(proved)
        return proved


REGISTERED: Final = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})
"""Claims of RFC 7519, section 4.1, that every token has; `jwts` checks them where it matters."""


def unknown(verified: VerifiedClaims, known: frozenset[str] | set[str]) -> tuple[str, ...]:
    """Names of claims that a method does not know."""
    strange = sorted(name for name in verified.claims if name not in known | REGISTERED)
    return tuple(name[:_MAX_CLAIM_NAME] for name in strange[:_MAX_UNKNOWN])


def shown(text: str) -> str:
    """The value of a claim as status and the audit log have it."""
    return text[:MAX_SHOWN]


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
        audience=table.audience if table.asks_audience else no_audience,
        warnings=lambda chosen: alone(table.claims, chosen.allow, names_alone or {}),
    )


# --- the model of a rule ------------------------------------------------------------------------------------------------


def rule_model(name: str, claims: Sequence[Claim], one_of: Sequence[Sequence[str]]) -> type[Model]:
    """The model of one rule: a field for each claim, at least one of each group required, nothing that restricts nothing."""
    fields: dict[str, Any] = {claim.field: (_type_of(claim) | None, _field_of(claim)) for claim in claims}
    by_field = {claim.field: claim.name for claim in claims}
    groups = {tuple(group): _group_message([by_field[field] for field in group]) for group in one_of}
    checks = [Rule(" || ".join(f"has(self.{by_field[field]})" for field in group), message) for group, message in groups.items()]

    def _complete(rule: Model) -> Model:
        for group, message in groups.items():
            if all(getattr(rule, field) is None for field in group):
                raise ValueError(message)
        return rule

    validators: Any = {"complete": model_validator(mode="after")(_complete)}
    base = create_model(f"{to_camel(name)}Rule", __base__=Model, __validators__=validators, **fields)
    base.model_config = ConfigDict(**{**base.model_config, "json_schema_extra": rules(*checks)})
    base.__doc__ = "One rule: it fits when all of its fields do."
    base.model_rebuild(force=True)
    return base


def _group_message(names: Sequence[str]) -> str:
    return f"a rule must have at least one of: {', '.join(names)}" if len(names) > 1 else f"a rule must have {names[0]}"


_SOMETHING: Final = r"^[^\x00-\x1f\x7f]*[^*?\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
"""At least one character that is no wildcard: what fits everything restricts nothing."""


def _type_of(claim: Claim) -> Any:
    match claim.match:
        case Match.BOOLEAN:
            return bool
        case Match.ONE_OF:
            text = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN)]
            return Annotated[tuple[text, ...], Field(min_length=1, max_length=MAX_LISTED)]
        case _:
            return str


def _field_of(claim: Claim) -> Any:
    text = claim.description
    match claim.match:
        case Match.BOOLEAN:
            return Field(default=None, alias=claim.name, description=text)
        case Match.ONE_OF:
            return Field(default=None, alias=claim.name, description=f"{text} One of these, compared exactly.")
        case Match.GLOB:
            refusal = Rule(
                f"self.matches(r'{_SOMETHING}')", "must hold more than wildcards: what fits everything restricts nothing"
            )
            return Field(
                default=None,
                alias=claim.name,
                description=f"{text} `*` stands for any characters, `?` for one.",
                pattern=_SOMETHING,
                max_length=MAX_PATTERN,
                json_schema_extra=rules(refusal),
            )
        case _:
            return Field(
                default=None, alias=claim.name, description=f"{text} Compared exactly.", min_length=1, max_length=MAX_PATTERN
            )


# --- the engine ---------------------------------------------------------------------------------------------------------


def any_matches(claims: Sequence[Claim], allow: Sequence[Model], verified: VerifiedClaims) -> bool:
    """Whether one of the rules fits. No rules: none does."""
    return any(matches(claims, rule, verified) for rule in allow)


def matches(claims: Sequence[Claim], rule: Model, verified: VerifiedClaims) -> bool:
    """Whether all fields of the rule fit. A rule without any fits nobody."""
    stated = [(claim, value) for claim in claims if (value := getattr(rule, claim.field)) is not None]
    return bool(stated) and all(_fits(claim, value, verified) for claim, value in stated)


def _fits(claim: Claim, wanted: object, verified: VerifiedClaims) -> bool:
    """Whether one field fits its claim. A claim that is absent, empty or of another type fits nothing."""
    texts = wanted if isinstance(wanted, tuple) else (_text(wanted),)
    fits = globs.matches if claim.match is Match.GLOB else str.__eq__
    return any(fits(text, told) for told in _told(claim, verified) for text in texts if text and told)


def _told(claim: Claim, verified: VerifiedClaims) -> Sequence[str]:
    """The texts that the token offers for a claim."""
    if claim.read is not None:
        return claim.read(verified)
    match claim.match:
        case Match.MEMBER:
            return texts_of(verified.at(*claim.path))
        case Match.BOOLEAN:
            return [text for text in (_text(verified.at(*claim.path)),) if text in ("true", "false")]
        case _:
            return [text for text in (verified.text(*claim.path),) if text is not None]


def texts_of(value: object) -> list[str]:
    """The texts in a list; none where it is something else."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """A boolean as JSON has it, a text as it is; empty for all else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else ""


def attributes(claims: Sequence[Claim], verified: VerifiedClaims) -> dict[str, str]:
    """What the platform says of the claims of the table, by the names of the rules."""
    told = {claim.name: ", ".join(_told(claim, verified)) for claim in claims}
    return {name: shown(value) for name, value in told.items() if value}


# --- what is probably not meant -----------------------------------------------------------------------------------------


def alone(claims: Sequence[Claim], allow: Sequence[Model], names_alone: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings: rules that trust a name which may become somebody else's, without the id that may not.

    A rule has one warning at most: the worst.
    """
    by_field = {claim.field: claim for claim in claims}
    found = []
    for number, rule in enumerate(allow):
        if any(getattr(rule, claim.field) is not None for claim in claims if claim.stable):
            continue
        names = {name: getattr(rule, name) for name in names_alone if getattr(rule, name) is not None}
        if not names:
            continue
        name = next(iter(names))
        safer = by_field[names_alone[name]].name
        if all(by_field[each].match is Match.GLOB and _fits_strangers(names[each]) for each in names):
            said = f"has a wildcard before its first '/', so that names of strangers fit: write who owns it, and add {safer}"
        else:
            said = f"is trusted alone, a name that may become somebody else's: add {safer}"
        found.append(f"allow[{number}].{by_field[name].name} {said}")
    return tuple(found[:_MAX_WARNINGS])


def _fits_strangers(pattern: str) -> bool:
    """Whether a glob leaves open who the owner is, which platforms write before the first slash."""
    ends = [pattern.find(wildcard) for wildcard in "*?" if wildcard in pattern]
    return bool(ends) and "/" not in pattern[: min(ends)]
