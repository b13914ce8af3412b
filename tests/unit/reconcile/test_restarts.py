"""When workloads are restarted: after a rotation, and for nothing else that changes a Secret or a status."""

from typing import Any

import pytest

from machinebot.clock import parse_rfc3339
from machinebot.policy.decision import Credential
from machinebot.reconcile.holding import Holding
from machinebot.reconcile.restarts import rotated
from unit.reconcile.builders import parsed

BEFORE, NOW, AFTER = "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z"


def holding(serial: str, begin: str) -> Holding:
    credential = Credential(
        damage=None, inputs="", authorities={}, not_before=parse_rfc3339(begin), not_after=parse_rfc3339("2026-01-03T00:00:00Z")
    )
    return Holding(credential=credential, serial=serial)


@pytest.mark.parametrize(
    ("status", "held", "expected"),
    [
        pytest.param({}, ("2", NOW), False, id="first issue, or a lost status"),
        pytest.param({"serial": "2", "notBefore": NOW}, ("2", NOW), False, id="rolloutRestart is new"),
        pytest.param({"serial": "1", "notBefore": BEFORE}, ("2", NOW), True, id="rolloutRestart is new, and it rotated"),
        pytest.param({"serial": "2", "notBefore": NOW, "restartedFor": "2"}, ("2", NOW), False, id="done"),
        pytest.param({"serial": "1", "notBefore": BEFORE, "restartedFor": "1"}, ("2", NOW), True, id="rotated"),
        pytest.param({"serial": "1", "notBefore": NOW, "restartedFor": "1"}, ("2", NOW), True, id="within one second"),
        pytest.param({"serial": "2", "notBefore": NOW, "restartedFor": "1"}, ("2", NOW), True, id="some are still to come"),
        pytest.param({"serial": "2", "notBefore": NOW, "restartedFor": "1"}, ("3", AFTER), True, id="and it rotated again"),
        pytest.param({"serial": "2", "notBefore": NOW, "restartedFor": "2"}, ("1", BEFORE), False, id="an older one put back"),
        pytest.param({"restartedFor": "1"}, ("2", NOW), True, id="after one that was withdrawn"),
    ],
)
def test_what_is_a_rotation(status: dict[str, Any], held: tuple[str, str], expected: bool) -> None:
    output = parsed(spec={"rolloutRestart": [{"kind": "Deployment", "name": "web"}]}, status=status)
    assert rotated(output, holding(*held)) is expected
