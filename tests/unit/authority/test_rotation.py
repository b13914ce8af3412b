"""The state machine of CA generations, over any course of the clock."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.authority.generations import CA_BACKDATE, SLACK, Generation, new_generation
from machinebot.authority.keys import CAKey
from machinebot.authority.rotation import LAST_CALL, MAX_OLD, Activate, Prepare, Retire, active, advance, in_order, next_step
from machinebot.authority.stored import dump, load
from machinebot.errors import Invalid
from machinebot.policy.credential import AnchorState, Purpose
from machinebot.policy.lifetimes import MAXIMUM
from machinebot.resources.authority import Rotation
from unit.authority.builders import CLUSTER, DAY, HOUR, MINUTE, NOW, ROTATION

EVERY = 2160 * HOUR
OVERLAP = 26 * HOUR
SECOND = timedelta(seconds=1)
PURPOSES = [Purpose.SSH_USER, Purpose.IDENTITY]


def go(current: Any, now: Any, purpose: Any = Purpose.SSH_USER, rotation: Any = ROTATION) -> Any:
    return advance(current, now, purpose=purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=rotation)


def states(current: Any) -> Any:
    return [generation.state.value for generation in current]


@pytest.mark.parametrize("purpose", PURPOSES)
def test_first_generation_signs_at_once(purpose: Any) -> None:
    assert next_step((), NOW, ROTATION) == Prepare()
    first = go((), NOW + timedelta(microseconds=1), purpose)
    assert states(first) == ["Active"]
    assert (first[0].created_at, first[0].activated_at) == (NOW, NOW)
    assert next_step(first, NOW, ROTATION) is None


@pytest.mark.parametrize("purpose", PURPOSES)
def test_course_of_a_rotation(purpose: Any) -> None:
    """Published `overlap` before the rotation is due, signing when it is, and the former trusted for `overlap` more."""
    first = go((), NOW, purpose)
    due = NOW + EVERY - OVERLAP
    assert go(first, due - SECOND, purpose) == first
    assert next_step(first, due, ROTATION) == Prepare()
    published = go(first, due, purpose)
    assert states(published) == ["Active", "Prepared"]
    assert published[0] == first[0]
    assert go(published, due + OVERLAP - SECOND, purpose) == published
    assert next_step(published, due + OVERLAP, ROTATION) == Activate(published[1].id)
    taken_over = go(published, due + OVERLAP, purpose)
    assert states(taken_over) == ["Active", "Old"]
    assert [generation.id for generation in taken_over] == [published[1].id, published[0].id]
    assert taken_over[0].activated_at == taken_over[1].superseded_at == NOW + EVERY
    gone = NOW + EVERY + OVERLAP
    assert go(taken_over, gone - SECOND, purpose) == taken_over
    assert next_step(taken_over, gone, ROTATION) == Retire(first[0].id)
    assert states(go(taken_over, gone, purpose)) == ["Active"]


def test_a_leaf_of_the_last_moment_ends_before_trust_in_its_ca_does() -> None:
    first = go((), NOW)
    published = go(first, NOW + EVERY - OVERLAP)
    last_signature = NOW + EVERY - SECOND
    taken_over = go(published, NOW + EVERY)
    end = last_signature + MAXIMUM.length
    assert states(go(taken_over, end)) == ["Active", "Old"]
    assert end < first[0].not_after


def test_operator_that_was_away_for_a_year_signs_again_at_once() -> None:
    late = NOW + 365 * DAY
    current = go(go((), NOW), late)
    assert states(current) == ["Active"]
    assert current[0].created_at == current[0].activated_at == late


def test_operator_that_was_away_with_a_published_heir() -> None:
    published = go(go((), NOW), NOW + EVERY - OVERLAP)
    current = go(published, NOW + EVERY + DAY)
    assert states(current) == ["Active", "Old"]
    assert current[0].id == published[1].id


def test_heir_that_ended_before_it_signed_is_forgotten() -> None:
    published = go(go((), NOW), NOW + EVERY - OVERLAP)
    late = published[1].not_after - LAST_CALL
    current = go(published, late)
    assert states(current) == ["Active"]
    assert current[0].created_at == late


@pytest.mark.parametrize("purpose", PURPOSES)
def test_step_back_of_the_clock_changes_nothing(purpose: Any) -> None:
    first = go((), NOW, purpose)
    assert go(first, NOW - 2 * HOUR, purpose) == first
    published = go(first, NOW + EVERY - OVERLAP, purpose)
    assert go(published, NOW, purpose) == published or states(go(published, NOW, purpose)) == ["Active"]
    assert go(published, NOW + EVERY - OVERLAP - 2 * HOUR, purpose) == published
    taken_over = go(published, NOW + EVERY, purpose)
    assert go(taken_over, NOW + EVERY - 3 * HOUR, purpose) == taken_over


@pytest.mark.parametrize(
    ("purpose", "expected"),
    [
        pytest.param(Purpose.SSH_USER, ["Active", "Prepared"], id="an SSH key goes on signing while its heir is published"),
        pytest.param(Purpose.IDENTITY, ["Active", "Old"], id="an X.509 CA that has not begun verifies nowhere"),
    ],
)
def test_ca_made_while_the_clock_was_far_ahead_is_replaced(purpose: Any, expected: Any) -> None:
    ahead = go((), NOW + 10 * 365 * DAY, purpose)
    current = go(ahead, NOW, purpose)
    assert states(current) == expected
    later = go(current, NOW + OVERLAP, purpose)
    assert states(later)[0] == "Active"
    assert later[0].created_at == NOW


def test_prepared_one_from_the_future_is_replaced() -> None:
    first = go((), NOW)
    ahead = go(first, NOW + EVERY - OVERLAP)
    moved = replace(ahead[1], created_at=NOW + 10 * 365 * DAY)
    assert next_step((first[0], moved), NOW, ROTATION) == Retire(moved.id)
    tolerated = replace(ahead[1], created_at=NOW + CA_BACKDATE)
    assert next_step((first[0], tolerated), NOW, ROTATION) is None


def test_shorter_and_longer_rotation_are_followed() -> None:
    first = go((), NOW)
    short = Rotation(every="100h", overlap="26h")
    assert states(go(first, NOW + 74 * HOUR, rotation=short)) == ["Active", "Prepared"]
    # The certificate was made for the shorter rotation and must not run out.
    long = Rotation(every="20000h", overlap="26h")
    by_its_end = first[0].not_after - 2 * OVERLAP
    assert go(first, by_its_end - SECOND, rotation=long) == first
    assert states(go(first, by_its_end, rotation=long)) == ["Active", "Prepared"]


def test_old_one_that_has_ended_is_forgotten_even_with_a_longer_overlap() -> None:
    taken_over = go(go(go((), NOW), NOW + EVERY - OVERLAP), NOW + EVERY)
    long = Rotation(every="4000h", overlap="1000h")
    assert "Old" in states(go(taken_over, taken_over[1].not_after - SECOND, rotation=long))
    assert "Old" not in states(go(taken_over, taken_over[1].not_after, rotation=long))


def old(number: Any) -> Generation:
    generation = new_generation(
        Purpose.SSH_USER, algorithm="Ed25519", cluster_name=CLUSTER, rotation=ROTATION, now=NOW + number * MINUTE
    )
    return replace(generation, state=AnchorState.OLD, activated_at=NOW, superseded_at=NOW + DAY)


def test_an_activation_leaves_old_ones_as_they_are() -> None:
    heir = go(go((), NOW), NOW + EVERY - OVERLAP)
    kept = replace(old(1), superseded_at=NOW + EVERY - HOUR)
    after = go((*heir, kept), NOW + EVERY)
    assert states(after) == ["Active", "Old", "Old"]
    assert kept in after


def test_old_ones_are_bounded() -> None:
    surplus = [old(number) for number in range(MAX_OLD + 3)]
    current = go((*surplus, *go((), NOW)), NOW + DAY)
    assert states(current) == ["Active"] + ["Old"] * MAX_OLD
    assert [each.created_at for each in current[1:]] == sorted((each.created_at for each in surplus[3:]), reverse=True)


def test_order_is_active_prepared_old() -> None:
    current = (old(1), old(2), *go(go((), NOW), NOW + EVERY - OVERLAP))
    assert states(in_order(current)) == ["Active", "Prepared", "Old", "Old"]
    assert active(current) == current[2]
    assert active(current[:2]) is None


def test_unreadable_rotation_is_invalid() -> None:
    with pytest.raises(Invalid):
        next_step((), NOW, Rotation(every="often"))


# --- any course of the clock --------------------------------------------------------------------------------------

JUMPS = st.lists(
    st.one_of(
        st.integers(-3 * 3600, 48 * 3600),
        st.integers(0, 100 * 24 * 3600),
        st.integers(-400 * 24 * 3600, 400 * 24 * 3600),
    ),
    min_size=1,
    max_size=12,
)
SHORT = Rotation(every="50h", overlap="25h")


def check_invariants(current: Any, now: Any) -> None:
    assert states(current).count("Active") == 1
    assert states(current).count("Prepared") <= 1
    assert states(current).count("Old") <= MAX_OLD
    assert len({each.id for each in current}) == len(current)
    assert list(current) == list(in_order(current))
    assert current[0].not_after > now + timedelta(minutes=5)


def check_published_before_signing(before: Any, after: Any, now: Any, overlap: Any) -> None:
    was, is_now = active(before), active(after)
    assert is_now is not None
    if was is None or is_now.id == was.id:
        return
    nothing_lost = was.not_after - LAST_CALL <= now or (not was.purpose.is_ssh and was.created_at - CA_BACKDATE > now)
    assert nothing_lost or is_now.created_at + overlap <= now


def check_trusted_after_signing(before: Any, after: Any, now: Any, overlap: Any) -> None:
    kept = {each.id for each in after}
    for each in before:
        if each.state is AnchorState.ACTIVE:
            # A clock that was put back by days, time and again, may have filled all the places for old ones within the overlap.
            assert each.id in kept or each.not_after <= now or states(before).count("Old") == MAX_OLD
        elif each.state is AnchorState.OLD and each.id not in kept:
            assert each.superseded_at + overlap <= now or each.not_after <= now or states(before).count("Old") == MAX_OLD


@pytest.mark.parametrize("rotation", [ROTATION, SHORT], ids=["90 days", "50 hours"])
@pytest.mark.parametrize("purpose", PURPOSES)
@settings(max_examples=60, deadline=None)
@given(jumps=JUMPS)
def test_invariants_hold_whatever_the_clock_does(purpose: Any, rotation: Any, jumps: Any) -> None:
    overlap = OVERLAP if rotation is ROTATION else 25 * HOUR
    now = NOW + 500 * DAY
    current: tuple[Generation, ...] = ()
    for jump in (0, *jumps):
        now += timedelta(seconds=jump)
        before, current = current, go(current, now, purpose, rotation)
        check_invariants(current, now)
        check_published_before_signing(before, current, now, overlap)
        check_trusted_after_signing(before, current, now, overlap)
        assert go(current, now, purpose, rotation) == current
    assert load(purpose, dump(current)) == current


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.integers(60, 8 * 3600), min_size=40, max_size=80))
def test_with_a_right_clock_no_leaf_is_shortened_or_loses_its_trust(steps: Any) -> None:
    """Asked at least every 8 hours (thrice late is a day, the slack), the active CA always outlives a leaf of 24 hours, and stays trusted for as long."""
    now, current, leaves = NOW, (), []
    for step in steps:
        now += timedelta(seconds=step)
        current = go(current, now, rotation=SHORT)
        assert current[0].not_after >= now + MAXIMUM.length
        leaves.append((current[0].id, now + MAXIMUM.length))
        trusted = {each.id for each in current}
        assert all(ca in trusted for ca, end in leaves if end > now)


def test_slack_covers_a_rotation_that_is_late_by_a_day() -> None:
    first = go((), NOW)
    late = NOW + EVERY + DAY - OVERLAP
    assert go(first, late)[0].not_after >= late + OVERLAP + MAXIMUM.length
    assert SLACK == DAY


def test_keys_of_generations_are_their_own() -> None:
    current = go(go((), NOW), NOW + EVERY - OVERLAP)
    assert isinstance(current[0].key, CAKey)
    assert current[0].key != current[1].key
