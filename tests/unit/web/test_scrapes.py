"""The text of the metrics: one at a time, for all who ask meanwhile, never older than the question, and not all of the time."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from machinebot.web import scrapes
from machinebot.web.scrapes import Scrapes
from support.waiting import eventually_async
from unit.web.broken import Broken


@dataclass(eq=False)
class Slow(Collector):
    """Counts how often it is asked, and answers, when it may, with the value that it had when it was asked."""

    may: threading.Event = field(default_factory=threading.Event)
    begun: int = 0
    at_once: int = 0
    most_at_once: int = 0
    value: int = 0

    @override
    def describe(self) -> Iterator[Metric]:
        return iter(())

    @override
    def collect(self) -> Iterator[Metric]:
        self.begun += 1
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        value = self.value
        assert self.may.wait(20)
        self.at_once -= 1
        yield GaugeMetricFamily("seen", "What was true when it was begun.", value=value)

    async def has_begun(self, times: int) -> bool:
        return self.begun == times


@dataclass
class Made:
    scrapes: Scrapes
    slow: Slow
    registry: CollectorRegistry


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    registry, slow = CollectorRegistry(), Slow()
    registry.register(slow)
    texts = Scrapes(registry)
    yield Made(texts, slow, registry)
    slow.may.set()
    await texts.close()


def value(text: bytes) -> float:
    return float(text.splitlines()[-1].split()[1])


async def test_many_who_ask_meanwhile_have_one_made_for_all_of_them(made: Made) -> None:
    first = asyncio.create_task(made.scrapes.get())
    await eventually_async("it is being made", lambda: made.slow.has_begun(1))
    others = [asyncio.create_task(made.scrapes.get()) for _ in range(24)]
    made.slow.may.set()
    texts = await asyncio.gather(first, *others)
    assert (made.slow.begun, made.slow.most_at_once) == (2, 1)
    assert len({id(text) for text in texts}) == 2


async def test_nobody_gets_one_that_was_begun_before_they_asked(made: Made) -> None:
    first = asyncio.create_task(made.scrapes.get())
    await eventually_async("it is being made", lambda: made.slow.has_begun(1))
    made.slow.value = 1
    second = asyncio.create_task(made.scrapes.get())
    made.slow.may.set()
    assert (value(await first), value(await second)) == (0, 1)
    made.slow.value = 2
    assert value(await made.scrapes.get()) == 2


async def test_after_one_there_is_a_rest_in_times_of_what_it_took(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrapes, "REST_SECONDS", 1.0)
    monkeypatch.setattr(scrapes, "REST", 1e6)
    first = asyncio.create_task(made.scrapes.get())
    await eventually_async("it is being made", lambda: made.slow.has_begun(1))
    # A clock of milliseconds must see that it took some time.
    await asyncio.sleep(0.01)
    made.slow.may.set()
    await first
    ended = time.monotonic()
    texts = await asyncio.gather(*(made.scrapes.get() for _ in range(5)))
    assert time.monotonic() - ended >= 0.9
    assert made.slow.begun == 2
    assert len({id(text) for text in texts}) == 1


async def test_those_that_cost_nothing_are_not_held_up(made: Made) -> None:
    made.slow.may.set()
    begun = time.monotonic()
    for _ in range(100):
        await made.scrapes.get()
    assert time.monotonic() - begun < 10 * scrapes.REST_SECONDS
    assert made.slow.begun == 100


async def test_the_threads_of_others_stay_free(made: Made) -> None:
    asking = [asyncio.create_task(made.scrapes.get()) for _ in range(50)]
    await eventually_async("it is being made", lambda: made.slow.has_begun(1))
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(int) == 0
    made.slow.may.set()
    await asyncio.gather(*asking)


async def test_who_goes_away_takes_it_from_nobody(made: Made) -> None:
    asking = [asyncio.create_task(made.scrapes.get()) for _ in range(3)]
    await eventually_async("it is being made", lambda: made.slow.has_begun(1))
    asking[0].cancel()
    made.slow.may.set()
    gone, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(gone, asyncio.CancelledError)
    assert others[0] is others[1]


async def test_one_that_fails_is_told_to_those_who_asked_for_it_alone(made: Made) -> None:
    broken = Broken()
    made.registry.register(broken)
    made.slow.may.set()
    with pytest.raises(RuntimeError, match="broken"):
        await made.scrapes.get()
    made.registry.unregister(broken)
    assert value(await made.scrapes.get()) == 0


async def test_one_that_was_called_off_by_somebody_else_is_no_end_of_it(made: Made) -> None:
    """As kopf does at its end with all that began after it."""
    asking = asyncio.create_task(made.scrapes.get())
    await eventually_async("it is being made", lambda: made.slow.has_begun(1))
    waiting = asyncio.create_task(made.scrapes.get())
    await asyncio.sleep(0)
    for task in list(made.scrapes._open):
        task.cancel()
    assert all(isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(asking, waiting, return_exceptions=True))
    made.slow.may.set()
    assert value(await made.scrapes.get()) == 0


async def test_the_thread_ends_with_it(made: Made) -> None:
    made.slow.may.set()
    await made.scrapes.get()
    await made.scrapes.close()

    async def gone() -> bool:
        return not any(thread.is_alive() for thread in made.scrapes._thread._threads)

    await eventually_async("the thread has ended", gone)
