"""Durations, names, conditions and the way models read and write."""

import re
from datetime import timedelta
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from machinebot.resources.bot import LOGIN_PATTERN, MachineBotSpec
from machinebot.resources.meta import (
    DURATION_PATTERN,
    OBJECT_NAME,
    Condition,
    ConditionStatus,
    Duration,
    Model,
    ObjectName,
    Rule,
    duration_rule,
    find_condition,
    first_error,
    format_duration,
    matches,
    name_rule,
    parse_duration,
    rules,
    with_condition,
    without_condition,
    written_as,
)

EARLIER, LATER = "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("24h", timedelta(hours=24)),
        ("90m", timedelta(minutes=90)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1h1s", timedelta(hours=1, seconds=1)),
        ("2h3m4s", timedelta(hours=2, minutes=3, seconds=4)),
        ("30m15s", timedelta(minutes=30, seconds=15)),
        ("0s", timedelta(0)),
        ("007h", timedelta(hours=7)),
        ("2160h", timedelta(days=90)),
        ("999999h999999m99999999s", timedelta(hours=999_999, minutes=999_999, seconds=99_999_999)),
    ],
)
def test_a_duration_is_read(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "24",
        "h",
        "abc",
        "1d",
        "1w",
        "-5m",
        "+5m",
        "1.5h",
        "1h 30m",
        "30m1h",
        "1h1h",
        "24h\n",
        "\n24h",
        "24H",
        "٢h",
        "1000000h",
        "1ms",
    ],
)
def test_what_is_no_duration_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape('write hours, minutes and seconds such as "24h", "90m" or "1h30m"')):
        parse_duration(text)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=45), "45s"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(days=1), "24h"),
        (timedelta(hours=1, seconds=1), "1h1s"),
        (timedelta(seconds=1, microseconds=999_999), "1s"),
    ],
)
def test_a_duration_is_written_in_its_shortest_form(length: timedelta, text: str) -> None:
    assert format_duration(length) == text


@given(st.integers(min_value=0, max_value=999_999 * 3600))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(st.from_regex(DURATION_PATTERN.strip("^$"), fullmatch=True))
def test_whatever_fits_the_pattern_is_a_duration(text: str) -> None:
    assert parse_duration(text) >= timedelta(0)


@given(st.text(max_size=12).filter(lambda text: re.fullmatch(DURATION_PATTERN, text) is None))
def test_any_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


def test_a_duration_field_keeps_its_text() -> None:
    assert TypeAdapter(Duration).validate_python("90m") == "90m"


def test_a_duration_rule_without_an_upper_bound_is_one_rule() -> None:
    (rule,) = duration_rule("25h")["x-kubernetes-validations"]
    assert "duration(self) >= duration('25h')" in rule["rule"]
    assert "at least 25h" in rule["message"]


def test_a_duration_rule_with_an_upper_bound_names_it() -> None:
    _, rule = duration_rule("5m", "24h")["x-kubernetes-validations"]
    assert "duration(self) <= duration('24h')" in rule["rule"]
    assert 'at most "24h"' in rule["message"]


@pytest.mark.parametrize("name", ["a", "web-1", "a.b", "0", "1a.b-c.2", "a--b"])
def test_an_object_name(name: str) -> None:
    assert TypeAdapter(ObjectName).validate_python(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a-", ".a", "a.", "a..b", "a.-b", "a_b", "a/b", "a b", "a\n", "*", "a,b", "ä", "a" * 254]
)
def test_no_object_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ObjectName).validate_python(name)


@pytest.mark.parametrize("pattern", [DURATION_PATTERN, OBJECT_NAME, LOGIN_PATTERN])
def test_a_pattern_can_stand_in_a_raw_string_of_cel(pattern: str) -> None:
    assert "'" not in pattern
    assert matches(pattern, "key") == f"key.matches(r'{pattern}')"


def test_a_pattern_with_a_sentence_is_checked_by_the_model_and_by_a_rule() -> None:
    adapter = TypeAdapter(Annotated[str, written_as("^a+$", "write only a")])
    assert adapter.validate_python("aa") == "aa"
    with pytest.raises(ValidationError):
        adapter.validate_python("b")
    assert adapter.json_schema()["x-kubernetes-validations"] == [{"rule": "self.matches(r'^a+$')", "message": "write only a"}]


def test_a_rule_points_at_a_field_where_it_names_one() -> None:
    assert rules(Rule("a", "b"), Rule("c", "d", ".e")) == {
        "x-kubernetes-validations": [{"rule": "a", "message": "b"}, {"rule": "c", "message": "d", "fieldPath": ".e"}]
    }


def test_the_rule_on_a_name_stands_at_the_root() -> None:
    class Bounded(Model):
        model_config = name_rule(200)

    assert Bounded.model_json_schema()["x-kubernetes-validations"][0]["rule"] == "size(self.metadata.name) <= 200"
    assert Bounded.model_config["frozen"], "the settings of all models stay"


# --- models -------------------------------------------------------------------------------------------------------


class Sample(Model):
    a_name: str
    a_number: int | None = None


def test_a_model_is_camel_case_outside_and_leaves_nothing_out_but_none() -> None:
    assert Sample(a_name="x").wire() == {"aName": "x"}
    assert Sample(a_name="x", a_number=0).wire() == {"aName": "x", "aNumber": 0}


def test_a_model_passes_over_what_a_newer_release_has_written() -> None:
    assert Sample.model_validate({"aName": "x", "fromTheFuture": 1}) == Sample(a_name="x")


def test_a_model_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Sample(a_name="x").a_name = "y"  # type: ignore[misc]


def test_the_first_error_names_the_field_and_not_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        MachineBotSpec.model_validate({"roles": ["access"], "logins": ["deploy", "very secret, indeed"]})
    assert first_error(caught.value).startswith("logins.1: ")
    assert "secret" not in first_error(caught.value)


# --- conditions ---------------------------------------------------------------------------------------------------


def condition(kind: str, status: ConditionStatus, **changes: str | int) -> Condition:
    known: dict[str, str | int] = {"reason": "Old", "message": "old", "last_transition_time": EARLIER, "observed_generation": 1}
    return Condition.model_validate({"type": kind, "status": status, **known, **changes})


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ("True", "True", False),
        ("False", "False", False),
        ("Unknown", "Unknown", False),
        ("Unknown", "True", True),
        ("True", "False", True),
        ("False", "True", True),
    ],
)
def test_the_transition_time_moves_only_when_the_status_flips(
    before: ConditionStatus, after: ConditionStatus, *, moved: bool
) -> None:
    (new,) = with_condition(
        (condition("Ready", before),), kind="Ready", status=after, reason="New", message="new", generation=2, now=LATER
    )
    assert new == condition(
        "Ready", after, reason="New", message="new", last_transition_time=LATER if moved else EARLIER, observed_generation=2
    )


def test_a_new_condition_comes_last_and_begins_now() -> None:
    ready = condition("Ready", "True")
    old, new = with_condition((ready,), kind="Renewing", status="True", reason="R", message="m", generation=3, now=LATER)
    assert old is ready
    assert new == condition("Renewing", "True", reason="R", message="m", last_transition_time=LATER, observed_generation=3)


def test_a_condition_keeps_its_place() -> None:
    conditions = (condition("Ready", "False"), condition("Renewing", "True"))
    changed = with_condition(conditions, kind="Ready", status="True", reason="R", message="m", generation=1, now=LATER)
    assert [entry.type for entry in changed] == ["Ready", "Renewing"]
    assert changed[1] is conditions[1]


def test_a_long_message_is_cut() -> None:
    (new,) = with_condition((), kind="Ready", status="False", reason="R", message="x" * 5000, generation=1, now=LATER)
    assert len(new.message) == 1024


def test_a_condition_is_found_and_taken_away() -> None:
    conditions = (condition("Ready", "True"), condition("Renewing", "True"))
    assert find_condition(conditions, "Renewing") is conditions[1]
    assert find_condition(conditions, "Other") is None
    assert without_condition(conditions, "Renewing") == conditions[:1]
    assert without_condition(conditions, "Other") == conditions
