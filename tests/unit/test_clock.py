"""Times as Kubernetes writes them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.clock import SystemClock, parse_rfc3339, rfc3339

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2027-01-01T12:00:00Z", NOON, id="as we write it"),
        pytest.param("2027-01-01T12:00:00.000000Z", NOON, id="with micro-seconds"),
        pytest.param("2027-01-01T12:00:00.5Z", NOON + timedelta(milliseconds=500), id="with a half"),
        pytest.param("2027-01-01T13:30:00+01:30", NOON, id="of another zone"),
        pytest.param("2027-01-01T00:00:00-12:00", NOON, id="of the far west"),
        pytest.param("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC), id="the beginning"),
    ],
)
def test_parse(text: str, moment: datetime) -> None:
    parsed = parse_rfc3339(text)
    assert parsed == moment
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2027-01-01",
        "2027-01-01T12:00:00",
        "2027-13-01T12:00:00Z",
        "2027-02-29T12:00:00Z",
        "2027-01-01T25:00:00Z",
        "2027-01-01T12:00:00Zulu",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1" * 100_000,
        "\u0662027-01-01T12:00:00Z",
    ],
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_rfc3339(text)


def test_a_time_without_a_zone_is_told_how_to_be_written() -> None:
    with pytest.raises(ValueError, match="write it like 2027-01-01T00:00:00Z"):
        parse_rfc3339("2027-01-01T12:00:00")


def test_format() -> None:
    assert rfc3339(NOON) == "2027-01-01T12:00:00Z"
    assert rfc3339(NOON.replace(microsecond=999_999)) == "2027-01-01T12:00:00Z"
    assert rfc3339(NOON.astimezone(timezone(timedelta(hours=-5)))) == "2027-01-01T12:00:00Z"


@settings(max_examples=100, deadline=None)
@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.timezones()))  # noqa: DTZ001 - hypothesis puts the zone in
def test_there_and_back(moment: datetime) -> None:
    assert parse_rfc3339(rfc3339(moment)) == moment.astimezone(UTC).replace(microsecond=0)


def test_the_machine_clock_is_utc_in_whole_seconds() -> None:
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert now.microsecond == 0
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)
