"""Leader election on a real API server: one leads, a successor need not wait for a clean end, a stale one writes nothing."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from machinebot.controller.fence import FencedClient
from machinebot.controller.leader import Leader
from machinebot.errors import Conflict, LeadershipLost
from machinebot.kube.client import ApiServer, KubeClient
from machinebot.kube.leases import Leases
from machinebot.kube.resources import SECRETS
from machinebot.kube.secrets import SecretStore
from machinebot.metrics import Metrics
from support.inprocess import RunningOperator
from support.line import Call, Line
from support.stage import Stage, Tenant
from support.waiting import eventually, eventually_async

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

DURATION = 10.0
DEADLINE = 6.0
RETRY = 0.02
"""Seconds; the first two pass on the clocks of the tests only."""

LEASE = "test"

QUICK: dict[str, Any] = {"lease_duration": 6.0, "lease_renew_deadline": 4.0, "lease_retry": 0.2}
"""Whole operators run by the machine's clock: short, and long enough for two busy cores."""


@dataclass
class Replica:
    """A leader with a monotonic clock that stands still until the test moves it, and its own line to the API server."""

    client: KubeClient
    namespace: str
    identity: str
    seconds: float = 0.0
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))

    def __post_init__(self) -> None:
        self.line = Line(self.client)
        self.leases = Leases(self.line, self.namespace, LEASE)
        self.leader = Leader(
            self.leases,
            self.metrics,
            identity=self.identity,
            duration=DURATION,
            renew_deadline=DEADLINE,
            retry=RETRY,
            monotonic=lambda: self.seconds,
        )

    @property
    def gauge(self) -> float | None:
        """What its metric says."""
        return self.metrics.registry.get_sample_value("machinebot_leader")


@pytest.fixture
def one(api: ApiServer, namespace: str) -> Replica:
    return Replica(api, namespace, "one")


@pytest.fixture
def other(api: ApiServer, namespace: str) -> Replica:
    return Replica(api, namespace, "other")


async def holder(replica: Replica) -> str:
    record = await replica.leases.read()
    return "" if record is None else record.holder


async def test_the_first_leads_and_says_so(one: Replica) -> None:
    assert (one.leader.leads, one.gauge) == (False, 0)
    await one.leader.acquire()
    assert (one.leader.leads, one.gauge) == (True, 1)
    assert await holder(one) == "one"
    one.leader.check()


async def test_who_does_not_lead_may_not_write(one: Replica) -> None:
    with pytest.raises(LeadershipLost):
        one.leader.check()


async def test_a_second_one_waits_as_long_as_the_first_renews(one: Replica, other: Replica) -> None:
    await one.leader.acquire()
    holding = asyncio.create_task(one.leader.hold())
    waiting = asyncio.create_task(other.leader.acquire())
    for _ in range(12):
        seen = other.leader._observed

        async def saw_a_renewal(before: object = seen) -> bool:
            return other.leader._observed not in (None, before)

        await eventually_async("the second sees the first renew", saw_a_renewal)
        one.seconds += DEADLINE / 2
        other.seconds += DEADLINE / 2
    assert one.leader.leads
    assert not waiting.done()
    assert not holding.done()
    for task in (holding, waiting):
        task.cancel()
    await asyncio.gather(holding, waiting, return_exceptions=True)


async def test_a_silent_one_is_replaced_after_its_duration_and_not_before(one: Replica, other: Replica) -> None:
    await one.leader.acquire()
    assert not await other.leader._attempt()
    other.seconds += DURATION - 0.1
    assert not await other.leader._attempt()
    other.seconds += 0.1
    assert await other.leader._attempt()
    assert other.leader.leads
    assert await holder(other) == "other"
    record = await other.leases.read()
    assert record is not None
    assert record.transitions == 1


async def test_the_duration_counts_from_when_a_renewal_was_seen_not_from_when_it_says_it_was(
    one: Replica, other: Replica
) -> None:
    await one.leader.acquire()
    assert not await other.leader._attempt()
    other.seconds += DURATION - 1
    assert await one.leader._attempt()
    assert not await other.leader._attempt()
    other.seconds += DURATION - 1
    assert not await other.leader._attempt()
    other.seconds += 1
    assert await other.leader._attempt()


async def test_a_release_hands_over_at_once(one: Replica, other: Replica) -> None:
    await one.leader.acquire()
    waiting = asyncio.create_task(other.leader.acquire())
    await one.leader.release()
    assert (one.leader.leads, one.gauge) == (False, 0)
    await asyncio.wait_for(waiting, 30)
    assert other.leader.leads
    assert other.seconds == 0


async def test_a_release_hands_over_even_where_the_answer_to_a_renewal_was_lost(one: Replica, other: Replica) -> None:
    await one.leader.acquire()
    record = await one.leases.read()
    await one.leases.write(record, holder="one", now="2027-01-01T00:00:00.000000Z", seconds=10)
    await one.leader.release()
    assert await holder(one) == ""
    assert await other.leader._attempt()


async def test_a_release_of_what_somebody_else_holds_changes_nothing(one: Replica, other: Replica) -> None:
    await one.leader.acquire()
    assert not await other.leader._attempt()
    other.seconds += DURATION
    assert await other.leader._attempt()
    await one.leader.release()
    assert await holder(other) == "other"
    assert await other.leader._attempt()


async def test_a_paused_one_stops_leading_by_its_own_clock_before_it_is_replaced(one: Replica) -> None:
    await one.leader.acquire()
    one.seconds += DEADLINE - 0.1
    assert one.leader.leads
    one.seconds += 0.1
    assert not one.leader.leads
    with pytest.raises(LeadershipLost):
        one.leader.check()


async def test_one_that_cannot_renew_goes_on_until_its_deadline_and_then_stops(one: Replica) -> None:
    await one.leader.acquire()
    holding = asyncio.create_task(one.leader.hold())
    with one.line.failing(lambda call: call.resource == "leases") as met:
        await eventually_async("renewals fail", lambda: _some(met, 3))
        assert one.leader.leads
        assert not holding.done()
        one.seconds += DEADLINE
        with pytest.raises(LeadershipLost):
            await asyncio.wait_for(holding, 30)
    assert (one.leader.leads, one.gauge) == (False, 0)


async def _some(met: list[Call], count: int) -> bool:
    return len(met) >= count


async def test_a_renewal_that_comes_through_in_time_is_enough(one: Replica) -> None:
    await one.leader.acquire()
    with one.line.failing(lambda call: call.resource == "leases"):
        one.seconds += DEADLINE - 1
        assert not await one.leader._attempt()
    assert await one.leader._attempt()
    one.seconds += DEADLINE - 1
    assert one.leader.leads


async def test_a_renewal_whose_answer_was_lost_is_recognized_as_ones_own(one: Replica) -> None:
    await one.leader.acquire()
    record = await one.leases.read()
    await one.leases.write(record, holder="one", now="2027-01-01T00:00:00.000000Z", seconds=10)
    assert await one.leader._attempt()
    assert one.leader.leads


async def test_who_comes_back_under_the_same_name_leads_at_once(api: ApiServer, one: Replica) -> None:
    await one.leader.acquire()
    again = Replica(api, one.namespace, "one")
    assert await again.leader._attempt()
    assert again.leader.leads


async def test_a_fenced_write_of_one_that_does_not_lead_for_sure_never_leaves(one: Replica) -> None:
    await one.leader.acquire()
    store = SecretStore(FencedClient(one.line, one.leader.check))
    secret = await store.create(one.namespace, "made", {}, labels={}, annotations={}, owner=None)
    one.seconds += DEADLINE
    for write in (
        store.create(one.namespace, "another", {}, labels={}, annotations={}, owner=None),
        store.replace(secret, {"key": b"value"}, labels={}, annotations={}, owner=None),
        store.delete(secret),
    ):
        with pytest.raises(LeadershipLost):
            await write
    assert await store.read(one.namespace, "another") is None
    found = await store.read(one.namespace, "made")
    assert found is not None
    assert found.resource_version == secret.resource_version


async def test_a_write_that_was_on_its_way_when_the_leader_changed_is_refused(one: Replica, other: Replica) -> None:
    await one.leader.acquire()
    # Paused between the look at the Lease and the write: its own clock has not moved, so that the fence lets it through.
    stale = SecretStore(FencedClient(one.line, one.leader.check))
    seen = await stale.create(one.namespace, "web", {"key": b"first"}, labels={}, annotations={}, owner=None)
    assert not await other.leader._attempt()
    other.seconds += DURATION
    assert await other.leader._attempt()
    successor = SecretStore(FencedClient(other.line, other.leader.check))
    found = await successor.read(one.namespace, "web")
    assert found is not None
    written = await successor.replace(found, {"key": b"second"}, labels={}, annotations={}, owner=None)
    assert one.leader.leads
    with pytest.raises(Conflict):
        await stale.replace(seen, {"key": b"stale"}, labels={}, annotations={}, owner=None)
    with pytest.raises(Conflict):
        await stale.delete(seen)
    with pytest.raises(Conflict):
        await stale.create(one.namespace, "web", {"key": b"stale"}, labels={}, annotations={}, owner=None)
    body = await one.client.get(SECRETS, one.namespace, "web")
    assert body is not None
    assert body["metadata"]["resourceVersion"] == written.resource_version
    assert not await one.leader._attempt()
    assert not one.leader.leads


async def test_of_many_that_begin_at_once_exactly_one_leads(api: ApiServer, namespace: str) -> None:
    for round_ in range(10):
        replicas = [Replica(api, namespace, f"{round_}-{number}") for number in range(5)]
        for replica in replicas:
            replica.leases = Leases(replica.line, namespace, f"lease-{round_}")
            replica.leader._leases = replica.leases
        await asyncio.gather(*(replica.leader._attempt() for replica in replicas))
        leading = [replica.identity for replica in replicas if replica.leader.leads]
        assert len(leading) == 1
        assert await holder(replicas[0]) == leading[0]


# --- whole operators ----------------------------------------------------------------------------------------------------


@pytest.fixture
def standby(stage: Stage, running: RunningOperator) -> Iterator[RunningOperator]:
    """A second operator beside the one that leads."""
    assert running.running
    with stage.operator(clock=running.clock, **QUICK) as second:
        yield second


def test_a_standby_serves_and_writes_nothing(
    tenant: Tenant, role: str, running: RunningOperator, standby: RunningOperator
) -> None:
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.ready()
    eventually("the standby is ready", lambda: standby.get("/readyz")[0] == 200)
    assert [standby.get(path)[0] for path in ("/healthz", "/metrics")] == [200, 200]
    assert (standby.value("machinebot_leader"), running.value("machinebot_leader")) == (0, 1)
    assert standby.total("machinebot_issues_total") == 0
    for resource in ("machineoutputs", "serviceaccounts"):  # no more than what verifiers and those who join ask it for
        assert standby.total("machinebot_api_requests_total", verb="list", resource=resource) == 0


def test_a_standby_takes_over_at_once_and_without_a_write_when_the_leader_ends(
    tenant: Tenant, role: str, running: RunningOperator, standby: RunningOperator
) -> None:
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.ready()
    running.settle()
    secret, mark = tenant.secret(), tenant.mark()
    running.stop()
    standby.wait_leading()
    standby.settle()
    assert tenant.writes(mark) == []
    tenant.annotate("web", renew="now")
    tenant.issued_anew(secret, "Requested")
    tenant.output("later")
    tenant.ready("later")


def test_a_standby_takes_over_when_the_leader_was_killed(
    tenant: Tenant, role: str, stage: Stage, running: RunningOperator
) -> None:
    running.stop()
    with stage.operator(**QUICK) as first, stage.operator(**QUICK) as second:
        leading, standby = (first, second) if eventually_leads(first, second) is first else (second, first)
        tenant.bot(roles=(role,))
        tenant.output()
        tenant.ready()
        leading.settle()
        secret, mark = tenant.secret(), tenant.mark()
        leading.crash()
        standby.wait_leading()
        standby.settle()
        assert tenant.writes(mark) == []
        assert tenant.secret().version == secret.version
        tenant.output("later")
        tenant.ready("later")


def eventually_leads(*operators: RunningOperator) -> RunningOperator:
    """The one of them that leads."""
    leading = eventually("one leads", lambda: [each for each in operators if each.operator.leads])[0]
    leading.wait_leading()
    return leading


def test_a_leader_that_was_cut_off_and_comes_back_leaves_the_successor_alone(
    tenant: Tenant, role: str, stage: Stage, running: RunningOperator
) -> None:
    running.stop()
    with stage.operator(**QUICK) as first:
        first.wait_leading()
        tenant.bot(roles=(role,))
        tenant.output()
        tenant.ready()
        first.settle()
        secret = tenant.secret()
        with stage.operator(**QUICK) as second:
            with first.line.failing(lambda _: True):
                eventually("the first stops leading", lambda: not first.operator.leads)
                second.wait_leading()
                tenant.annotate("web", renew="now")
                tenant.issued_anew(secret, "Requested")
                second.settle()
            mark = tenant.mark()
            eventually("the first waits again", lambda: first.value("machinebot_leader") == 0)
            assert second.operator.leads
            second.settle()
            assert tenant.writes(mark) == []
            second.stop()
            first.wait_leading()
            first.settle()
            assert tenant.writes(mark) == []
