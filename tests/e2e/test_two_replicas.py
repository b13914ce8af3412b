"""Two replicas: one leads, the other takes over when it dies or hangs, and what hung and wakes up harms nothing."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.cluster import ControlPlane
from e2e.support.audit import AuditTail
from e2e.support.objects import EVERYWHERE, RENEW, bot, create, get, is_ready, items, names, output
from e2e.support.whole import check_whole
from support.waiting import eventually
from workbench.chart import Release
from workbench.operator import OperatorProcess

pytestmark = pytest.mark.cluster

OUTPUTS = 150
PER_BOT = 10
PAUSED_AT = 0.3
"""Which part of the work is done when the leader hangs."""

TAKE_OVER_SECONDS = 15.0
"""From the death of the leader to another one, with the chart's own settings."""

GIVEN_UP_SECONDS = 8.0
"""From a clean end of the leader to another one: a try each two seconds; well below the lease's ten."""

QUICK = {"--lease-duration": "4", "--workers": "2"}
"""A lease that ends sooner, and work that takes longer: for tests that need the leader to hang in the middle."""

Pair = list[OperatorProcess]


def start_pair(release: Release, directory: Path, flags: dict[str, str] | None = None) -> Pair:
    """Two replicas, ready. They differ in nothing but the name of the pod."""
    pair = [OperatorProcess.from_release(release, directory, pod_name=f"machinebot-{each}", flags=flags) for each in "ab"]
    for process in pair:
        process.start()
    for process in pair:
        process.wait_ready()
    return pair


@pytest.fixture
def started(rough_release: Release, tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Starts a pair; at the end they stop, so that the Lease is given up."""
    pairs: list[OperatorProcess] = []

    def start(flags: dict[str, str] | None = None) -> Pair:
        pairs.extend(start_pair(rough_release, tmp_path, flags))
        return pairs

    yield start
    for process in pairs:
        if process.running:
            process.resume()
            process.stop()
        process.close()


@pytest.fixture
def place(rough_plane: ControlPlane) -> str:
    """A namespace of the test's own."""
    name = f"t-{secrets.token_hex(4)}"
    rough_plane.kubectl("create", "namespace", name)
    return name


def leads(process: OperatorProcess) -> bool:
    return process.metrics()["machinebot_leader"] == 1


def leader_of(pair: Pair) -> tuple[OperatorProcess, OperatorProcess]:
    """(leader, standby), once there is exactly one leader."""
    leading = eventually("exactly one leads", lambda: [each for each in pair if leads(each)], interval=0.05)
    assert len(leading) == 1
    return leading[0], next(each for each in pair if each is not leading[0])


def holder(release: Release) -> str:
    name: str = get(release.cluster, "lease", release.namespace, "machinebot")["spec"]["holderIdentity"]
    return name


def apply_many(cluster: ControlPlane, namespace: str, count: int) -> None:
    bots = [bot(namespace, f"b-{number}", EVERYWHERE) for number in range(count // PER_BOT)]
    create(cluster, *bots, *(output(namespace, f"o-{number}", f"b-{number // PER_BOT}") for number in range(count)))


def ready(cluster: ControlPlane, namespace: str) -> int:
    return sum(map(is_ready, items(cluster, "machineoutputs", namespace)))


def all_whole(cluster: ControlPlane, namespace: str) -> None:
    outputs = items(cluster, "machineoutputs", namespace)
    stored = {secret["metadata"]["name"]: secret for secret in items(cluster, "secrets", namespace)}
    assert sorted(stored) == names(outputs)
    for each in outputs:
        check_whole(each, stored[each["metadata"]["name"]])


def wait_woken(process: OperatorProcess) -> None:
    """What was paused past its lease ends, as client-go's leaders do, or stands by."""
    eventually("the old leader has ended or stands by", lambda: not process.running or not leads(process))


def test_exactly_one_leads_and_gives_its_lease_up_when_it_is_asked_to_stop(rough_release: Release, started: Callable[..., Pair]):
    """The other one leads within a try or two then, not after the lease's whole length."""
    pair = started()
    leader, standby = leader_of(pair)
    assert holder(rough_release) == leader.name
    assert standby.get("/healthz")[0] == standby.get("/readyz")[0] == 200
    assert leader.stop() == 0
    begun = time.monotonic()
    eventually("the standby leads", lambda: leads(standby), interval=0.02)
    assert time.monotonic() - begun < GIVEN_UP_SECONDS
    assert holder(rough_release) == standby.name


def test_a_killed_leader_is_replaced_and_the_work_goes_on(
    rough_plane: ControlPlane, rough_release: Release, started: Callable[..., Pair], place: str
):
    pair = started()
    leader, standby = leader_of(pair)
    audit = AuditTail(rough_plane)
    apply_many(rough_plane, place, 60)
    eventually("some are made", lambda: audit.count(place, "create") >= 10, interval=0.002)
    killed = time.monotonic()
    leader.kill9()
    eventually("the other leads", lambda: leads(standby), seconds=TAKE_OVER_SECONDS, interval=0.05)
    took = time.monotonic() - killed
    print(f"taken over in {took:.1f} s")
    assert took < TAKE_OVER_SECONDS
    assert holder(rough_release) == standby.name
    create(rough_plane, output(place, "later", "b-0"))
    eventually("all are Ready", lambda: ready(rough_plane, place) == 61, interval=0.3)
    all_whole(rough_plane, place)
    assert audit.odd(place, Counter(create=1)) == {}


@pytest.mark.parametrize("rotating", [pytest.param(False, id="issuing"), pytest.param(True, id="rotating")])
def test_a_leader_that_hangs_past_its_lease_and_wakes_up_stores_nothing_twice(
    rough_plane: ControlPlane, started: Callable[..., Pair], place: str, rotating: bool
):
    pair = started(QUICK)
    leader, standby = leader_of(pair)
    audit = AuditTail(rough_plane)
    apply_many(rough_plane, place, OUTPUTS)
    verb = "create"
    if rotating:
        eventually("all are Ready", lambda: ready(rough_plane, place) == OUTPUTS, interval=0.3)
        verb = "update"
        rough_plane.kubectl("annotate", "machineoutputs", "--all", f"{RENEW}=once", f"--namespace={place}")
    eventually("the work has begun", lambda: audit.count(place, verb) >= PAUSED_AT * OUTPUTS, interval=0.002)
    leader.pause()
    done = audit.count(place, verb)
    assert done < OUTPUTS, "the leader was too quick to be caught at work"
    print(f"paused at {done} of {OUTPUTS}")

    eventually("the other leads", lambda: leads(standby), interval=0.05)
    eventually("it has done the rest", lambda: _all_done(rough_plane, place, rotating), interval=0.3)
    leader.resume()
    wait_woken(leader)
    if not leader.running:
        leader.start()  # as the kubelet does
    leader.wait_ready()
    create(rough_plane, output(place, "later", "b-0"))
    eventually("and issues further", lambda: ready(rough_plane, place) == OUTPUTS + 1, interval=0.3)

    assert [each.name for each in pair if leads(each)] == [standby.name]
    all_whole(rough_plane, place)
    wanted = Counter(create=1, update=1) if rotating else Counter(create=1)
    assert audit.odd(place, wanted).keys() - {"later"} == set()
    assert len(audit.tally(place)) == OUTPUTS + 1


def _all_done(cluster: ControlPlane, namespace: str, rotating: bool) -> bool:
    outputs = items(cluster, "machineoutputs", namespace)
    done = (is_ready(each) and (not rotating or each["status"].get("renewToken") == "once") for each in outputs)
    return sum(done) == OUTPUTS
