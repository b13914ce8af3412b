"""Leader election when things go wrong: somebody is quicker, the API server is away, answers get lost."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from machinebot.controller.leader import Leader
from machinebot.errors import Denied, LeadershipLost, Unavailable
from machinebot.kube.leases import LeaseRecord
from machinebot.metrics import Metrics
from unit.controller.virtual import run, seconds

DURATION, DEADLINE, RETRY = 10.0, 6.0, 2.0
AWAY = Unavailable("ApiServerAway", "away")


class Lease:
    """The Lease as the API server keeps it, and one replica's way to it, which tests can disturb."""

    def __init__(self, shared: "Lease | None" = None) -> None:
        self.board: list[LeaseRecord] = [] if shared is None else shared.board
        self.disturb: Callable[[str], Awaitable[None]] | None = None
        """Awaited before each call; may raise or take its time."""
        self.lose_answers = False
        """Writes come through, but nobody hears of it."""
        self.calls: list[str] = []

    @property
    def record(self) -> LeaseRecord | None:
        return self.board[-1] if self.board else None

    async def read(self) -> LeaseRecord | None:
        self.calls.append("read")
        if self.disturb is not None:
            await self.disturb("read")
        return self.record

    async def write(self, old: LeaseRecord | None, *, holder: str, now: str, seconds: int) -> LeaseRecord | None:
        self.calls.append("write")
        if self.disturb is not None:
            await self.disturb("write")
        if (None if old is None else old.resource_version) != (None if self.record is None else self.record.resource_version):
            return None
        transitions = 0 if old is None else old.transitions + (old.holder != holder and bool(holder))
        self.put(holder=holder, renewed=now, transitions=transitions, seconds=seconds)
        if self.lose_answers:
            raise AWAY
        return self.record

    def put(self, *, holder: str, renewed: str = "then", transitions: int = 0, seconds: int = 10) -> None:
        version = "1" if self.record is None else str(int(self.record.resource_version) + 1)
        self.board.append(LeaseRecord(holder, renewed, transitions, seconds, version))


def leader(lease: Lease, identity: str = "pod-a", *, duration: float = DURATION) -> Leader:
    return Leader(
        lease,  # type: ignore[arg-type]  # the two methods of it
        Metrics(CollectorRegistry()),
        identity=identity,
        duration=duration,
        renew_deadline=DEADLINE * duration / DURATION,
        retry=RETRY * duration / DURATION,
        monotonic=seconds,
    )


def shows(replica: Leader) -> float | None:
    return replica._metrics.registry.get_sample_value("machinebot_leader")


async def fails(_call: str) -> None:
    raise AWAY


async def hangs(_call: str) -> None:
    await asyncio.sleep(3600)


def told(tell: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test in virtual time."""

    def test() -> None:
        run(tell())

    test.__name__ = tell.__name__
    return test


# --- taking it ----------------------------------------------------------------------------------------------------


@told
async def test_a_lease_that_is_not_there_is_made() -> None:
    lease = Lease()
    replica = leader(lease)
    assert not replica.leads
    assert shows(replica) == 0
    with pytest.raises(LeadershipLost):
        replica.check()
    await replica.acquire()
    assert replica.leads
    assert shows(replica) == 1
    replica.check()
    assert lease.record is not None
    assert (lease.record.holder, lease.record.seconds, lease.record.transitions) == ("pod-a", 10, 0)
    assert seconds() == 0


@told
async def test_a_lease_of_our_own_name_is_taken_at_once() -> None:
    """A container that was restarted in its pod."""
    lease = Lease()
    lease.put(holder="pod-a")
    await leader(lease).acquire()
    assert seconds() == 0
    assert lease.record is not None
    assert lease.record.transitions == 0


@told
async def test_a_lease_that_was_given_up_is_taken_at_once() -> None:
    lease = Lease()
    lease.put(holder="", seconds=1)
    replica = leader(lease)
    await replica.acquire()
    assert seconds() == 0
    assert lease.record is not None
    assert (lease.record.holder, lease.record.transitions) == ("pod-a", 1)


@pytest.mark.parametrize("renewed", ["", "1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "nonsense"])
def test_a_standby_waits_for_a_whole_duration_of_silence_on_its_own_clock(renewed: str) -> None:
    """What the Lease says of the time was written by another machine's clock."""

    async def tell() -> None:
        lease = Lease()
        lease.put(holder="pod-b", renewed=renewed)
        replica = leader(lease)
        await asyncio.sleep(100)
        await replica.acquire()
        assert 110 <= seconds() <= 110 + RETRY

    run(tell())


@told
async def test_a_standby_waits_as_long_as_the_leader_renews() -> None:
    lease = Lease()
    lease.put(holder="pod-b", renewed="0")
    waiting = asyncio.create_task(leader(lease).acquire())
    for number in range(1, 10):
        await asyncio.sleep(9)
        lease.put(holder="pod-b", renewed=str(number))
    assert not waiting.done()
    last = seconds()
    await waiting
    assert last + DURATION <= seconds() <= last + DURATION + 2 * RETRY


@told
async def test_another_leader_has_a_duration_of_its_own() -> None:
    lease = Lease()
    lease.put(holder="pod-b")
    waiting = asyncio.create_task(leader(lease).acquire())
    await asyncio.sleep(9)
    lease.put(holder="pod-c")
    await waiting
    assert 18 <= seconds() <= 22


@told
async def test_a_leader_with_a_longer_duration_is_given_it() -> None:
    """During a roll-out that shortens the duration."""
    lease = Lease()
    lease.put(holder="pod-b", seconds=60)
    await leader(lease).acquire()
    assert 60 <= seconds() <= 60 + RETRY


@told
async def test_a_leader_with_a_shorter_duration_is_given_ours() -> None:
    lease = Lease()
    lease.put(holder="pod-b", seconds=1)
    await leader(lease).acquire()
    assert DURATION <= seconds() <= DURATION + RETRY


@told
async def test_somebody_quicker_wins() -> None:
    lease = Lease()
    lease.put(holder="", seconds=1)

    async def quicker(call: str) -> None:
        if call == "write" and lease.record is not None and not lease.record.holder:
            lease.put(holder="pod-b", renewed="just now")

    lease.disturb = quicker
    replica = leader(lease)
    waiting = asyncio.create_task(replica.acquire())
    await asyncio.sleep(DURATION - 1)
    assert not replica.leads
    assert not waiting.done()
    await waiting
    assert DURATION <= seconds() <= DURATION + RETRY


@told
async def test_somebody_quicker_made_it_and_it_vanished_again() -> None:
    lease = Lease()

    async def quicker(call: str) -> None:
        if call == "write" and len(lease.calls) == 2:
            lease.put(holder="pod-b")
        elif call == "read" and len(lease.calls) == 3:
            lease.board.clear()

    lease.disturb = quicker
    await leader(lease).acquire()
    assert seconds() == RETRY
    assert lease.calls[:3] == ["read", "write", "read"]


@pytest.mark.parametrize("trouble", [fails, hangs], ids=["away", "no answer"])
def test_an_api_server_that_is_away_is_waited_for(trouble: Callable[[str], Awaitable[None]]) -> None:
    async def tell() -> None:
        lease = Lease()
        lease.disturb = trouble
        waiting = asyncio.create_task(leader(lease).acquire())
        await asyncio.sleep(1000)
        assert not waiting.done()
        lease.disturb = None
        await waiting
        assert seconds() <= 1000 + DEADLINE + RETRY

    run(tell())


@told
async def test_a_refusal_is_waited_out_too() -> None:
    """RBAC that was not applied yet."""
    lease = Lease()

    async def refused(_call: str) -> None:
        raise Denied("Forbidden", "leases is forbidden")

    lease.disturb = refused
    waiting = asyncio.create_task(leader(lease).acquire())
    await asyncio.sleep(100)
    lease.disturb = None
    await waiting


# --- keeping it ---------------------------------------------------------------------------------------------------


@told
async def test_a_leader_renews_without_reading() -> None:
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    lease.calls.clear()
    holding = asyncio.create_task(replica.hold())
    await asyncio.sleep(1000.5)
    assert replica.leads
    assert not holding.done()
    assert lease.calls == ["write"] * 500
    assert lease.record is not None
    assert lease.record.transitions == 0
    holding.cancel()


@pytest.mark.parametrize("trouble", [fails, hangs], ids=["away", "no answer"])
def test_renewals_that_fail_past_the_deadline_end_it(trouble: Callable[[str], Awaitable[None]]) -> None:
    async def tell() -> None:
        lease = Lease()
        replica = leader(lease)
        await replica.acquire()
        holding = asyncio.create_task(replica.hold())
        await asyncio.sleep(11)
        last = 10.0  # renewed at 2, 4, 6, 8, 10
        lease.disturb = trouble
        await asyncio.sleep(last + DEADLINE - seconds() - 0.001)
        assert replica.leads
        replica.check()
        await asyncio.sleep(0.002)
        assert not replica.leads, "before anybody else may take it, and whether or not an attempt hangs"
        with pytest.raises(LeadershipLost):
            replica.check()
        with pytest.raises(LeadershipLost):
            await holding
        assert seconds() <= last + DURATION
        assert shows(replica) == 0

    run(tell())


@told
async def test_a_short_outage_is_gone_through() -> None:
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    holding = asyncio.create_task(replica.hold())
    for _ in range(20):
        lease.disturb = fails
        await asyncio.sleep(DEADLINE - 2 * RETRY)
        lease.disturb = None
        await asyncio.sleep(RETRY + 0.5)
        assert replica.leads
    assert not holding.done()
    holding.cancel()


@told
async def test_the_time_of_a_renewal_counts_from_its_begin() -> None:
    """The API server may have written it at any moment of a slow request."""
    lease = Lease()

    async def slow(_call: str) -> None:
        await asyncio.sleep(2.5)

    lease.disturb = slow
    replica = leader(lease)
    await replica.acquire()
    assert seconds() == 5
    await asyncio.sleep(0.99)
    assert replica.leads
    await asyncio.sleep(0.02)
    assert not replica.leads


@told
async def test_a_leader_that_was_replaced_stops_at_once() -> None:
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    holding = asyncio.create_task(replica.hold())
    await asyncio.sleep(1)
    lease.put(holder="pod-b")
    with pytest.raises(LeadershipLost):
        await holding
    assert seconds() == RETRY
    assert not replica.leads


@told
async def test_a_lease_that_was_deleted_ends_it() -> None:
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    lease.board.clear()
    with pytest.raises(LeadershipLost):
        await replica.hold()
    await replica.acquire()
    assert replica.leads


@told
async def test_a_renewal_whose_answer_was_lost_is_found_again() -> None:
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    holding = asyncio.create_task(replica.hold())
    lease.lose_answers = True
    await asyncio.sleep(3)
    lease.lose_answers = False
    await asyncio.sleep(60)
    assert replica.leads
    assert lease.record is not None
    assert lease.record.holder == "pod-a"
    holding.cancel()


@told
async def test_a_conflict_whose_explanation_is_lost_is_looked_into_again() -> None:
    """The renewal was a conflict, and the read after it failed: still leading, and the next attempt finds out."""
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    holding = asyncio.create_task(replica.hold())
    await asyncio.sleep(1)
    assert lease.record is not None
    lease.board.append(replace(lease.record, resource_version="77"))  # somebody labelled it

    async def no_reads(call: str) -> None:
        if call == "read":
            raise AWAY

    lease.disturb = no_reads
    await asyncio.sleep(1.5)
    assert replica.leads
    lease.disturb = None
    await asyncio.sleep(60)
    assert replica.leads
    holding.cancel()


@told
async def test_a_conflict_after_a_conflict_is_no_renewal() -> None:
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    holding = asyncio.create_task(replica.hold())

    async def always_quicker(call: str) -> None:
        if call == "write":
            lease.put(holder="pod-a", renewed=str(seconds()))

    lease.disturb = always_quicker
    with pytest.raises(LeadershipLost):
        await holding
    assert seconds() <= DURATION


# --- giving it up -------------------------------------------------------------------------------------------------


@told
async def test_a_lease_that_is_given_up_need_not_be_waited_for() -> None:
    lease = Lease()
    one, other = leader(lease), leader(Lease(lease), "pod-b")
    await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    await asyncio.sleep(5)
    await one.release()
    assert not one.leads
    assert shows(one) == 0
    released = seconds()
    await waiting
    assert seconds() <= released + RETRY


@told
async def test_who_never_led_gives_nothing_up() -> None:
    lease = Lease()
    lease.put(holder="pod-b")
    await leader(lease).release()
    assert lease.calls == []


@told
async def test_a_lease_that_somebody_else_has_taken_is_not_given_up() -> None:
    lease = Lease()
    replica = leader(lease)
    await replica.acquire()
    lease.put(holder="pod-b")
    await replica.release()
    assert lease.record is not None
    assert lease.record.holder == "pod-b"


@pytest.mark.parametrize("trouble", [fails, hangs], ids=["away", "no answer"])
def test_giving_up_does_not_hold_the_end_up(trouble: Callable[[str], Awaitable[None]]) -> None:
    async def tell() -> None:
        lease = Lease()
        replica = leader(lease)
        await replica.acquire()
        lease.disturb = trouble
        await replica.release()
        assert seconds() <= RETRY
        assert not replica.leads

    run(tell())


# --- whatever happens ----------------------------------------------------------------------------------------------

TROUBLES = st.lists(
    st.tuples(st.sampled_from(["pod-a", "pod-b", "pod-c"]), st.sampled_from(["fails", "hangs", "lost", "fine", "slow"])),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(TROUBLES)
def test_never_two_leaders(troubles: list[tuple[str, str]]) -> None:
    """Three replicas, and every few seconds another trouble between one of them and the API server."""

    async def slow(_call: str) -> None:
        await asyncio.sleep(1.9)

    ways = {"fails": fails, "hangs": hangs, "slow": slow}

    async def lives(replica: Leader) -> None:
        while True:
            await replica.acquire()
            with pytest.raises(LeadershipLost):
                await replica.hold()

    async def tell() -> None:
        lease = Lease()
        leases = {name: Lease(lease) for name in ("pod-a", "pod-b", "pod-c")}
        replicas = {name: leader(each, name) for name, each in leases.items()}
        tasks = [asyncio.create_task(lives(replica)) for replica in replicas.values()]
        for name, trouble in [*troubles, *((name, "fine") for name in leases)]:
            leases[name].disturb = ways.get(trouble)
            leases[name].lose_answers = trouble == "lost"
            for _ in range(37):
                await asyncio.sleep(0.13)
                assert sum(replica.leads for replica in replicas.values()) <= 1
        await asyncio.sleep(3 * DURATION)
        assert sum(replica.leads for replica in replicas.values()) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(tell())
