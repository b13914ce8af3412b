"""Says of each join token whether it can be joined by, and of one that is used up who has."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from machinebot.authority.plan import check_not_deleting
from machinebot.clock import Clock, parse_rfc3339, rfc3339
from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.joins.registry import MachineJoinToken
from machinebot.kube.client import KubeClient
from machinebot.policy.credential import BotRef
from machinebot.policy.locks import Subject, check_not_locked
from machinebot.reconcile.keys import Key
from machinebot.reconcile.status import StatusWriter, unreadable
from machinebot.reconcile.world import World
from machinebot.resources.meta import READY, with_condition

MAX_WARNINGS: Final = 16
"""Most warnings that status takes."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a join token that can be joined by, or was, is Ready for."""

    reason: str
    message: str


class JoinTokenReconciler:
    """Reconciles MachineJoinTokens. Whether somebody may join is decided at the join; here people are told beforehand."""

    def __init__(self, *, client: KubeClient, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._status = StatusWriter(client, world)

    async def reconcile(self, key: Key) -> datetime | None:
        """Writes the join token's status where it does not say so yet; returns when something of it ends, or None.

        Raises:
            Unavailable: Status could not be written; Conflict where somebody has joined meanwhile.
        """
        entry = self._world.entry(key)
        if entry is None:
            return None
        now = self._clock.now()
        try:
            token = self._world.join_token(key)
        except Invalid as error:
            await unreadable(self._status, key, entry, error, now)
            return None
        if token is None or token.metadata.deletion_timestamp is not None:
            return None
        refusal: MachinebotError | None = None
        try:
            standing = self._standing(token, now)
        except (Denied, Invalid) as error:
            refusal, standing = error, _Standing(error.reason, error.message)
        conditions = with_condition(
            token.status.conditions,
            kind=READY,
            status="True" if refusal is None else "False",
            reason=standing.reason,
            message=standing.message,
            generation=entry.generation,
            now=rfc3339(now),
        )
        # Who has joined stands there by the join API's own hand, and stays.
        new = token.status.model_copy(
            update={
                "observed_generation": entry.generation,
                "conditions": conditions,
                "method": token.method.name,
                "warnings": tuple(token.method.warnings(token.settings))[:MAX_WARNINGS],
            }
        )
        await self._status.write(key, entry.version, token.status, new)
        return min((end for end in _ends(token) if end > now), default=None)

    def _standing(self, token: MachineJoinToken, now: datetime) -> _Standing:
        """What the join token is good for.

        Raises:
            Denied: Nobody can join by it.
        """
        if token.expires_at is not None and token.expires_at <= now:
            raise Denied("Expired", f"it ended at {token.spec.expires}: delete it, or move spec.expires on")
        namespace, instance = token.metadata.namespace, token.status.instance
        ref = BotRef(namespace, token.spec.bot)
        bot = self._world.bot(ref)
        if bot is None:
            raise Denied(
                "BotMissing",
                f"there is no MachineBot {ref.name!r} in the namespace {namespace!r}: create it, or correct spec.bot",
            )
        check_not_deleting(bot)
        holder = None if instance is None else instance.id
        subject = Subject(ref, instance=holder, join_token=(namespace, token.metadata.name))
        check_not_locked(self._world.locks(), subject, now)
        if instance is None:
            return _Standing("Accepting", f"{token.method.name}: whoever proves it may join as the bot {ref.name!r}")
        if parse_rfc3339(instance.expires_at) <= now:
            raise Denied(
                "InstanceExpired",
                f"the identity of the instance {instance.id}, which has used the secret up, ended without being renewed: "
                "delete the join token, and make another one with a new secret",
            )
        return _Standing("Joined", f"the instance {instance.id} has joined and used the secret up: nobody else can")


def _ends(token: MachineJoinToken) -> Sequence[datetime]:
    """When something of the join token ends by itself."""
    instance = token.status.instance
    ends = (token.expires_at, None if instance is None else parse_rfc3339(instance.expires_at))
    return tuple(end for end in ends if end is not None)
