"""When to try again: exponential, with a ceiling, and moved by the UID rather than by chance."""

from datetime import datetime, timedelta
from typing import Final

from machinebot.policy.lifetimes import spread

FIRST: Final = timedelta(seconds=2)
"""Pause after the first failure."""

CEILING: Final = timedelta(minutes=10)
"""Longest pause: short against the half of a credential's life that is left when its renewal begins."""

WATCHED_BY_NOBODY: Final = frozenset(
    {
        "Forbidden",
        "IdentityReplaced",
        "PasswordInvalid",
        "PasswordMissing",
        "SecretConflict",
        "SecretTerminating",
        "ServiceAccountConflict",
        "ServiceAccountReplaced",
        "TokenNotAuthenticated",
        "UnreadableReview",
    }
)
"""Refusals that end by a change which no watch of ours shows: looked at again now and then."""

NOT_COUNTED: Final = frozenset({"AuthorityNotReady", "ServiceAccountTerminating"})
"""Troubles that end by an event of their own, which brings the object back: no attempt, no back-off."""

_SPREAD: Final = 0.20
"""Part of a pause that the UID adds."""

_MOST_DOUBLINGS: Final = 16
"""More change nothing: the ceiling is reached long before."""


def pause(failures: int, uid: str, *, asked: float | None = None) -> timedelta:
    """How long to wait after that many failures in a row.

    Args:
        failures: At least 1.
        uid: UID of the object: its share of the spread.
        asked: Seconds that the other side asked for (Retry-After); never undercut.
    """
    doublings: int = min(max(failures, 1) - 1, _MOST_DOUBLINGS)
    doubled = min(FIRST * (1 << doublings), CEILING)
    length = doubled * (1 + _SPREAD * spread(uid))
    return max(length, timedelta(seconds=asked or 0))


def retry_at(failures: int, uid: str, now: datetime, *, asked: float | None = None) -> datetime:
    """The moment of the next attempt, UTC, whole seconds, after now."""
    return (now + pause(failures, uid, asked=asked) + timedelta(seconds=1)).replace(microsecond=0)
