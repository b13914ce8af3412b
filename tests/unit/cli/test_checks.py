"""The checks of `machinebot doctor`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machinebot.cli import checks
from machinebot.cli.checks import BOT_ROLES, CHECKS, FENCES, Facts, Level
from machinebot.errors import Denied, NotFound, Unavailable

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
Json = dict[str, Any]

READY = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "m"}]}
BROKEN = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False", "reason": "Gone", "message": "m"}]}
AWAY = Unavailable("ApiServerAway", "the API server does not answer")
DENIED = Denied("Forbidden", "nobody cannot list")


def body(name: str, status: Json | None = None, **spec: Any) -> Json:
    return {"metadata": {"name": name, "namespace": "ci", "uid": "1", "generation": 1}, "spec": spec, "status": status or READY}


def lock(name: str, **spec: Any) -> Json:
    return {"metadata": {"name": name, "uid": "1"}, "spec": spec}


def crd(schema: object) -> Json:
    return {"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}}


def lease(*, ago: float = 2, holder: str = "pod-a", seconds: int = 10) -> Json:
    renewed = (NOW - timedelta(seconds=ago)).isoformat().replace("+00:00", "Z")
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": seconds}}


POLICIES = (*BOT_ROLES, *(f"mb-fence-{what}" for what in FENCES))


def binding(name: str, *actions: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": list(actions)}}


GOOD = Facts(
    version={"major": "1", "minor": "37", "gitVersion": "v1.37.2"},
    resources=frozenset({"machinebots", "machinelocks"}),
    definitions={"machinebots.machinebot.dev": crd("a"), "machinelocks.machinebot.dev": crd("b")},
    wanted={"machinebots.machinebot.dev": crd("a"), "machinelocks.machinebot.dev": crd("b")},
    authorities=[body("default", clusterName="example.test")],
    lease=lease(),
    lease_name="machinebot-system/machinebot",
    policies=[{"metadata": {"name": name}} for name in POLICIES],
    bindings=[binding(name, "Deny") for name in POLICIES],
    https="https://id.test",
    date=NOW,
    asked_at=NOW,
    outputs=[body("web", bot="deployer", identity={})],
    join_tokens=[body("gh", bot="deployer", github={})],
    locks=[lock("l", target={"role": "x"})],
    now=NOW,
)
BY_NAME = dict(CHECKS)
OVERDUE = {**READY, "renewAt": "2026-01-01T11:00:00Z", "notAfter": "2026-01-01T13:00:00Z"}


def test_a_good_installation_is_good() -> None:
    assert {name: check(GOOD).level for name, check in CHECKS} == dict.fromkeys(BY_NAME, Level.OK)
    assert all(check(GOOD).way_out == "" for _, check in CHECKS)


@pytest.mark.parametrize(
    ("name", "changes", "level", "words"),
    [
        pytest.param("API server", {"version": AWAY}, "fail", "does not answer", id="away"),
        pytest.param(
            "API server", {"version": {"major": "1", "minor": "29+", "gitVersion": "v1.29"}}, "fail", "v1.29 is too old", id="old"
        ),
        pytest.param("API server", {"version": {"major": "x"}}, "warn", "cannot be read", id="no version"),
        pytest.param("clock", {"date": None}, "skip", "does not tell", id="no clock"),
        pytest.param("clock", {"date": AWAY}, "fail", "does not answer", id="clock away"),
        pytest.param("clock", {"date": NOW + timedelta(seconds=11)}, "warn", "11 s apart", id="apart"),
        pytest.param("clock", {"date": NOW - timedelta(seconds=61)}, "fail", "61 s apart", id="far apart"),
        pytest.param("CRDs", {"resources": AWAY}, "fail", "does not answer", id="no discovery"),
        pytest.param(
            "CRDs", {"resources": NotFound("NotFound", "Not Found")}, "fail", "its kind is not installed", id="no kind at all"
        ),
        pytest.param("CRDs", {"resources": frozenset({"machinebots"})}, "fail", "not installed: machinelocks", id="one missing"),
        pytest.param("CRDs", {"definitions": DENIED}, "ok", "you may not see", id="CRDs may not be read"),
        pytest.param(
            "CRDs", {"definitions": {"machinebots.machinebot.dev": crd("a")}}, "warn", "another version", id="no schema"
        ),
        pytest.param(
            "CRDs",
            {"definitions": {**GOOD.definitions, "machinebots.machinebot.dev": crd("old")}},  # type: ignore[dict-item]
            "warn",
            "of another version than this program: machinebots.machinebot.dev",
            id="old",
        ),
        pytest.param("admission policies", {"policies": DENIED}, "skip", "you may not look", id="policies hidden"),
        pytest.param("admission policies", {"bindings": AWAY}, "fail", "does not answer", id="bindings away"),
        pytest.param("admission policies", {"policies": []}, "fail", "missing, or not bound", id="no policies"),
        pytest.param(
            "admission policies",
            {"bindings": [binding(name, "Warn" if name == BOT_ROLES[0] else "Deny") for name in POLICIES]},
            "fail",
            f"missing, or not bound with the action Deny: {BOT_ROLES[0]}",
            id="only warned of",
        ),
        pytest.param("authorities", {"authorities": DENIED}, "skip", "you may not look", id="authorities hidden"),
        pytest.param("authorities", {"authorities": []}, "fail", "there is none", id="no authority"),
        pytest.param("authorities", {"authorities": [body("a", BROKEN)]}, "fail", "not ready: a (Gone: m)", id="broken"),
        pytest.param("leader", {"lease": None}, "fail", "there is no Lease machinebot-system/machinebot", id="no lease"),
        pytest.param("leader", {"lease": lease(holder="")}, "fail", "nobody leads", id="given up"),
        pytest.param("leader", {"lease": lease(ago=11)}, "fail", "pod-a has not renewed the Lease for 11 s", id="silent"),
        pytest.param("leader", {"lease": lease(ago=14, seconds=0)}, "ok", "pod-a leads", id="no duration"),
        pytest.param(
            "leader", {"lease": {"spec": {"holderIdentity": "x", "renewTime": "y"}}}, "fail", "cannot be read", id="time"
        ),
        pytest.param("leader", {"lease": {}}, "fail", "nobody leads", id="empty"),
        pytest.param("leader", {"lease": DENIED}, "skip", "you may not look", id="lease hidden"),
        pytest.param(
            "leader",
            {"lease": lease(ago=-3600), "date": NOW + timedelta(hours=1)},
            "ok",
            "pod-a leads",
            id="a clock that is behind the cluster's",
        ),
        pytest.param(
            "leader", {"lease": lease(ago=0), "date": NOW + timedelta(hours=1)}, "fail", "for 3600 s", id="old by its clock"
        ),
        pytest.param("HTTPS", {"https": None}, "skip", "write --url", id="no address"),
        pytest.param("HTTPS", {"https": AWAY}, "fail", "does not answer", id="HTTPS away"),
        pytest.param("outputs", {"outputs": [body("a", OVERDUE)]}, "fail", "1 overdue or expired: ci/a", id="overdue"),
        pytest.param("outputs", {"outputs": [body("a", BROKEN)]}, "warn", "1 with trouble: ci/a", id="not ready"),
        pytest.param("outputs", {"outputs": []}, "ok", "0 outputs", id="no outputs"),
        pytest.param("outputs", {"outputs": DENIED}, "skip", "you may not look", id="outputs hidden"),
        pytest.param("join tokens", {"join_tokens": [body("a", BROKEN)]}, "warn", "nobody joins by: ci/a", id="join token"),
        pytest.param(
            "join tokens",
            {"join_tokens": [body("a", {**READY, "warnings": ["trusts a name"]})]},
            "warn",
            "ci/a: trusts a name",
            id="warning",
        ),
        pytest.param("join tokens", {"join_tokens": DENIED}, "skip", "you may not look", id="join tokens hidden"),
        pytest.param(
            "locks",
            {"locks": [lock("l", target={"role": "x"}, expires="2026-01-01T11:00:00Z")]},
            "warn",
            "1 have ended: l",
            id="ended",
        ),
        pytest.param("locks", {"locks": [lock("l", target="x")]}, "fail", "cannot be read, and lock nobody: l", id="damaged"),
        pytest.param("locks", {"locks": DENIED}, "skip", "you may not look", id="locks hidden"),
    ],
)
def test_a_check_finds_it(name: str, changes: Json, level: str, words: str) -> None:
    facts = replace(GOOD, **changes)
    found = BY_NAME[name](facts)
    assert found.level == level
    assert words in found.message
    assert bool(found.way_out) is (level in ("warn", "fail"))
    others = {other: check(facts).level for other, check in CHECKS if other != name}
    assert {other for other, each in others.items() if each != Level.OK} <= {"clock", "leader"}


def test_a_long_list_is_cut() -> None:
    found = checks.outputs(replace(GOOD, outputs=[body(f"o{number}", OVERDUE) for number in range(9)]))
    assert found.message.endswith("ci/o4 and 4 more")
