"""What is issued outlives both the API server's absence and the operator's: nothing is lost, nothing is made twice."""

import secrets as chance
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.cluster import ControlPlane
from e2e.support.audit import AuditTail
from e2e.support.login import log_in, mount, server
from e2e.support.objects import EVERYWHERE, Json, bot, create, get, is_ready, items, names, output, role, wait_ready
from e2e.support.whole import check_whole
from support.waiting import eventually
from workbench.chart import Release
from workbench.operator import OperatorProcess

pytestmark = pytest.mark.cluster

OUTPUTS = 80
SLOW = {"--workers": "2", "--lease-duration": "5"}
"""So that there is a middle of the work to be caught in."""


@pytest.fixture
def place(rough_plane: ControlPlane) -> str:
    """A namespace of the test's own."""
    name = f"t-{chance.token_hex(4)}"
    rough_plane.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def operator(rough_release: Release, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess.from_release(rough_release, tmp_path, flags=SLOW) as process:
        process.wait_ready()
        yield process
        if process.running:
            process.stop()


def stored(cluster: ControlPlane, namespace: str) -> dict[str, Json]:
    return {secret["metadata"]["name"]: secret for secret in items(cluster, "secrets", namespace)}


def ready(cluster: ControlPlane, namespace: str) -> int:
    return sum(map(is_ready, items(cluster, "machineoutputs", namespace)))


def apply_many(cluster: ControlPlane, namespace: str) -> None:
    bots = [bot(namespace, f"b-{number}", EVERYWHERE) for number in range(OUTPUTS // 10)]
    create(cluster, *bots, *(output(namespace, f"o-{number}", f"b-{number // 10}") for number in range(OUTPUTS)))


def check_all(cluster: ControlPlane, namespace: str, audit: AuditTail) -> None:
    outputs, found = items(cluster, "machineoutputs", namespace), stored(cluster, namespace)
    assert sorted(found) == names(outputs)
    for each in outputs:
        check_whole(each, found[each["metadata"]["name"]])
    assert audit.odd(namespace, Counter(create=1)) == {}


@pytest.mark.parametrize(
    ("hangs", "long"),
    [
        pytest.param(False, False, id="gone for a moment"),
        pytest.param(False, True, id="gone until the lease is lost"),
        pytest.param(True, True, id="hangs until the lease is lost"),
    ],
)
def test_the_api_server_goes_away_in_the_middle_of_the_work(
    rough_plane: ControlPlane, operator: OperatorProcess, place: str, hangs: bool, long: bool
):
    audit = AuditTail(rough_plane)
    apply_many(rough_plane, place)
    eventually("some are made", lambda: audit.count(place, "create") >= OUTPUTS // 4, interval=0.002)
    with rough_plane.api_server_paused() if hangs else rough_plane.api_server_stopped():
        begun = audit.count(place, "create")
        assert begun < OUTPUTS, "the outage came too late to disturb anything"
        if long:
            eventually("it leads no more", lambda: operator.metrics()["machinebot_leader"] == 0)
    before = stored(rough_plane, place)
    eventually("all are Ready", lambda: ready(rough_plane, place) == OUTPUTS, interval=0.3)
    after = stored(rough_plane, place)
    assert {name: after[name]["metadata"]["resourceVersion"] for name in before} == {
        name: secret["metadata"]["resourceVersion"] for name, secret in before.items()
    }
    check_all(rough_plane, place, audit)
    assert operator.get("/healthz")[0] == 200


def test_an_outage_touches_no_credential_that_is_there(rough_plane: ControlPlane, operator: OperatorProcess, place: str):
    audit = AuditTail(rough_plane)
    apply_many(rough_plane, place)
    eventually("all are Ready", lambda: ready(rough_plane, place) == OUTPUTS, interval=0.3)
    before, seen = _versions(rough_plane, place), audit.writes(place)
    with rough_plane.api_server_stopped():
        eventually("it leads no more", lambda: operator.metrics()["machinebot_leader"] == 0)
    eventually("it leads again", lambda: operator.metrics()["machinebot_leader"] == 1)
    create(rough_plane, output(place, "later", "b-0"))
    wait_ready(rough_plane, place, "machineoutput/later")
    assert ready(rough_plane, place) == OUTPUTS + 1
    now = _versions(rough_plane, place)
    assert {name: version for name, version in now.items() if "later" not in name} == before
    assert [write for write in audit.writes(place) if write.name != "later"] == seen


def _versions(cluster: ControlPlane, namespace: str) -> dict[str, str]:
    """Of Secrets and outputs alike: idle means no write."""
    found = [*items(cluster, "secrets", namespace), *items(cluster, "machineoutputs", namespace)]
    return {f"{thing['kind']}/{thing['metadata']['name']}": thing["metadata"]["resourceVersion"] for thing in found}


def test_credentials_log_in_while_the_operator_is_down_and_are_not_made_anew_when_it_is_back(
    rough_plane: ControlPlane, operator: OperatorProcess, place: str, tmp_path: Path
):
    host = output(place, "host", "host", sshHost={"principals": ["web-1.node.example.test"]})
    del host["spec"]["identity"]
    hosts = role(f"hosts-{place}", [place], allow={"hostPrincipals": ["*.node.example.test"]})
    create(rough_plane, hosts, bot(place, "host", f"hosts-{place}"), host)
    create(rough_plane, bot(place, "deployer", EVERYWHERE), output(place, "deployer", "deployer"))
    wait_ready(rough_plane, place)
    before = _versions(rough_plane, place)

    operator.kill9()
    with rough_plane.api_server_stopped():
        pass  # and neither does the API server's restart harm anything
    files = mount(tmp_path / "host", get(rough_plane, "secret", place, "host"))
    identity = mount(tmp_path / "deployer", get(rough_plane, "secret", place, "deployer"))
    with server(tmp_path / "sshd", files, "deploy") as sshd:
        assert log_in(sshd, identity).stdout == "in\n", sshd.log.read_text()

    operator.start()
    operator.wait_ready()
    create(rough_plane, output(place, "later", "deployer"))
    wait_ready(rough_plane, place, "machineoutput/later")
    now = _versions(rough_plane, place)
    assert {name: version for name, version in now.items() if "later" not in name} == before
