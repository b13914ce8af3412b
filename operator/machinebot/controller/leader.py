"""Leader election by a Lease, as client-go does it: times are taken on our own monotonic clock, never across machines."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from machinebot.errors import LeadershipLost, MachinebotError
from machinebot.kube.leases import LeaseRecord, Leases
from machinebot.metrics import Metrics

log = logging.getLogger(__name__)


class Leader:
    """Holds, or waits for, the Lease.

    Args:
        leases: The Lease.
        metrics: For `machinebot_leader`.
        identity: Our name in it.
        duration: Seconds after which a silent leader is replaced.
        renew_deadline: Seconds for which we go on without having renewed. Below `duration`.
        retry: Seconds between two attempts.
        monotonic: Seconds that never step; tests put their own in.
    """

    def __init__(
        self,
        leases: Leases,
        metrics: Metrics,
        *,
        identity: str,
        duration: float,
        renew_deadline: float,
        retry: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._metrics = metrics
        self._identity = identity
        self._duration = duration
        self._renew_deadline = renew_deadline
        self._retry = retry
        self._monotonic = monotonic
        self._record: LeaseRecord | None = None
        self._observed: tuple[str, str] | None = None
        self._observed_at = 0.0
        self._renewed_at: float | None = None
        metrics.leader.set(0)

    @property
    def leads(self) -> bool:
        """Whether we hold the Lease for sure: renewed within the deadline."""
        return self._renewed_at is not None and self._monotonic() - self._renewed_at < self._renew_deadline

    def check(self) -> None:
        """Stands before every write.

        Raises:
            LeadershipLost: We do not hold the Lease for sure.
        """
        if not self.leads:
            raise LeadershipLost("LeadershipLost", "the Lease was not renewed in time: another replica may lead")

    async def acquire(self) -> None:
        """Waits until we hold the Lease."""
        log.info("waiting for the lease", extra={"identity": self._identity})
        while not await self._attempt():  # noqa: ASYNC110 - each round asks the API server
            await asyncio.sleep(self._retry)
        self._metrics.leader.set(1)
        log.info("leading", extra={"identity": self._identity})

    async def hold(self) -> None:
        """Renews the Lease until that has failed for too long.

        Raises:
            LeadershipLost: It has.
        """
        while self.leads:
            await asyncio.sleep(self._retry)
            if self.leads:
                await self._attempt()
        self._metrics.leader.set(0)
        self._renewed_at = None
        raise LeadershipLost("LeadershipLost", "the Lease could not be renewed: stopping, so that another replica can lead")

    async def release(self) -> None:
        """Gives the Lease up, so that another replica need not wait for its end."""
        held, self._renewed_at = self._renewed_at is not None, None
        self._metrics.leader.set(0)
        if not held:
            return
        try:
            async with asyncio.timeout(self._retry):
                # Read anew: a renewal whose answer we did not see may have come through.
                record = await self._leases.read()
                if record is not None and record.holder == self._identity:
                    await self._leases.write(record, holder="", now=_now(), seconds=1)
        except (MachinebotError, TimeoutError):
            log.info("the lease could not be given up; it ends by itself")

    async def _attempt(self) -> bool:
        """Tries once to take or renew the Lease; returns whether we hold it."""
        begun = self._monotonic()
        try:
            async with asyncio.timeout(self._renew_deadline):
                record = self._record if self.leads else await self._leases.read()
                if record is not None and not self._is_free(record):
                    return False
                return await self._claim(record, begun) or await self._reread(begun)
        except (MachinebotError, TimeoutError) as error:
            log.warning("lease not renewed", extra={"detail": str(error) or type(error).__name__})
            return False

    async def _claim(self, record: LeaseRecord | None, begun: float) -> bool:
        """Writes our name onto the record as it was read; returns whether nobody was quicker."""
        self._record = await self._leases.write(record, holder=self._identity, now=_now(), seconds=max(1, round(self._duration)))
        if self._record is not None:
            self._renewed_at = begun
        return self._record is not None

    async def _reread(self, begun: float) -> bool:
        """Somebody was quicker, or our own last write came through after all: what stands there now decides."""
        record = await self._leases.read()
        if record is None or record.holder != self._identity:
            if record is not None:
                self._is_free(record)
            self._renewed_at = None
            return False
        return await self._claim(record, begun)

    def _is_free(self, record: LeaseRecord) -> bool:
        """Whether we may take it: ours, given up, or not renewed for its whole duration while we were looking."""
        seen = (record.holder, record.renewed)
        if seen != self._observed:
            self._observed, self._observed_at = seen, self._monotonic()
        if record.holder in ("", self._identity):
            return True
        # Its holder may have been started with a longer duration than we were: as in client-go, what it wrote holds.
        return self._monotonic() - self._observed_at >= max(self._duration, record.seconds)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
