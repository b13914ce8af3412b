"""Who of many that want to be served is, so that nobody keeps others out: decided by source and time, with no connection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many, and for how long.

    Attributes:
        served: Guests that are served at a time.
        each: Of them, those of one source.
        waiting: Guests that wait to be served, of all sources.
        patience: Seconds for which a place is kept while others wait for it.
        wait: Longest wait, seconds.
        stay: Longest time for which one is served, seconds.
    """

    served: int
    each: int
    waiting: int
    patience: float
    wait: float
    stay: float


@dataclass(eq=False)
class Guest:
    """One that wants to be served.

    Attributes:
        source: Whom it counts for.
        since: When it came, and once it is served, when that began: seconds of a monotonic clock.
    """

    source: str
    since: float

    @property
    def busy(self) -> bool:
        """Whether it waits for us, rather than we for it."""
        return False


GuestT = TypeVar("GuestT", bound=Guest)


class Places(Generic[GuestT]):
    """Each source has a share of the places. Whoever finds none waits, and those whose source holds the fewest are served first.

    While others wait, a guest that is not done in good time loses its place to them: one of the source that holds the most, or
    of their own, where that has all of its share. What takes us long is no fault of the guest's, and keeps its place.

    Args:
        bounds: How many, and for how long.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds: Final = bounds
        # In the order in which they came; no source without a guest.
        self._waiting: dict[str, list[GuestT]] = {}
        self._served: dict[str, list[GuestT]] = {}

    def come(self, guest: GuestT) -> GuestT | None:
        """One has come, and waits. Returns who has to go for want of room: the last of the source of which the most wait."""
        self._waiting.setdefault(guest.source, []).append(guest)
        if _count(self._waiting) <= self._bounds.waiting:
            return None
        crowd = max(self._waiting.values(), key=lambda guests: (len(guests), guests[-1] is guest))
        gone = crowd[-1]
        _remove(self._waiting, gone)
        return gone

    def call(self, now: float) -> GuestT | None:
        """Who is served from now on, or None."""
        if _count(self._served) >= self._bounds.served:
            return None
        below = [guests[0] for source, guests in self._waiting.items() if self._held(source) < self._bounds.each]
        if not below:
            return None
        guest = min(below, key=lambda first: (self._held(first.source), first.since))
        _remove(self._waiting, guest)
        guest.since = now
        self._served.setdefault(guest.source, []).append(guest)
        return guest

    def make_room(self, now: float) -> GuestT | None:
        """Who loses its place to one that waits, or None. To be asked where nobody can be called."""
        if not self._waiting:
            return None
        # Those of sources that have all of their share go for others of the same source, those of the largest for all others.
        yielding = {source for source in self._waiting if self._held(source) >= self._bounds.each}
        most = max(map(len, self._served.values()), default=0)
        if min(map(self._held, self._waiting)) < most and _count(self._served) >= self._bounds.served:
            yielding |= {source for source, guests in self._served.items() if len(guests) == most}
        late = [
            guest
            for source, guests in self._served.items()
            for guest in guests
            if source in yielding and now - guest.since >= self._bounds.patience and not guest.busy
        ]
        if not late:
            return None
        gone = min(late, key=lambda guest: guest.since)
        _remove(self._served, gone)
        return gone

    def tired(self, now: float) -> list[GuestT]:
        """Who has waited for too long, and goes."""
        gone = [guest for guests in self._waiting.values() for guest in guests if now - guest.since >= self._bounds.wait]
        for guest in gone:
            _remove(self._waiting, guest)
        return gone

    def leave(self, guest: GuestT) -> None:
        """One that was served is done, or has lost its place before."""
        if guest in self._served.get(guest.source, ()):
            _remove(self._served, guest)

    def _held(self, source: str) -> int:
        return len(self._served.get(source, ()))


def _count(guests: Mapping[str, list[GuestT]]) -> int:
    return sum(map(len, guests.values()))


def _remove(guests: dict[str, list[GuestT]], guest: GuestT) -> None:
    guests[guest.source].remove(guest)
    if not guests[guest.source]:
        del guests[guest.source]
