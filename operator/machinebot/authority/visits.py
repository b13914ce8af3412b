"""What comes to the desk of the join API and what leaves it, and what the desk stands on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from machinebot.authority.bot_certificates import InstanceIdentity
from machinebot.authority.interface import Directory
from machinebot.errors import MachinebotError
from machinebot.joins.registry import MachineJoinToken
from machinebot.policy.credential import Issued, IssueRequest, TrustBundle
from machinebot.resources.join_token import RenewableInstance


class JoinDirectory(Directory, Protocol):
    """What there is, from a cache: asked often, never waits."""

    def join_token(self, namespace: str, name: str) -> MachineJoinToken | None:
        """The join token, or None where there is none that can be read."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """One instance that was here, for status.

    Attributes:
        identity: What its certificate says.
        attributes: What the platform said of it; empty at a renewal.
        at: When.
    """

    identity: InstanceIdentity
    attributes: Mapping[str, str]
    at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of a secret.

    Attributes:
        instance: The instance that has joined by it, or None.
        version: What to write on top of: it changes with every write.
    """

    instance: RenewableInstance | None
    version: str


class Ledger(Protocol):
    """What must be remembered: of renewable instances at once, of all others when there is time."""

    async def read(self, token: MachineJoinToken) -> Entry:
        """What is remembered of a secret, as it is stored now.

        Raises:
            Denied: The join token is gone, or is another one (`JoinTokenUnknown`).
            Unavailable: The API server is away.
        """
        ...

    async def write(self, token: MachineJoinToken, entry: Entry, new: RenewableInstance) -> None:
        """Stores it, if nothing was stored since `entry` was read: of two who try at once one succeeds.

        Raises:
            Conflict: Somebody else was quicker.
            Denied: The join token is gone (`JoinTokenUnknown`).
            Unavailable: The API server is away.
        """
        ...

    async def lock(self, identity: InstanceIdentity, message: str) -> None:
        """Locks an instance for good: a MachineLock that only a person takes away.

        Raises:
            Unavailable: The API server is away.
        """
        ...

    def note(self, visit: Visit) -> None:
        """Remembers who was here, for status; returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What a join takes.

    Attributes:
        method: Name of the join method.
        cluster_name: Name of the cluster.
        audience: What to ask the platform for, or None.
        challenge: What the proof must contain, or None.
        expires_at: When the challenge ends, or None.
    """

    method: str
    cluster_name: str
    audience: str | None
    challenge: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a client brings to a join.

    Attributes:
        namespace: Namespace of the join token.
        join_token: Its name.
        public_key: The public key that an identity is wanted for, DER.
        challenge: The challenge that it was given, or None.
        proof: The proof, not looked at yet.
        presented: The client certificate of the connection, DER, or None: an instance that comes again.
        outputs: Credentials wanted at once.
        address: Where it comes from, for the audit log.
    """

    namespace: str
    join_token: str
    public_key: bytes
    challenge: str | None
    proof: Mapping[str, Any] = field(repr=False)
    presented: bytes | None = field(default=None, repr=False)
    outputs: tuple[IssueRequest, ...] = ()
    address: str = ""


Result = Issued | MachinebotError
"""One output: what was issued, or why nothing was."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a join and to a renewal.

    Attributes:
        identity: Who it is from now on.
        certificate: Its certificate, PEM.
        renewable: Whether the next identity is renewed rather than joined for.
        results: The outputs, in their order.
        trust: The trust bundle.
    """

    identity: InstanceIdentity
    certificate: bytes
    renewable: bool
    results: tuple[Result, ...]
    trust: TrustBundle
