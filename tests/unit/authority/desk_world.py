"""A desk with what it stands on, for its tests: a small world, platforms that are asked nothing, and a ledger in memory."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from machinebot.authority.bot_certificates import InstanceIdentity
from machinebot.authority.desk import Desk
from machinebot.authority.signing import Signer
from machinebot.authority.visits import Attempt, Entry, Visit, Welcome
from machinebot.errors import Conflict, Denied, Unavailable
from machinebot.joins.base import HTTPSAnswer, HTTPSRequest
from machinebot.joins.keysets import KeySet
from machinebot.joins.registry import MachineJoinToken, parse_join_token
from machinebot.policy.credential import BotRef
from machinebot.policy.locks import Lock
from machinebot.resources.bot import MachineBot
from machinebot.resources.join_token import RenewableInstance
from machinebot.resources.role import MachineRole
from unit.authority.builders import CLUSTER, ISSUER, NOW, REF, all_generations, bot, der, role, spec

SECRET = "f" * 64
SECRET_HASH = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()


def join_token(name: str = "runners", uid: str = "token-1", *, status: Any = None, **fields: Any) -> MachineJoinToken:
    """A join token of the method kubernetes in the cluster, unless told otherwise."""
    method = (
        {}
        if fields.keys() & {"token", "github", "iam", "kubernetes"}
        else {"kubernetes": {"allow": [{"serviceAccount": "ci:web"}]}}
    )
    return parse_join_token(
        {
            "metadata": {"namespace": "ci", "name": name, "uid": uid},
            "spec": {"bot": "deployer", **method, **fields},
            "status": status or {},
        }
    )


def secret_token(**fields: Any) -> MachineJoinToken:
    """A join token of the method token."""
    return join_token("secret", "token-2", **{"token": {"secretHash": SECRET_HASH}, "expires": "2027-01-02T00:00:00Z", **fields})


class MemoryLedger:
    """A ledger that stores in memory what the product stores in status."""

    def __init__(self, world: "DeskWorld") -> None:
        self._world = world
        self.stored: dict[str, RenewableInstance] = {}
        self.locked: list[tuple[str, str]] = []
        self.visits: list[Visit] = []
        self.before_write: Callable[[], None] = lambda: None

    async def read(self, token: MachineJoinToken) -> Entry:
        stored = self.stored.get(token.metadata.uid)
        return Entry(stored, repr(stored))

    async def write(self, token: MachineJoinToken, entry: Entry, new: RenewableInstance) -> None:
        self.before_write()
        if repr(self.stored.get(token.metadata.uid)) != entry.version:
            raise Conflict("Busy", "somebody else was quicker")
        self.stored[token.metadata.uid] = new
        self._world.see(token, new)

    async def lock(self, identity: InstanceIdentity, message: str) -> None:
        self.locked.append((identity.instance, message))
        self._world.known_locks += (Lock(name=f"instance-{identity.instance}", instance=identity.instance, message=message),)

    def note(self, visit: Visit) -> None:
        self.visits.append(visit)


@dataclass
class DeskWorld:
    """Bots, roles, join tokens and locks, and an API server that reviews tokens called `good`."""

    bots: dict[BotRef, MachineBot] = field(default_factory=lambda: {REF: bot()})
    known_roles: dict[str, MachineRole] = field(default_factory=lambda: {"access": role()})
    tokens: dict[str, MachineJoinToken] = field(default_factory=lambda: {"runners": join_token(), "secret": secret_token()})
    known_locks: tuple[Lock, ...] = ()
    authority: dict[str, Any] = field(default_factory=dict)
    while_asked: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.ledger = MemoryLedger(self)
        self.signer = Signer("default", spec(**self.authority), all_generations(), ISSUER, self)
        self.desk = Desk(directory=self, signers=self._signer, outside=self, ledger=self.ledger)
        self.key = ec.generate_private_key(ec.SECP256R1())

    # --- the directory -----------------------------------------------------------------------------------------------

    def bot(self, ref: BotRef) -> MachineBot | None:
        return self.bots.get(ref)

    def roles(self) -> Mapping[str, MachineRole]:
        return self.known_roles

    def locks(self) -> tuple[Lock, ...]:
        return self.known_locks

    def join_token(self, namespace: str, name: str) -> MachineJoinToken | None:
        return self.tokens.get(name) if namespace == "ci" else None

    def see(self, token: MachineJoinToken, instance: RenewableInstance) -> None:
        """As a watch tells of a status."""
        known = self.tokens[token.metadata.name]
        status = known.status.model_copy(update={"instance": instance})
        self.tokens[token.metadata.name] = replace(known, status=status)

    def _signer(self, name: str) -> Signer:
        if name != "default":
            raise Denied("AuthorityMissing", f"there is no MachineAuthority {name!r}")
        return self.signer

    # --- the outside -------------------------------------------------------------------------------------------------

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        self.while_asked()
        if token == "away":
            raise Unavailable("ApiServerAway", "the API server does not answer")
        user = {
            "username": "system:serviceaccount:ci:web",
            "uid": "sa-1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:ci"],
            "extra": {"authentication.kubernetes.io/pod-name": ["web-1"]},
        }
        return {"authenticated": token == "good", "audiences": [audience], "user": user}

    async def keys(self, issuer: str, kid: str) -> KeySet:  # noqa: ARG002 - the signature of the product
        raise Unavailable("KeysUnavailable", f"{issuer} does not answer")

    async def send(self, request: HTTPSRequest) -> HTTPSAnswer:
        raise Unavailable("PlatformAway", f"{request.host} does not answer")

    # --- the client --------------------------------------------------------------------------------------------------

    @property
    def public_key(self) -> bytes:
        return der(self.key.public_key())

    def new_key(self) -> bytes:
        """The client makes another key."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        return self.public_key

    def attempt(self, **fields: Any) -> Attempt:
        given = {
            "namespace": "ci",
            "join_token": "runners",
            "public_key": self.public_key,
            "challenge": None,
            "proof": {"token": "good"},
        }
        return Attempt(**(given | fields))

    def by_secret(self, **fields: Any) -> Attempt:
        return self.attempt(join_token="secret", proof={"secret": SECRET}, **fields)

    async def join(self, now: datetime = NOW, **fields: Any) -> Welcome:
        return await self.desk.join(self.attempt(**fields), now=now)

    async def join_by_secret(self, now: datetime = NOW, **fields: Any) -> Welcome:
        return await self.desk.join(self.by_secret(**fields), now=now)

    async def renew(self, welcome: Welcome, now: datetime, *, public_key: bytes | None = None) -> Welcome:
        """The next identity, for a new key unless one is given."""
        return await self.desk.renew(shown(welcome), public_key or self.new_key(), (), address="192.0.2.1", now=now)


def shown(welcome: Welcome) -> bytes:
    """The identity as a client shows it."""
    return x509.load_pem_x509_certificate(welcome.certificate).public_bytes(Encoding.DER)


__all__ = ["CLUSTER", "SECRET", "DeskWorld", "MemoryLedger", "join_token", "secret_token", "shown"]
