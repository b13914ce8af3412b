"""The rules that always hold, over any roles, bots and wishes."""

import asyncio
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import MachinebotError
from unit.authority.builders import (
    BOTH,
    BUILT,
    DAY,
    HOST,
    MINUTE,
    NOW,
    REF,
    World,
    bot,
    ca,
    ending,
    joined,
    request,
    role,
    ssh_of,
)

LOGINS = st.sampled_from(["deploy", "root", "admin", "web", "db"])
GLOBS = st.sampled_from(["root", "r?ot", "d*", "?eb", "admin", "*"])
HOSTNAMES = st.sampled_from([f"{name}.node.example.test" for name in ("web", "db", "root", "db-1")])
TTL = st.integers(5, 3000).map(lambda minutes: f"{minutes}m")


@st.composite
def worlds(draw: Any) -> Any:
    def one(name: Any) -> Any:
        return role(
            name,
            allow={
                "logins": draw(st.lists(st.just("{{ internal.logins }}") | LOGINS, max_size=4)),
                "hostPrincipals": draw(st.lists(st.sampled_from(["*.node.example.test", "*", "web*"]), max_size=2)),
            },
            deny={
                "logins": draw(st.lists(GLOBS, max_size=2)),
                "hostPrincipals": draw(st.lists(st.sampled_from(["db*", "*", "root.*", "?eb.*"]), max_size=1)),
            },
            options={"maxSessionTTL": draw(TTL)},
        )

    world = World()
    world.known_roles = {name: one(name) for name in ("access", "second")}
    world.bots = {
        REF: bot(
            roles=["access", "second"],
            logins=draw(st.lists(LOGINS, min_size=1, max_size=3, unique=True)),
            maxSessionTTL=draw(TTL),
        )
    }
    return world


async def try_issue(world: Any, wanted: Any, not_after: Any, max_ttl: Any) -> Any:
    authority = world.authority(maxTTL=max_ttl)
    identity = await joined(authority)
    authority.update(
        authority.spec, {purpose: (ending(ca(purpose), not_after),) if purpose.is_ssh else (ca(purpose),) for purpose in BUILT}
    )
    try:
        return await authority.issue(identity, wanted, now=NOW)
    except MachinebotError:
        return None


@settings(max_examples=120, deadline=None)
@given(
    world=worlds(),
    roles=st.sampled_from([(), ("access",), ("second",), ("access", "second")]),
    hosts=st.lists(HOSTNAMES, min_size=1, max_size=2, unique=True),
    for_host=st.booleans(),
    lifetime=st.just(86_400) | st.integers(300, 200_000) | st.integers(-10, 400),
    left=st.just(10_000_000) | st.integers(3600, 200_000) | st.integers(-60, 4000),
    max_ttl=TTL,
)
def test_no_issue_breaks_a_rule(
    *, world: Any, roles: Any, hosts: Any, for_host: Any, lifetime: Any, left: Any, max_ttl: Any
) -> None:
    """Deny wins over every role, no principal comes from nowhere, nothing outlives 24 hours, its limits or its CA."""
    wanted = request(HOST if for_host else BOTH, roles=roles, hosts=hosts, lifetime=timedelta(seconds=lifetime))
    not_after = NOW + timedelta(seconds=left)
    issued = asyncio.run(try_issue(world, wanted, not_after, max_ttl))
    if issued is None:
        return
    certificate = ssh_of(issued)
    carried = [world.known_roles[name].spec for name in (roles or ("access", "second"))]
    principals = [principal.decode() for principal in certificate.valid_principals]
    assert principals
    denied = [glob for each in carried for glob in (each.deny.host_principals if for_host else each.deny.logins)]
    assert not [name for name in principals for glob in denied if fnmatchcase(name, glob)]
    if for_host:
        assert set(principals) == set(hosts)
    else:
        allowed = {login for each in carried for login in each.allow.logins}
        assert set(principals) <= allowed | (set(world.bots[REF].spec.logins) if "{{ internal.logins }}" in allowed else set())
    span = issued.not_after - issued.not_before
    assert 5 * MINUTE <= span <= DAY
    assert span == timedelta(seconds=certificate.valid_before - certificate.valid_after)
    assert span <= timedelta(seconds=lifetime)
    assert span <= min(each.options.max_lifetime for each in carried)
    assert span <= world.bots[REF].spec.max_lifetime
    assert issued.not_after <= not_after
