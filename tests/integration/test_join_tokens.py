"""Join tokens on a real API server: what their status tells people beforehand, and that it drops nothing of what it did not write."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from machinebot.clock import rfc3339
from support.cluster import Json
from support.inprocess import RunningOperator
from support.stage import API_VERSION, Stage, Tenant, condition, unique
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

KIND = "MachineJoinToken"
GITHUB: Json = {"github": {"allow": [{"repositoryID": "1296269", "ref": "refs/heads/main"}]}}
SECRET: Json = {"token": {"secretHash": "sha256:" + 32 * "5e"}}
INSTANCE = "0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11"
HOUR = timedelta(hours=1)


def make(tenant: Tenant, name: str = "ci", bot: str = "deployer", **spec: Any) -> str:
    return tenant.make(KIND, name, {"bot": bot, **(spec or GITHUB)})


def ready(tenant: Tenant, name: str = "ci") -> Json:
    return condition(tenant.ready(name, KIND)) or {}


def refused(tenant: Tenant, reason: str, name: str = "ci") -> str:
    return str(tenant.refused(reason, name, KIND)["message"])


def joined(tenant: Tenant, ends: datetime, name: str = "ci", generation: int = 1) -> Json:
    """Writes who has joined, as the join API does."""
    stamp = rfc3339(ends - HOUR)
    instance = {
        "id": INSTANCE,
        "generation": generation,
        "key": 64 * "a",
        "joinedAt": stamp,
        "renewedAt": stamp,
        "expiresAt": rfc3339(ends),
    }
    tenant.stage.cluster.patch(KIND, tenant.namespace, name, {"status": {"instance": instance}}, subresource="status")
    return instance


def secret_token(tenant: Tenant, role: str, running: RunningOperator, *, life: timedelta = 240 * HOUR) -> datetime:
    """A join token of method `token` that accepts; returns when it ends."""
    ends = running.clock.now() + life
    tenant.bot(roles=(role,))
    make(tenant, expires=rfc3339(ends), **SECRET)
    assert ready(tenant)["reason"] == "Accepting"
    return ends


def test_a_join_token_says_how_and_as_whom_one_may_join(tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    make(tenant)
    body = tenant.ready("ci", KIND)
    told_of = condition(body) or {}
    assert (told_of["reason"], told_of["message"]) == ("Accepting", "github: whoever proves it may join as the bot 'deployer'")
    assert body["status"]["method"] == "github"
    assert body["status"].get("warnings", []) == []


def test_a_join_token_warns_of_trust_in_a_name(tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    make(tenant, github={"allow": [{"repository": "acme/web"}]})
    (warning,) = tenant.ready("ci", KIND)["status"]["warnings"]
    assert warning == "allow[0].repository is trusted alone, a name that may become somebody else's: add repositoryID"
    tenant.change(KIND, "ci", **GITHUB)
    eventually("the warning goes", lambda: not tenant.ready("ci", KIND)["status"].get("warnings"))


def test_a_join_token_waits_for_its_bot(tenant: Tenant, role: str) -> None:
    make(tenant)
    assert refused(tenant, "BotMissing") == (
        f"there is no MachineBot 'deployer' in the namespace '{tenant.namespace}': create it, or correct spec.bot"
    )
    tenant.bot(roles=(role,))
    ready(tenant)
    tenant.delete("MachineBot", "deployer")
    refused(tenant, "BotMissing")
    tenant.bot("other", roles=(role,))
    tenant.change(KIND, "ci", bot="other")
    ready(tenant)


def test_a_join_token_ends_to_the_second_and_can_be_moved_on(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    end = running.clock.now() + HOUR
    make(tenant, expires=rfc3339(end), **GITHUB)
    ready(tenant)
    running.settle()
    running.step(end - running.clock.now() - timedelta(minutes=1))
    running.wait_quiet()
    ready(tenant)
    running.step(timedelta(minutes=1))
    assert rfc3339(end) in refused(tenant, "Expired")
    tenant.change(KIND, "ci", expires=rfc3339(end + HOUR))
    ready(tenant)


def test_a_secret_that_was_used_up_says_by_whom(tenant: Tenant, role: str, running: RunningOperator) -> None:
    ends = secret_token(tenant, role, running)
    instance = joined(tenant, running.clock.now() + HOUR)
    eventually("it says who has joined", lambda: INSTANCE in ready(tenant)["message"])
    assert ready(tenant)["reason"] == "Joined"
    running.settle()
    status = tenant.get(KIND, "ci")["status"]
    assert status["instance"] == instance
    assert ends > running.clock.now()


def test_who_has_joined_outlives_every_write_of_ours(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret_token(tenant, role, running)
    instance = joined(tenant, running.clock.now() + HOUR)
    eventually("it says who has joined", lambda: ready(tenant)["reason"] == "Joined")
    tenant.delete("MachineBot", "deployer")
    refused(tenant, "BotMissing")
    tenant.bot(roles=(role,))
    assert ready(tenant)["reason"] == "Joined"
    tenant.change(KIND, "ci", token={"secretHash": "sha256:" + 32 * "00"})
    assert ready(tenant)["reason"] == "Joined", "another secret makes no second use of the same join token"
    assert tenant.get(KIND, "ci")["status"]["instance"] == instance


def test_a_renewal_is_no_news(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret_token(tenant, role, running)
    joined(tenant, running.clock.now() + HOUR)
    eventually("it says who has joined", lambda: ready(tenant)["reason"] == "Joined")
    running.settle()
    mark = tenant.mark()
    joined(tenant, running.clock.now() + 2 * HOUR, generation=2)
    running.settle()
    assert tenant.summary(mark, "ci") == []


def test_an_instance_that_was_let_end_is_told(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret_token(tenant, role, running)
    end = running.clock.now() + HOUR
    joined(tenant, end)
    eventually("it says who has joined", lambda: ready(tenant)["reason"] == "Joined")
    running.settle()
    running.step(end - running.clock.now())
    assert "make another one with a new secret" in refused(tenant, "InstanceExpired")


def test_a_locked_join_token_says_which_lock(tenant: Tenant, stage: Stage, role: str, running: RunningOperator) -> None:
    secret_token(tenant, role, running)
    joined(tenant, running.clock.now() + HOUR)
    eventually("it says who has joined", lambda: ready(tenant)["reason"] == "Joined")
    place = {"namespace": tenant.namespace, "name": "ci"}
    targets: tuple[Json, ...] = ({"joinToken": place}, {"bot": place | {"name": "deployer"}}, {"instance": INSTANCE})
    for target in targets:
        name = unique("lock")
        body = {"apiVersion": API_VERSION, "kind": "MachineLock", "metadata": {"name": name}, "spec": {"target": target}}
        stage.cluster.create(body)
        assert name in refused(tenant, "Locked")
        stage.cluster.delete("MachineLock", "", name)
        ready(tenant)


def test_what_is_looked_at_again_is_not_written_again(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    make(tenant)
    ready(tenant)
    running.settle()
    mark = tenant.mark()
    running.settle()
    assert tenant.summary(mark) == []


# --- instances of bots --------------------------------------------------------------------------------------------


def test_the_operator_carries_instances_over_and_drops_ended_ones_when_it_writes(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    tenant.bot(roles=(role,))
    tenant.ready("deployer", "MachineBot")
    running.settle()
    now = running.clock.now()
    instances = [
        {
            "id": f"0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c{number}",
            "method": "github",
            "joinToken": "ci",
            "generation": 1,
            "attributes": {"repositoryID": "1296269"},
            "joinedAt": rfc3339(now),
            "lastSeen": rfc3339(now),
            "expiresAt": rfc3339(now + life),
        }
        for number, life in ((11, HOUR), (12, 3 * HOUR))
    ]
    patch = {"status": {"instances": instances}}
    tenant.stage.cluster.patch("MachineBot", tenant.namespace, "deployer", patch, subresource="status")
    mark = tenant.mark()
    running.step(2 * HOUR)
    running.settle()
    assert tenant.summary(mark, "deployer") == [], "an ended instance alone is no reason to write"
    tenant.output()
    tenant.ready()
    running.settle()
    status = tenant.get("MachineBot", "deployer")["status"]
    assert status["outputs"] == 1
    assert status["instances"] == instances[1:]
