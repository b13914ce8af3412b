"""What is ready, overdue or expired, and why."""

from datetime import UTC, datetime
from typing import Any

import pytest

from machinebot.cli import standing
from machinebot.cli.status import World, report, summary, tables

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
Json = dict[str, Any]


def body(*conditions: tuple[str, str, str], observed: int = 1, deleting: bool = False, **status: Any) -> Json:
    listed = [{"type": kind, "status": value, "reason": reason, "message": "why"} for kind, value, reason in conditions]
    metadata = {"name": "web", "namespace": "ci", "generation": 1}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T11:00:00Z"
    return {"metadata": metadata, "spec": {}, "status": {"observedGeneration": observed, "conditions": listed, **status}}


GOOD = ("Ready", "True", "Issued")
LATER: Json = {"notAfter": "2026-01-02T00:00:00Z", "renewAt": "2026-01-01T18:00:00Z"}


@pytest.mark.parametrize(
    ("output", "word", "reason"),
    [
        pytest.param(body(GOOD, **LATER), "ready", "", id="good"),
        pytest.param(body(), "pending", "", id="no condition"),
        pytest.param({"metadata": {"name": "x"}}, "pending", "", id="no status"),
        pytest.param({"metadata": {"name": "x"}, "status": "damaged"}, "pending", "", id="a status that is none"),
        pytest.param(body(("Ready", "Unknown", "Pending")), "pending", "Pending", id="not looked at"),
        pytest.param(body(GOOD, observed=0, **LATER), "pending", "Issued", id="a change not looked at"),
        pytest.param(body(("Ready", "False", "BotMissing")), "not ready", "BotMissing", id="refused"),
        pytest.param(body(GOOD, ("Renewing", "False", "ApiServerAway"), **LATER), "retrying", "ApiServerAway", id="in trouble"),
        pytest.param(body(GOOD, ("Renewing", "True", "Expiring"), **LATER), "ready", "", id="being renewed"),
        pytest.param(body(GOOD, **{**LATER, "renewAt": "2026-01-01T11:58:59Z"}), "overdue", "", id="past its renewal"),
        pytest.param(body(GOOD, **{**LATER, "renewAt": "2026-01-01T11:59:00Z"}), "ready", "", id="within the grace"),
        pytest.param(
            body(GOOD, ("Renewing", "False", "RoleNotFound"), **{**LATER, "renewAt": "2026-01-01T11:00:00Z"}),
            "overdue",
            "RoleNotFound",
            id="overdue, and it is known why",
        ),
        pytest.param(body(GOOD, notAfter="2026-01-01T12:00:00Z", renewAt="2026-01-01T06:00:00Z"), "expired", "", id="ended"),
        pytest.param(
            body(("Ready", "False", "BotMissing"), notAfter="2026-01-01T06:00:00Z"), "expired", "BotMissing", id="ended, and why"
        ),
        pytest.param(body(GOOD, notAfter="never", renewAt=None), "ready", "", id="times that are none"),
        pytest.param(body(("Ready", "False", "BotMissing"), deleting=True), "deleting", "", id="being deleted"),
    ],
)
def test_an_output(output: Json, word: str, reason: str) -> None:
    found = standing.of_output(output, NOW)
    assert (found.word, found.reason) == (word, reason)
    assert found.is_problem is (word in ("not ready", "overdue", "expired", "retrying"))
    assert bool(found.message) is (word not in ("ready", "deleting"))
    assert word in standing.LOOKS


@pytest.mark.parametrize(
    ("expires", "ready", "word"),
    [
        (None, GOOD, "ready"),
        ("2026-01-01T12:00:01Z", GOOD, "ready"),
        ("2026-01-01T12:00:00Z", GOOD, "expired"),
        ("damaged", GOOD, "ready"),
        (None, ("Ready", "False", "InvalidSpec"), "not ready"),
    ],
)
def test_a_join_token(expires: str | None, ready: tuple[str, str, str], word: str) -> None:
    token = {**body(ready), "spec": {"bot": "x", "expires": expires}}
    assert standing.of_join_token(token, NOW).word == word


@pytest.mark.parametrize("conditions", ["x", [None], [{"type": "Other"}], [{}], {}])
def test_conditions_of_another_shape_are_none(conditions: object) -> None:
    assert standing.condition({"status": {"conditions": conditions}}, "Ready") is None


# --- the report ---------------------------------------------------------------------------------------------------------


def world(**objects: list[Json] | None) -> World:
    return World({"authorities": [], "bots": [], "outputs": [], "joinTokens": [], "locks": [], **objects}, NOW)


def full() -> World:
    output = {**body(GOOD, serial="7", secret={"name": "web-ssh"}, **LATER), "spec": {"bot": "deployer", "identity": {}}}
    late = {
        **output,
        "metadata": {**output["metadata"], "name": "late"},
        "status": body(GOOD, notAfter="2026-01-01T00:00:00Z")["status"],
    }
    instance = {
        "id": "0b0e",
        "method": "github",
        "joinToken": "ci",
        "generation": 1,
        "attributes": {},
        "lastSeen": "2026-01-01T11:57:00Z",
    }
    bot = {**body(GOOD, instances=[instance], warnings=["one"]), "spec": {"roles": ["access", "b"]}}
    token = {**body(GOOD), "spec": {"bot": "deployer", "github": {}, "expires": "2026-02-01T12:00:00Z"}}
    lock = {"metadata": {"name": "l", "uid": "1"}, "spec": {"target": {"role": "access"}, "message": "why"}}
    authority = {**body(GOOD), "metadata": {"name": "default", "generation": 1}, "spec": {"clusterName": "example.test"}}
    return world(outputs=[output, late], bots=[bot], joinTokens=[token], locks=[lock], authorities=[authority])


def test_the_report_has_every_kind_and_counts_problems() -> None:
    content = report(full())
    assert content["at"] == "2026-01-01T12:00:00Z"
    assert content["problems"] == 1
    assert [each["name"] for each in content["outputs"]] == ["late", "web"]
    web = content["outputs"][1]
    assert {field: web[field] for field in ("namespace", "type", "bot", "secret", "serial", "state", "renewAt")} == {
        "namespace": "ci",
        "type": "identity",
        "bot": "deployer",
        "secret": "web-ssh",
        "serial": "7",
        "state": "ready",
        "renewAt": "2026-01-01T18:00:00Z",
    }
    assert content["bots"][0]["instances"][0]["id"] == "0b0e"
    assert content["joinTokens"][0]["method"] == "github"
    assert content["locks"][0]["state"] == "active"
    assert content["authorities"][0]["clusterName"] == "example.test"


def test_what_may_not_be_read_is_null() -> None:
    content = report(world(locks=None, authorities=None))
    assert (content["locks"], content["authorities"], content["outputs"]) == (None, None, [])
    assert summary(content) == "bots 0, outputs 0, join tokens 0; all is well"


def test_the_summary_counts() -> None:
    assert summary(report(full())) == "bots 1, outputs 2, join tokens 1, locks 1; to look at: 1"


def test_problems_stand_first_and_empty_kinds_are_left_out() -> None:
    found = {table.columns[0]: table for table in tables(full(), wide=False)}
    assert list(found) == ["authority", "output", "bot", "join token", "lock"]
    assert [row[0] for row in found["output"].rows] == ["ci/late", "ci/web"]
    assert found["bot"].rows[0][3:] == ("1", "warning: one")
    assert [table.columns[0] for table in tables(world(), wide=False)] == []


def test_wide_tables_say_more() -> None:
    found = {table.columns[0]: table for table in tables(full(), wide=True)}
    assert "2026-01-02T00:00:00Z" in found["output"].rows[1]
    assert found["bot"].rows[0][3] == "0b0e by github (ci), seen 3m ago"
    assert found["join token"].rows[0][4] == "in 31d (2026-02-01T12:00:00Z)"
    assert all(len(row) == len(table.columns) for table in found.values() for row in table.rows)
