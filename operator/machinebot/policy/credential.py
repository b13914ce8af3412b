"""The closed value types between the one who wants a credential and the authority that signs it.

A request carries a public key and a wish. What ends up in a certificate is never taken from the request but worked out
from the roles, so that no certificate signing request and no name chosen by a tenant reaches a template.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

from machinebot.policy.grants import Grant
from machinebot.policy.lifetimes import Lifetime
from machinebot.policy.names import NameKind, own_path


class Purpose(StrEnum):
    """What a CA is for. One CA for each, so that no credential of one kind passes for another (design rule 3)."""

    SSH_USER = "ssh-user"
    SSH_HOST = "ssh-host"
    IDENTITY = "identity"
    DATABASE = "database"
    KUBERNETES = "kubernetes"
    WORKLOAD = "workload"
    BOT = "bot"
    """Identities of bots outside of the cluster: what the join API knows them by, good for nothing else."""

    @property
    def is_ssh(self) -> bool:
        """Whether the CA is an SSH key rather than an X.509 certificate."""
        return self in (Purpose.SSH_USER, Purpose.SSH_HOST)


class Form(StrEnum):
    """What a credential is: one issue holds at most one of each form."""

    SSH = "SSH certificate"
    X509 = "X.509 certificate"
    JWT = "JWT"


class Usage(StrEnum):
    """What a credential is used for: each has a profile of its own, and one CA signs several of them."""

    SSH_USER = "ssh-user"
    SSH_HOST = "ssh-host"
    IDENTITY = "identity"
    IDENTITY_SERVER = "identity-server"
    DATABASE_CLIENT = "database-client"
    DATABASE_SERVER = "database-server"
    DATABASE_NODE = "database-node"
    KUBERNETES = "kubernetes"
    WORKLOAD = "workload"
    WORKLOAD_TOKEN = "workload-token"  # noqa: S105 - a use, not a password
    BOT = "bot"

    @property
    def purpose(self) -> Purpose:
        """The CA that signs it."""
        return _PURPOSES[self]

    @property
    def form(self) -> Form:
        """What it is."""
        if self is Usage.WORKLOAD_TOKEN:
            return Form.JWT
        return Form.SSH if self.purpose.is_ssh else Form.X509


_PURPOSES: Final[Mapping[Usage, Purpose]] = MappingProxyType(
    {
        Usage.SSH_USER: Purpose.SSH_USER,
        Usage.SSH_HOST: Purpose.SSH_HOST,
        Usage.IDENTITY: Purpose.IDENTITY,
        Usage.IDENTITY_SERVER: Purpose.IDENTITY,
        Usage.DATABASE_CLIENT: Purpose.DATABASE,
        Usage.DATABASE_SERVER: Purpose.DATABASE,
        Usage.DATABASE_NODE: Purpose.DATABASE,
        Usage.KUBERNETES: Purpose.KUBERNETES,
        Usage.WORKLOAD: Purpose.WORKLOAD,
        Usage.WORKLOAD_TOKEN: Purpose.WORKLOAD,
        Usage.BOT: Purpose.BOT,
    }
)


@dataclass(frozen=True, slots=True, order=True)
class BotRef:
    """Which bot: its namespace and name."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """Name of the bot as a user, in certificates and logs: `bot:<namespace>:<name>`."""
        return f"bot:{self.namespace}:{self.name}"

    def spiffe_id(self, cluster_name: str) -> str:
        """The SPIFFE ID of the bot (SPIFFE-ID, section 2)."""
        return f"spiffe://{cluster_name}{own_path(self.namespace, self.name)}"

    @classmethod
    def of(cls, namespace: str, name: str) -> Self:
        """The reference by position, for readers of loops."""
        return cls(namespace=namespace, name=name)


@dataclass(frozen=True, slots=True)
class ServiceAccountRef:
    """A ServiceAccount as TokenReview told it: the UID tells one from another of the same name."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class BotIdentity:
    """The answer to a join: who has joined, by which proof, until when.

    Attributes:
        bot: The bot.
        service_account: The ServiceAccount that proved it.
        authority: Name of the MachineAuthority that was joined.
        joined_at: When.
        expires_at: When it must be joined again.
    """

    bot: BotRef
    service_account: ServiceAccountRef
    authority: str
    joined_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Wish:
    """What one credential shall be.

    Attributes:
        usages: What it is used for; at most one of each form.
        names: Names asked for, by kind; each must be allowed by a role.
    """

    usages: frozenset[Usage]
    names: Mapping[NameKind, tuple[str, ...]] = field(default_factory=dict)

    def of(self, kind: NameKind) -> tuple[str, ...]:
        """The names asked for of that kind."""
        return self.names.get(kind, ())


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """Asks the authority for the certificates of one output.

    Attributes:
        output: Name of the output, for the audit log.
        wish: What it shall be.
        roles: Roles wanted; empty means all of the bot's.
        lifetime: Wished life.
        public_key: The key to be certified, as DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7). None where nothing that
            is wished for certifies a key.
    """

    output: str
    wish: Wish
    roles: tuple[str, ...]
    lifetime: timedelta
    public_key: bytes | None


@dataclass(frozen=True, slots=True)
class Issued:
    """The credentials of one output, all with the same serial number and dates.

    Attributes:
        serial: Positive, below 2**63 (OpenSSH's serial is 64 bits).
        not_before: Begin, UTC; one minute before the issue.
        not_after: End, UTC.
        ssh_certificate: OpenSSH certificate line without a newline (PROTOCOL.certkeys), or None.
        x509_certificate: PEM, or None.
        token: A signed JWT in compact form (RFC 7519), or None.
        authorities: Identifier of the CA generation that signed, for each purpose.
        grant: What the certificates carry.
        lifetime: The life given, and what reduced it.
    """

    serial: int
    not_before: datetime
    not_after: datetime
    ssh_certificate: bytes | None
    x509_certificate: bytes | None
    token: bytes | None
    authorities: Mapping[Purpose, str]
    grant: Grant
    lifetime: Lifetime


class AnchorState(StrEnum):
    """Where a CA generation stands."""

    PREPARED = "Prepared"
    ACTIVE = "Active"
    OLD = "Old"


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """One CA generation as verifiers need it.

    Attributes:
        purpose: What it signs.
        id: Identifier of the generation.
        state: Prepared ones are published before they sign, old ones while their certificates live.
        public: SSH: one authorized_keys line without comment; X.509: the CA certificate as PEM.
        fingerprint: SSH: `SHA256:` and base64; X.509: SHA-256 of the certificate in hex.
        not_after: When the generation ends.
    """

    purpose: Purpose
    id: str
    state: AnchorState
    public: bytes
    fingerprint: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """What verifiers need: every published CA generation, the active one of each purpose first.

    Attributes:
        cluster_name: Name of the cluster: the SPIFFE trust domain.
        issuer: The `iss` of JWTs, an address at which verifiers find their keys (OpenID Connect Discovery).
        anchors: The generations.
    """

    cluster_name: str
    issuer: str
    anchors: tuple[TrustAnchor, ...]

    def of(self, purpose: Purpose) -> tuple[TrustAnchor, ...]:
        """The generations of one purpose, the active one first."""
        return tuple(anchor for anchor in self.anchors if anchor.purpose is purpose)
