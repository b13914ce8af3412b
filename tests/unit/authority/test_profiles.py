"""What each CA signs."""

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest

from machinebot.authority.profiles import (
    FOR_BOTS,
    IDENTITY,
    MAX_PRINCIPALS,
    PROFILES,
    SSH_HOST,
    SSH_USER,
    check_usages,
)
from machinebot.errors import Invalid
from machinebot.policy.credential import Usage

DAY = timedelta(days=1)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_no_profile_can_reach_above_24_hours(profile: Any) -> None:
    assert profile.ceiling <= DAY
    for ceiling in (DAY + timedelta(seconds=1), timedelta(0), -DAY):
        with pytest.raises(ValueError, match="ceiling"):
            replace(profile, ceiling=ceiling)
    with pytest.raises(FrozenInstanceError):
        profile.ceiling = 2 * DAY


def test_every_usage_has_its_profile() -> None:
    assert {usage: profile.usage for usage, profile in PROFILES.items()} == {usage: usage for usage in Usage}
    assert all(profile.purpose is usage.purpose for usage, profile in PROFILES.items())


@pytest.mark.parametrize("usages", [{usage} for usage in sorted(FOR_BOTS)], ids=str)
def test_bots_may_ask_for_each_usage_alone(usages: Any) -> None:
    check_usages(frozenset(usages))


@pytest.mark.parametrize(
    ("usages", "reason"),
    [
        pytest.param((), "NoUsage", id="none"),
        pytest.param({Usage.IDENTITY_SERVER}, "UsageNotForBots", id="our own HTTPS"),
        pytest.param({Usage.IDENTITY_SERVER, Usage.SSH_USER}, "UsageNotForBots", id="our own HTTPS beside SSH"),
        pytest.param({Usage.IDENTITY_SERVER, Usage.IDENTITY}, "UsageNotForBots", id="our own HTTPS beside another"),
        pytest.param({Usage.SSH_USER, Usage.SSH_HOST}, "TooManyUsages", id="two for SSH"),
        pytest.param({Usage.IDENTITY, Usage.KUBERNETES}, "TooManyUsages", id="two for X.509"),
        pytest.param({Usage.DATABASE_CLIENT, Usage.DATABASE_SERVER}, "TooManyUsages", id="two by one CA"),
        pytest.param({Usage.BOT}, "UsageNotForBots", id="an identity at the join API"),
        pytest.param({Usage.BOT, Usage.SSH_USER}, "UsageNotForBots", id="an identity at the join API beside SSH"),
        pytest.param(FOR_BOTS, "TooManyUsages", id="all"),
    ],
)
def test_usages_that_no_credential_has(usages: Any, reason: Any) -> None:
    with pytest.raises(Invalid) as caught:
        check_usages(frozenset(usages))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "usages",
    [{Usage.SSH_USER, Usage.IDENTITY}, {Usage.WORKLOAD, Usage.WORKLOAD_TOKEN}, {Usage.SSH_HOST, Usage.WORKLOAD}],
    ids=str,
)
def test_one_of_each_form_is_one_credential(usages: Any) -> None:
    check_usages(frozenset(usages))


def test_profiles_cannot_be_added_to() -> None:
    with pytest.raises(TypeError):
        PROFILES[Usage.DATABASE_CLIENT] = IDENTITY  # type: ignore[index]


def test_ssh_extensions_hold_nothing_that_opens_more_than_a_session() -> None:
    assert SSH_USER.extensions == {b"permit-pty", b"permit-port-forwarding", b"permit-agent-forwarding"}
    assert SSH_USER.critical_options == {b"source-address"}
    assert not SSH_HOST.extensions
    assert not SSH_HOST.critical_options


@pytest.mark.parametrize(
    "principal",
    ["deploy", "_svc", "a", "x" * 64, "svc.name", "me@corp.test", "machine$", "CORP\\svc", "user-1", "0day"],
)
def test_logins(principal: Any) -> None:
    SSH_USER.check_principals((principal,))


@pytest.mark.parametrize(
    "principal",
    ["web-1.node.example.test", "localhost", "10.0.0.1", "fe80::1", "a", "x" * 253, "h_1"],
)
def test_hosts(principal: Any) -> None:
    SSH_HOST.check_principals((principal,))


HOSTILE = {
    "empty": "",
    "comma": "deploy,root",
    "newline": "deploy\nroot",
    "newline at the end": "deploy\n",
    "carriage return": "deploy\r",
    "nul": "deploy\x00",
    "blank": "deploy root",
    "star": "*",
    "star inside": "dep*",
    "question mark": "deplo?",
    "negation": "!root",
    "leading dash": "-oProxyCommand",
    "quote": 'dep"loy',
    "bracket": "[abc]",
    "brace": "{{ internal.logins }}",
    "not ASCII": "d\u0435ploy",
    "line separator": "deploy\u2028root",
    "too long": "x" * 254,
}


@pytest.mark.parametrize("profile", [SSH_USER, SSH_HOST], ids=lambda profile: profile.purpose.value)
@pytest.mark.parametrize("principal", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_principals(profile: Any, principal: Any) -> None:
    for names in ((principal,), ("deploy", principal), (principal, "deploy")):
        with pytest.raises(Invalid) as caught:
            profile.check_principals(names)
        assert caught.value.reason == "InvalidPrincipal"


@pytest.mark.parametrize("principal", ["Web-1.example.test", "WEB", "web.", ".web", "-web", ":1"])
def test_names_that_only_hosts_may_not_have(principal: Any) -> None:
    with pytest.raises(Invalid) as caught:
        SSH_HOST.check_principals((principal,))
    assert "lower case" in caught.value.message


@pytest.mark.parametrize("profile", [SSH_USER, SSH_HOST], ids=lambda profile: profile.purpose.value)
def test_number_of_principals(profile: Any) -> None:
    with pytest.raises(Invalid) as caught:
        profile.check_principals(())
    assert caught.value.reason == "NoPrincipals"
    profile.check_principals(tuple(f"n{number}" for number in range(MAX_PRINCIPALS)))
    with pytest.raises(Invalid) as caught:
        profile.check_principals(tuple(f"n{number}" for number in range(MAX_PRINCIPALS + 1)))
    assert caught.value.reason == "TooManyPrincipals"
