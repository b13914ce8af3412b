"""Why a credential is issued. The order of the chain is the contract."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.policy.decision import SKEW, Credential, Reason, Snapshot, is_good, why_issue
from machinebot.policy.lifetimes import BACKDATE, lifetime, renewal_time
from unit.policy.builders import DAY, HOUR, MINUTE, NOW, SECOND

GOOD = Credential(
    damage=None,
    inputs="inputs-1",
    authorities={"ssh-user": "user-1", "identity": "identity-1"},
    not_before=NOW - MINUTE,
    not_after=NOW + DAY - MINUTE,
)
SNAPSHOT = Snapshot(
    credential=GOOD,
    inputs="inputs-1",
    trusted={"ssh-user": frozenset({"user-1", "user-2"}), "identity": frozenset({"identity-1"})},
    renew_at=NOW + 12 * HOUR,
    requested=None,
    fulfilled=None,
    now=NOW,
)
Change = Callable[[Snapshot], Snapshot]


def held(**fields: Any) -> Change:
    """Another credential in the Secret."""

    def change(snapshot: Snapshot) -> Snapshot:
        assert snapshot.credential is not None
        return replace(snapshot, credential=replace(snapshot.credential, **fields))

    return change


def seen(**fields: Any) -> Change:
    """Another snapshot."""
    return lambda snapshot: replace(snapshot, **fields)


IN_ORDER: Mapping[Reason, Change] = {
    Reason.SECRET_MISSING: seen(credential=None),
    Reason.SECRET_CHANGED: held(damage="the content of the Secret was changed by hand"),
    Reason.REQUESTED: seen(requested="now"),
    Reason.GRANT_CHANGED: seen(inputs="inputs-2"),
    Reason.CA_ROTATED: seen(trusted={"ssh-user": frozenset({"user-2"}), "identity": frozenset({"identity-1"})}),
    Reason.NOT_YET_VALID: held(not_before=NOW + HOUR),
    Reason.EXPIRING: seen(renew_at=NOW),
}


def reason_of(snapshot: Snapshot) -> Reason | None:
    cause = why_issue(snapshot)
    return None if cause is None else cause.reason


def test_a_good_fresh_credential_is_left_alone() -> None:
    assert why_issue(SNAPSHOT) is None


def test_every_reason_has_its_place() -> None:
    assert list(IN_ORDER) == list(Reason)


@pytest.mark.parametrize("reason", IN_ORDER, ids=str)
def test_each_reason_alone(reason: Reason) -> None:
    assert reason_of(IN_ORDER[reason](SNAPSHOT)) is reason


@pytest.mark.parametrize("first", range(len(IN_ORDER)), ids=list(IN_ORDER))
def test_the_first_of_all_that_hold_is_told(first: int) -> None:
    """Every change from that place on at once, applied from the last to the first."""
    snapshot = SNAPSHOT
    for change in reversed(list(IN_ORDER.values())[first:]):
        snapshot = change(snapshot)
    assert reason_of(snapshot) is list(IN_ORDER)[first]


@settings(max_examples=150, deadline=None)
@given(st.sets(st.sampled_from(list(Reason))))
def test_whatever_holds_the_first_is_told(reasons: set[Reason]) -> None:
    snapshot = SNAPSHOT
    for reason in reversed(Reason):
        if reason in reasons:
            snapshot = IN_ORDER[reason](snapshot)
    assert reason_of(snapshot) is next((reason for reason in Reason if reason in reasons), None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(seen(requested="1", fulfilled=None), Reason.REQUESTED, id="first wish"),
        pytest.param(seen(requested="2", fulfilled="1"), Reason.REQUESTED, id="another wish"),
        pytest.param(seen(requested="1", fulfilled="1"), None, id="wish fulfilled"),
        pytest.param(seen(requested=None, fulfilled="1"), None, id="wish taken back"),
        pytest.param(seen(requested=""), Reason.REQUESTED, id="an empty wish is one"),
        pytest.param(seen(requested="", fulfilled=""), None, id="an empty wish fulfilled"),
        pytest.param(seen(inputs="Inputs-1"), Reason.GRANT_CHANGED, id="digests differ in case"),
        pytest.param(held(inputs=""), Reason.GRANT_CHANGED, id="no digest"),
        pytest.param(held(damage=""), Reason.SECRET_CHANGED, id="damage without a word"),
        pytest.param(seen(trusted={}), Reason.CA_ROTATED, id="nothing is trusted"),
        pytest.param(seen(trusted={"identity": frozenset({"identity-1", "user-1"})}), Reason.CA_ROTATED, id="trusted elsewhere"),
        pytest.param(held(authorities={"ssh-user": "user-2"}), None, id="another generation that is trusted"),
        pytest.param(held(authorities={}), None, id="signed by nobody: told by the inputs instead"),
        pytest.param(held(not_before=NOW + SKEW), None, id="begins just within the skew"),
        pytest.param(held(not_before=NOW + SKEW + SECOND), Reason.NOT_YET_VALID, id="begins a second too late"),
        pytest.param(seen(renew_at=NOW + SECOND), None, id="due in a second"),
        pytest.param(seen(renew_at=NOW), Reason.EXPIRING, id="due now"),
        pytest.param(seen(renew_at=None), Reason.EXPIRING, id="no time known"),
        pytest.param(seen(now=NOW + DAY - MINUTE, renew_at=NOW + 2 * DAY), Reason.EXPIRING, id="at its end whatever is due"),
        pytest.param(seen(now=NOW + 30 * DAY, renew_at=NOW + 60 * DAY), Reason.EXPIRING, id="long past its end"),
        pytest.param(seen(now=NOW + DAY - MINUTE - SECOND, renew_at=NOW + 2 * DAY), None, id="a second before its end"),
    ],
)
def test_where_each_reason_begins(change: Change, reason: Reason | None) -> None:
    assert reason_of(change(SNAPSHOT)) is reason


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        pytest.param(Reason.SECRET_MISSING, "no Secret", id="missing"),
        pytest.param(Reason.SECRET_CHANGED, "changed by hand", id="changed"),
        pytest.param(Reason.REQUESTED, "machinebot.dev/renew", id="requested"),
        pytest.param(Reason.GRANT_CHANGED, "roles changed", id="grant"),
        pytest.param(Reason.CA_ROTATED, "no longer trusted (ssh-user)", id="rotated, by purpose"),
        pytest.param(Reason.NOT_YET_VALID, "2027-01-01T13:00:00Z", id="not yet valid, since when"),
        pytest.param(Reason.EXPIRING, "2027-01-02T11:59:00Z", id="expiring, when"),
    ],
)
def test_each_reason_says_what_it_saw(reason: Reason, words: str) -> None:
    cause = why_issue(IN_ORDER[reason](SNAPSHOT))
    assert cause is not None
    assert words in cause.message


def test_all_rotated_purposes_are_named_in_order() -> None:
    cause = why_issue(replace(SNAPSHOT, trusted={}))
    assert cause is not None
    assert "(identity, ssh-user)" in cause.message


# --- issuing ends it ----------------------------------------------------------------------------------------------


def issue(snapshot: Snapshot, *, now: datetime, life: timedelta, percentage: int | None, uid: str) -> Snapshot:
    """What an issue makes of the snapshot: the credential is made now from what is wanted now."""
    not_before = now - BACKDATE
    not_after = not_before + lifetime(life, []).length
    return replace(
        snapshot,
        credential=Credential(
            damage=None,
            inputs=snapshot.inputs,
            authorities={purpose: min(generations) for purpose, generations in snapshot.trusted.items()},
            not_before=not_before,
            not_after=not_after,
        ),
        renew_at=renewal_time(not_before=not_before, not_after=not_after, uid=uid, renew_before_percentage=percentage),
        fulfilled=snapshot.requested,
        now=now,
    )


INSTANTS = st.integers(-3 * 86_400, 3 * 86_400).map(lambda seconds: NOW + timedelta(seconds=seconds))
LIVES = st.integers(300, 100_000).map(lambda seconds: timedelta(seconds=seconds))
CREDENTIALS = st.none() | st.builds(
    Credential,
    damage=st.none() | st.just("damage"),
    inputs=st.sampled_from(["inputs-1", "inputs-2"]),
    authorities=st.dictionaries(st.sampled_from(["ssh-user", "identity"]), st.sampled_from(["a", "b"])),
    not_before=INSTANTS,
    not_after=INSTANTS,
)
SNAPSHOTS = st.builds(
    Snapshot,
    credential=CREDENTIALS,
    inputs=st.sampled_from(["inputs-1", "inputs-2"]),
    trusted=st.dictionaries(st.sampled_from(["ssh-user", "identity"]), st.frozensets(st.sampled_from(["a", "b"]), min_size=1)),
    renew_at=st.none() | INSTANTS,
    requested=st.none() | st.sampled_from(["", "1", "2"]),
    fulfilled=st.none() | st.sampled_from(["", "1", "2"]),
    now=INSTANTS,
)


@settings(max_examples=300, deadline=None)
@given(SNAPSHOTS, LIVES, st.none() | st.integers(10, 90), st.uuids().map(str))
def test_an_issue_ends_every_reason(snapshot: Snapshot, life: timedelta, percentage: int | None, uid: str) -> None:
    after = issue(snapshot, now=snapshot.now, life=life, percentage=percentage, uid=uid)
    assert why_issue(after) is None
    assert is_good(after.credential, after.now)


@settings(max_examples=30, deadline=None)
@given(LIVES, st.none() | st.integers(10, 90), st.uuids().map(str))
def test_over_days_nothing_is_issued_more_often_than_its_life_asks_for(life: timedelta, percentage: int | None, uid: str) -> None:
    """Looked at each minute for two days: one issue a due time, and a good credential at every look."""
    snapshot, issues = replace(SNAPSHOT, credential=None), 0
    for minute in range(2 * 24 * 60):
        snapshot = replace(snapshot, now=NOW + minute * MINUTE)
        cause = why_issue(snapshot)
        if cause is not None:
            assert cause.reason is (Reason.EXPIRING if minute else Reason.SECRET_MISSING)
            snapshot = issue(snapshot, now=snapshot.now, life=life, percentage=percentage, uid=uid)
            issues += 1
        assert is_good(snapshot.credential, snapshot.now)
    used = (min(life, DAY) - BACKDATE) * 0.1 - SECOND
    assert issues <= 2 * DAY / max(used, MINUTE) + 1


# --- good or not --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("credential", "good"),
    [
        pytest.param(None, False, id="none"),
        pytest.param(GOOD, True, id="whole and living"),
        pytest.param(replace(GOOD, damage="x"), False, id="damaged"),
        pytest.param(replace(GOOD, not_after=NOW), False, id="at its end"),
        pytest.param(replace(GOOD, not_after=NOW + SECOND), True, id="in its last second"),
        pytest.param(replace(GOOD, inputs="inputs-2"), True, id="due for replacement but usable"),
    ],
)
def test_is_good(credential: Credential | None, good: bool) -> None:
    assert is_good(credential, NOW) is good
