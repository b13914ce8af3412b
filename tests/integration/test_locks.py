"""Locks on a real API server: what they stop, how soon, what they leave alone, and how everything goes on after them."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machinebot.clock import parse_rfc3339, rfc3339
from support.cluster import Json
from support.inprocess import RunningOperator
from support.stage import API_VERSION, INTERVAL, Stage, Tenant, condition, told, unique
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

INSTANCE = "0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11"
HOUR = timedelta(hours=1)

Make = Callable[..., str]


@pytest.fixture
def lock(stage: Stage) -> Iterator[Make]:
    """Makes a lock on a target; all are taken away after the test."""
    made: list[str] = []

    def make(target: Json, **spec: Any) -> str:
        name = unique("lock")
        body = {"apiVersion": API_VERSION, "kind": "MachineLock", "metadata": {"name": name}, "spec": {"target": target, **spec}}
        stage.cluster.create(body)
        made.append(name)
        return name

    yield make
    for name in made:
        stage.cluster.delete("MachineLock", "", name)


def on_bot(tenant: Tenant, name: str = "deployer") -> Json:
    return {"bot": {"namespace": tenant.namespace, "name": name}}


def ready_of(stage: Stage, name: str, status: str = "True") -> Json:
    """The condition Ready of a lock, once it says so about the lock as it stands."""

    def look() -> Json:
        body = stage.cluster.get("MachineLock", "", name)
        assert body is not None
        assert told(body, status), condition(body)
        return condition(body) or {}

    return eventually(f"{name} is {status}", look, interval=INTERVAL)


def served(tenant: Tenant, role: str, running: RunningOperator) -> None:
    """A bot with two outputs, both issued, and nothing left to do."""
    tenant.bot(roles=(role,))
    for name in ("web", "db"):
        tenant.output(name)
    for name in ("web", "db"):
        tenant.ready(name)
    tenant.ready("deployer", "MachineBot")
    running.settle()


# --- bots ---------------------------------------------------------------------------------------------------------


def test_a_locked_bot_and_its_outputs_say_so_and_nothing_is_taken_away(
    tenant: Tenant, role: str, running: RunningOperator, lock: Make
) -> None:
    served(tenant, role, running)
    before = tenant.get("Secret", "web")["metadata"]["resourceVersion"]
    name = lock(on_bot(tenant), message="the key was in a log")
    for output in ("web", "db"):
        message = tenant.refused("Locked", output)["message"]
        assert message == (
            f"the bot 'deployer' is locked by the MachineLock {name!r} (the key was in a log): nothing is issued until that is "
            "deleted or ends"
        )
    assert name in tenant.refused("Locked", "deployer", "MachineBot")["message"]
    running.settle()
    assert tenant.get("Secret", "web")["metadata"]["resourceVersion"] == before
    assert tenant.status()["serial"] == tenant.secret().serial
    assert "Locked" in [event["reason"] for event in tenant.events("web")]
    assert "Locked" in [event["reason"] for event in tenant.events("deployer", kind="MachineBot")]


def test_after_the_lock_everything_is_ready_again_and_nothing_is_issued_for_it(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make
) -> None:
    served(tenant, role, running)
    before = {output: tenant.secret(output).serial for output in ("web", "db")}
    name = lock(on_bot(tenant))
    tenant.refused("Locked")
    tenant.refused("Locked", "db")
    tenant.refused("Locked", "deployer", "MachineBot")
    issued = running.total("machinebot_issues_total", result="success")
    stage.cluster.delete("MachineLock", "", name)
    for output in ("web", "db"):
        tenant.ready(output)
    tenant.ready("deployer", "MachineBot")
    running.settle()
    assert {output: tenant.secret(output).serial for output in before} == before
    assert running.total("machinebot_issues_total", result="success") == issued


def test_a_locked_output_is_not_renewed_and_is_as_soon_as_the_lock_is_gone(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make
) -> None:
    served(tenant, role, running)
    old = tenant.secret()
    name = lock(on_bot(tenant))
    tenant.refused("Locked")
    tenant.annotate("web", renew="1")
    running.settle()
    tenant.refused("Locked")
    assert tenant.secret().serial == old.serial
    stage.cluster.delete("MachineLock", "", name)
    tenant.issued_anew(old, "Requested")


def test_an_output_that_comes_while_its_bot_is_locked_gets_nothing(
    tenant: Tenant, role: str, running: RunningOperator, lock: Make
) -> None:
    """The lock is there first, and so is the bot: it does not join either."""
    lock(on_bot(tenant))
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.refused("Locked", "deployer", "MachineBot")
    tenant.refused("Locked")
    running.settle()
    assert not tenant.has("Secret", "web")
    assert not tenant.has("ServiceAccount", "machinebot-deployer")


def test_a_lock_stops_within_a_second(tenant: Tenant, role: str, running: RunningOperator, lock: Make) -> None:
    """From the API server's answer to the status of the output, which is written after the first refusal. The best of five: what
    else this machine does at that moment is no delay of ours."""
    served(tenant, role, running)
    seconds = []
    for _ in range(5):
        name = lock(on_bot(tenant))
        begun = time.monotonic()
        tenant.refused("Locked")
        seconds.append(time.monotonic() - begun)
        tenant.stage.cluster.delete("MachineLock", "", name)
        tenant.ready()
    assert min(seconds) < 1.0, seconds


def test_a_lock_on_one_bot_is_none_on_others(tenant: Tenant, role: str, running: RunningOperator, lock: Make) -> None:
    served(tenant, role, running)
    tenant.bot("other", roles=(role,))
    tenant.output("free", bot="other")
    tenant.ready("free")
    mark = tenant.mark()
    lock({"bot": {"namespace": f"{tenant.namespace}-2", "name": "deployer"}})
    lock(on_bot(tenant, "nobody"))
    lock({"role": "nothing"})
    lock({"instance": INSTANCE})
    lock({"joinToken": {"namespace": tenant.namespace, "name": "deployer"}})
    running.settle()
    assert tenant.summary(mark) == []
    lock(on_bot(tenant, "other"))
    tenant.refused("Locked", "free")
    running.settle()
    tenant.ready()
    tenant.ready("db")


# --- roles --------------------------------------------------------------------------------------------------------


def test_a_locked_role_stops_the_outputs_that_carry_it_and_no_others(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make
) -> None:
    second = stage.role()
    tenant.bot(roles=(role, second))
    tenant.output("web", roles=[role])
    tenant.output("db", roles=[second])
    tenant.output("all")
    for output in ("web", "db", "all"):
        tenant.ready(output)
    tenant.ready("deployer", "MachineBot")
    name = lock({"role": second})
    assert f"the role {second!r} is locked" in tenant.refused("Locked", "db")["message"]
    tenant.refused("Locked", "all")
    running.settle()
    tenant.ready("web")
    bot = tenant.ready("deployer", "MachineBot")
    (warning,) = (each for each in bot["status"]["warnings"] if "locked" in each)
    assert warning == f"the role {second!r} is locked by the MachineLock {name!r}: no credential that would carry it is issued"
    stage.cluster.delete("MachineLock", "", name)
    tenant.ready("db")
    tenant.ready("all")
    running.settle()
    assert not [each for each in tenant.get("MachineBot", "deployer")["status"].get("warnings", ()) if "locked" in each]


# --- the end ------------------------------------------------------------------------------------------------------


def test_a_lock_ends_by_itself_to_the_second(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make
) -> None:
    served(tenant, role, running)
    serial = tenant.secret().serial
    end = running.clock.now() + HOUR
    name = lock(on_bot(tenant), expires=rfc3339(end))
    tenant.refused("Locked")
    tenant.refused("Locked", "deployer", "MachineBot")
    assert ready_of(stage, name)["reason"] == "Active"
    running.step(end - running.clock.now() - timedelta(minutes=1))
    running.wait_quiet()
    tenant.refused("Locked")
    running.step(timedelta(minutes=1))
    ended = ready_of(stage, name, "False")
    assert ended["reason"] == "Expired"
    assert rfc3339(end) in ended["message"]
    tenant.ready()
    tenant.ready("db")
    tenant.ready("deployer", "MachineBot")
    assert tenant.secret().serial == serial


def test_an_ended_lock_is_prolonged(tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make) -> None:
    served(tenant, role, running)
    name = lock(on_bot(tenant), expires=rfc3339(running.clock.now() - HOUR))
    assert ready_of(stage, name, "False")["reason"] == "Expired"
    running.settle()
    tenant.ready()
    stage.cluster.patch("MachineLock", "", name, {"spec": {"expires": rfc3339(running.clock.now() + HOUR)}})
    tenant.refused("Locked")
    assert ready_of(stage, name)["reason"] == "Active"


def test_a_lock_that_is_turned_on_another_bot_lets_the_first_one_go(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make
) -> None:
    served(tenant, role, running)
    tenant.bot("other", roles=(role,))
    tenant.output("second", bot="other")
    tenant.ready("second")
    name = lock(on_bot(tenant))
    tenant.refused("Locked")
    stage.cluster.patch("MachineLock", "", name, {"spec": {"target": on_bot(tenant, "other")}})
    tenant.refused("Locked", "second")
    tenant.ready()
    tenant.ready("db")


def test_of_two_locks_each_is_enough(tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make) -> None:
    served(tenant, role, running)
    first, second = lock(on_bot(tenant)), lock({"role": role})
    tenant.refused("Locked")
    stage.cluster.delete("MachineLock", "", first)
    eventually("the other lock is named", lambda: second in tenant.refused("Locked")["message"])
    stage.cluster.delete("MachineLock", "", second)
    tenant.ready()


def test_a_restart_forgets_no_lock(tenant: Tenant, role: str, running: RunningOperator, lock: Make) -> None:
    served(tenant, role, running)
    running.stop()
    lock(on_bot(tenant))
    tenant.annotate("web", renew="1")
    old = tenant.secret().serial
    running.start()
    running.wait_leading()
    tenant.refused("Locked")
    running.settle()
    assert tenant.secret().serial == old


# --- what a lock says ---------------------------------------------------------------------------------------------


def test_a_lock_says_what_it_stops(tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make) -> None:
    served(tenant, role, running)
    tenant.make("MachineJoinToken", "github", {"bot": "deployer", "github": {"allow": [{"repositoryID": "1"}]}})
    told_by = {
        lock(
            on_bot(tenant)
        ): f"nobody joins as the bot 'deployer' in the namespace '{tenant.namespace}', and nothing is issued for it",
        lock({"role": role}): f"no credential that would carry the role {role!r} is issued",
        lock({"instance": INSTANCE}): f"nothing is issued to the instance {INSTANCE}, nor is its identity renewed; who can still "
        "prove to be the bot joins as another instance: lock the join token to stop that too",
        lock({"joinToken": {"namespace": tenant.namespace, "name": "github"}}): (
            f"nobody joins by the join token 'github' in the namespace '{tenant.namespace}', and nothing is issued to who has"
        ),
    }
    assert {name: ready_of(stage, name)["message"] for name in told_by} == told_by


@pytest.mark.parametrize("kind", ["MachineBot", "MachineRole", "MachineJoinToken"])
def test_a_lock_on_what_there_is_not_says_so_until_there_is(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator, lock: Make, kind: str
) -> None:
    place = {"namespace": tenant.namespace, "name": "deployer"}
    later = unique("role")
    targets: dict[str, Json] = {
        "MachineBot": {"bot": place},
        "MachineRole": {"role": later},
        "MachineJoinToken": {"joinToken": place},
    }
    name = lock(targets[kind])
    assert f"there is no {kind}" in ready_of(stage, name)["message"]
    if kind == "MachineRole":
        stage.role(later)
    elif kind == "MachineBot":
        tenant.bot(roles=(role,))
    else:
        tenant.make(kind, "deployer", {"bot": "deployer", "github": {"allow": [{"repositoryID": "1"}]}})
    eventually("the lock sees it", lambda: "there is no" not in ready_of(stage, name)["message"])
    running.settle()
    assert "there is no" not in ready_of(stage, name)["message"]


def test_a_lock_that_is_looked_at_again_is_not_written_again(
    tenant: Tenant, stage: Stage, running: RunningOperator, lock: Make
) -> None:
    name = lock(on_bot(tenant), expires=rfc3339(datetime.now(UTC) + 24 * HOUR))
    ready_of(stage, name)
    running.settle()
    body = stage.cluster.get("MachineLock", "", name)
    assert body is not None
    assert parse_rfc3339(body["spec"]["expires"]) > running.clock.now()
    running.settle()
    again = stage.cluster.get("MachineLock", "", name)
    assert again is not None
    assert again["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
