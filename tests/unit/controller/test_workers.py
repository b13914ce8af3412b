"""Workers: what fails comes back later and harms nothing else."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from machinebot.controller.queue import WorkQueue
from machinebot.controller.workers import CRASH, Workers
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, Unavailable
from machinebot.metrics import Metrics
from machinebot.reconcile.keys import Key, Sort
from unit.controller.virtual import START, VirtualClock, run, seconds

KEY = Key(Sort.OUTPUT, "ci", "deployer")
OTHER = Key(Sort.OUTPUT, "ci", "other")
Answer = Callable[[Key], Awaitable[datetime | None]]


class Office:
    """A queue and workers, and what they did: which key at which second."""

    def __init__(self, answer: Answer) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics(CollectorRegistry())
        self.queue: WorkQueue[Key] = WorkQueue(self.clock)
        self.done: list[tuple[Key, float]] = []
        self._answer = answer
        self.workers = Workers(self.queue, dict.fromkeys(Sort, self._reconcile), self.metrics, self.clock)

    async def _reconcile(self, key: Key) -> datetime | None:
        self.done.append((key, seconds()))
        return await self._answer(key)

    def count(self, reason: str, kind: str = "MachineOutput") -> float:
        labels = {"kind": kind, "reason": reason}
        return self.metrics.registry.get_sample_value("machinebot_reconcile_errors_total", labels) or 0.0

    def times(self, key: Key = KEY) -> list[float]:
        return [moment for done, moment in self.done if done == key]


def office(answer: Answer, tell: Callable[[Office], Coroutine[Any, Any, None]], *, workers: int = 1) -> None:
    async def story() -> None:
        place = Office(answer)
        tasks = [asyncio.create_task(place.queue.run())]
        tasks += [asyncio.create_task(place.workers.run()) for _ in range(workers)]
        try:
            await tell(place)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    run(story())


async def fine(_key: Key) -> None:
    return None


def raising(error: BaseException) -> Answer:
    async def answer(_key: Key) -> None:
        raise error

    return answer


def test_what_is_well_is_left_alone() -> None:
    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        await asyncio.sleep(10_000)
        assert place.times() == [0]
        assert place.queue.delayed == 0
        assert place.metrics.registry.get_sample_value("machinebot_reconcile_seconds_count", {"kind": "MachineOutput"}) == 1

    office(fine, tell)


def test_what_has_an_hour_comes_at_it() -> None:
    async def answer(_key: Key) -> datetime | None:
        return START + timedelta(hours=1) if seconds() < 3600 else None

    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        await asyncio.sleep(10_000)
        assert [round(moment) for moment in place.times()] == [0, 3600]

    office(answer, tell)


def test_an_hour_that_is_past_is_no_hot_loop() -> None:
    async def answer(_key: Key) -> datetime:
        return START - timedelta(days=1)

    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        await asyncio.sleep(60)
        assert 40 <= len(place.times()) <= 61

    office(answer, tell)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(Unavailable("ApiServerAway", "away"), "ApiServerAway", id="away"),
        pytest.param(Conflict("Conflict", "changed"), "Conflict", id="conflict"),
        pytest.param(Denied("Forbidden", "no"), "Forbidden", id="denied"),
        pytest.param(Invalid("InvalidSpec", "no"), "InvalidSpec", id="invalid"),
        pytest.param(MachinebotError("Odd", "odd"), "Odd", id="any of ours"),
        pytest.param(KeyError("secret-value"), CRASH, id="a fault"),
        pytest.param(RecursionError(), CRASH, id="a deep fault"),
    ],
)
def test_what_fails_comes_back_ever_later(error: Exception, reason: str) -> None:
    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        await asyncio.sleep(3600)
        pauses = [late - early for early, late in zip(place.times(), place.times()[1:], strict=False)]
        assert 2 <= pauses[0] <= 4
        assert pauses[:8] == sorted(pauses[:8])
        assert 600 <= pauses[-1] <= 600 * 1.2 + 2
        assert place.count(reason) == len(place.times())

    office(raising(error), tell)


def test_what_the_other_side_asked_for_is_waited() -> None:
    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        await asyncio.sleep(100)
        assert [round(moment) for moment in place.times()] in ([0, 60], [0, 61])

    office(raising(Unavailable("ApiServerAway", "busy", retry_after=60)), tell)


def test_a_success_forgets_the_failures_before() -> None:
    answers = iter([Unavailable("Away", "")] * 6 + [None] + [Unavailable("Away", "")] * 6)

    async def answer(_key: Key) -> None:
        error = next(answers, None)
        if error is not None:
            raise error

    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        await asyncio.sleep(1000)
        assert len(place.times()) == 7
        place.queue.add(KEY)
        begun = seconds()
        await asyncio.sleep(5)
        assert 2 <= place.times()[8] - begun <= 4

    office(answer, tell)


def test_a_change_does_not_wait_for_the_end_of_a_pause() -> None:
    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        await asyncio.sleep(1)
        place.queue.add(KEY)
        await asyncio.sleep(0.5)
        assert place.times() == [0, 1]

    office(raising(Unavailable("Away", "")), tell)


def test_a_fault_harms_its_own_object_only(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(key: Key) -> None:
        if key == KEY:
            raise ZeroDivisionError

    async def tell(place: Office) -> None:
        for _ in range(50):
            place.queue.add(KEY)
            place.queue.add(OTHER)
            await asyncio.sleep(1)
        assert len(place.times(OTHER)) == 50

    with caplog.at_level(logging.WARNING, "machinebot"):
        office(answer, tell)
    assert {record.getMessage() for record in caplog.records} == {"reconcile crashed"}
    assert vars(caplog.records[0])["key"] == "MachineOutput/ci/deployer"
    assert caplog.records[0].exc_info is not None


def test_one_that_hangs_does_not_hold_up_the_other_workers() -> None:
    async def answer(key: Key) -> None:
        if key == KEY:
            await asyncio.sleep(3600)

    async def tell(place: Office) -> None:
        place.queue.add(KEY)
        place.queue.add(OTHER)
        place.queue.add(KEY)
        await asyncio.sleep(1)
        place.queue.add(KEY)
        assert place.times(OTHER) == [0]
        await asyncio.sleep(3599.5)
        assert place.times() == [0, 3600], "added while it was worked on: once more, and not beside itself"

    office(answer, tell, workers=2)


def test_a_worker_that_is_stopped_stops() -> None:
    """`CancelledError` is no failure of the object, and the key is free for the next term."""

    async def story() -> None:
        async def answer(_key: Key) -> None:
            await asyncio.sleep(3600)

        place = Office(answer)
        place.queue.add(KEY)
        worker = asyncio.create_task(place.workers.run())
        await asyncio.sleep(1)
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        place.queue.add(KEY)
        assert len(place.queue) == 1
        assert place.count(CRASH) == 0

    run(story())


@pytest.mark.parametrize("sort", Sort, ids=str)
def test_each_sort_has_its_own_reconciler(sort: Sort) -> None:
    async def story() -> None:
        seen: list[tuple[Sort, Key]] = []

        def of(kind: Sort) -> Answer:
            async def answer(key: Key) -> None:
                seen.append((kind, key))

            return answer

        clock = VirtualClock()
        queue: WorkQueue[Key] = WorkQueue(clock)
        workers = Workers(queue, {kind: of(kind) for kind in Sort}, Metrics(CollectorRegistry()), clock)
        task = asyncio.create_task(workers.run())
        key = Key(sort, "", "x")
        queue.add(key)
        await asyncio.sleep(1)
        assert seen == [(sort, key)]
        task.cancel()

    run(story())
