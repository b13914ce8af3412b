"""How long a credential lives, and when it is replaced."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import Denied
from machinebot.policy.lifetimes import BACKDATE, EARLIEST, JITTER, Limit, lifetime, renewal_time, spread
from unit.policy.builders import DAY, HOUR, MINUTE, NOW, SECOND

UIDS = st.uuids().map(str)
MAXIMUM = "the 24h maximum for machine credentials"


def limit(name: str, **length: float) -> Limit:
    return Limit(name, timedelta(**length))


@pytest.mark.parametrize(
    ("wish", "limits", "length", "reduced_by"),
    [
        pytest.param(DAY, [], DAY, None, id="a day is the most"),
        pytest.param(HOUR, [], HOUR, None, id="an hour as wished"),
        pytest.param(DAY + SECOND, [], DAY, MAXIMUM, id="a second above a day"),
        pytest.param(365 * DAY, [], DAY, MAXIMUM, id="a year"),
        pytest.param(365 * DAY, [limit("role a", days=30)], DAY, MAXIMUM, id="no limit lifts the maximum"),
        pytest.param(DAY, [limit("role a", hours=8)], 8 * HOUR, "role a", id="a role's limit"),
        pytest.param(8 * HOUR, [limit("role a", hours=8)], 8 * HOUR, None, id="just the limit is not reduced"),
        pytest.param(HOUR, [limit("role a", hours=8)], HOUR, None, id="a wish below the limit"),
        pytest.param(
            DAY, [limit("role a", hours=8), limit("the bot", hours=2), limit("role b", hours=4)], 2 * HOUR, "the bot", id="lowest"
        ),
        pytest.param(DAY, [limit("role a", hours=8), limit("role b", hours=8)], 8 * HOUR, "role a", id="the first of equals"),
        pytest.param(DAY, [limit("role a", hours=24)], DAY, None, id="a limit of a day"),
        pytest.param(2 * DAY, [limit("role a", hours=24)], DAY, MAXIMUM, id="the maximum before a limit of a day"),
        pytest.param(5 * MINUTE, [], 5 * MINUTE, None, id="shortest"),
        pytest.param(DAY, [limit("the CA", seconds=300.9)], 5 * MINUTE, "the CA", id="whole seconds, rounded down"),
        pytest.param(timedelta(seconds=600.9), [], 10 * MINUTE, None, id="a wish in whole seconds"),
    ],
)
def test_lifetime(wish: timedelta, limits: list[Limit], length: timedelta, reduced_by: str | None) -> None:
    given_life = lifetime(wish, limits)
    assert (given_life.length, given_life.reduced_by) == (length, reduced_by)


@pytest.mark.parametrize(
    ("wish", "limits", "message"),
    [
        pytest.param(5 * MINUTE - SECOND, [], "the output's credentialTTL leaves 4m59s", id="short wish"),
        pytest.param(DAY, [limit("the CA", seconds=299.9)], "the CA leaves 4m59s", id="short limit"),
        pytest.param(DAY, [limit("the CA", seconds=0)], "the CA leaves 0s", id="no time left"),
        pytest.param(DAY, [limit("the CA", hours=-5)], "the CA leaves 0s", id="a limit that is past"),
        pytest.param(-HOUR, [], "the output's credentialTTL leaves 0s", id="a wish below zero"),
    ],
)
def test_what_is_too_short_is_refused_by_name(wish: timedelta, limits: list[Limit], message: str) -> None:
    with pytest.raises(Denied) as caught:
        lifetime(wish, limits)
    assert caught.value.reason == "LifetimeTooShort"
    assert message in caught.value.message
    assert "needs 5m" in caught.value.message


@settings(max_examples=200, deadline=None)
@given(
    st.timedeltas(min_value=5 * MINUTE, max_value=10_000 * DAY),
    st.lists(st.timedeltas(min_value=5 * MINUTE, max_value=10_000 * DAY), max_size=5),
)
def test_nothing_lives_above_a_day_or_any_limit(wish: timedelta, lengths: list[timedelta]) -> None:
    given_life = lifetime(wish, [Limit(f"limit {number}", length) for number, length in enumerate(lengths)])
    assert given_life.length <= min([wish, DAY, *lengths])
    assert given_life.length > min([wish, DAY, *lengths]) - SECOND
    assert given_life.length.microseconds == 0
    assert (given_life.reduced_by is None) is (wish <= min([DAY, *lengths]))


def test_spread_is_a_share_that_stays() -> None:
    shares = [spread(f"uid-{number}") for number in range(200)]
    assert shares == [spread(f"uid-{number}") for number in range(200)]
    assert min(shares) >= 0
    assert max(shares) <= 1
    assert min(shares) < 0.1
    assert max(shares) > 0.9


# --- renewal ------------------------------------------------------------------------------------------------------


def due(life: timedelta, uid: str = "uid-1", **wish: object) -> datetime:
    return renewal_time(not_before=NOW, not_after=NOW + life, uid=uid, **wish)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("life", "wish", "remainder"),
    [
        pytest.param(DAY, {}, 0.5, id="half is left by default"),
        pytest.param(DAY, {"renew_before": 6 * HOUR}, 0.25, id="renewBefore"),
        pytest.param(DAY, {"renew_before_percentage": 20}, 0.2, id="percentage"),
        pytest.param(8 * HOUR, {"renew_before_percentage": 20}, 0.2, id="percentage of the actual life"),
        pytest.param(8 * HOUR, {"renew_before": 8 * HOUR}, 0.5, id="renewBefore of the whole life is passed over"),
        pytest.param(8 * HOUR, {"renew_before": DAY}, 0.5, id="renewBefore above the life is passed over"),
        pytest.param(8 * HOUR, {"renew_before": DAY, "renew_before_percentage": 30}, 0.3, id="then the percentage holds"),
        pytest.param(8 * HOUR, {"renew_before": HOUR, "renew_before_percentage": 90}, 0.125, id="renewBefore goes first"),
        pytest.param(5 * MINUTE, {}, 0.5, id="the shortest life"),
    ],
)
def test_renewal_leaves_the_wished_part_and_up_to_a_tenth_more(
    life: timedelta, wish: dict[str, object], remainder: float
) -> None:
    for number in range(20):
        left = NOW + life - due(life, f"uid-{number}", **wish)
        assert remainder * life <= left <= (remainder + JITTER) * life + SECOND


@pytest.mark.parametrize("life", [5 * MINUTE, 10 * MINUTE, HOUR, DAY], ids=str)
@pytest.mark.parametrize("wish", [{"renew_before_percentage": 90}, {"renew_before": 5 * MINUTE - SECOND}], ids=str)
def test_a_credential_is_not_due_when_it_was_just_made(life: timedelta, wish: dict[str, object]) -> None:
    made = NOW + BACKDATE
    for number in range(20):
        assert due(life, f"uid-{number}", **wish) >= made + (life - BACKDATE) * EARLIEST - SECOND


@settings(max_examples=200, deadline=None)
@given(
    st.integers(5 * 60, 24 * 3600),
    UIDS,
    st.none() | st.integers(300, 100_000),
    st.none() | st.integers(10, 90),
)
def test_renewal_lies_between_the_dates(seconds: int, uid: str, before: int | None, percentage: int | None) -> None:
    life = timedelta(seconds=seconds)
    wish = {
        "renew_before": None if before is None else timedelta(seconds=before),
        "renew_before_percentage": percentage,
    }
    moment = due(life, uid, **wish)
    assert moment == due(life, uid, **wish)
    assert moment.microsecond == 0
    assert NOW + BACKDATE < moment < NOW + life
    if before is not None and before < seconds:
        remainder = timedelta(seconds=before)
    else:
        remainder = life * (50 if percentage is None else percentage) / 100
    floor = BACKDATE + (life - BACKDATE) * EARLIEST
    left = NOW + life - moment
    assert left <= remainder + life * JITTER + SECOND
    assert left >= remainder or moment - NOW <= floor


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 300), UIDS, st.none() | st.integers(10, 90))
def test_what_another_program_made_has_a_time_between_its_dates_too(seconds: int, uid: str, percentage: int | None) -> None:
    life = timedelta(seconds=seconds)
    assert NOW < due(life, uid, renew_before_percentage=percentage) < NOW + life


def test_a_life_of_nothing_is_due_at_its_end() -> None:
    assert due(timedelta(0)) == NOW
