"""Waiting for conditions, with a deadline. Tests never sleep for luck: they say what they wait for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds; far above what anything takes on two busy cores."""


class NotInTimeError(AssertionError):
    """A condition did not come true; says what was seen last."""


def eventually(what: str, look: Callable[[], T], *, seconds: float = DEADLINE, interval: float = 0.1) -> T:
    """Looks until the answer is true, and returns it.

    Raises:
        NotInTimeError: It was not true in time.
    """
    deadline = time.monotonic() + seconds
    seen: object = None
    while time.monotonic() < deadline:
        try:
            seen = look()
            if seen:
                return seen  # type: ignore[return-value]
        except (OSError, AssertionError, LookupError) as error:
            seen = error
        time.sleep(interval)
    raise NotInTimeError(f"{what}: not within {seconds:.0f} s; last seen: {seen!r}")


async def eventually_async(
    what: str, look: Callable[[], Awaitable[T]], *, seconds: float = DEADLINE, interval: float = 0.05
) -> T:
    """The same for a coroutine function."""
    deadline = time.monotonic() + seconds
    seen: object = None
    while time.monotonic() < deadline:
        try:
            seen = await look()
            if seen:
                return seen  # type: ignore[return-value]
        except (OSError, AssertionError, LookupError) as error:
            seen = error
        await asyncio.sleep(interval)
    raise NotInTimeError(f"{what}: not within {seconds:.0f} s; last seen: {seen!r}")
