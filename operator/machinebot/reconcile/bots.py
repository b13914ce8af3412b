"""Brings one bot to Ready: its ServiceAccount is there, it has joined, and status says so."""

import logging
from datetime import datetime

from machinebot.clock import Clock, parse_rfc3339, rfc3339
from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.kube.client import KubeClient
from machinebot.kube.events import EventRecorder, Subject
from machinebot.policy import backoff, grants, locks
from machinebot.policy.credential import BotRef
from machinebot.reconcile.authorities import Authorities
from machinebot.reconcile.joins import BotJoins
from machinebot.reconcile.keys import Key
from machinebot.reconcile.status import StatusWriter, difference
from machinebot.reconcile.world import Entry, World
from machinebot.resources.bot import KIND, BotInstance, MachineBot, MachineBotStatus, ServiceAccountStatus
from machinebot.resources.meta import READY, ConditionStatus, find_condition, with_condition

log = logging.getLogger(__name__)


class BotReconciler:
    """Reconciles MachineBots."""

    def __init__(
        self,
        *,
        client: KubeClient,
        world: World,
        joins: BotJoins,
        authorities: Authorities,
        events: EventRecorder,
        clock: Clock,
    ) -> None:
        self._world = world
        self._joins = joins
        self._authorities = authorities
        self._events = events
        self._clock = clock
        self._status = StatusWriter(client, world)
        self._failures: dict[BotRef, int] = {}

    async def reconcile(self, key: Key) -> datetime | None:
        """Brings one bot to Ready; returns when it is to be looked at again, or None.

        Raises:
            Unavailable: Status could not be written.
        """
        ref = BotRef(key.namespace, key.name)
        entry, bot = self._world.entry(key), self._world.bot(ref)
        if entry is None or bot is None or bot.metadata.deletion_timestamp is not None:
            self._joins.forget(ref)
            self._authorities.forget(ref)
            self._failures.pop(ref, None)
            self._world.lost_accounts.discard(ref)
            return None
        try:
            account = await self._account(ref, bot)
        except MachinebotError as error:
            return await self._failed(key, entry, bot, error)
        self._failures.pop(ref, None)
        await self._write(key, entry, bot, account, "True", "Joined", "joined with its ServiceAccount")
        return None

    async def _account(self, ref: BotRef, bot: MachineBot) -> ServiceAccountStatus:
        """The ServiceAccount that the bot is pinned to; joins where it has not, or where that account is gone."""
        locks.check_not_locked(self._world.locks(), locks.Subject(ref), self._clock.now())
        authority = self._authorities.get(bot.spec.authority)
        authority.check_bot(bot)
        pinned, ready = bot.status.service_account, find_condition(bot.status.conditions, READY)
        lost = ref in self._world.lost_accounts
        if lost:
            self._joins.forget(ref)
        settled = ready is not None and ready.status == "True" and bot.status.observed_generation == bot.metadata.generation
        if settled and pinned is not None and not lost and self._joins.pinned(ref) in (None, pinned.uid):
            return pinned
        identity = await self._joins.identity(bot, authority)
        self._world.lost_accounts.discard(ref)
        return ServiceAccountStatus(name=identity.service_account.name, uid=identity.service_account.uid)

    async def _failed(self, key: Key, entry: Entry, bot: MachineBot, error: MachinebotError) -> datetime | None:
        ref = BotRef(key.namespace, key.name)
        if error.reason == "NamespaceTerminating":
            return None
        written = await self._write(key, entry, bot, bot.status.service_account, "False", error.reason, error.message)
        if written:
            subject = Subject(KIND.kind, key.namespace, key.name, bot.metadata.uid, entry.version)
            self._events.record(subject, "Warning", error.reason, error.message, action="Join")
        # What another cluster refuses ends by a change there, which no watch of ours shows.
        watched = error.reason not in backoff.WATCHED_BY_NOBODY and not self._authorities.is_remote(bot.spec.authority)
        if isinstance(error, (Denied, Invalid)) and watched:
            return None
        if error.reason in backoff.NOT_COUNTED:
            return None
        self._failures[ref] = self._failures.get(ref, 0) + 1
        return backoff.retry_at(self._failures[ref], bot.metadata.uid, self._clock.now())

    async def _write(
        self,
        key: Key,
        entry: Entry,
        bot: MachineBot,
        account: ServiceAccountStatus | None,
        status: ConditionStatus,
        reason: str,
        message: str,
    ) -> bool:
        now = self._clock.now()
        conditions = with_condition(
            bot.status.conditions,
            kind=READY,
            status=status,
            reason=reason,
            message=message,
            generation=bot.metadata.generation,
            now=rfc3339(now),
        )
        new = MachineBotStatus(
            observed_generation=bot.metadata.generation,
            conditions=conditions,
            service_account=account,
            outputs=len(self._world.outputs_of(BotRef(key.namespace, key.name))),
            instances=bot.status.instances,
            warnings=self._warnings(key, bot, now),
        )
        if difference(bot.status.wire(), new.wire()):
            new = new.model_copy(update={"instances": tuple(each for each in bot.status.instances if _lives(each, now))})
        return await self._status.write(key, entry.version, bot.status, new)

    def _warnings(self, key: Key, bot: MachineBot, now: datetime) -> tuple[str, ...]:
        """What works but is probably not meant, and which of the bot's roles are locked: the bot is Ready for the others."""
        locked = locks.locked_roles(self._world.locks(), bot.spec.roles, now)
        if self._authorities.is_remote(bot.spec.authority):
            return locked[: grants.MAX_WARNINGS]  # a role of the same name here is another one
        return (*locked, *grants.warnings(key.namespace, bot.spec, self._world.roles()))[: grants.MAX_WARNINGS]


def _lives(instance: BotInstance, now: datetime) -> bool:
    """Whether the identity of the instance is still good."""
    return now < parse_rfc3339(instance.expires_at)
