"""Who is served: a share for each source, turns for those that wait, and room for others where one is late."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from machinebot.web.places import Bounds, Guest, Places

BOUNDS = Bounds(served=4, each=2, waiting=6, patience=3.0, wait=10.0, stay=20.0)


@dataclass(eq=False)
class Named(Guest):
    """A guest that a test tells from others."""

    name: str = ""
    works: bool = False

    @property
    @override
    def busy(self) -> bool:
        return self.works


class House:
    """Places, and what became of whoever came: guests are named by their source and a number, as `a1`."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.places = Places[Named](bounds)
        self.guests: dict[str, Named] = {}

    def come(self, *names: str, now: float = 0.0) -> list[str]:
        """They come, one after the other; returns who was sent away for them."""
        gone = []
        for name in names:
            self.guests[name] = Named(name[0], now, name)
            if (left := self.places.come(self.guests[name])) is not None:
                gone.append(left.name)
        return gone

    def call(self, now: float = 0.0) -> list[str]:
        """Everybody that there is a place for."""
        called = []
        while (guest := self.places.call(now)) is not None:
            called.append(guest.name)
        return called

    def make_room(self, now: float) -> str | None:
        gone = self.places.make_room(now)
        return None if gone is None else gone.name

    def leave(self, name: str) -> None:
        self.places.leave(self.guests[name])


def test_whoever_comes_is_served_while_there_are_places() -> None:
    house = House()
    assert house.come("a1", "b1", "c1", "d1") == []
    assert house.call() == ["a1", "b1", "c1", "d1"]


def test_one_source_has_no_more_than_its_share_and_others_are_served_meanwhile() -> None:
    house = House()
    house.come("a1", "a2", "a3", "a4", "a5")
    assert house.call() == ["a1", "a2"]
    house.come("b1")
    assert house.call() == ["b1"]
    house.leave("a1")
    assert house.call() == ["a3"]


def test_a_place_goes_to_whose_source_holds_the_fewest_and_then_to_who_came_first() -> None:
    house = House()
    house.come("a1", "a2", "b1", "c1")
    house.call()
    for now, name in enumerate(("b2", "c2", "e1", "d1")):
        house.come(name, now=float(now))
    assert house.call() == []
    for left in ("a1", "a2"):
        house.leave(left)
    assert house.call() == ["e1", "d1"]
    house.leave("d1")
    assert house.call() == ["b2"]


def test_beyond_the_room_the_last_of_the_largest_crowd_goes() -> None:
    house = House()
    assert house.come("a1", "a2", "a3", "b1", "b2", "c1") == []
    assert house.come("d1") == ["a3"], "the newcomer has more right to wait than the third of another"
    assert house.come("a4") == ["a4"]
    assert house.come("c2") == ["c2"], "and none, where it makes its own as large as the largest"


def test_one_source_that_comes_without_end_leaves_room_for_others() -> None:
    house = House()
    house.come("a1", "a2")
    house.call()
    gone = house.come(*(f"a{number}" for number in range(3, 100)))
    assert gone == [f"a{number}" for number in range(9, 100)]
    assert house.come("b1") == ["a8"]
    assert house.call() == ["b1"]


def full() -> House:
    """All places are taken: two by `a` at 0 and 1 s, two by `b` at 2 s."""
    house = House()
    for now, names in enumerate((["a1"], ["a2"], ["b1", "b2"])):
        house.come(*names, now=float(now))
        house.call(float(now))
    return house


def test_nobody_makes_room_where_nobody_waits() -> None:
    assert full().make_room(100.0) is None


def test_the_oldest_of_the_largest_makes_room_once_it_is_late() -> None:
    house = full()
    house.come("c1", now=2.0)
    assert house.make_room(2.9) is None
    assert house.make_room(3.0) == "a1"
    assert house.call(3.0) == ["c1"]
    house.come("c2", now=4.0)
    assert house.make_room(4.0) is None, "a has no more than c now, and b is not late"
    assert house.make_room(5.0) == "b1"


def test_who_holds_as_much_as_the_largest_gets_nothing_of_others() -> None:
    house = House(Bounds(served=2, each=2, waiting=6, patience=3.0, wait=10.0, stay=20.0))
    house.come("a1", "b1")
    house.call()
    house.come("a2")
    assert house.make_room(100.0) is None


def test_of_a_source_with_all_of_its_share_the_oldest_makes_room_for_its_own() -> None:
    house = House()
    house.come("a1", "b1", "a2", "a3")
    assert house.call() == ["a1", "b1", "a2"]
    assert house.make_room(2.9) is None
    assert house.make_room(3.0) == "a1"
    assert house.call(3.0) == ["a3"]


def test_whoever_waits_for_us_keeps_its_place() -> None:
    house = full()
    house.come("c1", now=2.0)
    for name in ("a1", "b1"):
        house.guests[name].works = True
    assert house.make_room(100.0) == "a2"
    house.come("c2", now=100.0)
    house.guests["b2"].works = True
    assert house.make_room(100.0) is None


def test_whoever_has_lost_its_place_may_leave_after_that() -> None:
    house = full()
    house.come("c1", now=2.0)
    assert house.make_room(3.0) == "a1"
    assert house.call(3.0) == ["c1"]
    house.leave("a1")
    house.come("d1", now=3.0)
    assert house.call(3.0) == [], "one place is given back once"


def test_whoever_has_waited_for_too_long_goes() -> None:
    house = full()
    house.come("a3", now=5.0)
    house.come("a4", now=6.0)
    assert house.places.tired(14.9) == []
    assert [guest.name for guest in house.places.tired(15.0)] == ["a3"]
    assert [guest.name for guest in house.places.tired(float("inf"))] == ["a4"]
    house.leave("a1")
    assert house.call(16.0) == []


def test_the_time_of_a_place_begins_with_the_place() -> None:
    house = full()
    house.come("c1", now=2.0)
    house.leave("a1")
    assert house.call(9.0) == ["c1"]
    for name in ("a2", "b1", "b2"):
        house.leave(name)
    house.come("c2", "c3", now=9.0)
    assert house.call(10.0) == ["c2"]
    assert house.make_room(11.9) is None
    assert house.make_room(12.0) == "c1"


@pytest.mark.parametrize("sources", [1, 3, 4, 100])
def test_a_newcomer_of_another_source_is_served_within_the_patience_whatever_others_hold(sources: int) -> None:
    bounds = Bounds(served=128, each=32, waiting=256, patience=3.0, wait=10.0, stay=20.0)
    places, names = Places[Named](bounds), [f"attacker {number}" for number in range(sources)]
    for number in range(1000):
        places.come(Named(names[number % sources], 0.0))
        while places.call(0.0) is not None:
            pass
    newcomer = Named("somebody", 1.0)
    assert places.come(newcomer) is not newcomer
    called = places.call(1.0)
    if called is None:
        assert places.make_room(2.9) is None
        assert places.make_room(3.0) is not None
        called = places.call(3.0)
    assert called is newcomer


STEPS = st.lists(st.tuples(st.sampled_from(["come", "leave", "settle"]), st.sampled_from("abcde"), st.floats(0, 5)), max_size=80)


@given(STEPS)
def test_the_bounds_hold_and_nobody_waits_where_there_is_a_place(steps: list[tuple[str, str, float]]) -> None:
    places, now = Places[Named](BOUNDS), 0.0
    waiting, served = set[Named](), set[Named]()
    for what, source, passed in steps:
        now += passed
        if what == "come":
            guest = Named(source, now)
            waiting.add(guest)
            waiting.discard(places.come(guest))  # type: ignore[arg-type]
        elif what == "leave":
            for guest in [each for each in served if each.source == source][:1]:
                served.remove(guest)
                places.leave(guest)
        waiting -= set(places.tired(now))
        while True:
            called = places.call(now)
            if called is None and (called := places.make_room(now)) is None:
                break
            if called in served:
                served.remove(called)
            else:
                waiting.remove(called)
                served.add(called)
        held = Counter(guest.source for guest in served)
        assert len(served) <= BOUNDS.served
        assert len(waiting) <= BOUNDS.waiting
        assert max(held.values(), default=0) <= BOUNDS.each
        if len(served) < BOUNDS.served:
            assert all(held[guest.source] == BOUNDS.each for guest in waiting)
        assert all(now - guest.since < BOUNDS.wait for guest in waiting)
