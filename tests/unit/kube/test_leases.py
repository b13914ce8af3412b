"""The Lease as it is stored."""

from typing import Any

import pytest

from machinebot.errors import Conflict, Denied, NotFound, Unavailable
from machinebot.kube.leases import LeaseRecord, Leases
from machinebot.kube.resources import LEASES
from unit.kube.fakes import Json, Script

NOW = "2027-01-01T12:00:00.000000Z"
OLD = LeaseRecord(holder="pod-a", renewed="then", transitions=3, seconds=10, resource_version="7")


def leases(*answers: Any) -> tuple[Leases, Script]:
    script = Script(*answers)
    return Leases(script, "system", "machinebot"), script  # type: ignore[arg-type]  # the verbs of it


def lease(**spec: Any) -> Json:
    return {"metadata": {"name": "machinebot", "resourceVersion": "8"}, "spec": spec}


@pytest.mark.parametrize(
    ("body", "record"),
    [
        pytest.param(None, None, id="none"),
        pytest.param(
            lease(holderIdentity="pod-a", renewTime=NOW, leaseTransitions=3, leaseDurationSeconds=15, acquireTime="x"),
            LeaseRecord("pod-a", NOW, 3, 15, "8"),
            id="whole",
        ),
        pytest.param(lease(), LeaseRecord("", "", 0, 0, "8"), id="empty"),
        pytest.param(
            lease(holderIdentity=None, renewTime=None, leaseTransitions=None), LeaseRecord("", "", 0, 0, "8"), id="nulls"
        ),
        pytest.param({"metadata": {"resourceVersion": "8"}}, LeaseRecord("", "", 0, 0, "8"), id="no spec"),
    ],
)
async def test_a_lease_as_read(body: Any, record: LeaseRecord | None) -> None:
    store, script = leases(body)
    assert await store.read() == record
    assert script.calls == [("get", LEASES, "system", "machinebot")]


@pytest.mark.parametrize(
    ("old", "holder", "transitions"),
    [
        pytest.param(None, "pod-a", 0, id="made"),
        pytest.param(OLD, "pod-a", 3, id="renewed"),
        pytest.param(OLD, "pod-b", 4, id="taken"),
        pytest.param(OLD, "", 3, id="given up"),
    ],
)
async def test_a_lease_is_written_onto_what_was_read(old: LeaseRecord | None, holder: str, transitions: int) -> None:
    store, script = leases(lease(holderIdentity=holder, renewTime=NOW, leaseTransitions=transitions, leaseDurationSeconds=10))
    record = await store.write(old, holder=holder, now=NOW, seconds=10)
    assert record == LeaseRecord(holder, NOW, transitions, 10, "8")
    written = next(part for part in script.calls[0] if isinstance(part, dict))
    assert script.calls[0][0] == ("create" if old is None else "replace")
    assert written["metadata"].get("resourceVersion") == (None if old is None else "7")
    assert written["spec"] == {
        "holderIdentity": holder,
        "renewTime": NOW,
        "leaseTransitions": transitions,
        "leaseDurationSeconds": 10,
    }


@pytest.mark.parametrize("error", [Conflict("AlreadyExists", ""), Conflict("Conflict", ""), NotFound("NotFound", "")], ids=repr)
@pytest.mark.parametrize("old", [None, OLD], ids=["new", "old"])
async def test_somebody_was_quicker(error: Exception, old: LeaseRecord | None) -> None:
    store, _ = leases(error)
    assert await store.write(old, holder="pod-b", now=NOW, seconds=10) is None


@pytest.mark.parametrize("error", [Unavailable("ApiServerAway", ""), Denied("Forbidden", "")], ids=repr)
async def test_other_failures_are_told(error: Exception) -> None:
    store, _ = leases(error, error)
    with pytest.raises(type(error)):
        await store.read()
    with pytest.raises(type(error)):
        await store.write(OLD, holder="pod-b", now=NOW, seconds=10)
