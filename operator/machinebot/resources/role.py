"""MachineRole: what a credential may do, cluster-scoped; only administrators write these."""

from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

from machinebot.resources.authority import DeviceTrustMode, NamespaceGlob
from machinebot.resources.meta import (
    DEFAULT_MAX_TTL,
    MAX_ITEMS,
    MAX_NAME,
    PENDING_STATUS,
    TEMPLATE,
    Column,
    Duration,
    Kind,
    Model,
    ObjectMeta,
    Rule,
    Status,
    parse_duration,
    rules,
    written_as,
)

KIND: Final = Kind(
    kind="MachineRole",
    plural="machineroles",
    short="mrole",
    namespaced=False,
    description="What a credential may do: names that are allowed and denied, and options. Written by administrators only.",
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether the role can be used."),
        Column("Namespaces", ".spec.namespaces", description="Whose bots may use it."),
        Column("Logins", ".spec.allow.logins", description="Logins that it allows."),
    ),
)

_PLAIN: Final = r"[^{}\s,\x00-\x1f\x7f]"
"""One character of a name: no braces (templates), no blank, no comma (it separates principals), no control character."""

_PATTERN: Final = rf"^({_PLAIN}|{TEMPLATE})+$"

NamePattern = Annotated[
    str,
    written_as(
        _PATTERN,
        "must be a name without blanks, commas and newlines, one entry for each; a template in it is written "
        "{{ internal.NAME }} or {{ external.NAME }}, such as {{ internal.logins }}",
    ),
    Field(max_length=MAX_NAME),
]
"""A name, which may hold templates."""

SourceAddress = Annotated[
    str,
    written_as(
        r"^[0-9a-fA-F.:]+(/[0-9]{1,3})?$",
        "must be a network in CIDR form, such as 10.0.0.0/8 or 2001:db8::/32; one entry for each",
    ),
    Field(max_length=43),
]

Names = Annotated[tuple[NamePattern, ...], Field(max_length=MAX_ITEMS)]


class RoleRules(Model):
    """Names, one list for each thing that a credential can carry.

    Outputs ask for host names, database users and names, DNS names, SPIFFE paths and audiences; in these lists `*` stands for
    any characters and `?` for one. Logins and Kubernetes users and groups are carried as they stand.
    """

    logins: Names = Field(
        default=(),
        description=(
            "Operating system accounts for SSH. `{{ internal.logins }}` stands for the logins of the bot and "
            "`{{ external.NAME }}` for its trait NAME."
        ),
    )
    host_principals: Names = Field(
        default=(),
        description="Host names that an sshHost output may ask for. `*` stands for any characters, `?` for one.",
    )
    kubernetes_users: Names = Field(
        default=(),
        description=(
            "Kubernetes users that a kubernetes output may be. Without one the certificate names the bot itself, "
            "bot:NAMESPACE:NAME."
        ),
    )
    kubernetes_groups: Names = Field(
        default=(), description="Kubernetes groups that a kubernetes output carries, all of them. Bind them by RBAC."
    )
    db_users: Names = Field(default=(), description="Database users that a database output may ask for, or globs of them.")
    db_names: Names = Field(default=(), description="Databases that a database output may ask for, or globs of them.")
    dns_names: Names = Field(
        default=(), description="DNS names that certificates for servers and workloads may ask for, or globs of them."
    )
    spiffe_paths: Names = Field(
        default=(),
        description=(
            "Paths of SPIFFE IDs that x509SVID and jwtSVID outputs may ask for, or globs of them, such as /ns/ci/*. A path of "
            "the form /ns/NAMESPACE/bot/NAME is given to that bot alone."
        ),
    )
    jwt_audiences: Names = Field(default=(), description="Audiences that a jwtSVID output may ask for, or globs of them.")


class RoleOptions(Model):
    """Options of the credentials. Where an output has several roles, the strictest of each option holds."""

    max_session_ttl: Duration = Field(
        default="24h",
        alias="maxSessionTTL",
        description="Longest life of a credential that carries this role.",
    )
    require_session_mfa: bool = Field(
        default=False,
        alias="requireSessionMFA",
        description="Per-session MFA. Bots cannot pass it: an output with this role is refused.",
    )
    device_trust_mode: DeviceTrustMode = Field(
        default="off",
        description=(
            "Device Trust. `required` refuses outputs of bots; `required-for-humans` lets bots pass. "
            'Write "off" in quotes: YAML takes it for false without them.'
        ),
    )
    forward_agent: bool = Field(default=False, description="SSH: allow forwarding of the authentication agent.")
    port_forwarding: bool = Field(default=True, description="SSH: allow forwarding of ports.")
    permit_pty: bool = Field(default=True, alias="permitPTY", description="SSH: allow a terminal.")
    source_addresses: Annotated[tuple[SourceAddress, ...], Field(max_length=MAX_ITEMS)] = Field(
        default=(),
        description="SSH: networks in CIDR form that the credential may be used from. Empty: from anywhere.",
    )

    @property
    def max_lifetime(self) -> timedelta:
        """`maxSessionTTL` as a length, never above 24 hours."""
        return min(parse_duration(self.max_session_ttl), DEFAULT_MAX_TTL)


def _no_wildcards(field: str, why: str) -> Rule:
    return Rule(
        f"!has(self.{field}) || !self.{field}.exists(name, name.contains('*') || name.contains('?'))",
        f"allow.{field} takes no wildcards, since {why}",
        f".{field}",
    )


class MachineRoleSpec(Model):
    """What an administrator writes."""

    namespaces: Annotated[tuple[NamespaceGlob, ...], Field(max_length=MAX_ITEMS)] = Field(
        default=(),
        description=(
            "Namespaces whose bots may use the role; `*` stands for any characters, `?` for one. Absent or empty: nobody's."
        ),
    )
    allow: RoleRules = Field(
        default_factory=RoleRules,
        description="What the role allows. Nothing is allowed by default.",
        json_schema_extra=rules(
            _no_wildcards("logins", "an SSH certificate names each account: write every login, or {{ internal.logins }}"),
            _no_wildcards("kubernetesUsers", "a certificate names one user: write each in full"),
            _no_wildcards("kubernetesGroups", "a certificate names each group: write each in full"),
        ),
    )
    deny: RoleRules = Field(
        default_factory=RoleRules,
        description=(
            "What a credential with this role never carries, whichever of its roles allows it: deny wins, and is compared "
            "after templates are filled in. `*` stands for any characters, `?` for one."
        ),
    )
    options: RoleOptions = Field(default_factory=RoleOptions, description="Options of the credentials.")


class MachineRole(Model):
    """A MachineRole as stored."""

    metadata: ObjectMeta
    spec: MachineRoleSpec = Field(default_factory=MachineRoleSpec)
    status: Status = Field(default_factory=Status, json_schema_extra={"default": dict(PENDING_STATUS)})
