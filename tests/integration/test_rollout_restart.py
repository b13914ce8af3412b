"""Restarts after rotations on a real API server: once for each, never at the first issue, whatever breaks in between."""

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from machinebot.errors import Denied, MachinebotError, Unavailable
from support.cluster import Json
from support.credentials import StoredSecret
from support.inprocess import RunningOperator
from support.line import Call
from support.stage import Stage, Tenant, told
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

KINDS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
ISSUE = ["create secrets", "patch machineoutputs/status"]


def workload(tenant: Tenant, name: str, kind: str = "Deployment") -> str:
    """Make a workload without pods that could run: there are no nodes."""
    labels = {"app": name}
    container = {"name": "web", "image": "example.test/web"}
    spec: Json = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    if kind == "StatefulSet":
        spec["serviceName"] = name
    metadata = {"name": name, "namespace": tenant.namespace}
    tenant.stage.cluster.create({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec})
    return name


def these(*names: str, kind: str = "Deployment") -> list[dict[str, str]]:
    """For `rolloutRestart`."""
    return [{"kind": kind, "name": name} for name in names]


def notes(tenant: Tenant, name: str, kind: str = "Deployment") -> dict[str, str]:
    """The annotations of the workload's pods."""
    metadata: Json = tenant.get(kind, name)["spec"]["template"]["metadata"]
    return dict(metadata.get("annotations") or {})


def restarts(tenant: Tenant, name: str, kind: str = "Deployment") -> int:
    """How often its template was changed: the API server counts a new generation each time."""
    return int(tenant.get(kind, name)["metadata"]["generation"]) - 1


def key(tenant: Tenant, output: str = "web") -> str:
    return f"restart.machinebot.dev/{tenant.get('MachineOutput', output)['metadata']['uid']}"


def issued(tenant: Tenant, role: str, running: RunningOperator, **spec: Any) -> StoredSecret:
    """An output called web of a bot called deployer, Ready and with nothing left to do."""
    if not tenant.has("MachineBot", "deployer"):
        tenant.bot(roles=(role,))
    tenant.output(**spec)
    tenant.ready()
    running.settle()
    return tenant.secret()


def renewed(tenant: Tenant, secret: StoredSecret, running: RunningOperator, value: str = "1") -> StoredSecret:
    """The output after one more rotation, with nothing left to do."""
    tenant.annotate("web", renew=value)
    anew = tenant.issued_anew(secret, "Requested")
    running.settle()
    return anew


# --- once after each rotation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_restarts_the_workload_once_and_costs_one_patch(
    tenant: Tenant, role: str, running: RunningOperator, kind: str
) -> None:
    workload(tenant, "front", kind)
    mark = tenant.mark()
    secret = issued(tenant, role, running, rolloutRestart=these("front", kind=kind))
    assert tenant.summary(mark, "web", "front") == ISSUE, "the first issue restarts nothing"
    assert tenant.status()["restartedFor"] == secret.serial
    for round_ in (1, 2):
        mark = tenant.mark()
        secret = renewed(tenant, secret, running, str(round_))
        assert tenant.summary(mark, "web", "front") == ["update secrets", f"patch {KINDS[kind]}", "patch machineoutputs/status"]
        assert notes(tenant, "front", kind) == {key(tenant): secret.serial}
        assert (tenant.status()["restartedFor"], tenant.status().get("warnings")) == (secret.serial, None)
        assert restarts(tenant, "front", kind) == round_
    assert len(tenant.events("web")) == 3


def test_the_deployment_controller_replaces_the_pods(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    first = eventually("the first ReplicaSet", lambda: tenant.stage.cluster.list("ReplicaSet", tenant.namespace))
    assert len(first) == 1
    renewed(tenant, secret, running)
    eventually("the second one", lambda: len(tenant.stage.cluster.list("ReplicaSet", tenant.namespace)) == 2)


def test_looks_and_restarts_of_the_operator_change_nothing(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    renewed(tenant, secret, running)
    mark = tenant.mark()
    for _ in range(2):
        running.settle()
    running.stop()
    running.start()
    running.wait_leading()
    running.settle()
    assert tenant.writes(mark) == []
    assert restarts(tenant, "front") == 1


def test_several_workloads_and_several_outputs_do_not_get_into_each_others_way(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    for name in ("front", "back"):
        workload(tenant, name)
    secret = issued(tenant, role, running, rolloutRestart=these("front", "back"))
    tenant.output("db", rolloutRestart=these("back"))
    tenant.ready("db")
    running.settle()
    secret = renewed(tenant, secret, running)
    assert (restarts(tenant, "front"), restarts(tenant, "back")) == (1, 1)
    other = tenant.secret("db")
    tenant.annotate("db", renew="1")
    other = tenant.issued_anew(other, "Requested", "db")
    running.settle()
    assert (restarts(tenant, "front"), restarts(tenant, "back")) == (1, 2)
    assert notes(tenant, "back") == {key(tenant): secret.serial, key(tenant, "db"): other.serial}


def test_a_credential_that_replaces_a_deleted_secret_is_a_rotation(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    tenant.delete("Secret", "web")
    anew = tenant.issued_anew(secret, "SecretMissing")
    running.settle()
    assert (restarts(tenant, "front"), notes(tenant, "front")) == (1, {key(tenant): anew.serial})


def test_a_credential_that_follows_a_withdrawn_one_is_a_rotation(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    tenant.delete("MachineBot", "deployer")
    tenant.refused("BotMissing")
    running.settle()
    assert restarts(tenant, "front") == 0
    tenant.bot(roles=(role,))
    tenant.delete("ServiceAccount", "machinebot-deployer")  # as the garbage collector does, up to half a minute later
    anew = tenant.issued_anew(secret, "SecretMissing")
    running.settle()
    assert (restarts(tenant, "front"), tenant.status()["restartedFor"]) == (1, anew.serial)


# --- never for another reason --------------------------------------------------------------------------------------------


def test_a_workload_that_is_named_later_is_restarted_at_the_next_rotation_only(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    workload(tenant, "front")
    workload(tenant, "back")
    secret = issued(tenant, role, running)
    assert "restartedFor" not in tenant.status()
    mark = tenant.mark()
    for number, names in enumerate([("front",), ("front", "back")]):
        tenant.change("MachineOutput", "web", rolloutRestart=these(*names))
        tenant.ready()
        running.settle()
        assert tenant.status()["restartedFor"] == secret.serial
        assert tenant.summary(mark, "web", "front", "back") == ["patch machineoutputs/status"] * (number + 1)
    assert tenant.secret().version == secret.version
    renewed(tenant, secret, running)
    assert (restarts(tenant, "front"), restarts(tenant, "back")) == (1, 1)


def test_a_workload_that_is_named_along_with_a_rotation_is_restarted_for_it(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running)
    tenant.change("MachineOutput", "web", rolloutRestart=these("front"), credentialTTL="6h")
    anew = tenant.issued_anew(secret, "GrantChanged")
    running.settle()
    assert notes(tenant, "front") == {key(tenant): anew.serial}


def test_workloads_that_are_no_longer_named_are_left_alone_and_so_are_their_annotations(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    secret = renewed(tenant, secret, running)
    old = secret.serial
    tenant.change("MachineOutput", "web", rolloutRestart=None)
    tenant.ready()
    secret = renewed(tenant, secret, running, "2")
    assert "restartedFor" not in tenant.status()
    tenant.change("MachineOutput", "web", rolloutRestart=these("front"))
    tenant.ready()
    running.settle()
    assert tenant.status()["restartedFor"] == secret.serial
    assert (restarts(tenant, "front"), notes(tenant, "front")) == (1, {key(tenant): old})


def test_an_older_secret_put_back_from_a_backup_restarts_nothing(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    backup = issued(tenant, role, running, rolloutRestart=these("front"))
    running.step(timedelta(minutes=1))
    tenant.delete("Secret", "web")
    newer = tenant.issued_anew(backup, "SecretMissing")
    running.settle()
    body = copy.deepcopy(backup.body)
    body["metadata"] |= {"resourceVersion": newer.version, "uid": newer.uid}
    tenant.stage.cluster.replace(body)
    eventually("the status tells of the older one", lambda: tenant.status()["serial"] == backup.serial)
    running.settle()
    assert (restarts(tenant, "front"), tenant.status()["restartedFor"]) == (1, backup.serial)
    anew = renewed(tenant, backup, running, "2")
    assert (restarts(tenant, "front"), notes(tenant, "front")) == (2, {key(tenant): anew.serial})


def test_a_lost_status_restarts_nothing(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    secret = renewed(tenant, secret, running)
    before = tenant.status()
    mark = tenant.mark()
    tenant.put_status(None)
    tenant.ready()
    running.settle()
    after = tenant.status()
    assert [each.pop("conditions")[0]["reason"] for each in (before, after)] == ["Issued", "Issued"]
    assert after == before
    assert tenant.summary(mark, "web", "front") == ["patch machineoutputs/status"]


def test_an_older_status_put_back_from_a_backup_repeats_a_patch_that_changes_nothing(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    backup = tenant.status()
    secret = renewed(tenant, secret, running)
    tenant.put_status(backup)
    eventually("the status is made good", lambda: tenant.status()["restartedFor"] == secret.serial)
    running.settle()
    assert restarts(tenant, "front") == 1


# --- what breaks in between ----------------------------------------------------------------------------------------------

POINTS: dict[str, Callable[[Call], bool]] = {
    "after the Secret": lambda call: (call.verb, call.resource) == ("update", "secrets"),
    "after one workload": lambda call: (call.resource, call.name) == ("deployments", "front"),
    "after the other workload": lambda call: (call.resource, call.name) == ("deployments", "back"),
    "after the status": lambda call: call.resource == "machineoutputs/status",
}


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_a_crash_anywhere_in_a_rotation_restarts_each_workload_once(
    tenant: Tenant, role: str, running: RunningOperator, point: Callable[[Call], bool]
) -> None:
    for name in ("front", "back"):
        workload(tenant, name)
    issued(tenant, role, running, rolloutRestart=these("front", "back"))
    running.line.cut_after(lambda call: call.namespace == tenant.namespace and point(call))
    tenant.annotate("web", renew="1")
    eventually("the line is cut", lambda: running.line.is_cut)
    running.crash()
    secret = tenant.secret()
    running.start()
    running.wait_leading()
    eventually("the restarts are done", lambda: tenant.status()["restartedFor"] == secret.serial)
    running.settle()
    assert tenant.secret().version == secret.version, "nothing is issued a second time"
    for name in ("front", "back"):
        assert (restarts(tenant, name), notes(tenant, name)) == (1, {key(tenant): secret.serial})


def test_a_new_leader_finishes_what_the_one_before_has_begun(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator
) -> None:
    workload(tenant, "front")
    issued(tenant, role, running, rolloutRestart=these("front"))
    running.line.cut_after(lambda call: call.namespace == tenant.namespace and POINTS["after the Secret"](call))
    tenant.annotate("web", renew="1")
    eventually("the line is cut", lambda: running.line.is_cut)
    running.crash()
    secret = tenant.secret()
    with stage.operator(clock=running.clock) as other:
        other.wait_leading()
        eventually("the restart is done", lambda: tenant.status()["restartedFor"] == secret.serial)
        other.settle()
    assert tenant.secret().version == secret.version
    assert (restarts(tenant, "front"), notes(tenant, "front")) == (1, {key(tenant): secret.serial})


def test_a_status_that_cannot_be_written_costs_no_second_restart(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    with running.line.failing(
        lambda call: call.resource == "machineoutputs/status" and call.namespace == tenant.namespace
    ) as met:
        tenant.annotate("web", renew="1")
        eventually("the status cannot be written", lambda: met)
    running.step(timedelta(seconds=30))
    tenant.issued_anew(secret, "Requested")
    running.settle()
    assert restarts(tenant, "front") == 1


# --- what cannot be restarted --------------------------------------------------------------------------------------------


def test_a_missing_workload_is_told_and_passed_over(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front", "nowhere"))
    mark = tenant.mark()
    secret = renewed(tenant, secret, running)
    (warning,) = tenant.status()["warnings"]
    assert warning.startswith("WorkloadMissing: there was no Deployment 'nowhere'")
    assert "correct spec.rolloutRestart, or create it" in warning
    assert told(tenant.get("MachineOutput", "web"), "True")
    assert tenant.status()["restartedFor"] == secret.serial
    assert restarts(tenant, "front") == 1
    warnings = [event["note"] for event in tenant.events("web") if event["type"] == "Warning"]
    assert warnings == [warning]
    expected = ["update secrets", "patch deployments", "patch deployments", "patch machineoutputs/status"]
    assert tenant.summary(mark, "web", "front", "nowhere") == expected
    mark = tenant.mark()
    workload(tenant, "nowhere")
    running.step(timedelta(minutes=10))
    running.settle()
    assert tenant.writes(mark) == [], "it started with the credential as it is"
    secret = renewed(tenant, secret, running, "2")
    assert not tenant.status().get("warnings")
    assert (restarts(tenant, "front"), restarts(tenant, "nowhere")) == (2, 1)


TROUBLES: dict[str, tuple[MachinebotError, str]] = {
    "away": (Unavailable("ApiServerAway", "the API server does not answer: TimeoutError"), "ApiServerAway"),
    "forbidden": (Denied("Forbidden", "another policy refuses it"), "another policy refuses it"),
}


@pytest.mark.parametrize(("error", "words"), TROUBLES.values(), ids=TROUBLES)
def test_a_workload_that_cannot_be_patched_is_told_and_tried_again_ever_later(
    tenant: Tenant, role: str, running: RunningOperator, error: MachinebotError, words: str
) -> None:
    for name in ("front", "back"):
        workload(tenant, name)
    secret = issued(tenant, role, running, rolloutRestart=these("front", "back"))
    mark = tenant.mark()
    with running.line.failing(
        lambda call: (call.resource, call.namespace, call.name) == ("deployments", tenant.namespace, "front"), error
    ) as met:
        tenant.annotate("web", renew="1")
        anew = tenant.issued_anew(secret, "Requested")
        body = tenant.get("MachineOutput", "web")
        assert told(body, "True"), "the credential is fine"
        (warning,) = body["status"]["warnings"]
        assert warning.startswith("RestartFailed: the Deployment 'front' was not restarted and is tried again")
        assert words in warning
        assert body["status"]["restartedFor"] == secret.serial
        for attempts in (2, 3):
            running.step(timedelta(seconds=10))
            eventually("it is tried again", lambda: len(met) >= attempts)  # noqa: B023 - used at once
            running.wait_quiet()
        before = len(met)
        for _ in range(2):
            running.call(running._look)
            running.wait_quiet()
        assert len(met) == before, "a look is no reason to try sooner"
        assert restarts(tenant, "back") == 1
    running.step(timedelta(minutes=10))
    eventually("it is restarted", lambda: tenant.status()["restartedFor"] == anew.serial)
    running.settle()
    assert not tenant.status().get("warnings")
    assert (restarts(tenant, "front"), restarts(tenant, "back")) == (1, 1)
    assert tenant.secret().version == anew.version
    expected = ["update secrets", "patch deployments", "patch machineoutputs/status"]  # the faults never left the process
    assert tenant.summary(mark, "web", "front", "back") == [*expected, "patch deployments", "patch machineoutputs/status"]
    warnings = [event["reason"] for event in tenant.events("web") if event["type"] == "Warning"]
    assert warnings == ["RestartFailed"]


def test_a_rotation_supersedes_a_restart_that_was_still_to_come(tenant: Tenant, role: str, running: RunningOperator) -> None:
    workload(tenant, "front")
    secret = issued(tenant, role, running, rolloutRestart=these("front"))
    with running.line.failing(lambda call: (call.resource, call.namespace) == ("deployments", tenant.namespace)):
        tenant.annotate("web", renew="1")
        secret = tenant.issued_anew(secret, "Requested")
    secret = renewed(tenant, secret, running, "2")
    assert (restarts(tenant, "front"), notes(tenant, "front")) == (1, {key(tenant): secret.serial})
