"""The operator with the chart's own account: its rights are enough for all of its work, and what it says holds nothing secret."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.cluster import ControlPlane, start_control_plane
from e2e.support.audit import refused, requests
from e2e.support.objects import OURS, RENEW, Json, bot, condition, content, create, get, is_ready, items, output, role, wait_ready
from e2e.support.whole import check_whole
from machinebot.policy.credential import Purpose
from support.waiting import eventually
from workbench.chart import Release, install_chart
from workbench.operator import OperatorProcess

pytestmark = pytest.mark.cluster

CA_SECRETS = len(Purpose)
SWEEPS = {"--sweep-interval": "1"}
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}")
"""How every JSON Web Token begins."""


@pytest.fixture
def cluster() -> Iterator[ControlPlane]:
    """With an audit log of reads too, and namespaces a and b."""
    with start_control_plane(audit_reads=True) as running:
        for name in ("a", "b"):
            running.kubectl("create", "namespace", name)
        yield running


def events_about(cluster: ControlPlane, namespace: str, name: str) -> list[Json]:
    return [event for event in items(cluster, "events.events.k8s.io", namespace) if event["regarding"]["name"] == name]


def reasons(cluster: ControlPlane, namespace: str, name: str) -> set[str]:
    return {f"{event['type']}/{event['reason']}" for event in events_about(cluster, namespace, name)}


def work(cluster: ControlPlane, operator: OperatorProcess, namespace: str) -> None:
    """Everything that the operator does: bots, outputs of each type, refusals, a renewal, a withdrawal, a new name, sweeps."""
    hosts = role("hosts", ["*"], allow={"hostPrincipals": ["*.example.test"]})
    things = [
        hosts,
        bot(namespace, "deployer", "access"),
        bot(namespace, "host", "hosts"),
        bot(namespace, "wrong", "no-such-role"),
        bot(namespace, "gone", "access"),
        output(namespace, "identity", "deployer"),
        output(namespace, "renamed", "deployer", secret={"name": "first"}),
        output(namespace, "wrong", "wrong"),
        output(namespace, "gone", "gone"),
    ]
    host = output(namespace, "host", "host")
    del host["spec"]["identity"]
    host["spec"]["sshHost"] = {"principals": ["web-1.example.test"]}
    create(cluster, *things, host)
    wait_ready(cluster, namespace, *(f"machineoutput/{name}" for name in ("identity", "renamed", "gone", "host")))
    eventually(
        "the refusal", lambda: condition(get(cluster, "machineoutput", namespace, "wrong")).get("reason") == "RoleNotFound"
    )

    cluster.kubectl("annotate", "machineoutput", "identity", f"{RENEW}=1", f"--namespace={namespace}")
    rename = '--patch={"spec":{"secret":{"name":"second"}}}'
    cluster.kubectl("patch", "machineoutput", "renamed", "--type=merge", rename, f"--namespace={namespace}")
    cluster.kubectl("delete", "machinebot", "gone", f"--namespace={namespace}")
    cluster.kubectl("delete", "serviceaccount", "machinebot-host", f"--namespace={namespace}")
    eventually("the renewal", lambda: get(cluster, "machineoutput", namespace, "identity")["status"].get("renewToken") == "1")
    wanted = ["host", "identity", "second"]
    eventually("renamed and withdrawn", lambda: secrets_in(cluster, namespace) == wanted)
    eventually("the ServiceAccount again", lambda: get(cluster, "serviceaccount", namespace, "machinebot-host"))
    wait_ready(cluster, namespace, *(f"machineoutput/{name}" for name in ("identity", "renamed", "host")))

    swept = operator.metrics()["machinebot_last_sweep_timestamp_seconds"]
    last = "machinebot_last_sweep_timestamp_seconds"
    eventually("a sweep", lambda: operator.metrics()[last] > swept)
    eventually("an Event for an issue", lambda: "Normal/Issued" in reasons(cluster, namespace, "identity"))
    eventually("an Event for a refusal", lambda: "Warning/RoleNotFound" in reasons(cluster, namespace, "wrong"))


def secrets_in(cluster: ControlPlane, namespace: str) -> list[str]:
    return sorted(secret["metadata"]["name"] for secret in items(cluster, "secrets", namespace, f"--selector={OURS}"))


def lease(release: Release) -> Json:
    found: Json = get(release.cluster, "lease", release.namespace, "machinebot")["spec"]
    return found


def check_silent(log: Path, secrets: list[Json], kubeconfig: Path) -> None:
    """The log is JSON, a line each, and holds no piece of any Secret, no token, no PEM."""
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert "BEGIN" not in text
    assert "PRIVATE" not in text
    assert TOKEN.search(text) is None
    tokens = [word for word in re.split(r"[\s\"']+", kubeconfig.read_text()) if word.startswith("eyJ")]
    assert tokens, "the operator has no token in its kubeconfig"
    pieces = {line for secret in secrets for value in content(secret).values() for line in value.decode().splitlines()}
    for piece in pieces | set(tokens):
        assert len(piece) < 24 or piece not in text
    assert [line for line in lines if line["level"] == "ERROR"] == []


def test_the_charts_account_is_enough_for_all_of_the_work(cluster: ControlPlane, tmp_path: Path):
    release = install_chart(cluster)
    with OperatorProcess.from_release(release, tmp_path, flags=SWEEPS) as operator:
        operator.wait_ready()
        eventually("it leads", lambda: operator.metrics()["machinebot_leader"] == 1)
        work(cluster, operator, "a")
        work_output = get(cluster, "machineoutput", "a", "identity")
        check_whole(work_output, get(cluster, "secret", "a", "identity"))

        assert operator.get("/healthz") == operator.get("/readyz") == (200, b"ok\n")
        metrics = operator.metrics()
        assert metrics['machinebot_issues_total{reason="SecretMissing",result="success",type="identity"}'] >= 3
        assert metrics['machinebot_issues_total{reason="Requested",result="success",type="identity"}'] == 1
        assert metrics['machinebot_joins_total{method="kubernetes",result="success"}'] >= 3
        assert metrics['machinebot_output_ready_status{condition="True",name="identity",namespace="a"}'] == 1
        assert metrics['machinebot_output_ready_status{condition="False",name="wrong",namespace="a"}'] == 1
        assert metrics["machinebot_events_dropped_total"] == 0
        assert not any('code="403"' in name and value for name, value in metrics.items())
        assert operator.get("/no-such-page")[0] == 404
        assert lease(release)["holderIdentity"] == operator.name

        stored = items(cluster, "secrets", "", f"--selector={OURS}")
        ours = [secret for secret in stored if secret["metadata"]["namespace"] == release.namespace]
        assert len(ours) == CA_SECRETS
        assert operator.stop() == 0
        assert lease(release).get("holderIdentity", "") == ""
        check_silent(operator.log, stored, Path(operator.environment["KUBECONFIG"]))
    assert refused(cluster, release.operator_user) == []
    done = requests(cluster, release.operator_user)
    expected = {
        ("create", "secrets"),
        ("update", "secrets"),
        ("delete", "secrets"),
        ("watch", "secrets"),
        ("create", "serviceaccounts"),
        ("create", "serviceaccounts/token"),
        ("create", "tokenreviews"),
        ("patch", "machineoutputs/status"),
        ("patch", "machinebots/status"),
        ("patch", "machineroles/status"),
        ("patch", "machineauthorities/status"),
        ("create", "events"),
        ("create", "leases"),
        ("update", "leases"),
    }
    assert expected <= done.keys()


def test_an_operator_for_some_namespaces_serves_these_and_needs_no_rights_elsewhere(cluster: ControlPlane, tmp_path: Path):
    release = install_chart(cluster, {"watchNamespaces": ["a"]})
    with OperatorProcess.from_release(release, tmp_path, flags=SWEEPS) as operator:
        assert "--watch-namespaces=a" in operator.command
        operator.wait_ready()
        create(cluster, bot("b", "deployer", "access"), output("b", "identity", "deployer"))
        work(cluster, operator, "a")
        stored = items(cluster, "secrets", "", f"--selector={OURS}")
        assert {secret["metadata"]["namespace"] for secret in stored} == {"a", release.namespace}
        assert condition(get(cluster, "machinebot", "b", "deployer"))["reason"] == "Pending"
        not_served = get(cluster, "machineoutput", "b", "identity")
        assert not is_ready(not_served)
        assert condition(not_served)["message"] == "waiting for the operator"
        assert not any('namespace="b"' in name for name in operator.metrics())
        assert operator.metrics()["machinebot_events_dropped_total"] == 0
        assert operator.stop() == 0
        check_silent(operator.log, stored, Path(operator.environment["KUBECONFIG"]))
    assert lease(release).get("holderIdentity", "") == ""
    assert refused(cluster, release.operator_user) == []


def test_a_stop_at_any_moment_is_a_clean_one(release: Release, tmp_path: Path):
    """While it starts to lead, kopf takes the process's signals for itself; none may be lost meanwhile."""
    operator = OperatorProcess.from_release(release, tmp_path)
    with contextlib.closing(operator):
        for line in ("serving", "leading", "synced"):
            operator.log.write_bytes(b"")
            operator.start()
            eventually(line, lambda: f'"{line}"' in operator.log.read_text(), interval=0.001)  # noqa: B023 - used at once
            assert operator.stop() == 0, line
            assert lease_holder(release) == ""


def lease_holder(release: Release) -> str:
    try:
        return str(lease(release).get("holderIdentity", ""))
    except LookupError:
        return ""
