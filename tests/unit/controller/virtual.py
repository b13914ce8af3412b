"""An event loop whose time jumps to the next thing to happen: hours pass in milliseconds, and always in the same way."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from typing_extensions import override

T = TypeVar("T")

START = datetime(2027, 1, 1, 12, tzinfo=UTC)


class _Selector(selectors.SelectSelector):
    """Lets the time pass instead of waiting."""

    now = 0.0

    @override
    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("everything waits, and nothing is left that could happen")
        self.now += max(timeout, 0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    @override
    def time(self) -> float:
        return self._virtual.now


def run(story: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


def seconds() -> float:
    """Virtual seconds since the start: a monotonic clock."""
    return asyncio.get_running_loop().time()


class VirtualClock:
    """A wall clock that goes with the loop, and that can be set."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self) -> datetime:
        """UTC; with fractions, since a test's times are short."""
        return START + timedelta(seconds=seconds()) + self.offset

    def step(self, **length: float) -> None:
        """Sets the clock forward, or back."""
        self.offset += timedelta(**length)
