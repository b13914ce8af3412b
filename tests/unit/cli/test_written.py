"""What a person writes, held against the schema of the CRDs."""

from datetime import UTC, datetime
from typing import Any

import pytest

from machinebot.cli.bots import Asked, bot, split, traits
from machinebot.cli.written import check, check_name, check_namespace, moment, reference, schema_of, violations
from machinebot.errors import Invalid
from machinebot.joins.registry import schema_model
from machinebot.resources import bot as bots
from machinebot.resources import join_token, lock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOT = schema_of(bots.KIND, bots.MachineBot)
TOKEN = schema_of(join_token.KIND, schema_model())
LOCK = schema_of(lock.KIND, lock.MachineLock)


@pytest.mark.parametrize(
    ("schema", "spec"),
    [
        pytest.param(BOT, {"roles": ["access"]}, id="the least"),
        pytest.param(
            BOT, {"roles": ["a", "b"], "logins": ["deploy"], "traits": {"team": ["x"]}, "maxSessionTTL": "12h"}, id="all fields"
        ),
        pytest.param(TOKEN, {"bot": "x", "github": {"allow": [{"repositoryID": "1"}]}}, id="a join token"),
        pytest.param(LOCK, {"target": {"role": "x"}, "expires": "2027-01-01T00:00:00Z"}, id="a lock"),
    ],
)
def test_what_fits_passes(schema: dict[str, Any], spec: dict[str, Any]) -> None:
    check(schema, spec)


@pytest.mark.parametrize(
    ("schema", "spec", "words"),
    [
        pytest.param(BOT, {}, "spec.roles: is missing", id="a field is missing"),
        pytest.param(BOT, {"roles": []}, "spec.roles: must have 1 to 32 entries", id="too few"),
        pytest.param(BOT, {"roles": ["a"] * 2}, "spec.roles: has an entry twice", id="twice"),
        pytest.param(BOT, {"roles": "access"}, "spec.roles: must be a list", id="no list"),
        pytest.param(BOT, {"roles": ["Access"]}, "spec.roles[0]: must be the name of an object", id="no name"),
        pytest.param(BOT, {"roles": ["a\n"]}, "spec.roles[0]: must be the name of an object", id="a newline at the end"),
        pytest.param(BOT, {"roles": [1]}, "spec.roles[0]: must be a text", id="a number"),
        pytest.param(BOT, {"roles": ["a"], "role": "b"}, "there is no field 'role': write one of roles, logins", id="unknown"),
        pytest.param(BOT, {"roles": ["a"], "logins": ["*"]}, "spec.logins[0]: must be an account name", id="login"),
        pytest.param(BOT, {"roles": ["a"], "logins": ["x" * 65]}, "spec.logins[0]: must have 0 to 64", id="a long login"),
        pytest.param(BOT, {"roles": ["a"], "traits": {"a b": ["x"]}}, "spec.traits: the name of a trait", id="trait"),
        pytest.param(BOT, {"roles": ["a"], "traits": {"t": ["{{x}}"]}}, "spec.traits.t[0]: must be a name without", id="value"),
        pytest.param(BOT, {"roles": ["a"], "maxSessionTTL": "1m"}, "must be a duration of at least 5m", id="a short time"),
        pytest.param(BOT, {"roles": ["a"], "maxSessionTTL": "1d"}, "must be a duration of at least 5m", id="days"),
        pytest.param(TOKEN, {"bot": "x", "github": {"allow": [{"ref": "x"}]}}, "must have at least one of", id="one of"),
        pytest.param(TOKEN, {"bot": "x", "github": {"allow": [{"repository": "*"}]}}, "more than wildcards", id="all"),
        pytest.param(TOKEN, {"bot": "x", "token": {"secretHash": "x"}}, "must be sha256: and 64 hex digits", id="hash"),
        pytest.param(LOCK, {"target": {"instance": "x"}}, "must be the id of an instance", id="instance"),
        pytest.param(LOCK, {"target": {"role": "x"}, "expires": "tomorrow"}, "must be a time in UTC", id="time"),
    ],
)
def test_what_does_not_fit_is_told_in_the_words_of_the_rule(schema: dict[str, Any], spec: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(schema, spec)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"type": "boolean"}, "yes", "must be true or false"),
        ({"type": "integer"}, True, "must be a number"),
        ({"type": "object"}, [], "must be fields with values"),
        ({"type": "string", "enum": ["a", "b"]}, "c", "must be one of a, b"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "a", "must have 2 to 3 characters"),
        ({"type": "string", "pattern": "^a"}, "b", "must fit ^a"),
    ],
)
def test_what_has_no_rule_is_told_too(schema: dict[str, Any], value: object, words: str) -> None:
    assert [text for text in violations(schema, value, "x") if words in text]


def test_a_rule_that_only_the_api_server_understands_is_left_to_it() -> None:
    schema = {"type": "string", "x-kubernetes-validations": [{"rule": "self.size() > 3", "message": "too short"}]}
    assert list(violations(schema, "a", "x")) == []


# --- names and moments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a/b", "a\n", "a" * 201, "../x"])
def test_no_name(name: str) -> None:
    with pytest.raises(Invalid, match="cannot be the name of a bot"):
        check_name("a bot", name, 200)


@pytest.mark.parametrize("name", ["", "a.b", "A", "a" * 64, "x/y", "a\n"])
def test_no_namespace(name: str) -> None:
    with pytest.raises(Invalid, match="cannot be a namespace"):
        check_namespace(name)


def test_a_reference_has_two_parts() -> None:
    assert reference("ci/deployer") == {"namespace": "ci", "name": "deployer"}
    with pytest.raises(Invalid, match="write it as NAMESPACE/deployer"):
        reference("deployer")
    for text in ("ci/", "/deployer", "ci/a/b", "CI/a"):
        with pytest.raises(Invalid):
            reference(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2027-01-01", "2027-01-01T00:00:00Z"),
        ("12h", "2026-01-01T12:00:00Z"),
        ("1h30m", "2026-01-01T01:30:00Z"),
    ],
)
def test_a_moment(text: str, expected: str) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "tomorrow", "2027-13-01", "2027-01-01T00:00:00", "1d", "-1h", "2027"])
def test_no_moment(text: str) -> None:
    with pytest.raises(Invalid, match="is no time"):
        moment(text, NOW)


@pytest.mark.parametrize("text", ["2026-01-01", "2025-12-31T23:59:59Z", "0s"])
def test_a_moment_that_has_passed(text: str) -> None:
    with pytest.raises(Invalid, match="has passed"):
        moment(text, NOW)


# --- bots ---------------------------------------------------------------------------------------------------------------


def test_lists_are_split_and_each_stands_once() -> None:
    assert split(("a,b", " b , c,")) == ("a", "b", "c")
    assert split(()) == ()


def test_traits_add_up() -> None:
    assert traits(("team=a,b", "team=b,c", "x=a=b")) == {"team": ["a", "b", "c"], "x": ["a=b"]}


@pytest.mark.parametrize("text", ["team", "=a", "team=", "team=,"])
def test_no_trait(text: str) -> None:
    with pytest.raises(Invalid, match="is no trait"):
        traits((text,))


def test_a_bot_has_only_what_was_said() -> None:
    made = bot("ci", "deployer", Asked(roles=("access",)))
    assert made.body == {
        "apiVersion": "machinebot.dev/v1alpha1",
        "kind": "MachineBot",
        "metadata": {"name": "deployer", "namespace": "ci"},
        "spec": {"roles": ["access"]},
    }
    assert made.title == "MachineBot ci/deployer"


def test_a_bot_without_roles_is_refused() -> None:
    with pytest.raises(Invalid, match=r"spec\.roles: must have 1"):
        bot("ci", "deployer", Asked(roles=(" , ",)))
