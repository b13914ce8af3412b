"""Time on a real API server: credentials are renewed by their own dates, and a clock that steps does no harm."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from machinebot.clock import parse_rfc3339
from support.inprocess import A_LITTLE, RunningOperator
from support.stage import Stage, Tenant, condition, told
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

RENEWAL = ["update secrets", "patch machineoutputs/status"]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def tenant(stage: Stage, authority: str) -> Iterator[Tenant]:
    """A namespace of the test's own, served by an operator of the test's own: see `running`."""
    with stage.tenant(authority) as made:
        yield made


@pytest.fixture
def running(stage: Stage, tenant: Tenant) -> Iterator[RunningOperator]:
    """An operator of the test's own, whose clock may be stepped at will: it serves one namespace."""
    with stage.operator(watch_namespaces=(tenant.namespace,)) as operator:
        operator.wait_leading()
        yield operator
        if operator.running:
            assert operator.total("machinebot_reconcile_errors_total", reason="Crashed") == 0


def issued(tenant: Tenant, role: str, running: RunningOperator, **spec: Any) -> None:
    """A bot with one output that is Ready, and everything about it written."""
    tenant.bot(roles=(role,))
    tenant.output(**spec)
    tenant.ready()
    running.settle()


def moment(tenant: Tenant, name: str) -> datetime:
    """A time of the output's status."""
    return parse_rfc3339(tenant.status()[name])


def go_to(running: RunningOperator, then: datetime) -> None:
    """Step the clock to that moment, and wait until all that is due is done."""
    running.step(then - running.clock.now())
    running.wait_quiet()


SCHEDULES: dict[str, tuple[dict[str, Any], timedelta, timedelta]] = {
    "half of the life, by default": ({}, timedelta(hours=12), timedelta(hours=24)),
    "six hours before": ({"renewBefore": "6h"}, timedelta(hours=6), timedelta(hours=24)),
    "a quarter before": ({"renewBeforePercentage": 25}, timedelta(hours=6), timedelta(hours=24)),
    "a short life": ({"credentialTTL": "1h"}, timedelta(minutes=30), timedelta(hours=1)),
    "longer than it lives": ({"credentialTTL": "1h", "renewBefore": "20h"}, timedelta(minutes=30), timedelta(hours=1)),
}


@pytest.mark.parametrize(("spec", "remainder", "life"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_credential_is_renewed_at_its_time_and_not_before(
    tenant: Tenant, role: str, running: RunningOperator, spec: dict[str, Any], remainder: timedelta, life: timedelta
) -> None:
    issued(tenant, role, running, **spec)
    secret = tenant.secret()
    begin, renew, end = (moment(tenant, name) for name in ("notBefore", "renewAt", "notAfter"))
    assert end - begin == life
    assert end - remainder - life / 10 - timedelta(seconds=1) <= renew <= end - remainder
    mark = tenant.mark()
    go_to(running, renew - MINUTE)
    running.settle()
    assert tenant.summary(mark) == []
    go_to(running, renew)
    anew = tenant.issued_anew(secret, "Expiring")
    running.settle()
    assert tenant.summary(mark, "web") == RENEWAL
    assert moment(tenant, "notBefore") >= renew - MINUTE
    assert moment(tenant, "renewAt") - moment(tenant, "notBefore") == renew - begin
    assert anew.serial == tenant.status()["serial"]


def test_a_machine_that_slept_past_the_end_issues_once(tenant: Tenant, role: str, running: RunningOperator) -> None:
    issued(tenant, role, running)
    secret, mark = tenant.secret(), tenant.mark()
    running.step(timedelta(hours=72))
    tenant.issued_anew(secret, "Expiring")
    for _ in range(3):
        running.settle()
    assert tenant.summary(mark, "web") == RENEWAL


def test_a_step_of_13_hours_forward_and_back_issues_once_for_each(tenant: Tenant, role: str, running: RunningOperator) -> None:
    issued(tenant, role, running)
    secret, mark = tenant.secret(), tenant.mark()
    running.step(timedelta(hours=13))
    ahead = tenant.issued_anew(secret, "Expiring")
    running.settle()
    running.step(timedelta(hours=-13))
    running.settle()
    back = tenant.issued_anew(ahead, "NotYetValid")
    assert moment(tenant, "notBefore") <= running.clock.now()
    for _ in range(3):
        running.settle()
    assert tenant.secret().version == back.version
    assert tenant.summary(mark, "web") == RENEWAL * 2


@pytest.mark.parametrize("length", [timedelta(seconds=30), timedelta(minutes=4)])
def test_a_small_step_back_issues_nothing(tenant: Tenant, role: str, running: RunningOperator, length: timedelta) -> None:
    issued(tenant, role, running)
    mark = tenant.mark()
    running.step(-length)
    for _ in range(3):
        running.settle()
    assert tenant.summary(mark) == []


def test_a_clock_that_was_ahead_and_is_set_right_keeps_its_promises(tenant: Tenant, role: str, running: RunningOperator) -> None:
    running.step(timedelta(hours=3))
    issued(tenant, role, running)
    secret = tenant.secret()
    running.step(timedelta(hours=-3))
    running.settle()
    tenant.issued_anew(secret, "NotYetValid")
    running.settle()
    second, mark = tenant.secret(), tenant.mark()
    go_to(running, moment(tenant, "renewAt") - MINUTE)
    running.settle()
    assert tenant.summary(mark) == []
    go_to(running, moment(tenant, "renewAt"))
    tenant.issued_anew(second, "Expiring")


def test_a_renewal_that_came_due_while_the_operator_was_down_is_made_at_its_start(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    issued(tenant, role, running)
    secret, mark = tenant.secret(), tenant.mark()
    running.stop()
    running.clock.step(timedelta(hours=13))
    running.start()
    running.wait_leading()
    tenant.issued_anew(secret, "Expiring")
    running.settle()
    assert tenant.summary(mark, "web") == RENEWAL


def test_a_retry_that_waits_is_not_lost_when_the_clock_is_set_back(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    running.settle()
    with running.line.failing(lambda call: call.resource == "secrets" and call.namespace == tenant.namespace):
        tenant.output()
        tenant.refused("ApiServerAway")
    running.step(timedelta(hours=-5))
    running.settle()
    tenant.ready()


def test_ready_ends_with_the_credential_where_every_renewal_fails(tenant: Tenant, role: str, running: RunningOperator) -> None:
    issued(tenant, role, running)
    secret, end = tenant.secret(), moment(tenant, "notAfter")
    with running.line.failing(lambda call: (call.verb, call.namespace) == ("update", tenant.namespace)):
        go_to(running, moment(tenant, "renewAt"))
        eventually("the trouble shows", lambda: condition(tenant.get("MachineOutput", "web"), "Renewing"))
        go_to(running, end - timedelta(minutes=15))
        assert told(tenant.get("MachineOutput", "web"), "True")
        go_to(running, end + A_LITTLE)
        running.settle()
        assert tenant.refused("ApiServerAway")["status"] == "False"
        assert tenant.secret().version == secret.version
    running.step(timedelta(minutes=15))
    tenant.issued_anew(secret, "Expiring")
    assert told(tenant.get("MachineOutput", "web"), "True")
    assert condition(tenant.get("MachineOutput", "web"), "Renewing") is None


def test_ready_ends_with_the_credential_where_nothing_could_be_renewed_for_long(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    issued(tenant, role, running)
    renew, end = moment(tenant, "renewAt"), moment(tenant, "notAfter")
    with running.line.failing(lambda call: (call.verb, call.namespace) == ("update", tenant.namespace)):
        go_to(running, renew)
        while running.clock.now() < end + timedelta(minutes=15):
            go_to(running, running.clock.now() + timedelta(minutes=30))
        assert not told(tenant.get("MachineOutput", "web"), "True")
        attempts = tenant.status()["failedAttempts"]
        assert attempts >= 10


def test_many_renewals_part_from_each_other(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    names = [f"output-{number}" for number in range(12)]
    for name in names:
        tenant.output(name)
    for name in names:
        tenant.ready(name)
    running.settle()
    moments = sorted(parse_rfc3339(tenant.status(name)["renewAt"]) for name in names)
    assert len(set(moments)) >= 10
    assert timedelta(minutes=20) < moments[-1] - moments[0] < timedelta(hours=2.5)
