"""Names that are carried in full, as the roles give them: logins, Kubernetes users and groups."""

from typing import Any

import pytest

from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.policy.grants import MAX_NAMES, NO_SSH, Grant, check_role, grant
from machinebot.policy.names import NAME_RULES, NameKind
from machinebot.policy.templates import Origin
from machinebot.resources.role import MachineRole
from unit.policy.builders import authority, bot, by_name, giving, granted, unchecked_bot

CARRIED = [kind for kind, rule in NAME_RULES.items() if not rule.asked]
KUBERNETES = [NameKind.KUBERNETES_USERS, NameKind.KUBERNETES_GROUPS]
TRAIT = "{{ external.x }}"


def refusal(kind: type[MachinebotError], reason: str, call: Any, *arguments: Any, **keywords: Any) -> str:
    """The message of the refusal that the call must meet."""
    with pytest.raises(kind) as caught:
        call(*arguments, **keywords)
    assert caught.value.reason == reason
    return caught.value.message


def with_trait(*values: str) -> Any:
    return unchecked_bot("access", traits={"x": values})


# --- carried and denied -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CARRIED, ids=str)
def test_every_name_is_carried_with_its_origin(kind: NameKind) -> None:
    roles = (giving("a", {kind: ["one", TRAIT, "two"]}), giving("b", {kind: ["two"]}))
    found = granted(*roles, bot_spec=unchecked_bot("a", "b", traits={"x": ["filled"]}))
    assert found.of(kind) == (Origin("filled", "a", "x"), Origin("one", "a"), Origin("two", "a"), Origin("two", "b"))
    assert found.plain(kind) == ("filled", "one", "two")
    assert set(found.names) == {kind}


@pytest.mark.parametrize("kind", CARRIED, ids=str)
@pytest.mark.parametrize(
    ("denied", "left", "taken"),
    [
        pytest.param(["one"], ("filled", "two"), ("one",), id="by name"),
        pytest.param(["t*", "o?e"], ("filled",), ("one", "two"), id="by globs"),
        pytest.param([TRAIT], ("one", "two"), ("filled",), id="by a trait"),
        pytest.param(["*"], (), ("filled", "one", "two"), id="all"),
        pytest.param(["One", "TWO", "o"], ("filled", "one", "two"), (), id="another case and a part"),
        pytest.param(["{{ external.none }}"], ("filled", "one", "two"), (), id="by a trait that the bot lacks"),
    ],
)
@pytest.mark.parametrize("same", [True, False], ids=["the same role", "another role"])
def test_deny_wins_and_what_it_took_is_told(
    kind: NameKind, denied: list[str], left: tuple[str, ...], taken: tuple[str, ...], *, same: bool
) -> None:
    allow, deny = {kind: ["one", TRAIT, "two"]}, {kind: denied}
    roles = (giving("a", allow, deny), giving("b")) if same else (giving("a", allow), giving("b", {}, deny))
    found = granted(*roles, bot_spec=unchecked_bot("a", "b", traits={"x": ["filled"]}))
    assert found.plain(kind) == left
    assert tuple(origin.name for origin in found.taken.get(kind, ())) == taken


@pytest.mark.parametrize("kind", CARRIED, ids=str)
@pytest.mark.parametrize("other", CARRIED, ids=lambda kind: f"denied as {kind}")
def test_a_deny_holds_for_its_own_kind_alone(kind: NameKind, other: NameKind) -> None:
    found = granted(giving("a", {kind: ["one"]}, {other: ["*"]}))
    assert found.plain(kind) == (() if other is kind else ("one",))


@pytest.mark.parametrize("kind", CARRIED, ids=str)
def test_a_grant_knows_what_it_denies(kind: NameKind) -> None:
    found = granted(giving("a", {}, {kind: ["bot:*", "x"]}))
    assert found.denies(kind, "bot:ci:deployer")
    assert found.denies(kind, "x")
    assert not found.denies(kind, "xx")
    assert not granted(giving("a")).denies(kind, "x")


# --- what cannot stand in a credential ----------------------------------------------------------------------------

HOSTILE = ["a b", "a,b", "a\nb", "a\n", "\x00", "-a", "", "d\u0435ploy", "a\u200b", "x" * 65, "x" * 100_000]


@pytest.mark.parametrize("kind", CARRIED, ids=str)
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_that_does_not_fit_is_refused_and_its_source_is_named(kind: NameKind, value: str) -> None:
    message = refusal(
        Invalid, NAME_RULES[kind].invalid, granted, giving("access", {kind: ["good", TRAIT]}), bot_spec=with_trait("fine", value)
    )
    assert "'access'" in message
    assert "the trait 'x'" in message
    assert NAME_RULES[kind].noun in message
    assert NAME_RULES[kind].spelling in message
    assert len(message) < 1000


@pytest.mark.parametrize("kind", CARRIED, ids=str)
@pytest.mark.parametrize("pattern", ["*", "a*", "a?", "x" * 65, "a\\"])
def test_a_role_that_states_no_name_is_refused_without_a_trait(kind: NameKind, pattern: str) -> None:
    message = refusal(Invalid, NAME_RULES[kind].invalid, granted, giving("access", {kind: [pattern]}))
    assert "'access'" in message
    assert "trait" not in message


@pytest.mark.parametrize("kind", CARRIED, ids=str)
def test_a_name_that_is_denied_is_not_looked_at_further(kind: NameKind) -> None:
    role = giving("access", {kind: [TRAIT]}, {kind: ["a?b", "system:*"]})
    assert granted(role, bot_spec=with_trait("a b", "system:masters", "good")).plain(kind) == ("good",)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NameKind.LOGINS, "TooManyLogins"),
        (NameKind.KUBERNETES_USERS, "TooManyNames"),
        (NameKind.KUBERNETES_GROUPS, "TooManyNames"),
    ],
)
def test_a_credential_holds_so_many_names_and_no_more(kind: NameKind, reason: str) -> None:
    role = giving("access", {kind: [TRAIT]})
    most = [f"n{number}" for number in range(MAX_NAMES)]
    assert len(granted(role, bot_spec=with_trait(*most)).plain(kind)) == MAX_NAMES
    message = refusal(Invalid, reason, granted, role, bot_spec=with_trait(*most, "one-more"))
    assert NAME_RULES[kind].noun in message
    assert "several outputs" in message


# --- names that Kubernetes and bots have for themselves -----------------------------------------------------------


@pytest.mark.parametrize("kind", KUBERNETES, ids=str)
@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        pytest.param(TRAIT, "system:masters", id="system:masters"),
        pytest.param(TRAIT, "system:node:worker-1", id="a node"),
        pytest.param(TRAIT, "system:serviceaccount:kube-system:default", id="a ServiceAccount"),
        pytest.param(TRAIT, "bot:ci:other", id="another bot"),
        pytest.param(f"sys{TRAIT}", "tem:masters", id="put together by role and trait"),
        pytest.param(f"{TRAIT}masters", "system:", id="the beginning alone"),
        pytest.param(f"{TRAIT}:ci:other", "bot", id="the word alone"),
        pytest.param(f"system:{TRAIT}", "masters", id="the role writes the beginning and leaves the end open"),
        pytest.param("{{ internal.kubernetes_users }}", "system:admin", id="by the internal trait"),
    ],
)
def test_a_trait_spells_no_name_that_is_reserved(kind: NameKind, pattern: str, value: str) -> None:
    traits = {"x": [value], "kubernetes_users": [value]}
    role = giving("access", {kind: ["viewers", pattern]})
    message = refusal(Denied, "ReservedName", granted, role, bot_spec=unchecked_bot("access", traits=traits))
    assert "'access'" in message
    assert "'system:', 'bot:'" in message
    assert "only a role" in message


@pytest.mark.parametrize("kind", KUBERNETES, ids=str)
def test_a_role_may_write_a_reserved_name(kind: NameKind) -> None:
    role = giving("access", {kind: ["system:authenticated", "bot:ci:other"]})
    check_role(role)
    assert granted(role).plain(kind) == ("bot:ci:other", "system:authenticated")


@pytest.mark.parametrize("value", ["systems:x", "System:masters", "robot:x", "x-system:masters", "BOT:ci:x"])
@pytest.mark.parametrize("kind", KUBERNETES, ids=str)
def test_a_trait_may_spell_what_only_looks_reserved(kind: NameKind, value: str) -> None:
    """The API server compares users and groups byte by byte: these are nobody's."""
    assert granted(giving("access", {kind: [TRAIT]}), bot_spec=with_trait(value)).plain(kind) == (value,)


def test_nothing_carries_system_masters() -> None:
    role = giving("access", {NameKind.KUBERNETES_GROUPS: ["viewers", "system:masters"]})
    for call in (lambda: granted(role), lambda: check_role(role)):
        message = refusal(Denied, "ForbiddenName", call)
        assert "'access'" in message
        assert "'system:masters'" in message
        assert "cluster-admin" in message


def test_system_masters_that_is_denied_is_not_carried_either() -> None:
    role = giving("access", {NameKind.KUBERNETES_GROUPS: ["viewers", "system:masters"]}, {NameKind.KUBERNETES_GROUPS: ["*:m*"]})
    assert granted(role).plain(NameKind.KUBERNETES_GROUPS) == ("viewers",)


@pytest.mark.parametrize("kind", [kind for kind in NameKind if kind is not NameKind.KUBERNETES_GROUPS], ids=str)
def test_the_name_is_nothing_special_elsewhere(kind: NameKind) -> None:
    check_role(giving("access", {kind: ["system:masters"]}, {NameKind.KUBERNETES_GROUPS: ["system:masters"]}))


# --- only what the credential carries is looked at ----------------------------------------------------------------


def grant_of(*kinds: NameKind, roles: tuple[MachineRole, ...], bot_spec: Any = None) -> Grant:
    known = by_name(*roles)
    return grant(
        namespace="ci", bot=bot_spec or bot(*known), wanted=(), roles=known, authority=authority(), kinds=frozenset(kinds)
    )


BROKEN = [
    pytest.param(giving("access", {NameKind.KUBERNETES_GROUPS: [TRAIT]}), with_trait("a b"), id="a name that does not fit"),
    pytest.param(giving("access", {NameKind.KUBERNETES_GROUPS: [TRAIT]}), with_trait("system:masters"), id="a reserved name"),
    pytest.param(giving("access", {NameKind.KUBERNETES_GROUPS: ["system:masters"]}), bot("access"), id="system:masters"),
    pytest.param(giving("access", {NameKind.KUBERNETES_GROUPS: ["{{ internal.x }}"]}), bot("access"), id="an unknown template"),
    pytest.param(giving("access", {}, {NameKind.KUBERNETES_GROUPS: [TRAIT]}), with_trait("*"), id="a wildcard in a trait"),
    pytest.param(
        giving("access", {NameKind.KUBERNETES_GROUPS: [TRAIT]}), with_trait(*(f"n{n}" for n in range(300))), id="too many"
    ),
]


@pytest.mark.parametrize(("role", "bot_spec"), BROKEN)
def test_what_is_wrong_with_other_kinds_stops_nothing(role: MachineRole, bot_spec: Any) -> None:
    with pytest.raises((Denied, Invalid)):
        grant_of(NameKind.KUBERNETES_USERS, NameKind.KUBERNETES_GROUPS, roles=(role,), bot_spec=bot_spec)
    found = grant_of(NameKind.DB_USERS, roles=(role,), bot_spec=bot_spec)
    assert (found.roles, found.names, found.denied, found.taken) == (("access",), {}, {}, {})


def test_options_of_ssh_count_only_where_logins_are_carried() -> None:
    roles = (
        giving("a", {NameKind.LOGINS: ["deploy"]}, sourceAddresses=["10.0.0.0/8"], forwardAgent=True),
        giving("b", sourceAddresses=["192.0.2.0/24"], maxSessionTTL="1h"),
    )
    refusal(Denied, "NoSourceAddress", grant_of, NameKind.LOGINS, roles=roles)
    found = grant_of(NameKind.DB_USERS, roles=roles)
    assert found.ssh == NO_SSH
    assert [limit.name for limit in found.limits] == ["role a (maxSessionTTL 24h)", "role b (maxSessionTTL 1h)"]


def test_roles_and_limits_are_looked_at_whatever_is_carried() -> None:
    refusal(Denied, "SessionMFARequired", grant_of, roles=(giving("a", requireSessionMFA=True),))
    refusal(Denied, "RoleNotForNamespace", grant_of, roles=(giving("a", namespaces=["prod"]),))
    refusal(Denied, "DeviceTrustRequired", grant_of, roles=(giving("a", deviceTrustMode="required"),))
