"""The desk of the join API: lets in who proves to be a bot, gives identities and credentials, and remembers who came.

Every step is decided on what the directory shows at that moment; nothing that a client sends reaches a certificate unchecked.
What is refused is told to the client in a sentence; the audit log (the logger `machinebot.audit`) has everything about it.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from machinebot.authority import bot_certificates, challenges
from machinebot.authority.bot_certificates import DELEGATED_LIFE, RENEWABLE_LIFE, InstanceIdentity, key_digest
from machinebot.authority.challenges import Challenged
from machinebot.authority.keys import PublicKey
from machinebot.authority.signing import Signer
from machinebot.authority.visits import Attempt, JoinDirectory, Ledger, Offer, Result, Visit, Welcome
from machinebot.clock import parse_rfc3339, rfc3339
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, Unavailable
from machinebot.joins.base import Asked, NotMatched, Outside, Proved
from machinebot.joins.registry import MachineJoinToken
from machinebot.policy.credential import BotRef, IssueRequest, Purpose, TrustBundle
from machinebot.policy.lifetimes import BACKDATE
from machinebot.policy.locks import Subject, check_not_locked
from machinebot.protocol.messages import ASK_WITH_IDENTITY
from machinebot.resources.bot import MachineBot
from machinebot.resources.join_token import RenewableInstance

audit = logging.getLogger("machinebot.audit")

LEAST_LIFE: Final = timedelta(minutes=5)
"""Shortest identity: below it there is no time to do anything with it."""

_TRIES: Final = 3
"""How often a secret is tried to be used up while its join token changes."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A join token with everything that it leads to."""

    token: MachineJoinToken
    ref: BotRef
    bot: MachineBot
    signer: Signer

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name of the join token."""
        return self.token.metadata.namespace, self.token.metadata.name

    def bound(self, public_key: bytes) -> Challenged:
        """What a challenge for a client is bound to."""
        namespace, name = self.place
        return Challenged(namespace, name, self.token.metadata.uid, public_key)


class Desk:
    """The join API without its HTTP.

    Args:
        directory: Bots, roles, join tokens and locks.
        signers: Finds the signer of the authority of that name; raises `Denied` or `Unavailable`.
        outside: What judging proofs asks of others.
        ledger: What is remembered.
    """

    def __init__(self, *, directory: JoinDirectory, signers: Callable[[str], Signer], outside: Outside, ledger: Ledger) -> None:
        self._directory = directory
        self._signers = signers
        self._outside = outside
        self._ledger = ledger

    def offer(self, namespace: str, join_token: str, public_key: bytes, *, now: datetime) -> Offer:
        """What a join by that token takes.

        Raises:
            Denied: There is no such join token, or nobody may join by it now.
            Invalid: The public key is none that is taken.
            Unavailable: The authority is not ready.
        """
        case = self._case(namespace, join_token, now)
        case.signer.public_key(public_key)
        method, cluster_name = case.token.method, case.signer.spec.cluster_name
        challenge, end = None, None
        if method.challenge:
            challenge, end = challenges.make(case.bound(public_key), case.signer.issuer(Purpose.BOT, now), now)
        return Offer(
            method=method.name,
            cluster_name=cluster_name,
            audience=method.audience(case.token.settings, cluster_name),
            challenge=challenge,
            expires_at=end,
        )

    def method(self, namespace: str, join_token: str) -> str:
        """Name of the join method of a join token, for metrics; `unknown` where there is none."""
        token = self._directory.join_token(namespace, join_token)
        return "unknown" if token is None else token.method.name

    async def join(self, attempt: Attempt, *, now: datetime) -> Welcome:
        """Lets in who proves to be a bot.

        Raises:
            Denied: A rule forbids it, or the proof is none.
            Invalid: What was sent cannot be read.
            Conflict: Another client is using the same secret at this moment.
            Unavailable: It cannot be judged now.
        """
        method = ""
        try:
            case = self._case(attempt.namespace, attempt.join_token, now)
            method = case.token.method.name
            key = case.signer.public_key(attempt.public_key)
            proved = await self._judge(case, attempt, now)
            # Read again: locks, the join token and the bot may have changed while others were asked.
            case = self._same(case, now)
            new = self._newcomer(case, attempt, now)
            if case.token.method.renewable:
                identity, again = await self._consume(case, new, now)
            else:
                identity, again = self._returning(case, attempt, new, now), False
            welcome = self._welcome(case, identity, key, attempt.outputs, now, again=again)
        except MachinebotError as error:
            audit.warning(
                "join refused",
                extra={
                    "namespace": attempt.namespace[:253],
                    "join_token": attempt.join_token[:253],
                    "method": method,
                    "address": attempt.address,
                    "reason": error.reason,
                    "detail": error.message,
                    **(_proved(error.proved) if isinstance(error, NotMatched) else {}),
                },
            )
            raise
        self._ledger.note(Visit(identity=identity, attributes=proved.attributes, at=now))
        self._tell("joined", welcome, attempt.outputs, attempt.address, proved)
        return welcome

    async def renew(
        self, presented: bytes, public_key: bytes, outputs: Sequence[IssueRequest], *, address: str, now: datetime
    ) -> Welcome:
        """The next identity of a renewable instance. The same again where the answer to the same public key was lost.

        Raises:
            Denied: The identity is not renewable, is over, or is one that was replaced already: then the instance is locked.
            Invalid: The public key is none that is taken.
            Conflict: Another renewal is under way: ask again with the same public key.
            Unavailable: It cannot be decided now.
        """
        case, shown = self._known(presented, now)
        if not case.token.method.renewable:
            raise Denied("NotRenewable", f"an identity of the method {case.token.method.name} is not renewed: join again")
        if case.token.expires_at is not None and now >= case.token.expires_at:
            raise _expired(case.token)
        key = case.signer.public_key(public_key)
        entry = await self._ledger.read(case.token)
        identity = replace(
            shown, generation=shown.generation + 1, key=key_digest(public_key), expires_at=self._end(case, RENEWABLE_LIFE, now)
        )
        stored = entry.instance
        if stored is None or stored.id != shown.instance:
            raise Denied("InstanceUnknown", "another instance has joined by this join token: join by one of your own")
        again = False
        if (stored.generation, stored.key) == (shown.generation, shown.key):
            await self._ledger.write(case.token, entry, _record(identity, stored.joined_at, now))
        elif (stored.generation, stored.key) == (identity.generation, identity.key):
            identity, again = _again(identity, stored, now), True
        else:
            raise await self._mismatch(shown, stored, address)
        welcome = self._welcome(self._same(case, now), identity, key, tuple(outputs), now, again=again)
        self._ledger.note(Visit(identity=identity, attributes={}, at=now))
        self._tell("renewed", welcome, outputs, address, None)
        return welcome

    def issue(
        self, presented: bytes, outputs: Sequence[IssueRequest], *, address: str, now: datetime
    ) -> tuple[tuple[Result, ...], TrustBundle]:
        """Credentials for an instance that shows its identity. One that is refused harms no other.

        Raises:
            Denied: The identity is not good any more.
            Unavailable: The authority is not ready.
        """
        case, shown = self._known(presented, now)
        stored = case.token.status.instance
        if case.token.method.renewable and stored is not None and _is_over(stored, shown):
            raise Denied("IdentityReplaced", "the identity was replaced by a later one of the same instance: use that one")
        results = self._issue(case, outputs, now)
        self._ledger.note(Visit(identity=shown, attributes={}, at=now))
        audit.info("issued", extra={**_who(shown), "address": address, "outputs": _listed(outputs, results)})
        return results, case.signer.trust

    # --- who it is -------------------------------------------------------------------------------------------------------

    def _case(self, namespace: str, name: str, now: datetime) -> _Case:
        """The join token, where somebody may join by it now.

        Raises:
            Denied: There is none, it has ended, its bot cannot be used, or a lock is in force.
            Unavailable: The authority is not ready.
        """
        token = self._directory.join_token(namespace, name)
        if token is None or token.metadata.deletion_timestamp is not None:
            raise Denied(
                "JoinTokenUnknown",
                f"the namespace {namespace[:63]!r} has no MachineJoinToken {name[:253]!r} that can be used: its status says why",
            )
        if token.expires_at is not None and now >= token.expires_at:
            raise _expired(token)
        case = self._of(token)
        check_not_locked(self._directory.locks(), Subject(bot=case.ref, join_token=case.place), now)
        return case

    def _of(self, token: MachineJoinToken) -> _Case:
        ref = BotRef(token.metadata.namespace, token.spec.bot)
        found = self._directory.bot(ref)
        if found is None:
            raise Denied("BotNotFound", f"there is no MachineBot {ref.name!r} in the namespace {ref.namespace!r}: create it")
        signer = self._signers(found.spec.authority)
        return _Case(token=token, ref=ref, bot=signer.usable_bot(ref), signer=signer)

    def _same(self, case: _Case, now: datetime) -> _Case:
        """The case as it is now, where the join token and the bot still are those that they were."""
        namespace, name = case.place
        again = self._case(namespace, name, now)
        if _incarnation(again) != _incarnation(case):
            raise Denied("JoinTokenUnknown", f"the MachineJoinToken {name!r} or its bot was made anew meanwhile: join again")
        if (again.token.method, again.token.settings) != (case.token.method, case.token.settings):
            raise Conflict("Busy", f"the rules of the MachineJoinToken {name!r} were changed meanwhile: join again")
        return again

    def _known(self, presented: bytes, now: datetime) -> tuple[_Case, InstanceIdentity]:
        """Who shows an identity, and the join token that it came by, which must still be there.

        Raises:
            Denied: The identity is not good any more.
            Unavailable: The authority is not ready.
        """
        shown = self._read(presented, now)
        token = self._directory.join_token(shown.bot.namespace, shown.join_token)
        if token is None or _is_another(token, shown):
            raise Denied(
                "JoinTokenUnknown", f"the MachineJoinToken {shown.join_token!r} that was joined by is gone, or is another one"
            )
        case = self._of(token)
        if case.bot.metadata.uid != shown.bot_uid:
            raise Denied("IdentityReplaced", f"the bot {shown.bot.name!r} was made anew after this join: join again")
        check_not_locked(self._directory.locks(), Subject(bot=case.ref, instance=shown.instance, join_token=case.place), now)
        return case, shown

    def _read(self, presented: bytes, now: datetime) -> InstanceIdentity:
        """What a certificate says, by the authority that it names and the CA of that one.

        Raises:
            Denied: It is none of ours, or over.
        """
        hinted = bot_certificates.unverified_bot(presented)
        bot = None if hinted is None else self._directory.bot(hinted)
        if bot is None:
            raise Denied("IdentityInvalid", "the client certificate is no identity of a bot that there is: join")
        return bot_certificates.read(presented, self._signers(bot.spec.authority).generations(Purpose.BOT), now=now)

    # --- joining ---------------------------------------------------------------------------------------------------------

    async def _judge(self, case: _Case, attempt: Attempt, now: datetime) -> Proved:
        method, challenge = case.token.method, None
        if method.challenge:
            generations = case.signer.generations(Purpose.BOT)
            challenge = challenges.check(attempt.challenge, case.bound(attempt.public_key), generations, now)
        try:
            proof = method.proof.model_validate(dict(attempt.proof))
        except ValidationError:
            fields = ", ".join(sorted(each.alias or name for name, each in method.proof.model_fields.items()))
            raise Invalid(
                "ProofUnreadable", f"a proof of the method {method.name} is an object with {fields}, all text"
            ) from None
        asked = Asked(cluster_name=case.signer.spec.cluster_name, challenge=challenge, now=now)
        return await method.verify(case.token.settings, proof, asked, self._outside)

    def _newcomer(self, case: _Case, attempt: Attempt, now: datetime) -> InstanceIdentity:
        """A new instance."""
        token, bot = case.token, case.bot
        life = RENEWABLE_LIFE if token.method.renewable else DELEGATED_LIFE
        return InstanceIdentity(
            bot=case.ref,
            bot_uid=bot.metadata.uid,
            instance=str(uuid.uuid4()),
            generation=1,
            method=token.method.name,
            join_token=token.metadata.name,
            join_token_uid=token.metadata.uid,
            key=key_digest(attempt.public_key),
            expires_at=self._end(case, life, now),
        )

    def _returning(self, case: _Case, attempt: Attempt, new: InstanceIdentity, now: datetime) -> InstanceIdentity:
        """Who it is from now on: the instance that it shows to be, or the new one."""
        if attempt.presented is None:
            return new
        try:
            known, shown = self._known(attempt.presented, now)
        except Denied as error:
            if error.reason == "Locked":
                raise
            return new
        if _incarnation(known) != _incarnation(case):
            return new
        return replace(new, instance=shown.instance, generation=shown.generation + 1)

    async def _consume(self, case: _Case, new: InstanceIdentity, now: datetime) -> tuple[InstanceIdentity, bool]:
        """Uses up the secret; who it is from now on, and whether that was answered before.

        Who comes again with the same public key has lost the answer, and gets it once more.
        """
        for _ in range(_TRIES):
            entry = await self._ledger.read(case.token)
            stored = entry.instance
            if stored is not None:
                break
            try:
                await self._ledger.write(case.token, entry, _record(new, rfc3339(now), now))
            except Conflict:
                continue  # another client, or nothing but a condition of the join token
            return new, False
        else:
            raise Conflict("Busy", "the join token changes at this moment: join again")
        if (stored.generation, stored.key) != (1, new.key):
            raise Denied(
                "SecretUsed",
                f"the secret was used already, by the instance {stored.id}: make another join token, and lock that instance if "
                "it is none of yours",
            )
        return _again(replace(new, instance=stored.id), stored, now), True

    async def _mismatch(self, shown: InstanceIdentity, stored: RenewableInstance, address: str) -> Denied:
        """Two hold the identity of one instance: neither gets another one until a person has looked."""
        message = (
            f"generation {shown.generation} was shown where {stored.generation} is the last: somebody has a copy of its identity"
        )
        told = {**_who(shown), "address": address, "detail": message, "stored": stored.generation}
        try:
            await self._ledger.lock(shown, message)
        except MachinebotError as error:
            audit.error("instance not locked", extra={**told, "reason": error.reason})
            raise
        audit.warning("instance locked", extra=told)
        return Denied(
            "GenerationMismatch",
            f"the instance {shown.instance} is locked: {message}. Find out who, then join by a new join token",
        )

    def _end(self, case: _Case, life: timedelta, now: datetime) -> datetime:
        """When an identity ends that is given now: nothing outlives the limits of its authority, its bot and its CA."""
        begin = now.replace(microsecond=0) - BACKDATE
        limits = (life, case.signer.spec.max_lifetime, case.bot.spec.max_lifetime)
        end = min(begin + min(limits), case.signer.issuer(Purpose.BOT, now).not_after)
        if end - begin < LEAST_LIFE:
            raise Denied(
                "LifetimeTooShort", "the limits of the authority, the bot and its CA leave an identity less than 5 minutes"
            )
        return end

    # --- answering -------------------------------------------------------------------------------------------------------

    def _welcome(
        self,
        case: _Case,
        identity: InstanceIdentity,
        key: PublicKey,
        outputs: Sequence[IssueRequest],
        now: datetime,
        *,
        again: bool,
    ) -> Welcome:
        """The answer. Where it is given `again`, nobody has shown the private key of the identity, so that it comes alone."""
        check_not_locked(self._directory.locks(), Subject(bot=case.ref, instance=identity.instance, join_token=case.place), now)
        certificate = bot_certificates.sign(
            identity, key, case.signer.issuer(Purpose.BOT, now), cluster_name=case.signer.spec.cluster_name, now=now
        )
        return Welcome(
            identity=identity,
            certificate=certificate,
            renewable=case.token.method.renewable,
            results=tuple(_ask_again() for _ in outputs) if again else self._issue(case, outputs, now),
            trust=case.signer.trust,
        )

    def _issue(self, case: _Case, outputs: Sequence[IssueRequest], now: datetime) -> tuple[Result, ...]:
        results: list[Result] = []
        for output in outputs:
            try:
                results.append(case.signer.issue(case.bot, output, now=now))
            except MachinebotError as error:
                results.append(error)
        return tuple(results)

    def _tell(self, event: str, welcome: Welcome, outputs: Sequence[IssueRequest], address: str, proved: Proved | None) -> None:
        told: dict[str, Any] = {**_who(welcome.identity), "address": address, "outputs": _listed(outputs, welcome.results)}
        if proved is not None:
            told |= _proved(proved)
        audit.info(event, extra=told)


def _incarnation(case: _Case) -> tuple[str, str]:
    return case.token.metadata.uid, case.bot.metadata.uid


def _is_another(token: MachineJoinToken, shown: InstanceIdentity) -> bool:
    """Whether a join token is not the one any more that an identity came by: made anew, going, for another bot or method."""
    same = (token.metadata.uid, token.spec.bot, token.method.name) == (shown.join_token_uid, shown.bot.name, shown.method)
    return not same or token.metadata.deletion_timestamp is not None


def _again(identity: InstanceIdentity, stored: RenewableInstance, now: datetime) -> InstanceIdentity:
    """The identity of an answer that was lost: it ends when the first answer said, however late it is asked for.

    Raises:
        Denied: It has ended.
    """
    end = parse_rfc3339(stored.expires_at)
    if now >= end:
        raise Denied("InstanceExpired", f"the instance {stored.id} let its identity end: make another join token")
    return replace(identity, expires_at=min(identity.expires_at, end))


def _ask_again() -> Unavailable:
    return Unavailable(ASK_WITH_IDENTITY, "a lost answer is repeated without credentials: ask for them with the identity")


def _is_over(stored: RenewableInstance, shown: InstanceIdentity) -> bool:
    """Whether what was shown is not the last identity. What is stored is seen by a watch, and may be a moment old."""
    return stored.id != shown.instance or stored.generation > shown.generation


def _expired(token: MachineJoinToken) -> Denied:
    return Denied(
        "JoinTokenExpired", f"the MachineJoinToken {token.metadata.name!r} has ended at {token.spec.expires}: set a later time"
    )


def _record(identity: InstanceIdentity, joined_at: str, now: datetime) -> RenewableInstance:
    return RenewableInstance(
        id=identity.instance,
        generation=identity.generation,
        key=identity.key,
        joined_at=joined_at,
        renewed_at=rfc3339(now),
        expires_at=rfc3339(identity.expires_at),
    )


def _who(identity: InstanceIdentity) -> dict[str, Any]:
    return {
        "namespace": identity.bot.namespace,
        "bot": identity.bot.name,
        "join_token": identity.join_token,
        "method": identity.method,
        "instance": identity.instance,
        "generation": identity.generation,
        "not_after": rfc3339(identity.expires_at),
    }


def _proved(proved: Proved) -> dict[str, Any]:
    return {"subject": proved.subject, "attributes": dict(proved.attributes), "unknown_claims": list(proved.unknown)}


def _listed(outputs: Sequence[IssueRequest], results: Sequence[Result]) -> list[dict[str, Any]]:
    """What was issued, for the audit log: serial numbers and names, never a credential."""
    return [
        {"output": output.output, "reason": result.reason}
        if isinstance(result, MachinebotError)
        else {
            "output": output.output,
            "serial": str(result.serial),
            "roles": list(result.grant.roles),
            "names": {str(kind): list(result.grant.plain(kind)) for kind in result.grant.names},
            "not_after": rfc3339(result.not_after),
        }
        for output, result in zip(outputs, results, strict=True)
    ]
