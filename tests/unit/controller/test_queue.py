"""The work queue: each key once, at its time, none lost, whatever the clock does."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from machinebot.controller import queue as queue_module
from machinebot.controller.queue import LOOK_SECONDS, WorkQueue
from unit.controller.virtual import START, VirtualClock, run, seconds


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time


def story(tell: Callable[[WorkQueue[str], VirtualClock], Coroutine[Any, Any, None]]) -> None:
    """Tells a story with a queue that runs, in virtual time."""

    async def all_of_it() -> None:
        clock = VirtualClock()
        queue: WorkQueue[str] = WorkQueue(clock)
        mover = asyncio.create_task(queue.run())
        try:
            await tell(queue, clock)
        finally:
            mover.cancel()
            await asyncio.gather(mover, return_exceptions=True)

    run(all_of_it())


@contextmanager
def nothing_comes(queue: WorkQueue[str]) -> Iterator[None]:
    yield
    assert len(queue) == 0


# --- now ----------------------------------------------------------------------------------------------------------


def test_a_key_is_worked_on_once_however_often_it_is_added() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        for _ in range(5):
            queue.add("a")
        assert len(queue) == 1
        assert await queue.take() == "a"
        queue.done("a")
        assert len(queue) == 0

    story(tell)


def test_keys_come_in_the_order_that_they_were_added_in() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        names = [f"key-{number}" for number in range(1000)]
        for name in names:
            queue.add(name)
        queue.add(names[0])
        assert len(queue) == 1000
        assert [await queue.take() for _ in names] == names

    story(tell)


def test_a_key_that_is_being_worked_on_is_worked_on_once_more() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add("a")
        await queue.take()
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0, "two workers must not have one key"
        queue.done("a")
        assert len(queue) == 1
        assert await queue.take() == "a"
        queue.done("a")
        assert len(queue) == 0

    story(tell)


def test_other_keys_go_on_while_one_is_being_worked_on() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add("a")
        await queue.take()
        queue.add("a")
        queue.add("b")
        assert await queue.take() == "b"

    story(tell)


def test_workers_that_wait_get_one_key_each() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        workers = [asyncio.create_task(queue.take()) for _ in range(3)]
        await asyncio.sleep(1)
        for name in "abc":
            queue.add(name)
        assert sorted(await asyncio.gather(*workers)) == ["a", "b", "c"]

    story(tell)


def test_a_worker_that_was_stopped_while_it_waited_takes_nothing_along() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        stopped, other = asyncio.create_task(queue.take()), asyncio.create_task(queue.take())
        await asyncio.sleep(1)
        queue.add("a")
        stopped.cancel()
        assert await other == "a"

    story(tell)


def test_done_with_a_key_that_nobody_has_is_nothing() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.done("a")
        assert len(queue) == 0

    story(tell)


# --- later --------------------------------------------------------------------------------------------------------


def test_a_key_comes_at_its_time() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add_after("a", 3600)
        assert (len(queue), queue.delayed) == (0, 1)
        await queue.take()
        assert 3600 <= seconds() < 3600.1
        assert queue.delayed == 0

    story(tell)


@pytest.mark.parametrize("delay", [0.0, -1.0], ids=["at once", "before now"])
def test_without_a_delay_it_comes_at_once(delay: float) -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add_after("a", delay)
        assert len(queue) == 1

    story(tell)


def test_a_time_that_is_past_comes_soon() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        await asyncio.sleep(1)
        queue.add_at("a", START - timedelta(days=1))
        await queue.take()
        assert seconds() < 1.1

    story(tell)


@pytest.mark.parametrize("delays", [(10.0, 20.0), (20.0, 10.0), (10.0, 10.0), (30.0, 10.0, 20.0)], ids=str)
def test_of_several_times_the_earliest_holds(delays: tuple[float, ...]) -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        for delay in delays:
            queue.add_after("a", delay)
        assert queue.delayed == 1
        await queue.take()
        assert 10 <= seconds() < 10.1
        queue.done("a")
        with nothing_comes(queue):
            await asyncio.sleep(100)

    story(tell)


def test_a_sooner_key_overtakes_one_that_was_waited_for() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add_after("late", 3)
        await asyncio.sleep(0.5)
        queue.add_after("soon", 1)
        assert await queue.take() == "soon"
        assert 1.5 <= seconds() < 1.6
        assert await queue.take() == "late"

    story(tell)


def test_what_is_worked_on_now_need_not_come_at_its_time() -> None:
    """Whoever works on it says anew when it is due."""

    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add_after("a", 10)
        queue.add("a")
        await queue.take()
        queue.done("a")
        assert queue.delayed == 0
        with nothing_comes(queue):
            await asyncio.sleep(100)

    story(tell)


def test_a_time_told_during_the_work_stays() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add("a")
        await queue.take()
        queue.add_after("a", 10)
        queue.done("a")
        await queue.take()
        assert 10 <= seconds() < 10.1

    story(tell)


def test_a_time_that_comes_during_the_work_brings_the_key_back() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add("a")
        await queue.take()
        queue.add_after("a", 1)
        await asyncio.sleep(10)
        assert len(queue) == 0
        queue.done("a")
        assert len(queue) == 1

    story(tell)


def test_forget_drops_the_time_and_nothing_else() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add_after("a", 1)
        queue.add_after("b", 2)
        queue.forget("a")
        queue.forget("never seen")
        assert queue.delayed == 1
        assert await queue.take() == "b"
        queue.add("a")
        queue.forget("a")
        assert await queue.take() == "a"

    story(tell)


def test_a_time_after_a_forgotten_one_holds() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        queue.add_after("a", 1)
        queue.forget("a")
        queue.add_after("a", 5)
        await queue.take()
        assert 5 <= seconds() < 5.1

    story(tell)


def test_many_keys_come_in_the_order_of_their_times() -> None:
    async def tell(queue: WorkQueue[str], _clock: VirtualClock) -> None:
        names = {f"key-{number}": (number * 7919) % 2000 + 1 for number in range(2000)}
        for name, delay in names.items():
            queue.add_after(name, delay)
        taken = [(await queue.take(), seconds()) for _ in names]
        assert [name for name, _ in taken] == sorted(names, key=lambda name: names[name])
        assert all(names[name] <= moment <= names[name] + 0.1 for name, moment in taken)

    story(tell)


def test_hours_of_sweeps_leave_nothing_behind() -> None:
    """Every sweep has each key worked on, whose renewal is many hours away: 300 sweeps of 100 keys."""

    async def tell(queue: WorkQueue[str], clock: VirtualClock) -> None:
        names = [f"key-{number}" for number in range(100)]
        renewals = {name: clock.now() + timedelta(hours=12, seconds=number) for number, name in enumerate(names)}
        for _ in range(300):
            for name in names:
                queue.add(name)
            for _ in names:
                name = await queue.take()
                queue.done(name)
                queue.add_at(name, renewals[name])
            assert queue.delayed == 100
            assert len(queue._heap) < 400
        await asyncio.sleep(13 * 3600)
        assert len(queue) == 100
        assert [await queue.take() for _ in names] == names
        assert not queue._heap

    story(tell)


# --- a clock that is set -------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_forward_is_noticed_at_the_next_look() -> None:
    async def tell(queue: WorkQueue[str], clock: VirtualClock) -> None:
        queue.add_after("a", 3600)
        await asyncio.sleep(7)
        clock.step(hours=2)
        await queue.take()
        assert seconds() <= 7 + LOOK_SECONDS

    story(tell)


def test_a_clock_that_is_set_back_makes_a_key_wait_for_its_hour() -> None:
    async def tell(queue: WorkQueue[str], clock: VirtualClock) -> None:
        queue.add_after("a", 60)
        await asyncio.sleep(1)
        clock.step(hours=-1)
        await queue.take()
        assert 3660 <= seconds() <= 3660.1

    story(tell)


def test_a_clock_that_is_set_back_does_not_hold_new_keys_up() -> None:
    async def tell(queue: WorkQueue[str], clock: VirtualClock) -> None:
        queue.add_after("old", 60)
        clock.step(days=-1)
        queue.add_after("new", 60)
        queue.add("now")
        assert await queue.take() == "now"
        assert await queue.take() == "new"
        assert 60 <= seconds() <= 60.1

    story(tell)


# --- whatever happens ----------------------------------------------------------------------------------------------

KEYS = st.sampled_from("abcd")


class NothingIsLost(RuleBasedStateMachine):
    """Against a plain model: what wants work, what is being worked on, and when what is due."""

    def __init__(self) -> None:
        super().__init__()
        self.slack = mock.patch.object(queue_module, "_SLACK", 2)  # so that the heap is made anew again and again
        self.slack.start()
        self.clock = SetClock()
        self.queue: WorkQueue[str] = WorkQueue(self.clock)
        self.ready: list[str] = []
        self.working: set[str] = set()
        self.again: set[str] = set()
        self.due: dict[str, datetime] = {}

    @override
    def teardown(self) -> None:
        self.slack.stop()

    def wants_work(self, key: str) -> None:
        if key in self.working:
            self.again.add(key)
        elif key not in self.ready:
            self.ready.append(key)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.wants_work(key)

    @rule(key=KEYS, delay=st.integers(-5, 50))
    def add_at(self, key: str, delay: int) -> None:
        moment = self.clock.time + timedelta(seconds=delay)
        self.queue.add_at(key, moment)
        self.due[key] = min(moment, self.due.get(key, moment))

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.due.pop(key, None)

    @rule(length=st.integers(-30, 60))
    def clock_goes_on_or_is_set(self, length: int) -> None:
        self.clock.time += timedelta(seconds=length)

    @rule()
    def look(self) -> None:
        self.queue._move_due()
        for key in sorted(self.due, key=lambda key: self.due[key]):
            if self.due[key] <= self.clock.time:
                del self.due[key]
                self.wants_work(key)

    @precondition(lambda self: self.ready)
    @rule()
    def take(self) -> None:
        taking = self.queue.take()
        with pytest.raises(StopIteration) as taken:  # a key is there, so that nothing is waited for
            taking.send(None)
        key = taken.value.value
        assert key in self.ready
        assert key not in self.working
        self.ready.remove(key)
        self.working.add(key)
        self.due.pop(key, None)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.discard(key)
        if key in self.again:
            self.again.discard(key)
            self.wants_work(key)

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) == len(self.ready)
        assert self.queue.delayed == len(self.due)
        assert self.queue._waiting == set(self.ready)
        assert {key for _, _, key in self.queue._heap} >= set(self.due)


NothingIsLost.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNothingIsLost = NothingIsLost.TestCase
