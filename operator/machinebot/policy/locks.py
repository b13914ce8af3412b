"""Locks: whether a bot, an instance, a role or a join token is refused. Pure; a lock that cannot be read locks nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from machinebot.clock import parse_rfc3339
from machinebot.errors import Denied
from machinebot.policy.credential import BotRef
from machinebot.resources.lock import MachineLock

LOCKED: Final = "Locked"
"""Reason of `Denied` where a lock is in force."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock. Exactly one target is set.

    Attributes:
        name: Name of the MachineLock.
        bot: The bot, or None.
        instance: Id of an instance, or None.
        role: Name of a role, or None.
        join_token: Namespace and name of a join token, or None.
        message: Why, for people.
        expires_at: When it ends by itself; None never.
    """

    name: str
    bot: BotRef | None = None
    instance: str | None = None
    role: str | None = None
    join_token: tuple[str, str] | None = None
    message: str = ""
    expires_at: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether it refuses anybody at that time."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Subject:
    """Who wants something, as far as locks go.

    Attributes:
        bot: The bot.
        roles: Roles that the credential would carry.
        instance: Id of the instance; None inside of the operator, or where there is none yet.
        join_token: Namespace and name of the join token; None inside of the operator.
    """

    bot: BotRef
    roles: frozenset[str] = frozenset()
    instance: str | None = None
    join_token: tuple[str, str] | None = None


def lock_of(resource: MachineLock) -> Lock:
    """The lock that a MachineLock stands for.

    Raises:
        ValueError: `expires` is no time, which the schema refuses.
    """
    spec, target = resource.spec, resource.spec.target
    return Lock(
        name=resource.metadata.name,
        bot=None if target.bot is None else BotRef(target.bot.namespace, target.bot.name),
        instance=target.instance,
        role=target.role,
        join_token=None if target.join_token is None else (target.join_token.namespace, target.join_token.name),
        message=spec.message,
        expires_at=None if spec.expires is None else parse_rfc3339(spec.expires),
    )


def check_not_locked(locks: Iterable[Lock], subject: Subject, now: datetime) -> None:
    """Refuses who is locked.

    Raises:
        Denied: A lock is in force (`Locked`); the message names the lock and what it is about, so that people find the way out.
    """
    for lock in locks:
        if lock.in_force(now) and (target := _hit(lock, subject)) is not None:
            why = f" ({lock.message})" if lock.message else ""
            raise Denied(
                LOCKED,
                f"{target} is locked by the MachineLock {lock.name!r}{why}: nothing is issued until that is deleted or ends",
            )


def locked_roles(locks: Iterable[Lock], roles: Iterable[str], now: datetime) -> tuple[str, ...]:
    """Which of the roles are locked, a sentence for each, sorted."""
    carried = frozenset(roles)
    return tuple(
        sorted(
            f"the role {lock.role!r} is locked by the MachineLock {lock.name!r}: no credential that would carry it is issued"
            for lock in locks
            if lock.role in carried and lock.in_force(now)
        )
    )


def _hit(lock: Lock, subject: Subject) -> str | None:
    """What of the subject the lock is about, in words, or None."""
    if lock.bot is not None and lock.bot == subject.bot:
        return f"the bot {subject.bot.name!r}"
    if lock.instance is not None and lock.instance == subject.instance:
        return f"the instance {lock.instance}"
    if lock.role is not None and lock.role in subject.roles:
        return f"the role {lock.role!r}"
    if lock.join_token is not None and lock.join_token == subject.join_token:
        return f"the join token {lock.join_token[1]!r}"
    return None
