"""Roles and traits to grants: what is given, where it came from, and every refusal with its way out."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.policy.choices import choose
from machinebot.policy.globs import matches_any
from machinebot.policy.grants import MAX_NAMES, MAX_WARNINGS, Grant, SSHOptions, check_role, check_roles, select_roles, warnings
from machinebot.policy.lifetimes import Limit
from machinebot.policy.names import NameKind
from machinebot.policy.templates import INTERNAL_TRAITS, MAX_EXPANDED, Origin, expand, traits_of
from machinebot.resources.bot import MachineBotSpec
from machinebot.resources.role import MachineRole
from unit.policy.builders import DAY, HOUR, TEMPLATE, authority, bot, by_name, granted, role, unchecked_bot

FREE = SSHOptions(forward_agent=True, port_forwarding=True, permit_pty=True, source_addresses=())


def refusal(kind: type[MachinebotError], reason: str, call: Any, *arguments: Any, **keywords: Any) -> str:
    """The message of the refusal that the call must meet."""
    with pytest.raises(kind) as caught:
        call(*arguments, **keywords)
    assert caught.value.reason == reason
    return caught.value.message


# --- traits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "traits"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"logins": ["b", "a"]}, {"logins": ("b", "a")}, id="logins"),
        pytest.param({"traits": {"logins": ["a"]}}, {"logins": ("a",)}, id="traits.logins"),
        pytest.param({"logins": ["a"], "traits": {"logins": ["b"]}}, {"logins": ("a", "b")}, id="joined"),
        pytest.param({"logins": ["a"], "traits": {"logins": ["a", "b", "b"]}}, {"logins": ("a", "b")}, id="each once"),
        pytest.param({"traits": {"team": ["x", "x"], "Team": ["y"]}}, {"team": ("x",), "Team": ("y",)}, id="case counts"),
        pytest.param({"traits": {"logins": []}}, {"logins": ()}, id="empty"),
    ],
)
def test_traits_of(fields: dict[str, Any], traits: Mapping[str, Sequence[str]]) -> None:
    assert traits_of(bot(**fields)) == traits


# --- templates ----------------------------------------------------------------------------------------------------

TRAITS = {"logins": ("deploy", "web"), "team": ("a", "b"), "empty": (), "one": ("x",)}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("deploy", [("deploy", None)], id="plain name"),
        pytest.param("{{ internal.logins }}", [("deploy", "logins"), ("web", "logins")], id="alone"),
        pytest.param("{{internal.logins}}", [("deploy", "logins"), ("web", "logins")], id="without blanks"),
        pytest.param("{{   internal.logins   }}", [("deploy", "logins"), ("web", "logins")], id="with many blanks"),
        pytest.param("svc-{{ external.team }}", [("svc-a", "team"), ("svc-b", "team")], id="prefix"),
        pytest.param("{{ external.team }}-svc", [("a-svc", "team"), ("b-svc", "team")], id="suffix"),
        pytest.param("x-{{ external.one }}-y", [("x-x-y", "one")], id="prefix and suffix"),
        pytest.param(
            "{{ external.team }}-{{ external.one }}", [("a-x", "team"), ("b-x", "team")], id="two templates, told by the first"
        ),
        pytest.param(
            "{{ external.team }}{{ external.team }}",
            [("aa", "team"), ("ab", "team"), ("ba", "team"), ("bb", "team")],
            id="one template twice: every pair",
        ),
        pytest.param("{{ external.team }}-{{ external.missing }}", [], id="two templates, one trait missing"),
        pytest.param("{{ external.missing }}-{{ external.team }}", [], id="the first trait missing"),
        pytest.param("{{ external.missing }}", [], id="missing trait vanishes"),
        pytest.param("root-{{ external.missing }}", [], id="missing trait takes the prefix along"),
        pytest.param("{{ external.empty }}", [], id="empty trait vanishes"),
        pytest.param("{{ external.logins }}", [("deploy", "logins"), ("web", "logins")], id="external logins are the same trait"),
        pytest.param("{{ external.Team }}", [], id="the name of a trait counts its case"),
        pytest.param("{{ internal.db_users }}", [], id="internal trait that the bot lacks"),
        pytest.param("*.{{ external.one }}.test", [("*.x.test", "one")], id="a role's own wildcards stay"),
        pytest.param("{{ other.logins }}", [("{{ other.logins }}", None)], id="another scope is no template"),
        pytest.param("{{ internal.logins", [("{{ internal.logins", None)], id="half a template is none"),
    ],
)
def test_expand(pattern: str, expected: list[tuple[str, str | None]]) -> None:
    assert [(each.name, each.trait) for each in expand([pattern], "access", TRAITS)] == expected
    assert {each.role for each in expand([pattern], "access", TRAITS)} <= {"access"}


@pytest.mark.parametrize("name", ["login", "Logins", "kubernetes", "logins.x", "team"])
def test_an_internal_trait_that_there_is_not_is_refused(name: str) -> None:
    message = refusal(Denied, "UnknownTemplate", list, expand([f"x-{{{{ internal.{name} }}}}"], "access", TRAITS))
    assert "'access'" in message
    assert f"{{{{ external.{name} }}}}" in message
    assert "internal.logins" in message


@pytest.mark.parametrize("name", sorted(INTERNAL_TRAITS))
def test_every_internal_trait_is_known(name: str) -> None:
    assert [each.name for each in expand([f"{{{{ internal.{name} }}}}"], "access", {name: ("x",)})] == ["x"]


HOSTILE_VALUES = ["*", "?", "a*", "{{ internal.db_users }}", "{{ external.team }}", "{", "}", "}} {{", "deploy\n*"]


@pytest.mark.parametrize("value", HOSTILE_VALUES)
@pytest.mark.parametrize("pattern", ["{{ external.x }}", "a-{{ external.x }}", "{{ external.one }}{{ external.x }}"])
def test_wildcards_and_templates_in_a_trait_are_refused(value: str, pattern: str) -> None:
    message = refusal(Invalid, "InvalidTrait", list, expand([pattern], "access", {**TRAITS, "x": (value,)}))
    assert "'access'" in message
    assert "'x'" in message
    assert "in full" in message
    assert value not in message.replace("{ } * ?", "")


def test_a_hostile_value_in_a_trait_that_no_role_names_harms_nobody() -> None:
    spec = unchecked_bot("access", logins=["deploy"], traits={"x": ["*"]})
    assert granted(role("access", TEMPLATE), bot_spec=spec).plain(NameKind.LOGINS) == ("deploy",)


@pytest.mark.parametrize("where", ["deny", "hosts", "deny_hosts"])
@pytest.mark.parametrize(
    ("pattern", "kind", "reason"),
    [("{{ external.x }}", Invalid, "InvalidTrait"), ("{{ internal.x }}", Denied, "UnknownTemplate")],
)
def test_templates_are_refused_wherever_they_stand_and_the_role_is_named(
    where: str, pattern: str, kind: type[MachinebotError], reason: str
) -> None:
    spec = unchecked_bot("access", logins=["deploy"], traits={"x": ["*"]})
    # A fresh dict: the parameters of `role` differ by the table's row.
    fields: dict[str, Any] = {where: [pattern]}
    assert "'access'" in refusal(kind, reason, granted, role("access", TEMPLATE, **fields), bot_spec=spec)


# --- which roles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "wanted", "expected"),
    [
        pytest.param(["b", "a"], [], ("a", "b"), id="all of the bot's"),
        pytest.param(["b", "a"], ["b"], ("b",), id="one"),
        pytest.param(["b", "a"], ["b", "a", "b"], ("a", "b"), id="each once, sorted"),
        pytest.param(["a", "a"], [], ("a",), id="the bot's own each once"),
    ],
)
def test_select_roles(roles: list[str], wanted: list[str], expected: tuple[str, ...]) -> None:
    assert select_roles(bot(*roles), wanted) == expected


@pytest.mark.parametrize("wanted", [["admin"], ["access", "admin"], ["Access"], ["acces*"]], ids=str)
def test_a_role_that_is_none_of_the_bots_is_refused(wanted: list[str]) -> None:
    message = refusal(
        Denied, "RoleNotOfBot", granted, role("access", "deploy"), role("admin", "root"), bot_spec=bot("access"), wanted=wanted
    )
    assert repr(next(name for name in wanted if name != "access")) in message
    assert "'access'" in message
    assert "spec.roles" in message


REFUSED_ROLES = [
    pytest.param(role("other"), "RoleNotFound", "create it", id="unknown"),
    pytest.param(role("access", namespaces=()), "RoleNotForNamespace", "spec.namespaces", id="nobody's"),
    pytest.param(role("access", namespaces=["prod"]), "RoleNotForNamespace", "spec.namespaces", id="another namespace's"),
    pytest.param(role("access", namespaces=["c"]), "RoleNotForNamespace", "'ci'", id="a prefix is no match"),
    pytest.param(role("access", namespaces=["ci-*", "*-ci"]), "RoleNotForNamespace", "'ci'", id="globs that do not fit"),
    pytest.param(role("access", requireSessionMFA=True), "SessionMFARequired", "without it", id="per-session MFA"),
    pytest.param(role("access", deviceTrustMode="required"), "DeviceTrustRequired", "required-for-humans", id="Device Trust"),
]


@pytest.mark.parametrize(("refused", "reason", "way_out"), REFUSED_ROLES)
def test_a_role_that_a_bot_cannot_use_is_refused(refused: MachineRole, reason: str, way_out: str) -> None:
    known = by_name(refused, role("plain", "deploy"))
    for call in (
        lambda: check_roles("ci", bot("plain", "access"), known, authority()),
        lambda: granted(*known.values(), bot_spec=bot("plain", "access")),
        lambda: granted(*known.values(), bot_spec=bot("plain", "access"), wanted=["access"]),
    ):
        message = refusal(Denied, reason, call)
        assert "'access'" in message
        assert way_out in message


@pytest.mark.parametrize(("refused", "_reason", "_way_out"), REFUSED_ROLES)
def test_a_role_that_an_output_does_not_carry_does_not_stop_it(refused: MachineRole, _reason: str, _way_out: str) -> None:
    assert granted(refused, role("plain", "deploy"), bot_spec=bot("plain", "access"), wanted=["plain"]).plain(
        NameKind.LOGINS
    ) == ("deploy",)


@pytest.mark.parametrize(
    ("fields", "reason", "way_out"),
    [
        pytest.param({"namespaces": []}, "AuthorityNotForNamespace", "'ci'", id="for nobody"),
        pytest.param({"namespaces": ["prod", "ci-*", "c"]}, "AuthorityNotForNamespace", "spec.authority", id="for others"),
        pytest.param({"requireSessionMFA": True}, "SessionMFARequired", "requireSessionMFA", id="per-session MFA"),
        pytest.param({"deviceTrustMode": "required"}, "DeviceTrustRequired", "required-for-humans", id="Device Trust"),
    ],
)
def test_the_whole_cluster_can_refuse_bots(fields: dict[str, Any], reason: str, way_out: str) -> None:
    spec = authority(**fields)
    for call in (
        lambda: check_roles("ci", bot("access"), by_name(role("access", "deploy")), spec),
        lambda: granted(role("access", "deploy"), authority_spec=spec),
        lambda: granted(role("other"), bot_spec=bot("access"), authority_spec=spec),
    ):
        message = refusal(Denied, reason, call)
        assert "the authority" in message
        assert way_out in message


@pytest.mark.parametrize("mode", ["off", "optional", "required-for-humans"])
def test_other_device_trust_lets_bots_pass(mode: str) -> None:
    spec = authority(deviceTrustMode=mode)
    assert granted(role("access", "deploy", deviceTrustMode=mode), authority_spec=spec).plain(NameKind.LOGINS) == ("deploy",)
    check_roles("ci", bot("access"), by_name(role("access", deviceTrustMode=mode)), spec)


@pytest.mark.parametrize("namespaces", [["ci"], ["*"], ["c?"], ["prod", "ci"], ["c*", "ci"]], ids=str)
def test_namespaces_take_globs(namespaces: list[str]) -> None:
    assert granted(role("access", "deploy", namespaces=namespaces)).plain(NameKind.LOGINS) == ("deploy",)


# --- logins -------------------------------------------------------------------------------------------------------


def test_each_login_says_where_it_came_from() -> None:
    spec = bot("a", "b", logins=["deploy"], traits={"team": ["web"]})
    grant = granted(role("a", TEMPLATE, "svc-{{ external.team }}", "static"), role("b", "deploy", "static"), bot_spec=spec)
    assert grant.of(NameKind.LOGINS) == (
        Origin("deploy", "a", "logins"),
        Origin("deploy", "b"),
        Origin("static", "a"),
        Origin("static", "b"),
        Origin("svc-web", "a", "team"),
    )
    assert grant.plain(NameKind.LOGINS) == ("deploy", "static", "svc-web")
    assert grant.roles == ("a", "b")


def test_a_logins_trait_reaches_only_roles_that_name_it() -> None:
    spec = bot("access", "static", logins=["deploy"])
    roles = (role("access", TEMPLATE), role("static", "backup"))
    assert granted(*roles, bot_spec=spec, wanted=["static"]).plain(NameKind.LOGINS) == ("backup",)
    assert granted(*roles, bot_spec=spec, wanted=["access"]).plain(NameKind.LOGINS) == ("deploy",)
    assert {each.role for each in granted(*roles, bot_spec=spec).of(NameKind.LOGINS) if each.name == "deploy"} == {"access"}


def test_a_role_without_logins_gives_none() -> None:
    assert granted(role("access")).of(NameKind.LOGINS) == ()
    assert granted(role("access", TEMPLATE)).of(NameKind.LOGINS) == ()


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        pytest.param([role("a", "root", "web", deny=["root"])], ("web",), id="own deny"),
        pytest.param([role("a", "root", "web"), role("b", deny=["root"])], ("web",), id="another role's deny"),
        pytest.param([role("a", deny=["root"]), role("b", "root", "web")], ("web",), id="a deny before the allow"),
        pytest.param([role("a", TEMPLATE, deny=["deploy"])], ("web",), id="compared after templating"),
        pytest.param([role("a", "deploy", "web", deny=[TEMPLATE])], (), id="a template in deny"),
        pytest.param([role("a", "deploy", "x", deny=["{{ external.none }}"])], ("deploy", "x"), id="deny of a missing trait"),
        pytest.param([role("a", TEMPLATE, "root", deny=["de*", "ro?t"])], ("web",), id="deny takes globs"),
        pytest.param([role("a", TEMPLATE, "root", deny=["*"])], (), id="deny of everything"),
        pytest.param([role("a", TEMPLATE, deny=["Deploy"])], ("deploy", "web"), id="accounts count their case"),
        pytest.param([role("a", "svc-{{ external.team }}", deny=["svc-b"])], ("svc-a",), id="a filled-in name denied"),
        pytest.param([role("a", "root", deny=["{{ external.team }}"]), role("b", "a", "c")], ("c", "root"), id="deny by trait"),
    ],
)
def test_deny_wins(roles: list[MachineRole], expected: tuple[str, ...]) -> None:
    spec = bot(*(each.metadata.name for each in roles), logins=["deploy", "web"], traits={"team": ["a", "b"]})
    assert granted(*roles, bot_spec=spec).plain(NameKind.LOGINS) == expected


def test_a_deny_of_a_role_that_is_not_chosen_does_not_count() -> None:
    roles = (role("a", "root"), role("b", deny=["root"]))
    assert granted(*roles, wanted=["a"]).plain(NameKind.LOGINS) == ("root",)


@pytest.mark.parametrize(
    "login",
    [
        pytest.param("a,b", id="comma: two principals"),
        pytest.param("a b", id="blank"),
        pytest.param("deploy\n", id="newline at the end"),
        pytest.param("deploy\nroot", id="newline"),
        pytest.param("\nroot", id="newline in front"),
        pytest.param("a\x00b", id="zero byte"),
        pytest.param("-oProxyCommand=x", id="reads as an option"),
        pytest.param("-", id="dash"),
        pytest.param("", id="empty"),
        pytest.param("a/b", id="slash"),
        pytest.param("wébmaster", id="no ASCII"),
        pytest.param("root\u200b", id="invisible character"),
        pytest.param("a" * 65, id="too long"),
        pytest.param("a" * 100_000, id="much too long"),
    ],
)
def test_a_login_that_is_no_account_is_refused(login: str) -> None:
    spec = unchecked_bot("access", logins=["deploy", login])
    message = refusal(Invalid, "InvalidLogin", granted, role("access", TEMPLATE), bot_spec=spec)
    assert "'access'" in message
    assert "the trait 'logins'" in message
    assert "letters, digits" in message
    assert len(message) < 1000


def test_a_login_that_a_role_states_wrongly_names_the_role_alone() -> None:
    message = refusal(Invalid, "InvalidLogin", granted, role("access", "a/b"))
    assert "'access'" in message
    assert "trait" not in message


def test_a_denied_login_is_not_looked_at_further() -> None:
    spec = unchecked_bot("access", logins=["a b", "web"])
    assert granted(role("access", TEMPLATE, deny=["a?b"]), bot_spec=spec).plain(NameKind.LOGINS) == ("web",)


@pytest.mark.parametrize("login", ["root", "a", "_svc", "web-1", "j.doe", "j@example.test", "host$", "DOM\\user", "a" * 64])
def test_accounts_of_all_systems(login: str) -> None:
    assert granted(role("access", TEMPLATE), bot_spec=unchecked_bot("access", logins=[login])).plain(NameKind.LOGINS) == (login,)


def many(count: int) -> MachineBotSpec:
    return unchecked_bot("a", "b", logins=[f"user{number}" for number in range(count)])


def test_a_credential_holds_so_many_logins_and_no_more() -> None:
    roles = (role("a", TEMPLATE), role("b", TEMPLATE))
    grant = granted(*roles, bot_spec=many(MAX_NAMES))
    assert len(grant.plain(NameKind.LOGINS)) == MAX_NAMES
    assert len(grant.of(NameKind.LOGINS)) == 2 * MAX_NAMES
    message = refusal(Invalid, "TooManyLogins", granted, *roles, bot_spec=many(MAX_NAMES + 1))
    assert "'a', 'b'" in message
    assert "several outputs" in message


@pytest.mark.parametrize("where", ["allow", "deny", "hosts", "deny_hosts"])
def test_templates_cannot_multiply_without_end(where: str) -> None:
    """64 values and five templates in one name are a billion names."""
    pattern = "{{ external.x }}" * 5
    fields: dict[str, Any] = {} if where == "allow" else {where: [pattern]}
    logins = [pattern] if where == "allow" else []
    spec = bot("access", traits={"x": [f"v{number}" for number in range(64)]})
    message = refusal(Invalid, "TooManyNames", granted, role("access", *logins, **fields), bot_spec=spec)
    assert "'access'" in message
    assert str(MAX_EXPANDED) in message
    assert "fewer" in message


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param([{}], SSHOptions(False, True, True, ()), id="defaults"),
        pytest.param([{"forwardAgent": True}], FREE, id="everything"),
        pytest.param([{"forwardAgent": True}, {}], SSHOptions(False, True, True, ()), id="agent: all must allow"),
        pytest.param(
            [{"forwardAgent": True}, {"forwardAgent": True, "portForwarding": False}],
            SSHOptions(True, False, True, ()),
            id="ports: one forbids",
        ),
        pytest.param(
            [{"forwardAgent": True, "permitPTY": False}, {"forwardAgent": True}], SSHOptions(True, True, False, ()), id="terminal"
        ),
        pytest.param(
            [{"portForwarding": False}, {"permitPTY": False}], SSHOptions(False, False, False, ()), id="each forbids one"
        ),
    ],
)
def test_the_strictest_of_each_option_holds(options: list[dict[str, Any]], expected: SSHOptions) -> None:
    roles = [role(f"role-{number}", "deploy", **each) for number, each in enumerate(options)]
    assert granted(*roles).ssh == expected


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param([[]], (), id="none: from anywhere"),
        pytest.param([["10.0.0.0/8"]], ("10.0.0.0/8",), id="one"),
        pytest.param([["10.0.0.0/8"], []], ("10.0.0.0/8",), id="a role without does not widen"),
        pytest.param([["10.0.0.0/8"], ["10.1.0.0/16"]], ("10.1.0.0/16",), id="the narrower"),
        pytest.param([["10.1.0.0/16"], ["10.0.0.0/8"]], ("10.1.0.0/16",), id="the narrower, turned round"),
        pytest.param([["10.0.0.0/8"], ["10.0.0.0/8"]], ("10.0.0.0/8",), id="equal"),
        pytest.param([["2001:db8::/32"], ["2001:db8:1::/48"]], ("2001:db8:1::/48",), id="IPv6"),
        pytest.param([["2001:db8:1::/48"], ["2001:db8::/32"]], ("2001:db8:1::/48",), id="IPv6, turned round"),
        pytest.param(
            [["10.0.0.0/8", "2001:db8::/32"], ["2001:db8::/48", "10.2.0.0/16"]], ("10.2.0.0/16", "2001:db8::/48"), id="both"
        ),
        pytest.param([["10.0.0.0/8", "192.0.2.0/24"], ["10.3.0.0/16"]], ("10.3.0.0/16",), id="one of two is common"),
        pytest.param(
            [["10.0.0.0/8"], ["10.3.0.0/16", "10.4.0.0/16"], ["10.4.5.0/24", "10.3.9.0/24"]],
            ("10.3.9.0/24", "10.4.5.0/24"),
            id="three roles",
        ),
        pytest.param([["0.0.0.0/0", "::/0"], ["192.0.2.1", "::1"]], ("192.0.2.1/32", "::1/128"), id="single addresses"),
        pytest.param([["10.0.0.0/8", "10.0.0.0/8"]], ("10.0.0.0/8",), id="written twice"),
    ],
)
def test_common_source_addresses(lists: list[list[str]], expected: tuple[str, ...]) -> None:
    roles = [role(f"role-{number}", "deploy", sourceAddresses=each) for number, each in enumerate(lists)]
    assert granted(*roles).ssh.source_addresses == expected


@pytest.mark.parametrize(
    "lists",
    [
        pytest.param([["10.0.0.0/8"], ["192.0.2.0/24"]], id="apart"),
        pytest.param([["10.0.0.0/8"], ["2001:db8::/32"]], id="IPv4 and IPv6"),
        pytest.param([["2001:db8::/32"], ["2001:db9::/32"]], id="IPv6 apart"),
        pytest.param([["::ffff:0:0/96"], ["10.0.0.0/8"]], id="mapped addresses are no IPv4"),
        pytest.param([["10.0.0.0/8", "192.0.2.0/24"], ["10.0.0.0/9"], ["192.0.2.0/25"]], id="each pair but not all"),
    ],
)
def test_no_common_source_address_is_not_taken_for_anywhere(lists: list[list[str]]) -> None:
    roles = [role(f"role-{number}", "deploy", sourceAddresses=each) for number, each in enumerate(lists)]
    message = refusal(Denied, "NoSourceAddress", granted, role("free", "deploy"), *roles)
    assert all(repr(each.metadata.name) in message for each in roles)
    assert "'free'" not in message
    assert "one output for each role" in message


def test_nested_networks_do_not_multiply() -> None:
    nested = [f"10.0.0.0/{bits}" for bits in range(8, 33)] + [f"2001:db8::/{bits}" for bits in range(32, 71)]
    roles = [role(f"role-{number}", "deploy", sourceAddresses=nested) for number in range(12)]
    assert sorted(granted(*roles).ssh.source_addresses) == sorted(nested)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "1.2.3", "::/129", "256.0.0.0/8", ":", "1:2"])
def test_a_source_address_that_is_no_network_is_refused(text: str) -> None:
    wrong = role("access", "deploy", sourceAddresses=["10.0.0.0/8", text])
    for call in (lambda: granted(wrong), lambda: check_role(wrong)):
        message = refusal(Invalid, "InvalidSourceAddress", call)
        assert "'access'" in message
        assert repr(text) in message
        assert "10.0.0.0/8" in message


def test_limits_name_their_role() -> None:
    grant = granted(role("a", "x", maxSessionTTL="8h"), role("b", "x", maxSessionTTL="720h"), role("c", "x"))
    assert grant.limits == (
        Limit("role a (maxSessionTTL 8h)", 8 * HOUR),
        Limit("role b (maxSessionTTL 24h)", DAY),
        Limit("role c (maxSessionTTL 24h)", DAY),
    )


# --- a role by itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"logins": ["{{ internal.login }}"]}, id="logins"),
        pytest.param({"hosts": ["{{ internal.host }}"]}, id="hosts"),
        pytest.param({"deny": ["{{ internal.login }}"]}, id="denied logins"),
        pytest.param({"deny_hosts": ["x-{{ internal.host }}"]}, id="denied hosts"),
    ],
)
def test_a_role_with_an_unknown_template_can_never_be_granted(fields: dict[str, Any]) -> None:
    logins = fields.pop("logins", [])
    assert "'access'" in refusal(Denied, "UnknownTemplate", check_role, role("access", *logins, **fields))


def test_a_good_role_passes() -> None:
    check_role(
        role(
            "access",
            TEMPLATE,
            "{{ external.anything }}",
            hosts=["*"],
            deny=["root"],
            deny_hosts=["*.prod"],
            sourceAddresses=["10.0.0.0/8", "::1"],
        )
    )


# --- host principals ----------------------------------------------------------------------------------------------


def chosen(wanted: Sequence[str], given: Grant, kind: NameKind = NameKind.HOST_PRINCIPALS) -> tuple[Origin, ...]:
    """The names asked for, where there is no role but those of the grant."""
    return choose(kind, wanted, given, namespace="ci", bot=bot(*given.roles), roles={})


HOSTS = granted(
    role("edge", hosts=["*.edge.test", "{{ external.host }}"], deny_hosts=["secret.*", "{{ external.bad }}"]),
    role("node", hosts=["*.node.test", "web-?", "a.edge.test"]),
    bot_spec=bot("edge", "node", traits={"host": ["db.example.test"], "bad": ["bad.edge.test"]}),
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(["x.node.test"], [Origin("x.node.test", "node")], id="glob"),
        pytest.param(["web-1"], [Origin("web-1", "node")], id="question mark"),
        pytest.param(["db.example.test"], [Origin("db.example.test", "edge", "host")], id="from a trait"),
        pytest.param(["b.node.test", "a.node.test"], [Origin("a.node.test", "node"), Origin("b.node.test", "node")], id="sorted"),
        pytest.param(["a.node.test", "a.node.test"], [Origin("a.node.test", "node")], id="each once"),
        pytest.param(["a.edge.test"], [Origin("a.edge.test", "edge")], id="two roles: one is told"),
    ],
)
def test_host_principals(wanted: list[str], expected: list[Origin]) -> None:
    assert list(chosen(wanted, HOSTS)) == expected


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        pytest.param("other.test", "PrincipalNotAllowed", id="allowed by no role"),
        pytest.param("node.test", "PrincipalNotAllowed", id="the domain itself"),
        pytest.param("X.NODE.TEST", "PrincipalNotAllowed", id="allow counts the case"),
        pytest.param("web-10", "PrincipalNotAllowed", id="question mark is one character"),
        pytest.param("db.example.test.evil", "PrincipalNotAllowed", id="anchored"),
        pytest.param("secret.node.test", "PrincipalDenied", id="denied by another role"),
        pytest.param("secret.edge.test", "PrincipalDenied", id="denied by the same role"),
        pytest.param("Secret.node.test", "PrincipalDenied", id="deny does not count the case"),
        pytest.param("bad.edge.test", "PrincipalDenied", id="denied by a template"),
        pytest.param("secret.other.test", "PrincipalDenied", id="denied and not allowed"),
    ],
)
def test_a_host_principal_that_is_refused_by_rule(wanted: str, reason: str) -> None:
    message = refusal(Denied, reason, chosen, ["a.node.test", wanted], HOSTS)
    assert repr(wanted) in message
    assert "'edge', 'node'" in message


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "*",
        "*.node.test",
        "a?.node.test",
        "a.node.test\n",
        "a.node.test\nb.node.test",
        "a.node.test,b.node.test",
        "a node.test",
        "-a.node.test",
        "a.node.test.",
        ".node.test",
        "a/b.node.test",
        "[::1].node.test",
        "bücher.node.test",
        "a\x00.node.test",
        "@a.node.test",
    ],
)
def test_what_is_no_host_name_is_refused(wanted: str) -> None:
    free = granted(role("access", hosts=["*"]))
    message = refusal(Invalid, "InvalidPrincipal", chosen, [wanted], free)
    assert "web-1.node.example.test" in message


@pytest.mark.parametrize("name", ["web-1", "192.0.2.1", "2001:db8::1", "a_b.test", "A.test", "x"])
def test_host_names_and_addresses(name: str) -> None:
    assert chosen([name], granted(role("access", hosts=["*"]))) == (Origin(name, "access"),)


# --- warnings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "traits", "named"),
    [
        pytest.param([role("a", TEMPLATE)], {"logins": ["x"]}, [], id="one role"),
        pytest.param([role("a", TEMPLATE), role("b", "x")], {"logins": ["x"]}, [], id="the other states its names"),
        pytest.param([role("a", TEMPLATE), role("b", TEMPLATE)], {}, [], id="the bot has no such trait"),
        pytest.param([role("a", TEMPLATE), role("b", TEMPLATE)], {"logins": ["x"]}, [("logins", "'a', 'b'")], id="two roles"),
        pytest.param(
            [role("c", TEMPLATE), role("a", "x-{{ external.logins }}"), role("b")],
            {"logins": ["x"]},
            [("logins", "'a', 'c'")],
            id="under both scopes",
        ),
        pytest.param(
            [role("a", "{{ external.t }}"), role("b", hosts=["{{ external.t }}.test"])],
            {"t": ["x"]},
            [("t", "'a', 'b'")],
            id="a login and a host",
        ),
        pytest.param(
            [role("a", "{{ external.t }}-{{ external.u }}"), role("b", "{{ external.u }}{{ external.t }}")],
            {"t": ["x"], "u": ["y"]},
            [("t", "'a', 'b'"), ("u", "'a', 'b'")],
            id="two traits",
        ),
        pytest.param([role("a", TEMPLATE), role("b", TEMPLATE, namespaces=["x"])], {"logins": ["x"]}, [], id="not for us"),
        pytest.param([role("a", TEMPLATE), role("b", deny=[TEMPLATE])], {"logins": ["x"]}, [], id="a deny gives nothing"),
    ],
)
def test_warnings(roles: list[MachineRole], traits: dict[str, list[str]], named: list[tuple[str, str]]) -> None:
    spec = bot(*(each.metadata.name for each in roles), "unknown", traits=traits)
    found = warnings("ci", spec, by_name(*roles))
    assert len(found) == len(named)
    for text, (trait, names) in zip(found, named, strict=True):
        assert f"the trait {trait!r} reaches the roles {names}" in text
        assert "state their names" in text


def test_warnings_are_no_more_than_status_holds() -> None:
    names = [f"t{number:02}" for number in range(32)]
    patterns = [f"{{{{ external.{name} }}}}" for name in names]
    spec = bot("a", "b", traits={name: ["x"] for name in names})
    found = warnings("ci", spec, by_name(role("a", *patterns), role("b", *patterns)))
    assert len(found) == MAX_WARNINGS
    assert "'t00'" in found[0]


# --- whatever is written ------------------------------------------------------------------------------------------

LOGINS = st.sampled_from(["root", "deploy", "web", "svc-a", "svc-b", "a", "b"])
PATTERNS = st.one_of(
    LOGINS,
    st.sampled_from([TEMPLATE, "{{ external.team }}", "svc-{{ external.team }}", "{{ external.none }}", "x-{{internal.logins}}"]),
)
GLOBS = st.one_of(PATTERNS, st.sampled_from(["*", "r??t", "svc-*", "*o*"]))
NAMES = st.sampled_from(["r1", "r2", "r3"])
ROLES = st.dictionaries(NAMES, st.tuples(st.lists(PATTERNS, max_size=4), st.lists(GLOBS, max_size=2)), min_size=1)
BOTS = st.fixed_dictionaries(
    {"logins": st.lists(LOGINS, unique=True, max_size=3), "traits": st.fixed_dictionaries({"team": st.lists(LOGINS, max_size=2)})}
)


def world_of(drawn: Mapping[str, tuple[list[str], list[str]]]) -> list[MachineRole]:
    return [role(name, *allow, deny=deny) for name, (allow, deny) in drawn.items()]


def allowed_by(each: MachineRole, spec: MachineBotSpec) -> set[str]:
    return {origin.name for origin in expand(each.spec.allow.logins, each.metadata.name, traits_of(spec))}


@settings(max_examples=150, deadline=None)
@given(ROLES, BOTS, st.data())
def test_a_grant_is_what_the_chosen_roles_allow_without_what_they_deny(
    drawn: Mapping[str, tuple[list[str], list[str]]], fields: dict[str, Any], data: st.DataObject
) -> None:
    roles = by_name(*world_of(drawn))
    spec = bot(*roles, **fields)
    wanted = data.draw(st.lists(st.sampled_from(sorted(roles)), unique=True))
    grant: Grant = granted(*roles.values(), bot_spec=spec, wanted=wanted)
    chosen = [roles[name] for name in (wanted or roles)]
    denied = {origin.name for each in chosen for origin in expand(each.spec.deny.logins, each.metadata.name, traits_of(spec))}
    allowed = set().union(*(allowed_by(each, spec) for each in chosen))
    assert grant.roles == tuple(sorted(each.metadata.name for each in chosen))
    assert set(grant.plain(NameKind.LOGINS)) == {name for name in allowed if not matches_any(denied, name)}
    for origin in grant.of(NameKind.LOGINS):
        assert origin.role in grant.roles
        assert origin.name in allowed_by(roles[origin.role], spec)
        if origin.trait == "logins":
            assert any("internal.logins" in pattern for pattern in roles[origin.role].spec.allow.logins)
        if origin.trait is None:
            assert origin.name in roles[origin.role].spec.allow.logins


@settings(max_examples=100, deadline=None)
@given(ROLES, BOTS, BOTS)
def test_traits_reach_only_roles_that_name_them(
    drawn: Mapping[str, tuple[list[str], list[str]]], one: dict[str, Any], other: dict[str, Any]
) -> None:
    static = {
        name: ([pattern for pattern in allow if "{" not in pattern], [pattern for pattern in deny if "{" not in pattern])
        for name, (allow, deny) in drawn.items()
    }
    roles = world_of(static)
    assert granted(*roles, bot_spec=bot(*static, **one)) == granted(*roles, bot_spec=bot(*static, **other))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=70), max_size=4), st.text("ab*?{}\n, .:-", min_size=1, max_size=20))
def test_whatever_the_author_of_a_bot_writes_a_name_is_an_account_or_refused(values: list[str], host: str) -> None:
    spec = unchecked_bot("access", traits={"logins": values, "host": [host]})
    try:
        grant = granted(role("access", TEMPLATE, hosts=["{{ external.host }}"], deny=["root"]), bot_spec=spec)
        hosts = chosen([host], grant)
    except (Invalid, Denied):
        return
    assert all(name.isascii() and not set(name) & set(" ,*?\n{}\x00") and name[0] != "-" for name in grant.plain(NameKind.LOGINS))
    assert "root" not in grant.plain(NameKind.LOGINS)
    assert [each.name for each in hosts] == [host]
    assert not set(host) & set(" ,*?\n{}")
