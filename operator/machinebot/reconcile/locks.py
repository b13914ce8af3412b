"""Says of each lock whether it is in force and what it stops, and brings back whom it stopped when it ends by itself."""

from collections.abc import Callable
from datetime import datetime

from machinebot.clock import Clock, rfc3339
from machinebot.errors import Invalid
from machinebot.kube.client import KubeClient
from machinebot.policy.credential import BotRef
from machinebot.policy.locks import Lock, lock_of
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.status import StatusWriter, unreadable
from machinebot.reconcile.world import World
from machinebot.resources.meta import READY, ConditionStatus, Status, with_condition


class LockReconciler:
    """Reconciles MachineLocks. What they stop is refused by the authority, whether or not this has looked at them yet."""

    def __init__(self, *, client: KubeClient, world: World, clock: Clock, enqueue: Callable[[Due], None]) -> None:
        self._world = world
        self._clock = clock
        self._enqueue = enqueue
        self._status = StatusWriter(client, world)

    async def reconcile(self, key: Key) -> datetime | None:
        """Writes the lock's status where it does not say so yet; returns when it ends by itself, or None.

        Raises:
            Unavailable: Status could not be written.
        """
        entry = self._world.entry(key)
        if entry is None:
            return None
        now = self._clock.now()
        try:
            resource = self._world.lock(key)
        except Invalid as error:
            await unreadable(self._status, key, entry, error, now)
            return None
        if resource is None:
            return None
        lock = lock_of(resource)
        active = lock.in_force(now)
        status: ConditionStatus = "True" if active else "False"
        reason = "Active" if active else "Expired"
        message = self._stops(lock) if active else f"it ended at {rfc3339(lock.expires_at or now)} and stops nobody: delete it"
        conditions = with_condition(
            resource.status.conditions,
            kind=READY,
            status=status,
            reason=reason,
            message=message,
            generation=entry.generation,
            now=rfc3339(now),
        )
        if not active:
            for due in self._world.stopped_by(key):  # before the write, which may fail
                self._enqueue(due)
        new = Status(observed_generation=entry.generation, conditions=conditions)
        await self._status.write(key, entry.version, resource.status, new)
        return lock.expires_at if active else None

    def _stops(self, lock: Lock) -> str:
        """What the lock stops, and that there is nothing of that name where there is not."""
        if lock.instance is not None:
            return (
                f"nothing is issued to the instance {lock.instance}, nor is its identity renewed; who can still prove to be the "
                "bot joins as another instance: lock the join token to stop that too"
            )
        if lock.role is not None:
            return self._known(
                Key(Sort.ROLE, "", lock.role), f"no credential that would carry the role {lock.role!r} is issued", lock.role
            )
        if lock.bot is not None:
            return self._of_bot(lock.bot)
        namespace, name = lock.join_token or ("", "")
        text = f"nobody joins by the join token {name!r} in the namespace {namespace!r}, and nothing is issued to who has"
        return self._known(Key(Sort.JOIN_TOKEN, namespace, name), text, name)

    def _of_bot(self, bot: BotRef) -> str:
        text = f"nobody joins as the bot {bot.name!r} in the namespace {bot.namespace!r}, and nothing is issued for it"
        return self._known(Key(Sort.BOT, bot.namespace, bot.name), text, bot.name)

    def _known(self, target: Key, text: str, name: str) -> str:
        if self._world.entry(target) is None:
            return f"there is no {target.sort} {name!r}: correct spec.target, unless it is yet to come"
        return text
