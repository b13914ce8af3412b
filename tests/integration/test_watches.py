"""What the operator does when its watches fall silent or the API server goes away: it finds out, and goes on by itself."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.cluster import ControlPlane
from machinebot.errors import NotFound
from support.inprocess import RunningOperator
from support.proxy import Proxy
from support.stage import Stage, Tenant, condition, told
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

KINDS = 6
"""kopf has one watch for each."""

SWEEP = 0.5
"""Seconds between two sweeps where a test wants them to find something."""


@pytest.fixture
def tenant(stage: Stage, authority: str) -> Iterator[Tenant]:
    """A namespace of the test's own; each test starts the operator that it needs."""
    with stage.tenant(authority) as made:
        yield made


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[Proxy]:
    with Proxy(plane) as running:
        yield running


def behind(proxy: Proxy, stage: Stage, tenant: Tenant, directory: Path) -> RunningOperator:
    """An operator all of whose connections go through the proxy."""
    through = proxy.kubeconfig(stage.kubeconfig, directory / "kubeconfig")
    return stage.operator(
        kubeconfig=through,
        watch_kubeconfig=through,
        sweep_interval=SWEEP,
        request_timeout=3.0,
        watch_namespaces=(tenant.namespace,),
    )


def serving(running: RunningOperator, tenant: Tenant, role: str) -> None:
    """Wait until it leads and an output was made Ready."""
    running.wait_leading()
    tenant.bot(roles=(role,))
    tenant.output("before")
    tenant.ready("before")


# --- watches that fall silent -------------------------------------------------------------------------------------------


def test_what_silent_watches_of_our_kinds_miss_is_found_by_the_sweep(
    stage: Stage, tenant: Tenant, role: str, proxy: Proxy, tmp_path: Path
) -> None:
    through = proxy.kubeconfig(stage.kubeconfig, tmp_path / "kubeconfig")
    with stage.operator(watch_kubeconfig=through, sweep_interval=SWEEP, watch_namespaces=(tenant.namespace,)) as running:
        serving(running, tenant, role)
        eventually("kopf watches every kind", lambda: proxy.open >= KINDS)
        assert proxy.silence() >= KINDS
        secret = tenant.secret("before")
        tenant.output("after")
        tenant.ready("after")
        assert running.value("machinebot_sweep_corrections_total", kind="MachineOutput") >= 1
        tenant.change("MachineBot", "deployer", logins=["deploy", "backup"])
        tenant.issued_anew(secret, "GrantChanged", "before")
        tenant.delete("MachineBot", "deployer")
        tenant.refused("BotMissing", "before")
        eventually("its credential is withdrawn", lambda: not tenant.has("Secret", "before"))


def test_an_output_that_was_deleted_under_silent_watches_is_forgotten_by_the_sweep(
    stage: Stage, tenant: Tenant, role: str, proxy: Proxy, tmp_path: Path
) -> None:
    through = proxy.kubeconfig(stage.kubeconfig, tmp_path / "kubeconfig")
    sample = {"namespace": tenant.namespace, "name": "before", "condition": "True"}
    with stage.operator(watch_kubeconfig=through, sweep_interval=SWEEP, watch_namespaces=(tenant.namespace,)) as running:
        serving(running, tenant, role)
        eventually("kopf watches every kind", lambda: proxy.open >= KINDS)
        eventually("it has metrics", lambda: running.value("machinebot_output_ready_status", **sample) == 1)
        proxy.silence()
        tenant.delete("MachineOutput", "before")
        eventually("its metrics are gone", lambda: running.value("machinebot_output_ready_status", **sample) == 0)


def test_when_every_connection_falls_silent_the_operator_comes_back_by_itself(
    stage: Stage, tenant: Tenant, role: str, proxy: Proxy, tmp_path: Path
) -> None:
    with behind(proxy, stage, tenant, tmp_path) as running:
        serving(running, tenant, role)
        running.settle()
        secret, mark = tenant.secret("before"), tenant.mark()
        assert proxy.silence() > KINDS
        tenant.output("after")
        tenant.ready("after")
        assert tenant.secret("before").version == secret.version
        assert tenant.summary(mark, "before") == []


def test_a_secret_that_was_deleted_under_silent_watches_is_issued_again(
    stage: Stage, tenant: Tenant, role: str, proxy: Proxy, tmp_path: Path
) -> None:
    with behind(proxy, stage, tenant, tmp_path) as running:
        serving(running, tenant, role)
        running.settle()
        secret = tenant.secret("before")
        proxy.silence()
        tenant.delete("Secret", "before")
        eventually("it is there again", lambda: tenant.has("Secret", "before"))
        tenant.issued_anew(secret, "SecretMissing", "before")


# --- an API server that goes away ---------------------------------------------------------------------------------------


def failed(running: RunningOperator) -> float:
    """Requests without an answer."""
    return running.total("machinebot_api_requests_total", code="0")


def test_an_api_server_that_is_away_for_a_while_harms_nothing(
    stage: Stage, plane: ControlPlane, tenant: Tenant, role: str
) -> None:
    with stage.operator(lease_duration=120.0, lease_renew_deadline=100.0, sweep_interval=SWEEP) as running:
        serving(running, tenant, role)
        running.settle()
        secret, mark, before = tenant.secret("before"), tenant.mark(), failed(running)
        with plane.api_server_stopped():
            eventually("the operator cannot reach it", lambda: failed(running) >= before + 3)
            assert running.operator.leads
        tenant.output("after")
        tenant.ready("after")
        running.settle()
        assert tenant.secret("before").version == secret.version
        assert tenant.summary(mark, "before") == []
        assert told(tenant.get("MachineOutput", "before"), "True")
        assert condition(tenant.get("MachineOutput", "before"), "Renewing") is None


def test_an_api_server_that_is_away_for_longer_than_the_lease_is_waited_for(
    stage: Stage, plane: ControlPlane, tenant: Tenant, role: str
) -> None:
    with stage.operator(lease_duration=6.0, lease_renew_deadline=4.0, lease_retry=0.2) as running:
        serving(running, tenant, role)
        running.settle()
        secret, mark = tenant.secret("before"), tenant.mark()
        with plane.api_server_stopped():
            eventually("it stops leading", lambda: not running.operator.leads)
            eventually("it says so", lambda: running.value("machinebot_leader") == 0)
            assert running.get("/healthz")[0] == 200
        running.wait_leading()
        tenant.output("after")
        tenant.ready("after")
        running.settle()
        assert tenant.secret("before").version == secret.version
        assert tenant.summary(mark, "before") == []


def test_an_operator_that_starts_before_the_api_server_waits_for_it(
    stage: Stage, plane: ControlPlane, tenant: Tenant, role: str
) -> None:
    with contextlib.ExitStack() as at_end:
        with plane.api_server_stopped():
            running = at_end.enter_context(stage.operator())
            eventually("it cannot reach it", lambda: failed(running) >= 2)
            assert running.running
            assert running.get("/healthz")[0] == 200
        serving(running, tenant, role)


def test_a_hanging_api_server_delays_and_loses_nothing(stage: Stage, plane: ControlPlane, tenant: Tenant, role: str) -> None:
    with stage.operator(lease_duration=120.0, lease_renew_deadline=100.0, request_timeout=3.0, sweep_interval=SWEEP) as running:
        serving(running, tenant, role)
        running.settle()
        secret, mark, before = tenant.secret("before"), tenant.mark(), failed(running)
        with plane.api_server_paused():
            eventually("requests are given up", lambda: failed(running) >= before + 2)
        tenant.output("after")
        tenant.ready("after")
        running.settle()
        assert tenant.secret("before").version == secret.version
        assert tenant.summary(mark, "before") == []


# --- health -------------------------------------------------------------------------------------------------------------


def test_healthz_fails_when_no_sweep_has_ended_for_three_intervals_and_heals(stage: Stage, tenant: Tenant, role: str) -> None:
    with stage.operator(sweep_interval=SWEEP, watch_namespaces=(tenant.namespace,)) as running:
        serving(running, tenant, role)
        eventually("it is healthy", lambda: running.get("/healthz") == (200, "ok\n"))
        with running.line.failing(lambda call: (call.verb, call.resource) == ("list", "machineoutputs")):
            eventually("it is unhealthy", lambda: running.get("/healthz")[0] != 200)
            assert running.get("/healthz") == (503, "no full look at the cluster has ended for 2 s\n")
            assert running.get("/readyz")[0] == 200
        eventually("it is healthy again", lambda: running.get("/healthz")[0] == 200)


def test_healthz_fails_when_the_first_look_never_ends(stage: Stage, tenant: Tenant) -> None:
    with stage.operator(sweep_interval=SWEEP, watch_namespaces=(tenant.namespace,)) as running:
        with running.line.failing(lambda call: call.verb == "list"):
            eventually("it is unhealthy", lambda: running.get("/healthz")[0] == 503)
            assert running.running
        eventually("it is healthy", lambda: running.get("/healthz")[0] == 200)


def test_the_time_of_the_last_sweep_is_a_metric(stage: Stage, tenant: Tenant) -> None:
    with stage.operator(sweep_interval=SWEEP, watch_namespaces=(tenant.namespace,)) as running:
        running.wait_leading()
        running.step(timedelta(hours=1))
        eventually(
            "a sweep has ended since",
            lambda: (
                running.value("machinebot_last_sweep_timestamp_seconds")
                > (running.clock.now() - timedelta(minutes=1)).timestamp()
            ),
        )


# --- an upgrade without its CRDs ----------------------------------------------------------------------------------------


def test_kinds_that_the_api_server_does_not_know_yet_stop_nobody_else(stage: Stage, tenant: Tenant, role: str) -> None:
    """Helm upgrades no CRDs: until somebody applies them, the lists of young kinds are answered by 404."""
    young = ("machinelocks", "machinejointokens")
    with stage.operator(watch_namespaces=(tenant.namespace,)) as running:
        with running.line.failing(
            lambda call: call.resource in young, NotFound("NotFound", "the server knows no such kind")
        ) as met:
            serving(running, tenant, role)
            running.settle()
            assert met
            assert running.get("/healthz")[0] == 200
        eventually("join tokens are read once they are known", lambda: running.operator._roster.is_complete)
