"""The text of the metrics: one at a time, made for all who ask meanwhile, in a thread of its own, and not all of the time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

REST: Final = 3.0
"""How long none is made after one, in times of what that one took: however many ask, most of the time goes into other work."""

REST_SECONDS: Final = 2.0
"""Longest such rest. One of 10,000 outputs takes 0.75 seconds, and who comes at the worst moment has it after one more and the
rest: 3.5 seconds, of the 10 after which Prometheus gives up."""


class Scrapes:
    """Makes texts. Nobody gets one that was begun before they asked.

    Args:
        registry: Where the metrics are.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        # Not the threads that everybody shares: whoever scrapes keeps no CA from being made.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None
        self._rested = 0.0
        self._open: set[asyncio.Task[bytes]] = set()

    async def get(self) -> bytes:
        """The text of the metrics, in Prometheus's format."""
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._make(), name="metrics")
            self._open.add(self._next)
            self._next.add_done_callback(self._open.discard)
        # Who goes away takes it from nobody.
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """Makes no more."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _make(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested - loop.time()))
            # From here on one that is asked for is another.
            self._next = None
            begun = loop.time()
            try:
                return await loop.run_in_executor(self._thread, generate_latest, self._registry)
            finally:
                now = loop.time()
                self._rested = now + min(REST * (now - begun), REST_SECONDS)
