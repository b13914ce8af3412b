"""Workers: take a key, reconcile it, and put it back for when it is due."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from machinebot.clock import Clock
from machinebot.controller.queue import WorkQueue
from machinebot.errors import MachinebotError, Unavailable
from machinebot.metrics import Metrics
from machinebot.policy import backoff
from machinebot.reconcile.keys import Key, Sort

log = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[datetime | None]]
"""Reconciles one object; returns when it is to be looked at again, or None."""

CRASH: Final = "Crashed"
"""Reason in metrics for an error that nobody expected: a fault of ours. It harms its own object only."""


class Workers:
    """A bounded number of workers over one queue."""

    def __init__(self, queue: WorkQueue[Key], reconcilers: Mapping[Sort, Reconcile], metrics: Metrics, clock: Clock) -> None:
        self._queue = queue
        self._reconcilers = reconcilers
        self._metrics = metrics
        self._clock = clock
        self._failures: dict[Key, int] = {}

    async def run(self) -> None:
        """One worker, for ever."""
        while True:
            key = await self._queue.take()
            self._metrics.queue_depth.set(len(self._queue))
            try:
                await self._work(key)
            finally:
                self._queue.done(key)

    async def _work(self, key: Key) -> None:
        begun = time.monotonic()
        try:
            again = await self._reconcilers[key.sort](key)
        except asyncio.CancelledError:
            raise
        except MachinebotError as error:
            again = self._failed(key, error.reason, error.retry_after if isinstance(error, Unavailable) else None)
            log.warning("not reconciled", extra={"key": str(key), "reason": error.reason, "detail": error.message})
        except Exception:
            again = self._failed(key, CRASH, None)
            log.exception("reconcile crashed", extra={"key": str(key)})
        else:
            self._failures.pop(key, None)
        self._metrics.reconcile_seconds.labels(key.sort).observe(time.monotonic() - begun)
        if again is not None:
            self._queue.add_at(key, max(again, self._clock.now() + timedelta(seconds=1)))

    def _failed(self, key: Key, reason: str, asked: float | None) -> datetime:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._metrics.reconcile_errors.labels(key.sort, reason).inc()
        return backoff.retry_at(failures, str(key), self._clock.now(), asked=asked)
