"""What an issue would give, and how it is refused."""

from datetime import timedelta
from typing import Any

import pytest

from machinebot.authority.plan import Plan, plan
from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.policy.credential import Usage
from machinebot.policy.grants import SSHOptions
from machinebot.policy.locks import Lock
from machinebot.policy.names import NameKind
from machinebot.policy.templates import Origin
from unit.authority.builders import BOTH, DAY, HOST, HOUR, MINUTE, NOW, REF, bot, role, spec, wish

HOSTS = {NameKind.HOST_PRINCIPALS: ("web-1.node.example.test",)}


def hosts(*names: str) -> dict[NameKind, tuple[str, ...]]:
    return {NameKind.HOST_PRINCIPALS: names}


def planned(usages: Any = BOTH, names: Any = None, roles: Any = None, **fields: Any) -> Plan:
    known = {each.metadata.name: each for each in (roles or [role()])}
    given: dict[str, Any] = {
        "spec": spec(),
        "bot": bot(),
        "wanted_roles": (),
        "wish": wish(usages, names),
        "wished_lifetime": DAY,
        "roles": known,
        "ca_not_after": None,
        "now": NOW,
        "locks": (),
    }
    return plan(**(given | fields))


def refused(kind: type[MachinebotError], **fields: Any) -> MachinebotError:
    with pytest.raises(kind) as caught:
        planned(**fields)
    return caught.value


def test_identity_carries_logins_and_options_and_no_hosts() -> None:
    result = planned()
    assert result.grant.plain(NameKind.LOGINS) == ("deploy",)
    assert result.grant.of(NameKind.LOGINS) == (Origin(name="deploy", role="access", trait="logins"),)
    assert result.grant.ssh == SSHOptions(forward_agent=False, port_forwarding=True, permit_pty=True, source_addresses=())
    assert result.grant.of(NameKind.HOST_PRINCIPALS) == ()
    assert (result.lifetime.length, result.lifetime.reduced_by) == (DAY, None)


def test_host_carries_its_names_and_no_logins() -> None:
    result = planned(HOST, HOSTS)
    assert result.grant.of(NameKind.HOST_PRINCIPALS) == (Origin(name="web-1.node.example.test", role="access"),)
    assert result.grant.of(NameKind.LOGINS) == ()
    assert not result.grant.ssh.permit_pty


def test_x509_alone_needs_no_login() -> None:
    result = planned({Usage.IDENTITY}, bot=bot(logins=[]))
    assert result.grant.of(NameKind.LOGINS) == ()
    assert result.grant.roles == ("access",)


@pytest.mark.parametrize(
    ("usages", "names", "change"),
    [
        pytest.param(
            BOTH, {}, {"allow": {"logins": ["{{ internal.logins }}"], "hostPrincipals": ["x"]}}, id="hosts of an identity"
        ),
        pytest.param(BOTH, {}, {"deny": {"hostPrincipals": ["x"]}}, id="denied hosts of an identity"),
        pytest.param(
            HOST, HOSTS, {"allow": {"logins": ["a", "b"], "hostPrincipals": ["*.node.example.test"]}}, id="logins of a host"
        ),
        pytest.param(HOST, HOSTS, {"options": {"forwardAgent": True}}, id="SSH options of a host"),
        pytest.param(HOST, HOSTS, {"deny": {"hostPrincipals": ["other"]}}, id="denied hosts that were not asked for"),
    ],
)
def test_what_the_credential_does_not_carry_does_not_change_the_plan(usages: Any, names: Any, change: Any) -> None:
    assert planned(usages, names, roles=[role(**change)]) == planned(usages, names)


def test_plan_does_not_change_with_the_time() -> None:
    assert planned(now=NOW) == planned(now=NOW + 300 * DAY)


@pytest.mark.parametrize(
    ("fields", "hours", "by"),
    [
        pytest.param({"spec": spec(maxTTL="8h")}, 8, "the authority's maxTTL (8h)", id="authority"),
        pytest.param({"bot": bot(maxSessionTTL="4h")}, 4, "the bot's maxSessionTTL (4h)", id="bot"),
        pytest.param({"roles": [role(options={"maxSessionTTL": "2h"})]}, 2, "role access (maxSessionTTL 2h)", id="role"),
        pytest.param({"wished_lifetime": 99 * HOUR}, 24, "the 24h maximum for machine credentials", id="wish above everything"),
        pytest.param({"wished_lifetime": 3 * HOUR}, 3, None, id="wish"),
        pytest.param(
            {"spec": spec(maxTTL="8h"), "bot": bot(maxSessionTTL="9h"), "wished_lifetime": 10 * HOUR},
            8,
            "the authority's maxTTL (8h)",
            id="the lowest names itself",
        ),
        pytest.param(
            {"ca_not_after": NOW + 3 * HOUR - MINUTE}, 3, "the remaining life of the CA", id="CA, counted from notBefore"
        ),
        pytest.param({"ca_not_after": NOW + 90 * DAY}, 24, None, id="CA with a long life"),
        pytest.param({"spec": spec(maxTTL="48h")}, 24, None, id="a stored maxTTL above 24h"),
    ],
)
def test_lifetime_is_the_lowest_and_says_whose(fields: Any, hours: Any, by: Any) -> None:
    result = planned(**fields)
    assert (result.lifetime.length, result.lifetime.reduced_by) == (timedelta(hours=hours), by)


def test_lifetime_that_a_ca_leaves_is_never_too_short() -> None:
    assert refused(Denied, ca_not_after=NOW + MINUTE).reason == "LifetimeTooShort"
    assert refused(Denied, ca_not_after=NOW - DAY).reason == "LifetimeTooShort"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"bot": bot({"deletion_timestamp": "2027-01-01T00:00:00Z"})}, "BotDeleting", id="bot being deleted"),
        pytest.param({"locks": [Lock("leak", bot=REF)]}, "Locked", id="bot locked"),
        pytest.param({"locks": [Lock("other", role="x"), Lock("leak", role="access")]}, "Locked", id="role locked"),
        pytest.param({"locks": [Lock("leak", bot=REF)], "bot": bot(logins=[])}, "Locked", id="a lock is told first"),
        pytest.param(
            {"locks": [Lock("leak", role="x")], "wanted_roles": ("x",)}, "RoleNotOfBot", id="a role that the bot lacks, locked"
        ),
        pytest.param({"bot": bot(logins=[])}, "NoLogins", id="no trait"),
        pytest.param({"roles": [role(allow={})]}, "NoLogins", id="role allows none"),
        pytest.param({"roles": [role(deny={"logins": ["dep*"]})]}, "NoLogins", id="all denied"),
        pytest.param({"wanted_roles": ("other",)}, "RoleNotOfBot", id="a role that the bot lacks"),
        pytest.param({"roles": [role("other")]}, "RoleNotFound", id="role missing"),
        pytest.param({"roles": [role(namespaces=[])]}, "RoleNotForNamespace", id="role for nobody"),
        pytest.param({"roles": [role(namespaces=["prod"])]}, "RoleNotForNamespace", id="role for another namespace"),
        pytest.param({"roles": [role(options={"requireSessionMFA": True})]}, "SessionMFARequired", id="MFA by the role"),
        pytest.param({"spec": spec(requireSessionMFA=True)}, "SessionMFARequired", id="MFA by the authority"),
        pytest.param({"spec": spec(deviceTrustMode="required")}, "DeviceTrustRequired", id="Device Trust by the authority"),
        pytest.param(
            {"roles": [role(options={"deviceTrustMode": "required"})]}, "DeviceTrustRequired", id="Device Trust by the role"
        ),
        pytest.param({"usages": HOST, "names": hosts("db.prod.test")}, "PrincipalNotAllowed", id="host that no role allows"),
        pytest.param(
            {"usages": HOST, "names": HOSTS, "roles": [role(deny={"hostPrincipals": ["web-*"]})]},
            "PrincipalDenied",
            id="host that a role denies",
        ),
    ],
)
def test_what_is_denied(fields: Any, reason: Any) -> None:
    assert refused(Denied, **fields).reason == reason


@pytest.mark.parametrize(
    "lock",
    [
        pytest.param(Lock("l", bot=REF, expires_at=NOW), id="ended"),
        pytest.param(Lock("l", role="admin"), id="a role of the bot that this output does not carry"),
        pytest.param(Lock("l", instance="0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11"), id="an instance"),
        pytest.param(Lock("l", join_token=(REF.namespace, REF.name)), id="a join token"),
    ],
)
def test_other_locks_change_nothing(lock: Lock) -> None:
    fields: dict[str, Any] = {
        "bot": bot(roles=["access", "admin"]),
        "roles": [role(), role("admin")],
        "wanted_roles": ("access",),
    }
    assert planned(**fields, locks=[lock]) == planned(**fields)


def test_no_logins_says_the_way_out() -> None:
    message = refused(Denied, bot=bot(logins=[])).message
    for word in ("'access'", "spec.logins", "{{ internal.logins }}", "role that states them"):
        assert word in message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"usages": ()}, "NoUsage", id="nothing wanted"),
        pytest.param({"usages": {Usage.IDENTITY_SERVER}}, "UsageNotForBots", id="our own HTTPS"),
        pytest.param({"usages": BOTH | {Usage.WORKLOAD}}, "TooManyUsages", id="one too many"),
        pytest.param({"usages": {Usage.SSH_USER, Usage.SSH_HOST}, "names": HOSTS}, "TooManyUsages", id="two for SSH"),
        pytest.param({"usages": HOST}, "NoPrincipals", id="host without a name"),
        pytest.param({"usages": HOST, "names": hosts("*.node.example.test")}, "InvalidPrincipal", id="wildcard"),
        pytest.param({"usages": HOST, "names": hosts("WEB.node.example.test")}, "InvalidPrincipal", id="capital letters"),
        pytest.param(
            {"usages": HOST, "names": hosts(*(f"h{number}.node.example.test" for number in range(257)))},
            "TooManyPrincipals",
            id="too many hosts",
        ),
    ],
)
def test_what_is_invalid(fields: Any, reason: Any) -> None:
    assert refused(Invalid, **fields).reason == reason
