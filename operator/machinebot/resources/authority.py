"""MachineAuthority: the certificate authority that bots join, cluster-scoped."""

import re
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from machinebot.resources.meta import (
    DURATION_PATTERN,
    MAX_ITEMS,
    MAX_NAME,
    OBJECT_NAME,
    PENDING_STATUS,
    Column,
    Kind,
    Model,
    ObjectMeta,
    ObjectName,
    Rule,
    Status,
    duration_rule,
    matches,
    name_rule,
    parse_duration,
    rules,
    written_as,
)

KIND: Final = Kind(
    kind="MachineAuthority",
    plural="machineauthorities",
    short="mauth",
    namespaced=False,
    description="A certificate authority: it verifies joins, applies roles and signs. The chart makes one called `default`.",
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether it signs."),
        Column("Cluster", ".spec.clusterName", description="Name in certificates and join audience."),
        Column("Status", '.status.conditions[?(@.type=="Ready")].message', priority=1, description="Why it is not ready."),
    ),
)

KeyAlgorithm = Literal["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-4096"]
DeviceTrustMode = Literal["off", "optional", "required", "required-for-humans"]

MIN_OVERLAP: Final = "25h"
"""A new CA generation is published for this long before it signs, and an old one is trusted for as long after: one
credential's life (24 h) and an hour for verifiers to pick the bundle up."""


DEFAULT_EVERY: Final = "2160h"
DEFAULT_OVERLAP: Final = "26h"

MAX_AUTHORITY_NAME: Final = 200
"""Longest name: those of its CA Secrets add to it and must fit 253 characters."""


def _rotation_rule() -> Rule:
    """`every` against `overlap`, each with its default where it is left out: the API server fills in none."""
    malformed = [f"has(self.{name}) && !{matches(DURATION_PATTERN, f'self.{name}')}" for name in ("every", "overlap")]
    every = f"duration(has(self.every) ? self.every : '{DEFAULT_EVERY}')"
    overlap = f"duration(has(self.overlap) ? self.overlap : '{DEFAULT_OVERLAP}')"
    return Rule(
        f"({malformed[0]}) || ({malformed[1]}) || {every} >= {overlap} + {overlap}",
        f"every must be at least twice the overlap, such as every: {DEFAULT_EVERY} and overlap: {DEFAULT_OVERLAP}, which also "
        "count where they are left out",
        ".every",
    )


class Rotation(Model):
    """When a CA generation is followed by the next."""

    every: Annotated[str, Field(max_length=32, json_schema_extra=duration_rule("50h"))] = Field(
        default=DEFAULT_EVERY, description="How long one generation of each CA signs before the next takes over."
    )
    overlap: Annotated[str, Field(max_length=32, json_schema_extra=duration_rule(MIN_OVERLAP))] = Field(
        default=DEFAULT_OVERLAP,
        description=(
            "How long a new generation is published before it signs, and an old one stays trusted after it has signed last."
        ),
    )


class Embedded(Model):
    """The authority that lives in the operator; its CA keys are Secrets in the operator's namespace."""

    key_algorithm: KeyAlgorithm = Field(
        default="ECDSA-P256",
        description=(
            "Algorithm of new CA keys. With Ed25519 only the SSH CAs use it and the X.509 CAs use ECDSA-P256, since many "
            "verifiers take no Ed25519 in X.509."
        ),
    )
    rotation: Rotation = Field(
        default_factory=Rotation,
        description="Rotation of the CAs. Outputs follow without anybody's doing.",
        json_schema_extra=rules(_rotation_rule()),
    )


_BOT_NAME: Final = r"\{\{ *bot\.name *\}\}"
"""Stands in `joinToken` for the name of the bot."""

_JOIN_TOKEN: Final = rf"^([a-z0-9]|{_BOT_NAME})([-a-z0-9.]|{_BOT_NAME})*$"

MAX_CA_BUNDLE: Final = 64 * 1024
"""Longest caBundle, characters: some dozens of certificates."""


_CA_BUNDLE: Final = rules(
    Rule(
        matches(r"^\s*-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s-]+-----END CERTIFICATE-----\s*$")
        + " && !self.contains('PRIVATE')",
        "must be certificates as PEM and nothing else, such as the piece identity-ca of the other authority",
    )
)


class Remote(Model):
    """The authority of another cluster's Machinebot, which this operator's bots join by its join API."""

    url: Annotated[
        str,
        Field(max_length=512),
        written_as(
            r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*$",
            "must be an https address without a slash at the end, such as https://machinebot.example.test",
        ),
    ] = Field(description="Address of the join API of the other cluster's operator.")
    authority: ObjectName = Field(
        default="default", description="Name of the MachineAuthority in the other cluster that its bots belong to."
    )
    ca_bundle: Annotated[str, Field(min_length=1, max_length=MAX_CA_BUNDLE, json_schema_extra=_CA_BUNDLE)] | None = Field(
        default=None,
        description=(
            "CA certificates that sign the certificate of that address, PEM, and no others. Where its operator signs it itself, "
            "these are the CAs of identities of the authority there, from the address /trust/identity-ca. Default: the CAs "
            "that come with the operator's image."
        ),
    )
    join_token: Annotated[
        str,
        Field(max_length=MAX_NAME),
        written_as(_JOIN_TOKEN, "must be the name of a MachineJoinToken; {{ bot.name }} in it stands for the name of the bot"),
    ] = Field(
        default="{{ bot.name }}",
        description=(
            "Name of the MachineJoinToken in the other cluster, in the namespace of the same name as the bot's, of the method "
            "kubernetes with `unbound: true`. `{{ bot.name }}` in it stands for the name of the bot."
        ),
    )

    def join_token_of(self, bot: str) -> str:
        """The name of the MachineJoinToken for the bot of that name."""
        return re.sub(_BOT_NAME, bot, self.join_token)


NamespaceGlob = Annotated[
    str,
    written_as(
        r"^[a-z0-9*?]([-a-z0-9*?]*[a-z0-9*?])?$",
        "must be a namespace such as ci, or a glob of namespaces such as team-*; one entry for each, no commas",
    ),
    Field(max_length=63),
]


class TrustBundleSettings(Model):
    """Where the trust bundle is published, beside HTTPS."""

    namespaces: Annotated[tuple[NamespaceGlob, ...], Field(max_length=MAX_ITEMS)] = Field(
        default=(),
        description=(
            "Namespaces that get a ConfigMap with the trust bundle; `*` stands for any characters, `?` for one. None by default."
        ),
    )


_ONE_KIND: Final = "exactly one of embedded and remote must be set; embedded: {} is the authority that is built into the operator"

_ELSEWHERE: Final = (
    "issuer, requireSessionMFA and deviceTrustMode are those of the authority in the other cluster: set them there, not here"
)


class MachineAuthoritySpec(Model):
    """What a person writes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule("has(self.embedded) != has(self.remote)", _ONE_KIND),
            Rule(
                "has(self.embedded) == has(oldSelf.embedded)",
                "an authority cannot change between embedded and remote: make another MachineAuthority, name it in the bots' "
                "spec.authority, and delete this one",
            ),
            Rule(
                "!has(self.remote) || !has(self.issuer) && !has(self.requireSessionMFA) && !has(self.deviceTrustMode)", _ELSEWHERE
            ),
        )
    )

    cluster_name: str = Field(
        description=(
            "Name of this cluster of identities, a DNS name such as `example.test`: the audience of joins, the SPIFFE trust "
            "domain, and the name in certificates. With remote it is that of the other authority. It cannot be changed."
        ),
        pattern=OBJECT_NAME,
        max_length=63,
        json_schema_extra=rules(
            Rule(matches(OBJECT_NAME), "clusterName must be a DNS name in lower case, such as example.test"),
            Rule("self == oldSelf", "clusterName cannot be changed: make another MachineAuthority and move the bots to it"),
            Rule(
                "!self.startsWith('kubernetes.default') && !self.endsWith('.svc') && self != 'api'",
                "clusterName must not be an audience that an API server takes for its own: write a DNS name such as example.test",
            ),
        ),
    )
    max_ttl: Annotated[str, Field(max_length=32, json_schema_extra=duration_rule("5m", "24h"))] = Field(
        default="24h",
        alias="maxTTL",
        description="Longest life of anything this authority signs. It may be lowered; above 24h is refused.",
    )
    namespaces: Annotated[tuple[NamespaceGlob, ...], Field(max_length=MAX_ITEMS)] = Field(
        default=("*",),
        description=("Namespaces whose bots may join; `*` stands for any characters, `?` for one. Empty: nobody's."),
    )
    embedded: Embedded | None = Field(default=None, description="The authority is built into the operator.")
    remote: Remote | None = Field(
        default=None, description="The authority is that of another cluster's Machinebot: see docs/remote.md."
    )
    issuer: (
        Annotated[
            str,
            Field(max_length=512),
            written_as(
                r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*$",
                "must be an https address without a slash at the end, such as https://id.example.test",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description=(
            "The `iss` of JWTs. Verifiers find the keys below it, at /.well-known/openid-configuration. Default: the address of "
            "the operator's Service, with /authorities/NAME behind it."
        ),
    )
    trust_bundle: TrustBundleSettings = Field(
        default_factory=TrustBundleSettings, description="Where the trust bundle is published."
    )
    require_session_mfa: bool = Field(
        default=False,
        alias="requireSessionMFA",
        description=(
            "Cluster-wide per-session MFA. Bots cannot pass it, so that every bot is refused while it is on; require it on the "
            "roles that people use instead."
        ),
    )
    device_trust_mode: DeviceTrustMode = Field(
        default="off",
        description=(
            "Cluster-wide Device Trust. `required` refuses every bot, since a bot has no device; `required-for-humans` lets "
            'bots pass. Write "off" in quotes: YAML takes it for false without them.'
        ),
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.embedded is None) == (self.remote is None):
            raise ValueError(_ONE_KIND)
        return self

    @property
    def max_lifetime(self) -> timedelta:
        """`maxTTL` as a length."""
        return parse_duration(self.max_ttl)


class CAStatus(Model):
    """One CA generation, as status shows it."""

    purpose: str = Field(description="What it signs.", max_length=32)
    id: str = Field(description="Identifier of the generation.", max_length=64)
    state: str = Field(description="Prepared (published, not yet signing), Active (signing) or Old (trusted, not signing).")
    fingerprint: str = Field(
        description="SHA-256 of the CA's public key: OpenSSH's form for SSH, hex of the certificate for X.509."
    )
    not_after: str = Field(description="When the generation ends.", json_schema_extra={"format": "date-time"})
    public: str | None = Field(
        default=None, description="What verifiers trust: an authorized_keys line for SSH, PEM for X.509.", max_length=8192
    )


class MachineAuthorityStatus(Status):
    """What the operator answers."""

    authorities: tuple[CAStatus, ...] = Field(default=(), description="Every CA generation that is published.", max_length=64)
    issuer: str | None = Field(default=None, description="The `iss` of JWTs, as a remote authority told it last.", max_length=512)
    server_ca: str | None = Field(
        default=None,
        alias="serverCA",
        description=(
            "CA certificates that the address of a remote authority is verified by beside caBundle, PEM: it has told them over a "
            "connection that was verified, so that rotations there are followed."
        ),
        max_length=MAX_CA_BUNDLE,
    )


class MachineAuthority(Model):
    """A MachineAuthority as stored."""

    model_config = name_rule(MAX_AUTHORITY_NAME)

    metadata: ObjectMeta
    spec: MachineAuthoritySpec
    status: MachineAuthorityStatus = Field(
        default_factory=MachineAuthorityStatus, json_schema_extra={"default": dict(PENDING_STATUS)}
    )
