"""What a credential of each usage carries and how it is refused: no name without a role, and nothing of other kinds."""

from collections.abc import Sequence
from typing import Any

import pytest

from machinebot.authority.plan import CARRIED, Plan, plan
from machinebot.authority.profiles import FOR_BOTS
from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.policy.credential import Usage
from machinebot.policy.grants import NO_SSH
from machinebot.policy.names import NameKind
from machinebot.policy.templates import Origin
from machinebot.resources.bot import MachineBot
from machinebot.resources.role import MachineRole
from unit.authority.builders import DAY, EVERYTHING, NOW, WISHES, Names, allowing, bot, spec, wish

K = NameKind
OWN = "/ns/ci/bot/deployer"


def planned(
    usage: Usage, names: Names | None = None, *roles: MachineRole, others: Sequence[MachineRole] = (), **fields: Any
) -> Plan:
    known = {each.metadata.name: each for each in (roles or (allowing(),))}
    given: dict[str, Any] = {
        "spec": spec(),
        "bot": bot(roles=list(known)),
        "wanted_roles": (),
        "wish": wish({usage}, names),
        "wished_lifetime": DAY,
        "roles": known | {each.metadata.name: each for each in others},
        "ca_not_after": None,
        "now": NOW,
        "locks": (),
    }
    return plan(**(given | fields))


def refused(kind: type[MachinebotError], reason: str, *arguments: Any, **fields: Any) -> str:
    with pytest.raises(kind) as caught:
        planned(*arguments, **fields)
    assert caught.value.reason == reason
    return caught.value.message


GOOD: dict[Usage, dict[NameKind, tuple[str, ...]]] = {
    Usage.SSH_USER: {K.LOGINS: ("deploy",)},
    Usage.SSH_HOST: {K.HOST_PRINCIPALS: ("a.test", "b.test")},
    Usage.IDENTITY: {},
    Usage.DATABASE_CLIENT: {K.DB_USERS: ("app",), K.DB_NAMES: ("orders",)},
    Usage.DATABASE_SERVER: {K.DNS_NAMES: ("db.test",)},
    Usage.DATABASE_NODE: {K.DNS_NAMES: ("db", "db.test"), K.DB_USERS: ("node",)},
    Usage.KUBERNETES: {K.KUBERNETES_USERS: ("team:deployer",), K.KUBERNETES_GROUPS: ("team:ops", "viewers")},
    Usage.WORKLOAD: {K.SPIFFE_PATHS: ("/ns/ci/web",), K.DNS_NAMES: ("web.test",)},
    Usage.WORKLOAD_TOKEN: {K.SPIFFE_PATHS: (OWN,), K.JWT_AUDIENCES: ("api", "vault")},
}
"""What `WISHES` give where the roles allow everything."""


def test_every_usage_of_bots_is_here() -> None:
    assert set(GOOD) == set(WISHES) == set(CARRIED) == set(FOR_BOTS)


# --- every usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", GOOD, ids=str)
def test_it_carries_its_names_and_nothing_of_other_kinds(usage: Usage) -> None:
    names, expected = WISHES[usage], GOOD[usage]
    found = planned(usage, names).grant
    assert {kind: found.plain(kind) for kind in found.names} == expected
    assert all(origin == Origin(origin.name, "access") for origins in found.names.values() for origin in origins)
    assert (dict(found.denied), dict(found.taken)) == ({}, {})
    assert (found.ssh == NO_SSH) is (usage is not Usage.SSH_USER)


@pytest.mark.parametrize("usage", GOOD, ids=str)
@pytest.mark.parametrize("kind", NameKind, ids=lambda kind: f"without {kind}")
def test_no_name_comes_without_a_role_that_allows_it(usage: Usage, kind: NameKind) -> None:
    """Take one kind of names out of the role: what the credential has of it is refused, or gone; the rest stays."""
    names, expected = WISHES[usage], GOOD[usage]
    less = allowing(allow={other: patterns for other, patterns in EVERYTHING.items() if other is not kind})
    if kind in expected and kind not in {K.KUBERNETES_USERS, K.KUBERNETES_GROUPS}:
        with pytest.raises(Denied) as caught:
            planned(usage, names, less)
        assert caught.value.reason in {"NoLogins", "PrincipalNotAllowed", "NameNotAllowed"}
        return
    found = planned(usage, names, less).grant
    assert {other: found.plain(other) for other in found.names} == {o: n for o, n in expected.items() if o is not kind}


@pytest.mark.parametrize("usage", GOOD, ids=str)
@pytest.mark.parametrize("kind", NameKind, ids=lambda kind: f"denied {kind}")
def test_deny_wins_over_every_role(usage: Usage, kind: NameKind) -> None:
    names, expected = WISHES[usage], GOOD[usage]
    roles = (allowing(), allowing("second", allow={}, deny={kind: ["*"]}))
    if kind in expected and kind is not K.KUBERNETES_GROUPS:
        with pytest.raises(Denied) as caught:
            planned(usage, names, *roles)
        assert caught.value.reason in {"NoLogins", "PrincipalDenied", "NameDenied"}
        return
    found = planned(usage, names, *roles).grant
    assert {other: found.plain(other) for other in found.names} == {o: n for o, n in expected.items() if o is not kind}


@pytest.mark.parametrize("usage", GOOD, ids=str)
@pytest.mark.parametrize("kind", NameKind, ids=str)
def test_what_the_credential_does_not_carry_does_not_change_the_plan(usage: Usage, kind: NameKind) -> None:
    names = WISHES[usage]
    if kind in CARRIED[usage]:
        return
    changed = allowing(allow=EVERYTHING | {kind: ["something-else"]}, deny={kind: ["x*"]})
    assert planned(usage, names, changed) == planned(usage, names)


@pytest.mark.parametrize("usage", GOOD, ids=str)
@pytest.mark.parametrize("kind", NameKind, ids=str)
def test_names_that_it_does_not_carry_cannot_be_asked_for(usage: Usage, kind: NameKind) -> None:
    names = WISHES[usage]
    if kind in CARRIED[usage]:
        return
    message = refused(Invalid, "NameNotCarried", usage, {**names, kind: ["deploy"]})
    assert kind.value in message
    assert planned(usage, {**names, kind: []}) == planned(usage, names)


@pytest.mark.parametrize(
    ("usage", "names"),
    [
        pytest.param(Usage.DATABASE_CLIENT, {K.DB_USERS: ["a", "b"]}, id="two users"),
        pytest.param(Usage.DATABASE_CLIENT, {K.DB_USERS: ["a", "a"]}, id="one user twice"),
        pytest.param(Usage.DATABASE_CLIENT, {K.DB_USERS: ["a"], K.DB_NAMES: ["a", "b"]}, id="two databases"),
        pytest.param(Usage.DATABASE_NODE, {K.DNS_NAMES: ["db"], K.DB_USERS: ["node", "root"]}, id="two users of a node"),
        pytest.param(Usage.KUBERNETES, {K.KUBERNETES_USERS: ["a", "b"]}, id="two Kubernetes users"),
        pytest.param(Usage.WORKLOAD, {K.SPIFFE_PATHS: ["/a", "/b"]}, id="two SPIFFE IDs in a certificate"),
        pytest.param(Usage.WORKLOAD_TOKEN, {K.SPIFFE_PATHS: ["/a", OWN], K.JWT_AUDIENCES: ["x"]}, id="two SPIFFE IDs in a token"),
    ],
)
def test_where_one_name_fits_more_are_refused(usage: Usage, names: Names) -> None:
    assert "an output for each" in refused(Invalid, "TooManyNames", usage, names)


@pytest.mark.parametrize(
    ("usage", "names", "what"),
    [
        pytest.param(Usage.DATABASE_CLIENT, {}, "database.user", id="no user"),
        pytest.param(Usage.DATABASE_CLIENT, {K.DB_NAMES: ["orders"]}, "database.user", id="a database and no user"),
        pytest.param(Usage.DATABASE_SERVER, {}, "dnsNames", id="a server without a name"),
        pytest.param(Usage.DATABASE_NODE, {K.DB_USERS: ["node"]}, "dnsNames", id="a node without a name"),
        pytest.param(Usage.WORKLOAD_TOKEN, {}, "jwtSVID.audiences", id="a token for nobody"),
    ],
)
def test_what_must_be_asked_for(usage: Usage, names: Names, what: str) -> None:
    assert what in refused(Invalid, "NameMissing", usage, names)


@pytest.mark.parametrize(
    ("usage", "names"),
    [
        pytest.param(Usage.DATABASE_CLIENT, {K.DB_USERS: ["app"]}, id="a client of any database"),
        pytest.param(Usage.WORKLOAD, {K.SPIFFE_PATHS: ["/a"]}, id="a workload without DNS names"),
    ],
)
def test_what_may_be_left_out(usage: Usage, names: Names) -> None:
    found = planned(usage, names).grant
    assert {kind: found.plain(kind) for kind in found.names} == {kind: tuple(each) for kind, each in names.items()}


# --- SSH: which role would give a login ---------------------------------------------------------------------------


def test_no_login_names_the_roles_that_would_give_one() -> None:
    others = (
        allowing("hosts", allow={K.HOST_PRINCIPALS: ["*"]}),
        allowing("not-here", allow={K.LOGINS: ["web"]}, namespaces=["prod"]),
        allowing("states-it", allow={K.LOGINS: ["web"]}),
        allowing("trait", allow={K.LOGINS: ["{{ internal.logins }}"]}),
    )
    message = refused(Denied, "NoLogins", Usage.SSH_USER, {}, allowing(allow={}), others=others)
    assert "the roles 'access' give this bot no login, and" in message
    assert "the roles 'states-it', 'trait' allow it: add one to the roles of the bot" in message
    without = refused(Denied, "NoLogins", Usage.SSH_USER, {}, allowing(allow={}), others=others, bot=bot(logins=[]))
    assert "the role 'states-it' allows it" in without


def test_no_login_says_what_was_denied_and_sends_nobody_back_to_it() -> None:
    roles = (allowing("access", allow={K.LOGINS: ["root", "web"]}), allowing("guard", allow={}, deny={K.LOGINS: ["r*", "web"]}))
    message = refused(Denied, "NoLogins", Usage.SSH_USER, {}, *roles)
    assert "(they deny 'root', 'web')" in message
    assert "without the one that denies them" in message
    assert "allows it" not in message
    backup = allowing("backup", allow={K.LOGINS: ["backup"]})
    assert "the role 'backup' allows it" in refused(Denied, "NoLogins", Usage.SSH_USER, {}, *roles, others=[backup])
    reader = allowing("reader", allow={K.LOGINS: ["rdonly"]})
    assert "'reader'" not in refused(Denied, "NoLogins", Usage.SSH_USER, {}, *roles, others=[reader])


def test_a_refusal_lists_a_few_denied_logins_at_most() -> None:
    many = [f"user{number:02}" for number in range(30)]
    message = refused(Denied, "NoLogins", Usage.SSH_USER, {}, allowing(allow={K.LOGINS: many}, deny={K.LOGINS: ["*"]}))
    assert "'user07'" in message
    assert "'user08'" not in message


# --- Kubernetes ---------------------------------------------------------------------------------------------------

USERS, GROUPS = K.KUBERNETES_USERS, K.KUBERNETES_GROUPS


@pytest.mark.parametrize(
    ("allow", "wanted", "user", "groups"),
    [
        pytest.param({USERS: ["a"]}, (), ("a",), (), id="one user and no group"),
        pytest.param({GROUPS: ["g"]}, (), (), ("g",), id="groups alone: the bot itself"),
        pytest.param({USERS: ["a", "b"], GROUPS: ["g"]}, ["b"], ("b",), ("g",), id="one of several users"),
        pytest.param({USERS: ["a"], GROUPS: ["h", "g"]}, ["a"], ("a",), ("g", "h"), id="the one user, asked for"),
        pytest.param({USERS: ["bot:ci:deployer"]}, (), ("bot:ci:deployer",), (), id="a role that gives the bot's own name"),
    ],
)
def test_a_kubernetes_credential_has_one_user_and_all_groups(
    allow: Names, wanted: Sequence[str], user: tuple[str, ...], groups: tuple[str, ...]
) -> None:
    found = planned(Usage.KUBERNETES, {USERS: wanted}, allowing(allow=allow)).grant
    assert (found.plain(USERS), found.plain(GROUPS)) == (user, groups)


def test_one_user_of_several_must_be_chosen() -> None:
    role_ = allowing(allow={USERS: [f"user{number}" for number in range(12)]})
    message = refused(Invalid, "UserNotChosen", Usage.KUBERNETES, {}, role_)
    assert "kubernetes.user" in message
    assert "'user0', 'user1', 'user10'" in message
    assert "'user9'" not in message


def test_one_user_of_two_roles_is_one_user() -> None:
    found = planned(Usage.KUBERNETES, {}, allowing(allow={USERS: ["a"]}), allowing("second", allow={USERS: ["a"]})).grant
    assert found.plain(USERS) == ("a",)


@pytest.mark.parametrize(
    ("name", "reason", "kind"),
    [
        pytest.param("other", "NameNotAllowed", Denied, id="no role gives it"),
        pytest.param("bot:ci:deployer", "NameNotAllowed", Denied, id="the bot itself is not asked for"),
        pytest.param("bot:ci:other", "NameNotAllowed", Denied, id="another bot"),
        pytest.param("system:admin", "NameNotAllowed", Denied, id="a user of Kubernetes"),
        pytest.param("Team:deployer", "NameNotAllowed", Denied, id="another case"),
        pytest.param("team:*", "InvalidName", Invalid, id="wildcard"),
        pytest.param("team:deployer\n", "InvalidName", Invalid, id="newline"),
    ],
)
def test_a_kubernetes_user_is_given_by_a_role_in_full(name: str, reason: str, kind: type[MachinebotError]) -> None:
    assert refused(kind, reason, Usage.KUBERNETES, {USERS: [name]})


def test_a_denied_user_is_not_chosen_and_a_denied_group_is_left_out() -> None:
    role_ = allowing(allow={USERS: ["a", "b"], GROUPS: ["g", "h"]}, deny={USERS: ["a"], GROUPS: ["h"]})
    found = planned(Usage.KUBERNETES, {}, role_).grant
    assert (found.plain(USERS), found.plain(GROUPS)) == (("b",), ("g",))
    assert "a role denies" in refused(Denied, "NameDenied", Usage.KUBERNETES, {USERS: ["a"]}, role_)


def test_a_role_whose_users_are_all_denied_leaves_the_bot_itself() -> None:
    role_ = allowing(allow={USERS: ["admin"], GROUPS: ["g"]}, deny={USERS: ["admin"]})
    assert planned(Usage.KUBERNETES, {}, role_).grant.plain(USERS) == ()


@pytest.mark.parametrize("pattern", ["bot:ci:deployer", "bot:*", "*", "bot:c?:deployer"])
def test_a_deny_of_the_bots_own_name_wins_too(pattern: str) -> None:
    """Without a user of a role the certificate names the bot: what nobody allowed by name can still be denied by name."""
    roles = (allowing(allow={GROUPS: ["g"]}), allowing("guard", allow={}, deny={USERS: [pattern]}))
    message = refused(Denied, "NameDenied", Usage.KUBERNETES, {}, *roles)
    assert "'bot:ci:deployer'" in message
    assert "'access', 'guard'" in message
    assert "allow.kubernetesUsers" in message


@pytest.mark.parametrize("pattern", ["bot:ci:other", "bot:prod:*", "deployer", "bot:ci", "BOT:ci:deployer"])
def test_a_deny_of_another_bots_name_does_not_count(pattern: str) -> None:
    roles = (allowing(allow={GROUPS: ["g"]}), allowing("guard", allow={}, deny={USERS: [pattern]}))
    assert planned(Usage.KUBERNETES, {}, *roles).grant.plain(GROUPS) == ("g",)


def test_a_deny_of_the_bots_own_name_does_not_count_where_a_role_gives_another() -> None:
    role_ = allowing(allow={USERS: ["team:deployer"], GROUPS: ["g"]}, deny={USERS: ["bot:*"]})
    assert planned(Usage.KUBERNETES, {}, role_).grant.plain(USERS) == ("team:deployer",)


LONG = "d" * 80


@pytest.mark.parametrize("pattern", [f"bot:ci:{LONG}", "bot:ci:*", f"bot:{'?' * 60}"])
def test_a_long_name_is_denied_in_both_its_forms(pattern: str) -> None:
    """A CN holds 64 characters: a longer name stands there as a digest, and a deny of either holds."""
    long_bot = bot({"name": LONG}, roles=["access"])
    role_ = allowing(allow={GROUPS: ["g"]}, deny={USERS: [pattern]})
    assert f"'bot:ci:{LONG}'" in refused(Denied, "NameDenied", Usage.KUBERNETES, {}, role_, bot=long_bot)
    assert planned(Usage.KUBERNETES, {}, allowing(allow={GROUPS: ["g"]}), bot=long_bot)


def test_neither_user_nor_group_is_good_for_nothing() -> None:
    others = (
        allowing("ops", allow={GROUPS: ["ops"]}),
        allowing("person", allow={USERS: ["person"]}),
        allowing("masters", allow={GROUPS: ["system:masters"]}),
        allowing("prod", allow={GROUPS: ["ops"]}, namespaces=["prod"]),
    )
    message = refused(Denied, "NoKubernetesNames", Usage.KUBERNETES, {}, allowing(allow={K.LOGINS: ["x"]}), others=others)
    assert "the roles 'ops', 'person' allow it" in message
    alone = refused(Denied, "NoKubernetesNames", Usage.KUBERNETES, {}, allowing(allow={K.LOGINS: ["x"]}))
    assert "allow.kubernetesGroups" in alone


def test_neither_user_nor_group_says_what_was_denied() -> None:
    role_ = allowing(allow={USERS: ["a"], GROUPS: ["g"]}, deny={USERS: ["*"], GROUPS: ["*"]})
    assert "(they deny 'a', 'g')" in refused(Denied, "NoKubernetesNames", Usage.KUBERNETES, {}, role_)


@pytest.mark.parametrize("kind", [USERS, GROUPS], ids=str)
@pytest.mark.parametrize("value", ["system:masters", "bot:ci:other", "system:serviceaccount:kube-system:x"])
def test_the_author_of_a_bot_cannot_become_somebody_of_kubernetes(kind: NameKind, value: str) -> None:
    hostile = bot(traits={"x": [value]})
    role_ = allowing(allow={kind: ["{{ external.x }}"]})
    assert refused(Denied, "ReservedName", Usage.KUBERNETES, {}, role_, bot=hostile)


def test_what_kubernetes_refuses_does_not_stop_other_credentials_of_the_bot() -> None:
    hostile = bot(traits={"x": ["system:masters"]})
    role_ = allowing(allow={K.LOGINS: ["deploy"], GROUPS: ["{{ external.x }}"]})
    assert planned(Usage.SSH_USER, {}, role_, bot=hostile).grant.plain(K.LOGINS) == ("deploy",)


def test_roles_that_share_no_source_address_stop_ssh_alone() -> None:
    roles = (
        allowing(options={"sourceAddresses": ["10.0.0.0/8"]}),
        allowing("second", allow={}, options={"sourceAddresses": ["192.0.2.0/24"]}),
    )
    assert refused(Denied, "NoSourceAddress", Usage.SSH_USER, {}, *roles)
    assert planned(Usage.DATABASE_CLIENT, {K.DB_USERS: ["app"]}, *roles)


# --- SPIFFE IDs ---------------------------------------------------------------------------------------------------

SVIDS = [(Usage.WORKLOAD, {}), (Usage.WORKLOAD_TOKEN, {K.JWT_AUDIENCES: ["vault"]})]
BOTH_SVIDS = pytest.mark.parametrize(("usage", "names"), SVIDS, ids=["certificate", "token"])


@BOTH_SVIDS
@pytest.mark.parametrize("asked", [(), (OWN,)], ids=["by default", "asked for"])
def test_the_bots_own_path_must_be_allowed_by_a_role_too(usage: Usage, names: Names, asked: Sequence[str]) -> None:
    wanted = {**names, K.SPIFFE_PATHS: asked}
    everything = {**EVERYTHING, K.SPIFFE_PATHS: ["/ns/ci/*"]}
    found = planned(usage, wanted, allowing(allow=everything)).grant
    assert found.of(K.SPIFFE_PATHS) == (Origin(OWN, "access"),)
    for patterns in ((), ["/ns/ci/bot/other"], ["/ns/ci/web"], ["/ns/prod/*"]):
        message = refused(Denied, "NameNotAllowed", usage, wanted, allowing(allow={**EVERYTHING, K.SPIFFE_PATHS: patterns}))
        assert repr(OWN) in message
        assert "allow.spiffePaths" in message
    assert refused(Denied, "NameDenied", usage, wanted, allowing(deny={K.SPIFFE_PATHS: ["/ns/*/bot/*"]}))


@BOTH_SVIDS
@pytest.mark.parametrize(
    "path",
    [
        "/ns/ci/bot/other",
        "/ns/prod/bot/deployer",
        "/ns/ci/bot",
        "/ns/ci/bot/",
        "/ns/x/bot",
        "/ns/ci/bot/deployer/",
        "/ns/ci/bot/deployer/x",
        "/ns/ci/bot/Deployer",
        "/NS/ci/bot/deployer",
        "/ns/CI/bot/deployer",
        "/ns/ci/BOT/other",
        "/Ns/ci/boT/x",
        "/n\u017f/ci/bot/other",
    ],
)
def test_a_path_that_names_a_bot_is_that_bots_alone(usage: Usage, names: Names, path: str) -> None:
    """Even where a role allows every path: SPIFFE IDs count their case, but not every verifier does."""
    message = refused(Denied, "PathOfAnotherBot", usage, {**names, K.SPIFFE_PATHS: [path]})
    assert repr(OWN) in message


@BOTH_SVIDS
@pytest.mark.parametrize(
    "path",
    [
        "/ns/ci/./bot/other",
        "/ns//ci/bot/other",
        "/x/../ns/ci/bot/other",
        "//ns/ci/bot/other",
        "/ns/ci/bot%2Fother",
        "/ns/ci/b\u043et/x",
    ],
)
def test_a_path_that_a_verifier_could_read_as_one_of_a_bot_is_none(usage: Usage, names: Names, path: str) -> None:
    assert refused(Invalid, "InvalidName", usage, {**names, K.SPIFFE_PATHS: [path]})


@BOTH_SVIDS
@pytest.mark.parametrize("path", ["/ns/ci/web", "/ns/ci/bots/x", "/bot/other", "/ns/bot/x", "/anything"])
def test_other_paths_are_a_matter_of_roles(usage: Usage, names: Names, path: str) -> None:
    assert planned(usage, {**names, K.SPIFFE_PATHS: [path]}).grant.plain(K.SPIFFE_PATHS) == (path,)


def test_the_bot_with_the_longest_name_has_its_own_path() -> None:
    longest: MachineBot = bot({"namespace": "n" * 63, "name": "m" * 200})
    role_ = allowing(namespaces=["*"])
    found = planned(Usage.WORKLOAD, {}, role_, bot=longest).grant
    assert found.plain(K.SPIFFE_PATHS) == (f"/ns/{'n' * 63}/bot/{'m' * 200}",)
