"""The agent's standing with the join API: it joins, keeps the identity, replaces it in time, and asks for credentials with it."""

import base64
import hashlib
import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol, TypedDict

from pydantic import ValidationError

from machinebot.agent.audiences import check_audience
from machinebot.agent.config import AgentConfig
from machinebot.agent.proofs.base import UNAVAILABLE, Prove, Wanted
from machinebot.agent.storage import ServerCA, Storage, StoredIdentity
from machinebot.client.api import JoinClient, identity_dates
from machinebot.client.pins import fetch_pinned, heirs, merged
from machinebot.client.transport import IDENTITY_REFUSED, UNREADABLE, Identity
from machinebot.clock import rfc3339
from machinebot.errors import Denied, Invalid, MachinebotError, Unavailable
from machinebot.outputs.keys import PrivateKeyPair, generate
from machinebot.policy import backoff
from machinebot.policy.credential import TrustBundle
from machinebot.policy.lifetimes import renewal_time
from machinebot.protocol import convert
from machinebot.protocol.messages import (
    RENEWAL,
    ChallengeRequest,
    IssueRequest,
    JoinAnswer,
    JoinRequest,
    OutputAnswer,
    OutputRequest,
    RenewRequest,
    TrustAnswer,
)

log = logging.getLogger(__name__)

JOIN_ANEW: Final = frozenset(
    {
        "IdentityExpired",
        "IdentityInvalid",
        "IdentityMissing",
        "IdentityReplaced",
        "InstanceUnknown",
        "JoinTokenUnknown",
        "NotRenewable",
        IDENTITY_REFUSED,
    }
)
"""Refusals that say no more than: this identity is over, join again."""

ALARMING: Final = frozenset({"GenerationMismatch", "Locked"})
"""Refusals that a person must see: somebody has a copy of the identity, or has locked it."""

CLOCKS_APART: Final = timedelta(minutes=1)
"""Pause before the next join where clocks differ so much that every identity is due as soon as it comes."""

MAX_CA_FILE: Final = 256 * 1024
"""Longest `ca.file` that is read, bytes."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of asking for outputs.

    Attributes:
        outputs: One answer for each, by name.
        trust: The trust bundle.
    """

    outputs: dict[str, OutputAnswer]
    trust: TrustBundle


class Count(Protocol):
    """Counts joins."""

    def __call__(self, method: str, result: str, /) -> None:
        """One more join by that method (or `RENEWAL`), with `success` or the reason of the failure."""
        ...


class Membership:
    """One instance of one bot.

    Args:
        config: Server, CA and onboarding.
        storage: Where the identity is kept.
        uid: Tells this agent from others, for its share of the spread of renewals.
        count: Counts joins.
        follow: Whether the CAs of the server are asked for after each join, so that its rotations are followed.
        alive: Called before everything that may take long.
    """

    def __init__(
        self,
        config: AgentConfig,
        storage: Storage,
        *,
        uid: str,
        count: Count,
        follow: bool,
        alive: Callable[[], None],
    ) -> None:
        self._config = config
        self._storage = storage
        self._uid = uid
        self._count = count
        self._follow = follow
        self._alive = alive
        self._identity: StoredIdentity | None = None
        self._loaded = False
        self._requested = False
        self._failures = 0
        self.retry_at: datetime | None = None
        """When the next attempt is made after a failed one."""
        self.problem: MachinebotError | None = None
        """Why the last attempt failed, or None."""

    @property
    def identity(self) -> StoredIdentity | None:
        """The identity there is; it may be over."""
        if not self._loaded:
            found = self._storage.identity()
            self._identity = found if found is not None and found.place == self._config.place else None
            self._loaded = True
        return self._identity

    def usable(self, now: datetime) -> StoredIdentity | None:
        """The identity, if it is good now."""
        found = self.identity
        return found if found is not None and now < found.end else None

    def renew_at(self) -> datetime | None:
        """When the identity is replaced; None where there is none."""
        found = self.identity
        return None if found is None else renewal_time(not_before=found.begin, not_after=found.end, uid=self._uid)

    def is_due(self, now: datetime) -> bool:
        """Whether an identity is wanted now."""
        if self.retry_at is not None and now < self.retry_at:
            return False
        renew_at = self.renew_at()
        return self._requested or renew_at is None or now >= renew_at

    def request(self) -> None:
        """Replaces the identity at the next chance, whatever its dates."""
        self._requested = True
        self._failures, self.retry_at = 0, None

    # --- asking ----------------------------------------------------------------------------------------------------------

    def obtain(self, outputs: Sequence[OutputRequest], now: datetime) -> Answered:
        """The next identity, and credentials at once.

        Raises:
            MachinebotError: There is none now; when to try again stands in `retry_at`.
        """
        held = self.usable(now)
        method = RENEWAL if held is not None and held.renewable else self._config.onboarding.method
        try:
            key, answer = self._renew(held, outputs) if held is not None and held.renewable else self._join(held, outputs)
            self._keep(key, answer)
            found = _answered(answer.outputs, answer.trust)
        except MachinebotError as error:
            self._count(method, error.reason)
            self._failed(held, error, now)
            raise
        self._count(method, "success")
        self._requested, self._failures, self.retry_at, self.problem = False, 0, None, None
        if self.is_due(now):
            self.retry_at = now + CLOCKS_APART
            log.warning("the identity that just came is due already: set the clock of this machine or of the server")
        self._learn_server_ca()
        return found

    def issue(self, outputs: Sequence[OutputRequest], now: datetime) -> Answered:
        """Credentials, by the identity that there is.

        Raises:
            MachinebotError: There are none now. Where the identity is over, another one is due.
        """
        held = self.usable(now)
        if held is None:
            raise Unavailable("NotJoined", "there is no identity to ask with: join first")
        try:
            answer = self._client(held).issue(IssueRequest(outputs=tuple(outputs)))
        except Denied as error:
            if error.reason in JOIN_ANEW:
                # Perhaps the answer to a renewal was lost: the pending key tells.
                self._requested = True
            raise
        return _answered(answer.outputs, answer.trust)

    # --- identities ------------------------------------------------------------------------------------------------------

    def _join(self, held: StoredIdentity | None, outputs: Sequence[OutputRequest]) -> tuple[PrivateKeyPair, JoinAnswer]:
        """Joins by a proof; with the identity that is still good, as the same instance."""
        onboarding = self._config.onboarding
        single_use = onboarding.method == "token"
        key = self._next_key() if single_use else generate("ECDSA-P256")
        place = _Place(namespace=onboarding.namespace, join_token=onboarding.join_token, public_key=_text(key))
        client = self._client(held)
        wanted = Wanted(audience=None, challenge=None, cluster_name="")
        if not single_use:
            offer = client.challenge(ChallengeRequest(**place))
            if offer.method != onboarding.method:
                raise Invalid(
                    "MethodMismatch",
                    f"the join token {onboarding.join_token!r} is for the method {offer.method[:64]!r}, and onboarding.method is "
                    f"{onboarding.method}: correct one of them",
                )
            # The name of the cluster takes the place of an audience that is left out, and comes from the authority too.
            check_audience(onboarding.method, offer.audience or offer.cluster_name, onboarding.audience)
            wanted = Wanted(audience=offer.audience, challenge=offer.challenge, cluster_name=offer.cluster_name)
        try:
            request = JoinRequest(**place, challenge=wanted.challenge, proof=dict(self._proof(wanted)), outputs=tuple(outputs))
        except ValidationError:
            raise Unavailable(UNREADABLE, "the challenge that came is none: is this the address of a join API?") from None
        self._alive()
        return key, client.join(request)

    def _proof(self, wanted: Wanted) -> dict[str, str]:
        onboarding = self._config.onboarding
        self._alive()
        try:
            return _prover(onboarding.method)(onboarding.settings, wanted)
        except MachinebotError:
            raise
        except Exception as error:  # noqa: BLE001 - by whatever library the platform needs
            # Without its text, which may hold what the platform gave.
            raise Unavailable(UNAVAILABLE, f"the proof of {onboarding.method} failed: {type(error).__name__}") from None

    def _renew(self, held: StoredIdentity, outputs: Sequence[OutputRequest]) -> tuple[PrivateKeyPair, JoinAnswer]:
        """The next identity of this instance. A lost answer is asked for again by the same key, which was kept before."""
        key = self._next_key()
        return key, self._client(held).renew(RenewRequest(public_key=_text(key), outputs=tuple(outputs)))

    def _next_key(self) -> PrivateKeyPair:
        pending = self._storage.pending()
        if pending is not None:
            return pending
        key = generate("ECDSA-P256")
        self._storage.keep_pending(key)
        return key

    def _keep(self, key: PrivateKeyPair, answer: JoinAnswer) -> None:
        begin, end = identity_dates(answer.identity.certificate, key.spki)
        identity = StoredIdentity(
            place=self._config.place,
            certificate=answer.identity.certificate,
            private_key=key.pkcs8.decode(),
            bot=f"{answer.identity.namespace}/{answer.identity.bot}",
            instance=answer.identity.instance,
            generation=answer.identity.generation,
            renewable=answer.identity.renewable,
            not_before=rfc3339(begin),
            not_after=rfc3339(end),
        )
        self._storage.keep_identity(identity)
        self._identity, self._loaded = identity, True
        log.info(
            "joined",
            extra={
                "bot": identity.bot,
                "instance": identity.instance,
                "generation": identity.generation,
                "not_after": identity.not_after,
            },
        )

    def _failed(self, held: StoredIdentity | None, error: MachinebotError, now: datetime) -> None:
        self._failures += 1
        asked = error.retry_after if isinstance(error, Unavailable) else None
        self.retry_at = backoff.retry_at(self._failures, self._uid, now, asked=asked)
        self.problem = error
        if held is None:
            # What is stored was passed over for this attempt; perhaps it is good again at the next one.
            self._loaded = False
        elif error.reason in JOIN_ANEW:
            self._identity = None
        alarming = error.reason in ALARMING
        log.log(
            logging.WARNING if error.retried else logging.ERROR,
            "this instance is locked: see who has its identity; the files stay" if alarming else "not joined: the files stay",
            extra={"reason": error.reason, "detail": error.message, "retry_at": rfc3339(self.retry_at)},
        )

    # --- whom it trusts --------------------------------------------------------------------------------------------------

    def _client(self, held: StoredIdentity | None) -> JoinClient:
        self._alive()
        shown = None if held is None else Identity(held.certificate.encode(), held.private_key.encode())
        return JoinClient(self._config.server, ca=self._server_ca(), identity=shown)

    def _server_ca(self) -> bytes | None:
        """The CAs that the server is verified by; None for those of the machine."""
        trust = self._config.ca
        if trust is None:
            return None
        written = None if trust.file is None else _read(trust.file)
        kept = self._storage.server_ca()
        learnt = b"" if kept is None or kept.trusted_by != self._trusted_by(written) else kept.certificates.encode()
        if written is not None:
            return merged((written, learnt)) or written
        return learnt or self._fetch()

    def _fetch(self) -> bytes:
        """By the pins, for the first time."""
        found = fetch_pinned(self._config.server, self._pins)
        self._storage.keep_server_ca(ServerCA(trusted_by=self._trusted_by(None), certificates=found.decode()))
        missing = () if self._follow else heirs(found, self._pins)
        if missing:
            log.warning("add the pins of the server's next CA to ca.pins: it takes over soon", extra={"pins": list(missing)})
        return found

    @property
    def _pins(self) -> tuple[str, ...]:
        return () if self._config.ca is None else self._config.ca.pins or ()

    def _trusted_by(self, written: bytes | None) -> str:
        by = ",".join(sorted(self._pins)) if written is None else hashlib.sha256(written).hexdigest()
        return f"{self._config.server} {by}"

    def _learn_server_ca(self) -> None:
        """Follows the rotation of the server's CA, where what is trusted is one of its own CAs."""
        trust = self._config.ca
        if trust is None or not self._follow:
            return
        self._alive()
        try:
            known = self._server_ca() or b""
            told = JoinClient(self._config.server, ca=known).server_ca()
            if trust.file is not None and not _share(known, told):
                return
            found = ServerCA(
                trusted_by=self._trusted_by(None if trust.file is None else _read(trust.file)),
                certificates=merged((told,)).decode(),
            )
            if found.certificates and found != self._storage.server_ca():
                self._storage.keep_server_ca(found)
                log.info("the CAs of the server are kept")
        except MachinebotError as error:
            log.warning("the CAs of the server could not be asked for", extra={"reason": error.reason, "detail": error.message})


class _Place(TypedDict):
    namespace: str
    join_token: str
    public_key: str


def _prover(method: str) -> Prove:
    """The module of a method: loaded when it is needed, since some bring a library along."""
    found: Prove = importlib.import_module(f"machinebot.agent.proofs.{method}").prove
    return found


def _text(key: PrivateKeyPair) -> str:
    return base64.b64encode(key.spki).decode()


def _answered(outputs: Sequence[OutputAnswer], trust: TrustAnswer) -> Answered:
    try:
        return Answered({answer.name: answer for answer in outputs}, convert.trust_bundle(trust))
    except ValueError as error:
        raise Unavailable(UNREADABLE, "the trust bundle that came cannot be read: is the agent older than the server?") from error


def _share(one: bytes, other: bytes) -> bool:
    """Whether two texts have a CA certificate in common."""
    separate, together = merged((one,)), merged((one, other))
    return len(together) < len(separate) + len(merged((other,)))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CA_FILE)
    except OSError as error:
        raise Unavailable("CAUnreadable", f"the CA certificates in {path} cannot be read: {error.strerror}") from error
