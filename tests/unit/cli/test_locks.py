"""Locks from flags, and as they are shown."""

from datetime import UTC, datetime
from typing import Any

import pytest

from machinebot.cli.locks import Asked, lock, name_of, table, view, worded
from machinebot.errors import Invalid

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = "0b0e0000-0000-4000-8000-000000000000"
REF = {"namespace": "ci", "name": "deployer"}


@pytest.mark.parametrize(
    ("asked", "name", "target", "words"),
    [
        (Asked(bot="ci/deployer"), "bot.ci.deployer", {"bot": REF}, "the bot ci/deployer"),
        (Asked(instance=ID), f"instance.{ID}", {"instance": ID}, f"the instance {ID}"),
        (Asked(role="access"), "role.access", {"role": "access"}, "the role access"),
        (Asked(join_token="ci/deployer"), "join-token.ci.deployer", {"joinToken": REF}, "the join token ci/deployer"),
    ],
)
def test_a_lock_of_each_target(asked: Asked, name: str, target: dict[str, Any], words: str) -> None:
    made = lock(asked, NOW)
    assert (made.name, made.spec, worded(target)) == (name, {"target": target}, words)
    assert made.body["metadata"] == {"name": name}


def test_a_lock_has_a_message_and_an_end() -> None:
    made = lock(Asked(role="x", name="mine", message="why", expires="1h"), NOW)
    assert made.name == "mine"
    assert made.spec == {"target": {"role": "x"}, "message": "why", "expires": "2026-01-01T01:00:00Z"}


def test_no_two_targets_have_one_name() -> None:
    targets = [
        {"bot": {"namespace": "a", "name": "b-c"}},
        {"bot": {"namespace": "a-b", "name": "c"}},
        {"bot": {"namespace": "a", "name": "b.c"}},
        {"joinToken": {"namespace": "a", "name": "b.c"}},
        {"role": "a.b.c"},
        {"instance": ID},
    ]
    assert len({name_of(target) for target in targets}) == len(targets)


def test_a_long_name_is_hashed() -> None:
    names = {name_of({"bot": {"namespace": "n" * 63, "name": letter * 200}}) for letter in "ab"}
    assert len(names) == 2
    assert all(len(name) < 253 for name in names)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        pytest.param(Asked(), "write exactly one of --bot", id="nothing"),
        pytest.param(Asked(role="x", bot="ci/x"), "write exactly one of --bot", id="two"),
        pytest.param(Asked(bot="deployer"), "write it as NAMESPACE/deployer", id="no namespace"),
        pytest.param(Asked(instance="1"), "must be the id of an instance", id="no instance"),
        pytest.param(Asked(role="X"), "must be the name of an object", id="no role"),
        pytest.param(Asked(role="x", name="A"), "cannot be the name of a lock", id="no name"),
        pytest.param(Asked(role="x", message="m" * 1025), "must have 0 to 1024 characters", id="a long message"),
        pytest.param(Asked(role="x", expires="0s"), "has passed", id="no end"),
    ],
)
def test_a_mistake_is_told(asked: Asked, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        lock(asked, NOW)
    assert words in caught.value.message


def stored(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "l", "uid": "1"}, "spec": {"target": {"role": "x"}, **spec}}


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (stored(), "active"),
        (stored(expires="2026-01-01T00:00:01Z"), "active"),
        (stored(expires="2026-01-01T00:00:00Z"), "expired"),
        ({"metadata": {"name": "l", "uid": "1"}, "spec": {"target": "x"}}, "unreadable"),
        ({"metadata": {"name": "l"}}, "unreadable"),
    ],
)
def test_a_lock_is_shown(body: dict[str, Any], state: str) -> None:
    found = view(body, NOW)
    assert found.state == state
    (row,) = table([found], NOW).rows
    assert row[0] == "l"
    assert found.json()["name"] == "l"
