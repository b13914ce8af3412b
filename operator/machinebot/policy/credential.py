"""The closed value types between the one who wants a credential and the authority that signs it.

A request carries a public key and a wish. What ends up in a certificate is never taken from the request but worked out
from the roles, so that no certificate signing request and no name chosen by a tenant reaches a template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from machinebot.policy.grants import Grant
from machinebot.policy.lifetimes import Lifetime


class Purpose(StrEnum):
    """What a CA is for. One CA for each, so that no credential of one kind passes for another (design rule 3)."""

    SSH_USER = "ssh-user"
    SSH_HOST = "ssh-host"
    IDENTITY = "identity"
    DATABASE = "database"
    KUBERNETES = "kubernetes"
    WORKLOAD = "workload"

    @property
    def is_ssh(self) -> bool:
        """Whether the CA is an SSH key rather than an X.509 certificate."""
        return self in (Purpose.SSH_USER, Purpose.SSH_HOST)


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
        return f"spiffe://{cluster_name}/ns/{self.namespace}/bot/{self.name}"

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
        purposes: The CAs that shall sign the key, one certificate each.
        host_principals: Host names asked for (`ssh-host` only); each must be allowed by a role.
    """

    purposes: frozenset[Purpose]
    host_principals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """Asks the authority for the certificates of one output.

    Attributes:
        output: Name of the output, for the audit log.
        wish: What it shall be.
        roles: Roles wanted; empty means all of the bot's.
        lifetime: Wished life.
        public_key: The key to be certified, as DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    """

    output: str
    wish: Wish
    roles: tuple[str, ...]
    lifetime: timedelta
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Issued:
    """The certificates of one output, all with the same serial number and dates.

    Attributes:
        serial: Positive, below 2**63 (OpenSSH's serial is 64 bits).
        not_before: Begin, UTC; one minute before the issue.
        not_after: End, UTC.
        ssh_certificate: OpenSSH certificate line without a newline (PROTOCOL.certkeys), or None.
        x509_certificate: PEM, or None.
        authorities: Identifier of the CA generation that signed, for each purpose.
        grant: What the certificates carry.
        lifetime: The life given, and what reduced it.
    """

    serial: int
    not_before: datetime
    not_after: datetime
    ssh_certificate: bytes | None
    x509_certificate: bytes | None
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
    """What verifiers need: every published CA generation, the active one of each purpose first."""

    cluster_name: str
    anchors: tuple[TrustAnchor, ...]

    def of(self, purpose: Purpose) -> tuple[TrustAnchor, ...]:
        """The generations of one purpose, the active one first."""
        return tuple(anchor for anchor in self.anchors if anchor.purpose is purpose)
