"""The work queue: each key once, at its time, one worker a key; what fails comes back later.

Due times are wall-clock times, and the clock is looked at again at least every few seconds, so that a clock that steps, or
a machine that slept, makes nothing late by more than that.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from machinebot.clock import Clock

KeyT = TypeVar("KeyT", bound=Hashable)

LOOK_SECONDS: Final = 5.0
"""Longest time between two looks at the clock."""

_SLACK: Final = 64
"""Times that are no longer waited for and may stay in the heap, beside as many as there are others."""


class WorkQueue(Generic[KeyT]):
    """A queue with de-duplication and delays, for one event loop."""

    def __init__(self, clock: Clock, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._clock = clock
        self._look_seconds = look_seconds
        self._ready: deque[KeyT] = deque()
        self._waiting: set[KeyT] = set()
        self._working: set[KeyT] = set()
        self._again: set[KeyT] = set()
        self._due: dict[KeyT, datetime] = {}
        self._heap: list[tuple[datetime, int, KeyT]] = []
        self._count = 0
        self._something = asyncio.Event()
        self._sooner = asyncio.Event()

    def __len__(self) -> int:
        """How many keys wait to be worked on now."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    def add(self, key: KeyT) -> None:
        """Has a key worked on as soon as can be; one that is being worked on is worked on once more."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._something.set()

    def add_at(self, key: KeyT, moment: datetime) -> None:
        """Has a key worked on at a time; of several times the earliest holds."""
        known = self._due.get(key)
        if known is not None and known <= moment:
            return
        self._due[key] = moment
        self._count += 1
        heapq.heappush(self._heap, (moment, self._count, key))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            # Every sweep has each key worked on, and so leaves the hour of its renewal behind: hundreds a key in a day.
            self._heap = [(due, number, name) for number, (name, due) in enumerate(self._due.items())]
            heapq.heapify(self._heap)
            self._count = len(self._heap)
        if self._heap[0][2] == key:
            self._sooner.set()

    def add_after(self, key: KeyT, seconds: float) -> None:
        """Has a key worked on after some seconds."""
        if seconds <= 0:
            self.add(key)
        else:
            self.add_at(key, self._clock.now() + timedelta(seconds=seconds))

    def forget(self, key: KeyT) -> None:
        """Drops the time that a key waits for."""
        self._due.pop(key, None)

    async def take(self) -> KeyT:
        """The next key to be worked on; `done` must follow."""
        while not self._ready:
            self._something.clear()
            await self._something.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        self._due.pop(key, None)
        return key

    def done(self, key: KeyT) -> None:
        """A key was worked on."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    async def run(self) -> None:
        """Moves keys whose time has come, for ever."""
        while True:
            seconds = self._move_due()
            self._sooner.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._sooner.wait()
            except TimeoutError:
                continue

    def _move_due(self) -> float:
        """Moves what is due; returns the seconds until the next look."""
        now = self._clock.now()
        while self._heap and (self._heap[0][0] <= now or self._due.get(self._heap[0][2]) != self._heap[0][0]):
            moment, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == moment:
                del self._due[key]
                self.add(key)
        if not self._heap:
            return self._look_seconds
        return min(max((self._heap[0][0] - now).total_seconds(), 0.05), self._look_seconds)
