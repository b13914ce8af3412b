"""The roster of the join API: what it takes in, what it forgets, and what it never believes."""

import itertools
from typing import Any

import pytest

from machinebot.kube.resources import BOTS, JOIN_TOKENS, LOCKS, ROLES, Resource
from machinebot.policy.credential import BotRef
from machinebot.reconcile.roster import TOMBSTONES, Roster

REF = BotRef("ci", "deployer")
versions = itertools.count(10)

SPECS: dict[str, dict[str, Any]] = {
    "machinebots": {"roles": ["access"], "logins": ["deploy"]},
    "machineroles": {"namespaces": ["ci"], "allow": {"logins": ["deploy"]}},
    "machinejointokens": {"bot": "deployer", "kubernetes": {"allow": [{"serviceAccount": "ci:web"}]}},
    "machinelocks": {"target": {"role": "access"}, "message": "stop"},
}


def body(resource: Resource, name: str, uid: str = "1", *, version: int | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": uid, "resourceVersion": str(version or next(versions))}
    if resource.namespaced:
        metadata["namespace"] = "ci"
    return {"metadata": metadata, "spec": {**SPECS[resource.plural], **spec}, "status": {}}


@pytest.fixture
def roster() -> Roster:
    return Roster(None, ())  # type: ignore[arg-type]  # nothing is asked


def fill(roster: Roster) -> None:
    roster.observe(BOTS, body(BOTS, "deployer"), False)
    roster.observe(ROLES, body(ROLES, "access"), False)
    roster.observe(JOIN_TOKENS, body(JOIN_TOKENS, "runners"), False)
    roster.observe(LOCKS, body(LOCKS, "stop"), False)


def test_it_knows_what_it_was_told(roster: Roster) -> None:
    fill(roster)
    bot, token = roster.bot(REF), roster.join_token("ci", "runners")
    assert bot is not None
    assert bot.spec.logins == ("deploy",)
    assert token is not None
    assert token.method.name == "kubernetes"
    assert set(roster.roles()) == {"access"}
    assert [lock.name for lock in roster.locks()] == ["stop"]
    assert roster.bot(BotRef("prod", "deployer")) is None
    assert roster.join_token("prod", "runners") is None


@pytest.mark.parametrize("resource", [BOTS, ROLES, JOIN_TOKENS, LOCKS], ids=lambda each: each.plural)
def test_what_is_deleted_is_gone_and_does_not_come_back(roster: Roster, resource: Resource) -> None:
    old = body(resource, "it", "7")
    roster.observe(resource, old, False)
    assert known(roster, resource)
    roster.observe(resource, old, True)
    roster.observe(resource, body(resource, "it", "7"), False)
    assert not known(roster, resource)
    roster.observe(resource, body(resource, "it", "8"), False)
    assert known(roster, resource)
    roster.observe(resource, old, True)  # of the earlier one
    assert known(roster, resource)


def known(roster: Roster, resource: Resource) -> bool:
    match resource.plural:
        case "machinebots":
            return roster.bot(BotRef("ci", "it")) is not None
        case "machineroles":
            return "it" in roster.roles()
        case "machinejointokens":
            return roster.join_token("ci", "it") is not None
        case _:
            return any(lock.name == "it" for lock in roster.locks())


def test_an_older_version_changes_nothing(roster: Roster) -> None:
    roster.observe(BOTS, body(BOTS, "deployer", version=9, logins=["new"]), False)
    roster.observe(BOTS, body(BOTS, "deployer", version=8, logins=["old"]), False)
    bot = roster.bot(REF)
    assert bot is not None
    assert bot.spec.logins == ("new",)


def test_a_whole_list_shows_what_is_gone(roster: Roster) -> None:
    fill(roster)
    roster._listed(BOTS, "other", frozenset())
    assert roster.bot(REF) is not None
    roster._listed(BOTS, "ci", frozenset())
    roster._listed(LOCKS, "", frozenset({("", "another")}))
    assert roster.bot(REF) is None
    assert roster.locks() == ()
    assert roster.join_token("ci", "runners") is not None


@pytest.mark.parametrize(
    ("resource", "spec"),
    [
        (JOIN_TOKENS, {"kubernetes": None}),
        (JOIN_TOKENS, {"kubernetes": {"allow": []}}),
        (JOIN_TOKENS, {"github": {"allow": [{"repository": "a/b"}]}}),
        (ROLES, {"allow": {"logins": "deploy"}}),
        (BOTS, {"roles": []}),
    ],
    ids=["no method", "no rule", "two methods", "a text for a list", "no role"],
)
def test_what_cannot_be_read_lets_nobody_in(roster: Roster, resource: Resource, spec: Any) -> None:
    roster.observe(resource, body(resource, "it"), False)
    roster.observe(resource, body(resource, "it", **spec), False)
    assert not known(roster, resource)


def test_a_lock_that_cannot_be_read_any_more_still_locks(roster: Roster) -> None:
    roster.observe(LOCKS, body(LOCKS, "it"), False)
    roster.observe(LOCKS, body(LOCKS, "it", target={"bot": "deployer"}), False)
    assert known(roster, LOCKS)


def test_it_is_complete_once_everything_was_listed(roster: Roster) -> None:
    for resource in (ROLES, LOCKS, JOIN_TOKENS):
        assert not roster.is_complete
        roster._listed(resource, "", frozenset())
    assert roster.is_complete  # nobody joins where there is no join token: bots are not followed
    roster.observe(JOIN_TOKENS, body(JOIN_TOKENS, "runners"), False)
    assert not roster.is_complete
    roster._listed(BOTS, "", frozenset())
    assert roster.is_complete


def test_with_some_namespaces_each_is_waited_for() -> None:
    roster = Roster(None, ("a", "b"))  # type: ignore[arg-type]
    for resource, namespace in ((ROLES, ""), (LOCKS, ""), (JOIN_TOKENS, "a")):
        roster._listed(resource, namespace, frozenset())
    assert not roster.is_complete
    roster._listed(JOIN_TOKENS, "b", frozenset())
    assert roster.is_complete


def test_what_is_remembered_of_the_dead_is_bounded(roster: Roster) -> None:
    for number in range(TOMBSTONES + 5):
        roster.observe(BOTS, body(BOTS, "it", str(number)), True)
    assert len(roster._gone) == TOMBSTONES
