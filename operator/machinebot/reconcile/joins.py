"""Joins bots by tokens of their ServiceAccounts, once each, and keeps their identities until they must be renewed."""

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Final

from machinebot.authority.interface import Authority
from machinebot.clock import Clock
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, Unavailable
from machinebot.kube.events import EventRecorder, Subject
from machinebot.kube.owned import Owner
from machinebot.kube.tokens import FoundAccount, ServiceAccounts, missing
from machinebot.metrics import Metrics
from machinebot.policy.credential import BotIdentity, BotRef
from machinebot.resources.bot import KIND, MachineBot

log = logging.getLogger(__name__)

MARGIN: Final = timedelta(minutes=5)
"""An identity with less left than this is not used any more: clocks differ, and an issue takes its time."""

ROUNDS: Final = 3
"""How often a ServiceAccount is made or looked at before it is left for later: another one may vanish in between."""


class BotJoins:
    """The identities of the bots."""

    def __init__(self, accounts: ServiceAccounts, events: EventRecorder, metrics: Metrics, clock: Clock) -> None:
        self._accounts = accounts
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._identities: dict[BotRef, tuple[str, BotIdentity]] = {}
        """The UID of the bot beside its identity: one that was made again under the same name is another one."""
        self._running: dict[BotRef, asyncio.Task[BotIdentity]] = {}

    def forget(self, ref: BotRef) -> None:
        """Drops the identity of a bot: it joins again when it is needed."""
        self._identities.pop(ref, None)

    def pinned(self, ref: BotRef) -> str | None:
        """UID of the ServiceAccount that the bot joined with last, or None where it has not joined in this process."""
        known = self._identities.get(ref)
        return None if known is None else known[1].service_account.uid

    async def identity(self, bot: MachineBot, authority: Authority) -> BotIdentity:
        """The identity of the bot; joins where there is none that is good. Those who ask at once share one join.

        Raises:
            Denied: The authority does not let it join.
            Invalid: A ServiceAccount that is not the bot's is in the way.
            Unavailable: The API server is away, or a ServiceAccount that a person named is missing.
        """
        ref = BotRef(bot.metadata.namespace, bot.metadata.name)
        known = self._identities.get(ref)
        if known is not None and known[0] == bot.metadata.uid and _is_usable(known[1], bot, authority, self._clock.now()):
            return known[1]
        running = self._running.get(ref)
        if running is None:
            running = asyncio.create_task(self._join(ref, bot, authority), name=f"join {ref.user}")
            self._running[ref] = running
            running.add_done_callback(lambda _: self._running.pop(ref, None))
        return await asyncio.shield(running)

    async def _join(self, ref: BotRef, bot: MachineBot, authority: Authority) -> BotIdentity:
        try:
            identity = await self._prove(ref, bot, authority)
        except MachinebotError as error:
            self._metrics.joins.labels(authority.join_method, error.reason).inc()
            log.warning("join failed", extra={"bot": ref.user, "reason": error.reason, "detail": error.message})
            raise
        self._metrics.joins.labels(authority.join_method, "success").inc()
        log.info("joined", extra={"bot": ref.user, "service_account_uid": identity.service_account.uid})
        self._identities[ref] = (bot.metadata.uid, identity)
        return identity

    async def _prove(self, ref: BotRef, bot: MachineBot, authority: Authority) -> BotIdentity:
        name, audience = bot.service_account, authority.spec.cluster_name
        pinned = bot.status.service_account
        uid = pinned.uid if pinned is not None and pinned.name == name else await self._ensure(bot)
        try:
            token = await self._accounts.token(ref.namespace, name, audience)
        except Unavailable as error:
            if error.reason != "ServiceAccountMissing":
                raise
            uid = await self._ensure(bot)
            token = await self._accounts.token(ref.namespace, name, audience)
        try:
            return await authority.join(ref, token, expected_uid=uid, now=self._clock.now())
        except Denied as error:
            if error.reason != "ServiceAccountReplaced":
                raise
        return await self._pin_again(ref, bot, authority)

    async def _pin_again(self, ref: BotRef, bot: MachineBot, authority: Authority) -> BotIdentity:
        """The ServiceAccount was deleted and made again: a new identity, told to people, pinned to the new UID."""
        name = bot.service_account
        uid = await self._ensure(bot)
        token = await self._accounts.token(ref.namespace, name, authority.spec.cluster_name)
        identity = await authority.join(ref, token, expected_uid=uid, now=self._clock.now())
        self._events.record(
            Subject(KIND.kind, ref.namespace, ref.name, bot.metadata.uid),
            "Warning",
            "ServiceAccountReplaced",
            f"the ServiceAccount {name!r} was deleted and made again; the bot has joined anew with the new one",
            action="Join",
        )
        return identity

    async def _ensure(self, bot: MachineBot) -> str:
        """UID of the bot's ServiceAccount; makes the one that is ours to make."""
        namespace, name = bot.metadata.namespace, bot.service_account
        if bot.spec.service_account_name is not None:
            uid = await self._accounts.uid(namespace, name)
            if uid is None:
                raise missing(namespace, name)
            return uid
        owner = Owner(KIND.kind, bot.metadata.name, bot.metadata.uid)
        for _ in range(ROUNDS):
            try:
                return await self._accounts.create(namespace, name, owner)
            except Conflict:
                found = await self._accounts.look(namespace, name)
            if found is not None:
                return _existing(name, bot, found)
        raise Unavailable("Busy", f"the ServiceAccount {name!r} comes and goes faster than it can be looked at")


def _existing(name: str, bot: MachineBot, found: FoundAccount) -> str:
    """UID of a ServiceAccount that was there already, where it is the bot's own."""
    if found.managed and (found.deleting or found.owner_uid != bot.metadata.uid):
        raise Unavailable(
            "ServiceAccountTerminating",
            f"the ServiceAccount {name!r} is being deleted, or belongs to an earlier bot of this name and waits for the garbage "
            "collector; it is made again then",
        )
    if found.managed:
        return found.uid
    raise Invalid(
        "ServiceAccountConflict",
        f"the ServiceAccount {name!r} exists and is not the operator's: set serviceAccountName to use it, or delete it",
    )


def _is_usable(identity: BotIdentity, bot: MachineBot, authority: Authority, now: datetime) -> bool:
    """Whether an identity is good for another issue: right authority, right ServiceAccount, enough life, not from the future."""
    return (
        identity.authority == authority.name
        and identity.service_account.name == bot.service_account
        and identity.joined_at - MARGIN <= now < identity.expires_at - MARGIN
    )
