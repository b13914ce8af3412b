"""How long a credential lives, and when it is replaced."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from machinebot.errors import Denied
from machinebot.resources.meta import DEFAULT_MAX_TTL, MIN_TTL, format_duration

BACKDATE: Final = timedelta(minutes=1)
"""How far notBefore lies in the past, for verifiers whose clock is behind. It counts as life: see `Lifetime`."""

JITTER: Final = 0.10
"""Largest part of a credential's life by which its renewal is moved forward, so that those made together part."""

DEFAULT_REMAINDER: Final = 0.50
"""Part of the life that is left when a credential is replaced, unless the output says otherwise."""

EARLIEST: Final = 0.10
"""A credential is never replaced before this part of its life after the issue has gone, whatever renewBefore says: no hot loop.
The minute before the issue does not count: of a life of five minutes it is more than a part like this."""


@dataclass(frozen=True, slots=True)
class Limit:
    """An upper bound and who set it.

    Attributes:
        name: For people, such as `role access (maxSessionTTL 8h)`.
        length: The bound.
    """

    name: str
    length: timedelta


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The life given: from notBefore to notAfter, so that no certificate spans more than it says.

    Attributes:
        length: Whole seconds, at most 24 hours.
        reduced_by: Name of the limit that reduced the wish, or None.
    """

    length: timedelta
    reduced_by: str | None


MAXIMUM: Final = Limit("the 24h maximum for machine credentials", DEFAULT_MAX_TTL)


def lifetime(wish: timedelta, limits: Iterable[Limit]) -> Lifetime:
    """The lowest of the wish, 24 hours and every limit.

    Raises:
        Denied: A limit leaves less than five minutes.
    """
    lowest = min((MAXIMUM, *limits), key=lambda limit: limit.length)
    if wish <= lowest.length:
        lowest = Limit("the output's credentialTTL", wish)
        reduced_by = None
    else:
        reduced_by = lowest.name
    length = timedelta(seconds=int(lowest.length.total_seconds()))
    if length < MIN_TTL:
        raise Denied(
            "LifetimeTooShort",
            f"{lowest.name} leaves {format_duration(max(length, timedelta(0)))}; a credential needs {format_duration(MIN_TTL)}",
        )
    return Lifetime(length=length, reduced_by=reduced_by)


def spread(uid: str) -> float:
    """A number from 0 to 1 that is always the same for a UID: jitter without chance."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8]) / 2**64


def renewal_time(
    *,
    not_before: datetime,
    not_after: datetime,
    uid: str,
    renew_before: timedelta | None = None,
    renew_before_percentage: int | None = None,
) -> datetime:
    """When a credential is replaced: by its own dates, moved forward by up to 10 % of its life.

    Args:
        not_before: Begin.
        not_after: End.
        uid: UID of the output: the same for every process, so that no restart moves the time.
        renew_before: Wanted remainder as a length; one that is not below the life is passed over.
        renew_before_percentage: Wanted remainder in percent of the life.

    Returns:
        UTC, whole seconds, after not_before and before not_after.
    """
    life = not_after - not_before
    if renew_before is not None and renew_before < life:
        remainder = renew_before
    elif renew_before_percentage is not None:
        remainder = life * renew_before_percentage / 100
    else:
        remainder = life * DEFAULT_REMAINDER
    moment = not_after - remainder - life * JITTER * spread(uid)
    backdated = min(BACKDATE, life / 2)  # half of it: what another program has made may live for less than two minutes
    return max(moment, not_before + backdated + (life - backdated) * EARLIEST).replace(microsecond=0)
