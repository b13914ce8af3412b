"""Names that an output asks for: what the roles' globs allow and deny, and which other role a refusal names."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.policy.choices import MAX_WAYS_OUT, choose, way_out, would_allow
from machinebot.policy.grants import Grant
from machinebot.policy.names import NAME_RULES, NameKind
from machinebot.policy.templates import Origin
from machinebot.resources.role import MachineRole
from unit.policy.builders import bot, by_name, giving, granted, unchecked_bot

ASKED = [kind for kind, rule in NAME_RULES.items() if rule.asked]
LIKE = {
    NameKind.HOST_PRINCIPALS: "{}.node.test",
    NameKind.DB_USERS: "{}_rw",
    NameKind.DB_NAMES: "{}",
    NameKind.DNS_NAMES: "{}.svc.test",
    NameKind.SPIFFE_PATHS: "/ns/ci/{}",
    NameKind.JWT_AUDIENCES: "https://{}.test",
    NameKind.KUBERNETES_USERS: "team:{}",
}
"""What a name of each kind looks like around a word."""


def chosen(
    kind: NameKind,
    wanted: Sequence[str],
    *roles: MachineRole,
    others: Mapping[str, MachineRole] | None = None,
    **traits: Sequence[str],
) -> tuple[Origin, ...]:
    """The names asked for, of a bot with these roles, where there are others too."""
    spec = unchecked_bot(*(role.metadata.name for role in roles), traits=traits)
    given_: Grant = granted(*roles, bot_spec=spec)
    return choose(kind, wanted, given_, namespace="ci", bot=spec, roles={**by_name(*roles), **(others or {})})


def refused(kind: type[MachinebotError], reason: str, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(kind) as caught:
        chosen(*arguments, **keywords)
    assert caught.value.reason == reason
    return caught.value.message


# --- allow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ASKED, ids=str)
@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        pytest.param("web", "web", id="name"),
        pytest.param("w*", "web", id="star"),
        pytest.param("w*", "w", id="star for nothing"),
        pytest.param("w?b", "web", id="question mark"),
        pytest.param("{{ external.x }}", "filled", id="trait"),
        pytest.param("a{{ external.x }}*", "afilledb", id="trait and star"),
    ],
)
def test_what_a_role_allows(kind: NameKind, pattern: str, word: str) -> None:
    role = giving("access", {kind: [LIKE[kind].format(pattern)]})
    name = LIKE[kind].format(word)
    assert chosen(kind, [name], role, x=["filled"]) == (Origin(name, "access", "x" if "{" in pattern else None),)


@pytest.mark.parametrize("kind", ASKED, ids=str)
@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        pytest.param("web", "webs", id="longer"),
        pytest.param("web", "we", id="shorter"),
        pytest.param("w?b", "wb", id="question mark is one character"),
        pytest.param("w*", "xw", id="anchored at the beginning"),
        pytest.param("*w", "wx", id="anchored at the end"),
        pytest.param("{{ external.none }}", "web", id="a trait that the bot lacks"),
    ],
)
def test_what_no_role_allows(kind: NameKind, pattern: str, word: str) -> None:
    role = giving("access", {kind: [LIKE[kind].format(pattern)]})
    message = refused(Denied, NAME_RULES[kind].not_allowed, kind, [LIKE[kind].format(word)], role)
    assert repr(LIKE[kind].format(word)) in message
    assert NAME_RULES[kind].noun in message
    assert "'access'" in message
    assert f"allow.{kind}" in message


@pytest.mark.parametrize("kind", ASKED, ids=str)
def test_a_role_allows_names_of_its_own_kind_alone(kind: NameKind) -> None:
    everything = giving("access", {other: ["*"] for other in ASKED if other is not kind})
    assert refused(Denied, NAME_RULES[kind].not_allowed, kind, [LIKE[kind].format("web")], everything)


@pytest.mark.parametrize("kind", ASKED, ids=str)
def test_names_are_sorted_and_each_is_told_once(kind: NameKind) -> None:
    names = [LIKE[kind].format(word) for word in ("b", "a", "b")]
    roles = (giving("one", {kind: ["*"]}), giving("two", {kind: ["*"]}))
    assert chosen(kind, names, *roles) == tuple(Origin(name, "one") for name in sorted(set(names)))
    assert chosen(kind, [], *roles) == ()


def test_a_user_that_is_carried_in_full_can_be_chosen_by_its_whole_name_only() -> None:
    kind = NameKind.KUBERNETES_USERS
    role = giving("access", {kind: ["team:web", "team:db"]})
    assert chosen(kind, ["team:web"], role) == (Origin("team:web", "access"),)
    assert refused(Denied, "NameNotAllowed", kind, ["team:we"], role)
    assert refused(Invalid, "InvalidName", kind, ["team:*"], role)


# --- deny ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ASKED, ids=str)
@pytest.mark.parametrize("same", [True, False], ids=["the same role", "another role"])
@pytest.mark.parametrize("pattern", ["web", "w*", "?eb", "{{ external.x }}"])
def test_deny_wins(kind: NameKind, pattern: str, *, same: bool) -> None:
    allow, deny = {kind: ["*"]}, {kind: [LIKE[kind].format(pattern)]}
    roles = (giving("a", allow, deny),) if same else (giving("a", allow), giving("b", {}, deny))
    message = refused(Denied, NAME_RULES[kind].denied, kind, [LIKE[kind].format("web")], *roles, x=["web"])
    assert repr(LIKE[kind].format("web")) in message
    assert ", ".join(repr(role.metadata.name) for role in roles) in message
    assert "without the one that denies it" in message
    assert chosen(kind, [LIKE[kind].format("db")], *roles, x=["web"])


@pytest.mark.parametrize("kind", ASKED, ids=str)
@pytest.mark.parametrize("pattern", ["WEB", "Web", "W*", "?EB"])
def test_deny_passes_over_the_case_only_where_verifiers_do(kind: NameKind, pattern: str) -> None:
    """Verifiers of host names differ in whether they look at the case; a deny must hold for all of them."""
    role = giving("access", {kind: ["*"]}, {kind: [LIKE[kind].format(pattern)]})
    name = LIKE[kind].format("web")
    if NAME_RULES[kind].any_case:
        assert refused(Denied, NAME_RULES[kind].denied, kind, [name], role)
    else:
        assert chosen(kind, [name], role) == (Origin(name, "access"),)


@pytest.mark.parametrize("kind", ASKED, ids=str)
def test_allow_never_passes_over_the_case(kind: NameKind) -> None:
    role = giving("access", {kind: [LIKE[kind].format("WEB")]})
    assert refused(Denied, NAME_RULES[kind].not_allowed, kind, [LIKE[kind].format("web")], role)


# --- what is no name ----------------------------------------------------------------------------------------------

NO_NAMES = [
    *("", "*", "w*", "?", "a\n", "a\nb", "a,b", "a b", "-a", "a\x00", "\u0430", "a\u200b", "{{ external.x }}", "x" * 300),
    *("'", '"', "a;b", "\u212a"),
]


@pytest.mark.parametrize("kind", ASKED, ids=str)
@pytest.mark.parametrize("name", NO_NAMES, ids=range(len(NO_NAMES)))
def test_what_is_no_name_is_refused_although_everything_is_allowed(kind: NameKind, name: str) -> None:
    for wanted in ([name], [LIKE[kind].format("web"), name]):
        message = refused(Invalid, NAME_RULES[kind].invalid, kind, wanted, giving("access", {kind: ["*", "a?b"]}), x=["a"])
        assert NAME_RULES[kind].spelling in message
        assert len(message) < 1000


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ASKED),
    st.lists(st.text("aw*?./:-", max_size=8).filter(bool), max_size=3),
    st.lists(st.text("aw*?./:-", max_size=6).filter(bool), max_size=2),
    st.lists(st.text("aw*?./:-\n ", max_size=8), max_size=3),
)
def test_whatever_is_chosen_was_asked_for_fits_and_is_allowed(
    kind: NameKind, allow: list[str], deny: list[str], wanted: list[str]
) -> None:
    role = giving("access", {kind: allow}, {kind: deny})
    try:
        found = chosen(kind, wanted, role)
    except (Denied, Invalid):
        return
    assert [each.name for each in found] == sorted(set(wanted))
    for each in found:
        assert NAME_RULES[kind].fits(each.name)
        assert each.name not in deny
        assert allow


# --- the way out --------------------------------------------------------------------------------------------------


def usable_and_not() -> dict[str, MachineRole]:
    """Roles that would allow `web` if they could be used, and some that can."""
    kind = NameKind.DB_USERS
    return by_name(
        giving("by-glob", {kind: ["w*"]}),
        giving("by-name", {kind: ["web"]}),
        giving("by-trait", {kind: ["{{ external.x }}"]}),
        giving("denies", {kind: ["web"]}, {kind: ["we*"]}),
        giving("elsewhere", {kind: ["web"]}, namespaces=["prod"]),
        giving("nobodys", {kind: ["web"]}, namespaces=[]),
        giving("mfa", {kind: ["web"]}, requireSessionMFA=True),
        giving("device", {kind: ["web"]}, deviceTrustMode="required"),
        giving("broken", {kind: ["web", "{{ internal.nothing }}"]}),
        giving("broken-deny", {kind: ["web"]}, {kind: ["{{ internal.nothing }}"]}),
        giving("hostile", {kind: ["web", "{{ external.bad }}"]}),
        giving("another", {kind: ["db"]}),
        giving("other-kind", {NameKind.DB_NAMES: ["web"]}),
        giving("trait-lacks", {kind: ["{{ external.none }}"]}),
    )


TRAITS = {"x": ["web"], "bad": ["*"]}


def test_a_refusal_names_the_roles_that_would_allow_it_and_no_other() -> None:
    spec = unchecked_bot("access", traits=TRAITS)
    found = would_allow(NameKind.DB_USERS, "web", namespace="ci", bot=spec, roles=usable_and_not())
    assert found == ("by-glob", "by-name", "by-trait")
    message = refused(
        Denied, "NameNotAllowed", NameKind.DB_USERS, ["web"], giving("access"), others=usable_and_not(), x=["web"], bad=["*"]
    )
    assert "the roles 'by-glob', 'by-name', 'by-trait' allow it: add one to the roles of the bot" in message
    for name in ("denies", "elsewhere", "nobodys", "mfa", "device", "broken", "hostile", "another", "other-kind"):
        assert repr(name) not in message


def test_the_namespace_decides_which_roles_are_named() -> None:
    spec = unchecked_bot("access", traits=TRAITS)
    assert would_allow(NameKind.DB_USERS, "web", namespace="prod", bot=spec, roles=usable_and_not()) == ("elsewhere",)
    assert would_allow(NameKind.DB_USERS, "web", namespace="other", bot=spec, roles=usable_and_not()) == ()


def test_what_the_credential_denies_anyway_no_role_gives_back() -> None:
    spec, roles = unchecked_bot("access", traits=TRAITS), usable_and_not()
    assert would_allow(NameKind.DB_USERS, "web", namespace="ci", bot=spec, roles=roles, denied=["w?b"]) == ()
    some = would_allow(NameKind.DB_USERS, "web", namespace="ci", bot=spec, roles=roles, denied=["db"])
    assert some == ("by-glob", "by-name", "by-trait")


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        pytest.param(NameKind.KUBERNETES_GROUPS, giving("a", {NameKind.KUBERNETES_GROUPS: ["system:masters"]}), id="forbidden"),
        pytest.param(NameKind.KUBERNETES_GROUPS, giving("a", {NameKind.KUBERNETES_GROUPS: ["{{ external.r }}"]}), id="reserved"),
        pytest.param(NameKind.LOGINS, giving("a", {NameKind.LOGINS: ["deploy", "a/b"]}), id="does not fit"),
        pytest.param(NameKind.LOGINS, giving("a", {NameKind.LOGINS: ["root"]}, {NameKind.LOGINS: ["*"]}), id="denied"),
        pytest.param(NameKind.LOGINS, giving("a"), id="nothing"),
    ],
)
def test_a_role_that_could_not_be_granted_is_no_way_out(kind: NameKind, role: MachineRole) -> None:
    spec = unchecked_bot("access", traits={"r": ["system:nodes"]})
    assert would_allow(kind, None, namespace="ci", bot=spec, roles=by_name(role)) == ()


@pytest.mark.parametrize("kind", [kind for kind in NameKind if not NAME_RULES[kind].asked], ids=str)
def test_any_name_of_a_kind_is_found(kind: NameKind) -> None:
    roles = by_name(giving("a", {kind: ["x", "y"]}, {kind: ["x"]}), giving("b"), giving("c", {kind: ["x"]}))
    assert would_allow(kind, None, namespace="ci", bot=bot("a"), roles=roles) == ("a", "c")
    assert would_allow(kind, None, namespace="ci", bot=bot("a"), roles=roles, denied=["x"]) == ("a",)


def test_a_refusal_names_a_few_roles_at_most() -> None:
    many = by_name(*(giving(f"role-{number:02}", {NameKind.DB_USERS: ["*"]}) for number in range(20)))
    found = would_allow(NameKind.DB_USERS, "web", namespace="ci", bot=bot("access"), roles=many)
    assert found == tuple(f"role-{number:02}" for number in range(MAX_WAYS_OUT))


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        pytest.param((), "an administrator can add it to allow.dbUsers of one of them", id="none"),
        pytest.param(("a",), "the role 'a' allows it: add it to the roles of the bot, and to those that the output", id="one"),
        pytest.param(("a", "b"), "the roles 'a', 'b' allow it: add one", id="two"),
    ],
)
def test_way_out(others: tuple[str, ...], expected: str) -> None:
    assert expected in way_out(NameKind.DB_USERS, others)
