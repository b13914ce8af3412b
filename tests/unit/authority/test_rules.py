"""The rules that always hold, over any roles, bots and wishes."""

import asyncio
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificateType
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.authority.plan import CARRIED
from machinebot.authority.profiles import FOR_BOTS
from machinebot.authority.subjects import SERVER_UNIT
from machinebot.errors import MachinebotError
from machinebot.policy.credential import Purpose
from machinebot.policy.names import NAME_RULES, NameKind
from unit.authority.builders import (
    BOTH,
    CLUSTER,
    DAY,
    HOST,
    ISSUER,
    MINUTE,
    NOW,
    REF,
    WISHES,
    World,
    bot,
    ca,
    ending,
    joined,
    request,
    role,
    ssh_of,
    x509_of,
)

O, OU, CN = NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.COMMON_NAME  # noqa: E741 - as in X.500
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
        authority.spec,
        {purpose: (ending(ca(purpose), not_after),) if purpose.is_ssh else (ca(purpose),) for purpose in Purpose},
        ISSUER,
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
    wanted = request(
        HOST if for_host else BOTH,
        roles=roles,
        names={NameKind.HOST_PRINCIPALS: hosts} if for_host else None,
        lifetime=timedelta(seconds=lifetime),
    )
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


# --- every usage --------------------------------------------------------------------------------------------------

POOLS = {
    NameKind.LOGINS: ["deploy", "root"],
    NameKind.HOST_PRINCIPALS: ["web.test", "db.test"],
    NameKind.KUBERNETES_USERS: ["person", "team:deployer", "system:admin"],
    NameKind.KUBERNETES_GROUPS: ["viewers", "ops", "system:authenticated"],
    NameKind.DB_USERS: ["app", "root"],
    NameKind.DB_NAMES: ["orders", "payroll"],
    NameKind.DNS_NAMES: ["web.test", "db.test"],
    NameKind.SPIFFE_PATHS: ["/ns/ci/web", "/ns/ci/bot/deployer", "/ns/ci/bot/other"],
    NameKind.JWT_AUDIENCES: ["vault", "api"],
}
"""A few names of each kind, good ones and ones that matter."""

ONE = {NameKind.DB_USERS, NameKind.DB_NAMES, NameKind.SPIFFE_PATHS, NameKind.KUBERNETES_USERS}
"""What a credential has one of at most."""

GLOBS_OF_ROLES = ["*", "*.test", "/ns/ci/*", "?oot"]
DENIED = ["r*", "*.test", "bot:*", "/ns/*/bot/*", "system:*", "v*", "db*", "*"]
GOOD_TRAITS = ["deploy", "app", "web.test", "/ns/ci/web", "vault"]
HOSTILE_TRAITS = ["system:masters", "bot:ci:other", "/ns/ci/bot/other", "*", "a b", "{"]


@st.composite
def many_named_roles(draw: Any, usage: Any) -> Any:
    """Two roles; what the credential does not carry is all allowed."""

    def allowed(kind: Any) -> Any:
        if kind not in CARRIED[usage]:
            return [*POOLS[kind], "{{ external.t }}"]
        names = st.sampled_from([*POOLS[kind], "{{ external.t }}"])
        return draw(
            st.lists(names | st.sampled_from(GLOBS_OF_ROLES) if NAME_RULES[kind].asked else names, max_size=3, unique=True)
        )

    denied = st.integers(0, 4).flatmap(lambda one_in_five: st.lists(st.sampled_from(DENIED), max_size=int(one_in_five == 0)))
    return [
        role(
            name,
            allow={kind.value: allowed(kind) for kind in NameKind},
            deny={kind.value: draw(denied) for kind in CARRIED[usage]},
        )
        for name in ("access", "second")
    ]


@st.composite
def wishes(draw: Any, usage: Any) -> Any:
    """Names asked for: what must be there is there, and the rest now and then."""
    must = {kind for kind in WISHES[usage] if kind not in {NameKind.DB_NAMES, NameKind.SPIFFE_PATHS}}
    return {
        kind: draw(
            st.lists(st.sampled_from(POOLS[kind]), min_size=int(kind in must), max_size=1 if kind in ONE else 2, unique=True)
        )
        for kind in CARRIED[usage]
        if NAME_RULES[kind].asked or kind is NameKind.KUBERNETES_USERS
    }


def carried_by(issued: Any) -> dict[Any, set[str]]:
    """Every name in the bytes of the credential, by kind; the bot's own user and SPIFFE ID are not among them."""
    found: dict[Any, set[str]] = {kind: set() for kind in NameKind}
    if issued.ssh_certificate:
        certificate = ssh_of(issued)
        kind = NameKind.LOGINS if certificate.type is SSHCertificateType.USER else NameKind.HOST_PRINCIPALS
        found[kind] = {name.decode() for name in certificate.valid_principals}
    ids = set()
    if issued.x509_certificate:
        certificate = x509_of(issued)
        (purpose,) = (purpose for purpose in issued.authorities if not purpose.is_ssh)
        parts = {oid: {part.value for part in certificate.subject.get_attributes_for_oid(oid)} for oid in (O, OU, CN)}
        users = {Purpose.KUBERNETES: NameKind.KUBERNETES_USERS, Purpose.DATABASE: NameKind.DB_USERS}.get(purpose)
        if users is not None:
            found[users] = parts[CN] - {REF.user}
        found[NameKind.DB_NAMES] = parts[OU] - {SERVER_UNIT}
        found[NameKind.KUBERNETES_GROUPS] = parts[O] - {CLUSTER}
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found[NameKind.DNS_NAMES] = set(names.get_values_for_type(x509.DNSName))
        ids |= set(names.get_values_for_type(x509.UniformResourceIdentifier)) if purpose is Purpose.WORKLOAD else set()
    if issued.token:
        claims = jwt.decode_complete(issued.token, options={"verify_signature": False})["payload"]
        found[NameKind.JWT_AUDIENCES] = set(claims["aud"])
        ids.add(claims["sub"])
    found[NameKind.SPIFFE_PATHS] = {each.removeprefix(f"spiffe://{CLUSTER}") for each in ids}
    return found


@pytest.mark.parametrize("usage", sorted(FOR_BOTS), ids=str)
@settings(max_examples=70, deadline=None)
@given(data=st.data(), trait=st.sampled_from(GOOD_TRAITS) | st.sampled_from(GOOD_TRAITS) | st.sampled_from(HOSTILE_TRAITS))
def test_no_name_is_in_any_credential_but_by_a_role(usage: Any, data: Any, trait: Any) -> None:
    """Whatever roles and wish: each name in the bytes is allowed by a carried role, denied by none, and of a carried kind."""
    roles, wished = data.draw(many_named_roles(usage)), data.draw(wishes(usage))
    world = World({REF: bot(roles=["access", "second"], traits={"t": [trait]})}, {each.metadata.name: each for each in roles})
    issued = asyncio.run(try_issue(world, request(frozenset({usage}), names=wished), NOW + 90 * DAY, "24h"))
    if issued is None:
        return
    for kind, names in carried_by(issued).items():
        rule = NAME_RULES[kind]
        assert names == set(issued.grant.plain(kind))
        assert kind in CARRIED[usage] or not names
        for name in names:
            assert rule.fits(name)
            patterns = [pattern for each in roles for pattern in getattr(each.spec.allow, rule.field)]
            filled = [pattern.replace("{{ external.t }}", trait) for pattern in patterns]
            assert any(fnmatchcase(name, pattern) if rule.asked else name == pattern for pattern in filled)
            denied = [pattern for each in roles for pattern in getattr(each.spec.deny, rule.field)]
            assert not any(fnmatchcase(name, pattern) for pattern in denied)
    assert "system:masters" not in carried_by(issued)[NameKind.KUBERNETES_GROUPS]
    assert "/ns/ci/bot/other" not in carried_by(issued)[NameKind.SPIFFE_PATHS]
    assert issued.not_after - issued.not_before <= DAY
