"""When to try again."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.policy.backoff import CEILING, FIRST, pause, retry_at
from unit.policy.builders import NOW

UIDS = st.uuids().map(str)


@pytest.mark.parametrize(
    ("failures", "least"),
    [
        pytest.param(-3, 2, id="nonsense is the first"),
        pytest.param(0, 2, id="none is the first"),
        pytest.param(1, 2, id="first"),
        pytest.param(2, 4, id="second"),
        pytest.param(5, 32, id="fifth"),
        pytest.param(9, 512, id="last below the ceiling"),
        pytest.param(10, 600, id="ceiling"),
        pytest.param(10**9, 600, id="a year of failures"),
    ],
)
def test_pause_doubles_up_to_the_ceiling(failures: int, least: float) -> None:
    length = pause(failures, "uid-1").total_seconds()
    assert least <= length <= least * 1.2


@pytest.mark.parametrize(
    ("asked", "least"),
    [
        pytest.param(None, 2, id="nothing asked"),
        pytest.param(0.0, 2, id="zero asked"),
        pytest.param(-5.0, 2, id="nonsense asked"),
        pytest.param(1.0, 2, id="less asked than is waited anyway"),
        pytest.param(300.0, 300, id="more asked"),
        pytest.param(3000.0, 3000, id="more asked than the ceiling"),
    ],
)
def test_what_the_other_side_asks_for_is_never_undercut(asked: float | None, least: float) -> None:
    assert pause(1, "uid-1", asked=asked).total_seconds() >= least


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), UIDS)
def test_pauses_grow_and_are_bounded(failures: int, uid: str) -> None:
    lengths = [pause(count, uid) for count in range(1, failures + 1)]
    assert lengths == sorted(lengths)
    assert lengths[0] >= FIRST
    assert lengths[-1] <= CEILING * 1.2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), UIDS, st.none() | st.floats(0, 300), st.integers(0, 999_999))
def test_the_next_attempt_is_later_in_whole_seconds_and_the_same_for_the_same_object(
    failures: int, uid: str, asked: float | None, microsecond: int
) -> None:
    now = NOW.replace(microsecond=microsecond)
    moment = retry_at(failures, uid, now, asked=asked)
    assert moment == retry_at(failures, uid, now, asked=asked)
    assert moment.microsecond == 0
    assert timedelta(0) <= moment - now - pause(failures, uid, asked=asked) <= timedelta(seconds=1)


def test_objects_that_failed_together_part() -> None:
    assert len({pause(8, f"uid-{number}") for number in range(100)}) > 90
