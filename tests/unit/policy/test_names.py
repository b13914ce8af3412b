"""The kinds of names: what a name of each looks like, and what never gets into a credential."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.policy.names import MAX_SUBJECT_PART, NAME_RULES, NameKind, is_path_of_a_bot, own_path
from machinebot.resources.meta import MAX_NAME
from machinebot.resources.role import RoleRules

GOOD = {
    NameKind.LOGINS: ["deploy", "_svc", "j.doe", "me@corp.test", "CORP\\svc", "machine$", "0day", "x" * 64],
    NameKind.HOST_PRINCIPALS: ["web-1.node.example.test", "localhost", "192.0.2.1", "2001:db8::1", "h_1", "WEB", "x" * 253],
    NameKind.KUBERNETES_USERS: ["deployer", "team:deployer", "bot:ci:x", "system:node:a", "a@b.test", "a/b+c", "x" * 64],
    NameKind.KUBERNETES_GROUPS: ["viewers", "team:viewers", "oidc:team-a/ops", "system:authenticated", "x" * 64],
    NameKind.DB_USERS: ["app", "orders_rw", "app@corp.test", "ops$", "svc-1", "x" * 64],
    NameKind.DB_NAMES: ["orders", "orders.v2", "_x", "x" * 64],
    NameKind.DNS_NAMES: ["db", "db.data.svc.cluster.local", "xn--bcher-kva.test", "1.db.test", "db.test.1a", "x" * 63],
    NameKind.SPIFFE_PATHS: ["/ns/ci/web", "/a", "/A.b_c-1", "/...", "/.hidden", "/ns/ci/bot/deployer", "/" + "x" * 271],
    NameKind.JWT_AUDIENCES: ["vault", "https://api.example.test:8443/v1/x", "a+b=c&d~e%20", "spiffe://x.test/a", "x" * 253],
}
"""Names that each kind takes."""

TOO_LONG = {kind: 1 + (272 if kind is NameKind.SPIFFE_PATHS else len(GOOD[kind][-1])) for kind in NameKind}
"""One character more than fits."""

HOSTILE = {
    "empty": "",
    "newline": "{}\nroot",
    "newline at the end": "{}\n",
    "newline in front": "\n{}",
    "carriage return": "{}\r",
    "NUL": "{}\x00",
    "NUL inside": "{}\x00x",
    "tab": "{}\tx",
    "blank": "{} x",
    "blank at the end": "{} ",
    "no-break space": "{}\u00a0x",
    "line separator": "{}\u2028x",
    "comma": "{},x",
    "star": "{}*",
    "question mark": "{}?",
    "template": "{{{{ internal.logins }}}}",
    "brace": "{}{{",
    "quote": '{}"x',
    "backquote": "{}`id`",
    "semicolon": "{};x",
    "hash": "{}#x",
    "leading dash": "-{}",
    "long dash": "\u2013{}",
    "Cyrillic look-alike": "{}\u0430",
    "full-width letter": "{}\uff41",
    "fraction slash": "{}\u2044x",
    "full-width colon": "{}\uff1ax",
    "Kelvin sign": "{}\u212a",
    "long s": "{}\u017f",
    "digit of another script": "{}\u0661",
    "zero width": "{}\u200b",
    "right to left": "{}\u202e",
    "combining mark": "{}\u0301",
    "surrogate": "{}\ud800",
}
"""What no kind takes, whatever stands around it."""

ONLY_THERE = {
    NameKind.LOGINS: ["a/b", "a:b", "a+b", "a$b", "deploy.", "deploy-"],
    NameKind.HOST_PRINCIPALS: [".web", "web.", "web-", ":1", "[::1]", "a/b", "@a", "!web", "a@b"],
    NameKind.KUBERNETES_USERS: [":a", "a:", "/a", "a/", "@a", "a=b", "a$b", "a\\b", "!a"],
    NameKind.KUBERNETES_GROUPS: [":a", "a:", "/a", "a/", "@a", "a=b", "a$b", "a\\b", "!a"],
    NameKind.DB_USERS: ["a:b", "bot:ci:x", "a/b", "a=b", "CN=a", "a\\b", "a'b", ".a", "a.", "$a", "database server"],
    NameKind.DB_NAMES: ["a:b", "a/b", "../a", "a=b", "a'b", ".a", "a.", "database server"],
    NameKind.DNS_NAMES: [
        *("Db.test", "DB", "db.", ".db", "db..test", "db-", "db-.test", "-db", "db_1", "192.0.2.1", "1", "1.2", "2001:db8::1"),
        *("db/x", "db:5432", "*.test", "x" * 64, f"{'x' * 64}.test", "a." * 126 + "aa"),
    ],
    NameKind.SPIFFE_PATHS: [
        *("ns/ci/web", "/", "//", "/ns//web", "/ns/ci/web/", "/.", "/..", "/ns/../x", "/ns/./x", "/a/..", "/a/.", "/ns/ci/%77eb"),
        *("/a:b", "/a@b", "/a;b", "/a~b", "spiffe://example.test/a", "/a\\b"),
    ],
    NameKind.JWT_AUDIENCES: ["/a", ":a", "%20", "=a", "a'b", "a|b", "a\\b", "<a>", "a(b)"],
}
"""What looks like a name of another kind, or nearly like one of its own."""


def test_every_kind_has_a_rule_and_a_field_of_a_role() -> None:
    assert set(NAME_RULES) == set(NameKind)
    fields = {rule.field: kind for kind, rule in NAME_RULES.items()}
    assert set(fields) == set(RoleRules.model_fields)
    for field, kind in fields.items():
        assert RoleRules.model_fields[field].alias == kind.value


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        NAME_RULES[NameKind.LOGINS] = NAME_RULES[NameKind.DB_USERS]  # type: ignore[index]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in NameKind for name in GOOD[kind]])
def test_good_names(kind: NameKind, name: str) -> None:
    assert NAME_RULES[kind].fits(name)


@pytest.mark.parametrize("form", HOSTILE.values(), ids=list(HOSTILE))
@pytest.mark.parametrize("kind", NameKind, ids=str)
def test_hostile_names_fit_no_kind(kind: NameKind, form: str) -> None:
    for name in GOOD[kind]:
        assert not NAME_RULES[kind].fits(form.format(name))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in NameKind for name in ONLY_THERE[kind]])
def test_names_that_do_not_fit_this_kind(kind: NameKind, name: str) -> None:
    assert not NAME_RULES[kind].fits(name)


@pytest.mark.parametrize("kind", NameKind, ids=str)
def test_too_long_names(kind: NameKind) -> None:
    longest, head = TOO_LONG[kind] - 1, "/" if kind is NameKind.SPIFFE_PATHS else ""
    assert NAME_RULES[kind].longest == (MAX_NAME if kind is NameKind.DNS_NAMES else longest)
    for length in (TOO_LONG[kind], 10_000, 1_000_000):
        assert not NAME_RULES[kind].fits(head + "x" * (length - len(head)))


def test_a_dns_name_has_253_characters_at_most() -> None:
    assert NAME_RULES[NameKind.DNS_NAMES].fits("a." * 126 + "a")
    assert not NAME_RULES[NameKind.DNS_NAMES].fits("a." * 127 + "a")


@pytest.mark.parametrize("kind", NameKind, ids=str)
@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=80) | st.text("ab/.:-_@$*?{}, \n\x00", max_size=20))
def test_whatever_fits_is_printable_ascii_without_separators(kind: NameKind, name: str) -> None:
    if NAME_RULES[kind].fits(name):
        assert name
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & set(" ,*?{}\"'`;#<>|")
        assert not name.startswith("-")


@pytest.mark.parametrize("kind", NameKind, ids=str)
def test_a_name_that_nearly_fits_costs_no_time(kind: NameKind) -> None:
    """The longest name that is looked at, in the shapes that make patterns try again and again."""
    longest = NAME_RULES[kind].longest
    for unit in ("a", "a.", "a-", "/a", "/.", "a:", "-", "."):
        assert NAME_RULES[kind].fits((unit * longest)[: longest - 1] + "\n") is False


def test_which_names_a_trait_must_not_spell_and_which_nothing_carries() -> None:
    reserved = {kind: rule.reserved for kind, rule in NAME_RULES.items() if rule.reserved}
    assert reserved == {
        NameKind.KUBERNETES_USERS: ("system:", "bot:"),
        NameKind.KUBERNETES_GROUPS: ("system:", "bot:"),
    }
    assert {kind: set(rule.never) for kind, rule in NAME_RULES.items() if rule.never} == {
        NameKind.KUBERNETES_GROUPS: {"system:masters"}
    }


def test_what_is_carried_in_full_and_where_the_case_does_not_count() -> None:
    assert {kind for kind, rule in NAME_RULES.items() if not rule.asked} == {
        NameKind.LOGINS,
        NameKind.KUBERNETES_USERS,
        NameKind.KUBERNETES_GROUPS,
    }
    assert {kind for kind, rule in NAME_RULES.items() if rule.any_case} == {NameKind.HOST_PRINCIPALS, NameKind.DNS_NAMES}


def test_what_becomes_a_part_of_a_subject_is_as_short_as_one() -> None:
    """RFC 5280, appendix A.1: ub-common-name, ub-organization-name, ub-organizational-unit-name."""
    parts = (NameKind.KUBERNETES_USERS, NameKind.KUBERNETES_GROUPS, NameKind.DB_USERS, NameKind.DB_NAMES)
    assert {NAME_RULES[kind].longest for kind in parts} == {MAX_SUBJECT_PART} == {64}


# --- paths of bots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/ns/ci/bot/deployer", True, id="a bot's own"),
        pytest.param("/ns/ci/bot", True, id="without a name"),
        pytest.param("/ns/ci/bot/", True, id="with an empty name"),
        pytest.param("/ns/ci/bot/a/b", True, id="below a bot"),
        pytest.param("/NS/ci/BOT/deployer", True, id="in capitals"),
        pytest.param("/ns/ci/Bot/deployer", True, id="one capital"),
        pytest.param("/n\u017f/ci/bot/deployer", True, id="long s"),
        pytest.param("/ns/ci/bots/deployer", False, id="another word"),
        pytest.param("/ns/ci/robot/deployer", False, id="the end of a word"),
        pytest.param("/ns/bot/deployer", False, id="a namespace called bot"),
        pytest.param("/ns/ci/web/bot/x", False, id="further below"),
        pytest.param("/x/ns/ci/bot/deployer", False, id="below something else"),
        pytest.param("/bot/deployer", False, id="no namespace"),
        pytest.param("/ns/ci", False, id="a namespace"),
    ],
)
def test_paths_of_bots(path: str, *, expected: bool) -> None:
    assert is_path_of_a_bot(path) is expected


OBJECTS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?)?", fullmatch=True)


@settings(max_examples=100, deadline=None)
@given(namespace=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True), name=OBJECTS)
def test_every_bot_has_a_path_that_fits_and_names_a_bot(namespace: Any, name: Any) -> None:
    path = own_path(namespace, name)
    assert NAME_RULES[NameKind.SPIFFE_PATHS].fits(path)
    assert is_path_of_a_bot(path)


def test_the_longest_bot_has_a_path_that_fits() -> None:
    assert NAME_RULES[NameKind.SPIFFE_PATHS].fits(own_path("n" * 63, "m" * 200))
