"""Bots on a real API server: their ServiceAccounts, and joining with them."""

from datetime import timedelta
from typing import Any

import pytest

from machinebot.errors import Denied
from support.credentials import StoredSecret
from support.inprocess import RunningOperator
from support.stage import Stage, Tenant, condition, reason_of, told
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

ACCOUNT = "machinebot-deployer"
IDENTITY_LIFE = timedelta(hours=1)


def account_uid(tenant: Tenant, name: str = ACCOUNT) -> str:
    return str(tenant.get("ServiceAccount", name)["metadata"]["uid"])


def pinned(tenant: Tenant, bot: str = "deployer") -> dict[str, str]:
    """The ServiceAccount that the bot's status names."""
    account: dict[str, str] = tenant.get("MachineBot", bot)["status"].get("serviceAccount") or {}
    return account


def settled(tenant: Tenant, role: str, running: RunningOperator, **spec: Any) -> tuple[StoredSecret, dict[str, str]]:
    """A bot that has joined and an output that was issued, with nothing left to do: its Secret, and whom the bot is pinned to."""
    tenant.bot(roles=(role,), **spec)
    tenant.output()
    tenant.ready()
    tenant.ready("deployer", "MachineBot")
    running.settle()
    return tenant.secret(), pinned(tenant)


def test_a_bot_gets_a_service_account_of_its_own_that_mounts_no_token(tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    bot = tenant.ready("deployer", "MachineBot")
    account = tenant.get("ServiceAccount", ACCOUNT)
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "machinebot"}
    assert [
        (owner["kind"], owner["name"], owner["uid"], owner["controller"]) for owner in account["metadata"]["ownerReferences"]
    ] == [("MachineBot", "deployer", bot["metadata"]["uid"], True)]
    assert bot["status"]["serviceAccount"] == {"name": ACCOUNT, "uid": account["metadata"]["uid"]}
    assert reason_of(bot) == "Joined"


def test_nothing_is_stored_of_the_tokens_that_bots_join_with(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.ready()
    running.settle()
    assert [secret["metadata"]["name"] for secret in tenant.stage.cluster.list("Secret", tenant.namespace)] == ["web"]


def test_many_outputs_of_one_bot_share_one_join(tenant: Tenant, role: str, running: RunningOperator) -> None:
    before = running.value("machinebot_joins_total", method="kubernetes", result="success")
    tenant.bot(roles=(role,))
    for name in ("a", "b", "c", "d", "e"):
        tenant.output(name)
    for name in ("a", "b", "c", "d", "e"):
        tenant.ready(name)
    running.settle()
    assert running.value("machinebot_joins_total", method="kubernetes", result="success") == before + 1


def test_outputs_are_counted_as_they_come_and_go(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    tenant.ready("deployer", "MachineBot")
    for count, name in enumerate(("a", "b", "c"), start=1):
        tenant.output(name)
        running.settle()
        assert tenant.get("MachineBot", "deployer")["status"]["outputs"] == count
    tenant.delete("MachineOutput", "a")
    running.settle()
    table = tenant.stage.release.cluster.kubectl("get", "mbot", "deployer", f"--namespace={tenant.namespace}")
    header, line = (row.split() for row in table.splitlines())
    assert dict(zip(header, line, strict=True)) | {"AGE": ""} == {
        "NAME": "deployer",
        "READY": "True",
        "ROLES": f'["{role}"]',
        "OUTPUTS": "2",
        "AGE": "",
    }


def test_a_foreign_service_account_of_that_name_is_not_used(tenant: Tenant, role: str, running: RunningOperator) -> None:
    uid = tenant.service_account(ACCOUNT)
    mark = tenant.mark()
    tenant.bot(roles=(role,))
    tenant.output()
    ready = tenant.refused("ServiceAccountConflict", "deployer", "MachineBot")
    assert "set serviceAccountName to use it, or delete it" in ready["message"]
    tenant.refused("ServiceAccountConflict")
    running.settle()
    assert account_uid(tenant) == uid
    assert not tenant.has("Secret", "web")
    assert [write for write in tenant.writes(mark, ACCOUNT) if write.code < 300] == []
    assert [event["reason"] for event in tenant.events("deployer", kind="MachineBot")] == ["ServiceAccountConflict"]


def test_a_foreign_service_account_heals_when_it_is_deleted(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.service_account(ACCOUNT)
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.refused("ServiceAccountConflict", "deployer", "MachineBot")
    tenant.refused("ServiceAccountConflict")
    tenant.delete("ServiceAccount", ACCOUNT)
    running.step(timedelta(minutes=1))
    tenant.ready("deployer", "MachineBot")
    running.step(timedelta(minutes=1))
    tenant.ready()


def test_a_foreign_service_account_can_be_used_by_its_name(tenant: Tenant, role: str) -> None:
    uid = tenant.service_account(ACCOUNT)
    tenant.bot(roles=(role,), serviceAccountName=ACCOUNT)
    tenant.output()
    tenant.ready()
    tenant.ready("deployer", "MachineBot")
    assert pinned(tenant) == {"name": ACCOUNT, "uid": uid}


def test_a_named_service_account_that_is_missing_is_waited_for(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,), serviceAccountName="deployer")
    tenant.output()
    ready = tenant.refused("ServiceAccountMissing", "deployer", "MachineBot")
    assert "create it, or leave serviceAccountName out" in ready["message"]
    tenant.refused("ServiceAccountMissing")
    assert not tenant.has("ServiceAccount", ACCOUNT)
    uid = tenant.service_account("deployer")
    running.step(timedelta(seconds=30))
    tenant.ready()
    tenant.ready("deployer", "MachineBot")
    assert pinned(tenant) == {"name": "deployer", "uid": uid}


def test_a_bot_whose_name_for_the_account_changes_joins_with_the_new_one(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.ready()
    secret = tenant.secret()
    uid = tenant.service_account("deployer")
    tenant.change("MachineBot", "deployer", serviceAccountName="deployer")
    eventually("it joined with the other account", lambda: pinned(tenant) == {"name": "deployer", "uid": uid})
    running.settle()
    assert tenant.secret().version == secret.version


def test_its_own_service_account_is_made_again_when_it_was_deleted_and_joined_anew(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret, old = settled(tenant, role, running)
    tenant.delete("ServiceAccount", ACCOUNT)
    eventually("it was made again and joined", lambda: pinned(tenant)["uid"] not in ("", old["uid"]))
    running.settle()
    assert pinned(tenant) == {"name": ACCOUNT, "uid": account_uid(tenant)}
    assert told(tenant.get("MachineBot", "deployer"), "True")
    assert tenant.secret().version == secret.version
    tenant.annotate("web", renew="now")
    tenant.issued_anew(secret, "Requested")


def test_its_own_service_account_that_was_deleted_while_the_operator_was_down_is_made_again(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret, old = settled(tenant, role, running)
    running.stop()
    tenant.delete("ServiceAccount", ACCOUNT)
    running.start()
    running.wait_leading()
    assert tenant.secret().version == secret.version
    tenant.annotate("web", renew="now")
    tenant.issued_anew(secret, "Requested")
    eventually("the bot is pinned to the new one", lambda: pinned(tenant)["uid"] not in ("", old["uid"]))
    assert pinned(tenant)["uid"] == account_uid(tenant)


def test_a_named_service_account_that_was_made_again_is_pinned_anew_and_told(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    tenant.service_account("deployer")
    secret, old = settled(tenant, role, running, serviceAccountName="deployer")
    tenant.delete("ServiceAccount", "deployer")
    uid = tenant.service_account("deployer")
    assert uid != old["uid"]
    running.step(IDENTITY_LIFE)
    assert tenant.secret().version == secret.version
    tenant.annotate("web", renew="now")
    tenant.issued_anew(secret, "Requested")
    eventually("the bot is pinned to the new one", lambda: pinned(tenant) == {"name": "deployer", "uid": uid})
    running.settle()
    reasons = [event["reason"] for event in tenant.events("deployer", kind="MachineBot")]
    assert reasons == ["ServiceAccountReplaced"]


def test_a_named_service_account_that_is_gone_leaves_the_credential_until_its_end(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    tenant.service_account("deployer")
    tenant.bot(roles=(role,), serviceAccountName="deployer")
    tenant.output()
    tenant.ready()
    running.settle()
    secret = tenant.secret()
    tenant.delete("ServiceAccount", "deployer")
    running.step(IDENTITY_LIFE)
    tenant.annotate("web", renew="now")
    eventually("the trouble shows", lambda: condition(tenant.get("MachineOutput", "web"), "Renewing"))
    assert reason_of(tenant.get("MachineOutput", "web"), "Renewing") == "ServiceAccountMissing"
    assert told(tenant.get("MachineOutput", "web"), "True")
    assert tenant.secret().version == secret.version
    tenant.service_account("deployer")
    running.step(timedelta(minutes=1))
    tenant.issued_anew(secret, "Requested")


def test_a_bot_that_was_made_again_joins_as_another_one(tenant: Tenant, role: str, running: RunningOperator) -> None:
    settled(tenant, role, running)
    tenant.delete("MachineBot", "deployer")
    tenant.bot(roles=(role,))
    tenant.delete("ServiceAccount", ACCOUNT)  # as the garbage collector does, which knows a new kind only after half a minute
    bot = tenant.ready("deployer", "MachineBot")
    eventually(
        "the account is the new bot's",
        lambda: tenant.get("ServiceAccount", ACCOUNT)["metadata"]["ownerReferences"][0]["uid"] == bot["metadata"]["uid"],
    )
    running.step(timedelta(minutes=1))
    running.settle()
    tenant.ready()
    secret = tenant.secret()
    tenant.annotate("web", renew="now")
    tenant.issued_anew(secret, "Requested")


def test_an_account_that_goes_while_its_token_is_reviewed_is_made_again_and_the_outputs_are_issued(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    with running.line.holding(lambda call: call.resource == "tokenreviews") as waiting:
        tenant.bot(roles=(role,))
        tenant.output()
        eventually("a token is reviewed", lambda: waiting)
        old = account_uid(tenant)
        tenant.delete("ServiceAccount", ACCOUNT)
    eventually("another account, and the bot pinned to it", lambda: pinned(tenant).get("uid") == account_uid(tenant) != old)
    tenant.ready()
    tenant.ready("deployer", "MachineBot")


def test_a_join_that_the_api_server_refuses_for_a_while_is_tried_again(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    refusal = Denied("TokenNotAuthenticated", "the API server does not take the token: a fault that the test wants")
    with running.line.failing(lambda call: call.resource == "tokenreviews", refusal):
        tenant.bot(roles=(role,))
        tenant.output()
        tenant.refused("TokenNotAuthenticated")
        tenant.refused("TokenNotAuthenticated", "deployer", "MachineBot")
    running.step(timedelta(minutes=1))
    tenant.ready()
    tenant.ready("deployer", "MachineBot")


def test_the_service_account_of_a_deleted_bot_goes_with_it(tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    tenant.ready("deployer", "MachineBot")
    tenant.delete("MachineBot", "deployer")
    eventually("the ServiceAccount is gone", lambda: not tenant.has("ServiceAccount", ACCOUNT))


def test_a_bot_that_cannot_join_keeps_what_it_has_and_says_why(tenant: Tenant, stage: Stage, running: RunningOperator) -> None:
    role = stage.role()
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.ready()
    tenant.ready("deployer", "MachineBot")
    running.settle()
    stage.cluster.patch("MachineRole", "", role, {"spec": {"options": {"requireSessionMFA": True}}})
    tenant.refused("SessionMFARequired", "deployer", "MachineBot")
    assert pinned(tenant) == {"name": ACCOUNT, "uid": account_uid(tenant)}
    running.settle()
    assert [event["type"] for event in tenant.events("deployer", kind="MachineBot")] == ["Warning"]
