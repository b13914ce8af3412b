"""The embedded authority: who joins, what is issued, and what never is."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from machinebot.authority.embedded import IDENTITY_LIFE
from machinebot.authority.interface import REJOIN, Authority, Directory, TokenReviewer
from machinebot.authority.rotation import LAST_CALL, advance
from machinebot.errors import Denied, Invalid, MachinebotError, Unavailable
from machinebot.policy.credential import AnchorState, Purpose, Usage
from machinebot.policy.lifetimes import BACKDATE
from machinebot.policy.names import NameKind
from machinebot.policy.templates import Origin
from unit.authority.builders import (
    BOTH,
    CLUSTER,
    DAY,
    HOST,
    HOUR,
    ISSUER,
    NOW,
    REF,
    ROTATION,
    World,
    all_generations,
    bot,
    ca,
    der,
    ending,
    joined,
    request,
    role,
    spec,
    ssh_of,
    subject_key,
    x509_of,
)

SECOND = timedelta(seconds=1)


def test_it_is_an_authority_and_the_world_is_what_it_needs() -> None:
    world = World()
    authority: Authority = world.authority()
    directory: Directory = world
    reviewer: TokenReviewer = world
    assert (authority.name, authority.spec.cluster_name) == ("default", CLUSTER)
    assert directory
    assert reviewer


async def test_plan_is_what_an_issue_gives() -> None:
    authority = World().authority()
    planned = authority.plan(bot(), request(), now=NOW)
    issued = await authority.issue(await joined(authority), request(), now=NOW)
    assert planned is not None
    assert (planned.grant, planned.lifetime) == (issued.grant, issued.lifetime)


def test_bot_with_a_role_that_it_may_not_use_is_refused() -> None:
    authority = World().authority()
    authority.check_bot(bot())
    with pytest.raises(Denied, match="RoleNotFound"):
        authority.check_bot(bot(roles=["access", "other"]))


# --- identities at the issue --------------------------------------------------------------------------------------


async def refused(authority: Any, identity: Any, wanted: Any = None, now: Any = NOW, kind: type[MachinebotError] = Denied) -> str:
    with pytest.raises(kind) as caught:
        await authority.issue(identity, wanted or request(), now=now)
    return caught.value.reason


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        pytest.param(NOW + IDENTITY_LIFE - SECOND, None, id="last second"),
        pytest.param(NOW + IDENTITY_LIFE, "IdentityExpired", id="over"),
        pytest.param(NOW - BACKDATE, None, id="clock a minute back"),
        pytest.param(NOW - BACKDATE - SECOND, "IdentityExpired", id="clock far back"),
    ],
)
async def test_identity_lives_for_an_hour(now: Any, reason: Any) -> None:
    authority = World().authority()
    identity = await joined(authority)
    if reason is None:
        assert await authority.issue(identity, request(), now=now)
    else:
        assert await refused(authority, identity, now=now) == reason
        assert reason in REJOIN


async def test_later_join_with_another_service_account_moves_the_pin() -> None:
    world = World()
    authority = world.authority()
    before = await joined(authority)
    world.uids = {world.account: "sa-2"}
    after = await joined(authority, uid="sa-2")
    assert await refused(authority, before) == "IdentityReplaced"
    assert await authority.issue(after, request(), now=NOW)
    assert "IdentityReplaced" in REJOIN


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({REF: bot({"uid": "bot-2"})}, id="bot of the same name that was made later"),
        pytest.param({REF: bot(serviceAccountName="runner")}, id="bot with another ServiceAccount"),
    ],
)
async def test_identity_of_what_was_replaced_is_refused(change: Any) -> None:
    world = World()
    authority = world.authority()
    identity = await joined(authority)
    world.bots = change
    assert await refused(authority, identity) == "IdentityReplaced"


async def test_identity_that_never_joined_here_is_refused() -> None:
    identity = await joined(World().authority())
    assert await refused(World().authority(), identity) == "IdentityReplaced"
    assert await refused(World({REF: bot(authority="second")}).authority("second"), identity) == "WrongAuthority"


async def test_forgotten_bot_must_join_again() -> None:
    authority = World().authority()
    identity = await joined(authority)
    authority.forget(REF)
    authority.forget(REF)
    assert await refused(authority, identity) == "IdentityReplaced"


@pytest.mark.parametrize(
    ("bots", "reason"),
    [
        pytest.param({}, "BotNotFound", id="gone"),
        pytest.param({REF: bot({"deletion_timestamp": "x"})}, "BotDeleting", id="going"),
        pytest.param({REF: bot(authority="other")}, "WrongAuthority", id="moved to another authority"),
        pytest.param({REF: bot(roles=["admin"])}, "RoleNotFound", id="with a role that there is not"),
    ],
)
async def test_bot_is_looked_at_again_at_every_issue(bots: Any, reason: Any) -> None:
    world = World()
    authority = world.authority()
    identity = await joined(authority)
    world.bots = bots
    assert await refused(authority, identity) == reason


async def test_bot_that_came_back_must_join_again() -> None:
    world = World()
    authority = world.authority()
    identity = await joined(authority)
    kept, world.bots = world.bots, {}
    assert await refused(authority, identity) == "BotNotFound"
    world.bots = kept
    assert await refused(authority, identity) == "IdentityReplaced"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({}, "RoleNotFound", id="role gone"),
        pytest.param({"access": role(namespaces=["prod"])}, "RoleNotForNamespace", id="namespace taken away"),
        pytest.param({"access": role(allow={})}, "NoLogins", id="logins taken away"),
        pytest.param({"access": role(options={"requireSessionMFA": True})}, "SessionMFARequired", id="MFA put on"),
    ],
)
async def test_roles_are_looked_at_again_at_every_issue(change: Any, reason: Any) -> None:
    world = World()
    authority = world.authority()
    identity = await joined(authority)
    assert await authority.issue(identity, request(), now=NOW)
    world.known_roles = change
    assert await refused(authority, identity) == reason


# --- what is issued -----------------------------------------------------------------------------------------------


async def test_identity_output_gets_both_certificates() -> None:
    authority = World().authority()
    issued = await authority.issue(await joined(authority), request(), now=NOW + timedelta(microseconds=999_999))
    ssh_certificate, certificate = ssh_of(issued), x509_of(issued)
    assert issued.not_before == NOW - BACKDATE
    assert issued.not_after == issued.not_before + DAY
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (issued.not_before, issued.not_after)
    assert ssh_certificate.valid_after == issued.not_before.timestamp()
    assert ssh_certificate.valid_before == issued.not_after.timestamp()
    assert certificate.serial_number == ssh_certificate.serial == issued.serial
    assert 0 < issued.serial < 2**63
    assert certificate.public_key() == ssh_certificate.public_key() == subject_key().public_key()
    assert issued.authorities == {Purpose.SSH_USER: ca(Purpose.SSH_USER).id, Purpose.IDENTITY: ca(Purpose.IDENTITY).id}
    assert ssh_certificate.valid_principals == [b"deploy"]
    assert set(ssh_certificate.extensions) == {b"permit-port-forwarding", b"permit-pty"}
    assert not ssh_certificate.critical_options
    assert not issued.ssh_certificate.endswith(b"\n")  # type: ignore[union-attr]
    assert issued.grant.of(NameKind.LOGINS) == (Origin(name="deploy", role="access", trait="logins"),)
    assert (issued.lifetime.length, issued.lifetime.reduced_by) == (DAY, None)


async def test_host_output_gets_the_granted_names_with_their_origin() -> None:
    authority = World().authority()
    names = ["web-2.node.example.test", "web-1.node.example.test"]
    issued = await authority.issue(await joined(authority), request(HOST, names={NameKind.HOST_PRINCIPALS: names}), now=NOW)
    certificate = ssh_of(issued)
    assert certificate.valid_principals == [b"web-1.node.example.test", b"web-2.node.example.test"]
    assert not certificate.extensions
    assert not certificate.critical_options
    assert issued.x509_certificate is None
    assert issued.grant.of(NameKind.HOST_PRINCIPALS) == tuple(Origin(name=name, role="access") for name in sorted(names))
    assert issued.grant.of(NameKind.LOGINS) == ()
    assert issued.authorities == {Purpose.SSH_HOST: ca(Purpose.SSH_HOST).id}


async def test_x509_alone_has_no_ssh_certificate() -> None:
    authority = World().authority()
    issued = await authority.issue(await joined(authority), request(frozenset({Usage.IDENTITY})), now=NOW)
    assert issued.ssh_certificate is None
    assert x509_of(issued)


async def test_options_of_the_roles_reach_the_certificate() -> None:
    world = World()
    options = {"forwardAgent": True, "portForwarding": False, "permitPTY": False, "sourceAddresses": ["10.0.0.0/8", "10.1.2.3"]}
    world.known_roles = {"access": role(options=options)}
    authority = world.authority()
    certificate = ssh_of(await authority.issue(await joined(authority), request(), now=NOW))
    assert set(certificate.extensions) == {b"permit-agent-forwarding"}
    assert certificate.critical_options == {b"source-address": b"10.0.0.0/8,10.1.2.3/32"}


async def test_serials_differ() -> None:
    authority = World().authority()
    identity = await joined(authority)
    issued = [await authority.issue(identity, request(), now=NOW) for _ in range(5)]
    assert len({each.serial for each in issued}) == 5


async def test_usages_that_no_bot_has_are_refused() -> None:
    authority = World().authority()
    identity = await joined(authority)
    assert await refused(authority, identity, request(frozenset()), kind=Invalid) == "NoUsage"
    assert await refused(authority, identity, request(frozenset({Usage.IDENTITY_SERVER})), kind=Invalid) == "UsageNotForBots"
    assert await refused(authority, identity, request(BOTH | HOST), kind=Invalid) == "TooManyUsages"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        pytest.param(b"", "InvalidPublicKey", id="nothing"),
        pytest.param(b"ssh-ed25519 AAAA", "InvalidPublicKey", id="a line of OpenSSH"),
        pytest.param(ca(Purpose.IDENTITY).certificate, "InvalidPublicKey", id="a certificate"),
    ],
)
async def test_public_keys_that_are_invalid(key: Any, reason: Any) -> None:
    authority = World().authority()
    assert await refused(authority, await joined(authority), request(key=key), kind=Invalid) == reason


@pytest.mark.parametrize("purpose", list(Purpose))
async def test_key_of_any_ca_is_never_certified(purpose: Any) -> None:
    authority = World().authority()
    wanted = request(key=der(ca(purpose).key.public_key))
    assert await refused(authority, await joined(authority), wanted) == "PublicKeyOfCA"


# --- the CAs ------------------------------------------------------------------------------------------------------


async def test_ca_that_is_missing_or_ending_is_tried_again_later() -> None:
    world = World()
    authority = world.authority()
    identity = await joined(authority)
    authority.update(spec(), {Purpose.SSH_USER: (ca(Purpose.SSH_USER),)}, ISSUER)
    assert await refused(authority, identity, kind=Unavailable) == "CAMissing"
    nearly = {purpose: (ending(ca(purpose), NOW + LAST_CALL - SECOND),) for purpose in Purpose}
    authority.update(spec(), nearly, ISSUER)
    assert await refused(authority, identity, kind=Unavailable) == "CAEnding"


async def test_life_is_capped_by_the_ca_that_ends_first() -> None:
    world = World()
    authority = world.authority()
    identity = await joined(authority)
    short = all_generations() | {Purpose.SSH_USER: (ending(ca(Purpose.SSH_USER), NOW + 2 * HOUR),)}
    authority.update(spec(), short, ISSUER)
    issued = await authority.issue(identity, request(), now=NOW)
    assert issued.not_after == NOW + 2 * HOUR
    assert issued.lifetime.reduced_by == "the remaining life of the CA"


async def test_update_takes_the_new_spec_and_keeps_who_has_joined() -> None:
    authority = World().authority()
    identity = await joined(authority)
    authority.update(spec(maxTTL="1h"), all_generations(), ISSUER)
    assert (await authority.issue(identity, request(), now=NOW)).lifetime.reduced_by == "the authority's maxTTL (1h)"
    authority.update(spec(requireSessionMFA=True), all_generations(), ISSUER)
    assert await refused(authority, identity) == "SessionMFARequired"
    authority.update(spec(namespaces=["prod"]), all_generations(), ISSUER)
    assert await refused(authority, identity) == "AuthorityNotForNamespace"
    with pytest.raises(Denied, match="AuthorityNotForNamespace"):
        await joined(authority)


def rotated(purpose: Any) -> Any:
    def go(current: Any, now: Any) -> Any:
        return advance(current, now, purpose=purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION)

    published = go(all_generations()[purpose], NOW + 2134 * HOUR)
    taken_over = go(published, NOW + 2160 * HOUR)
    return published, taken_over


async def test_rotation_changes_who_signs_only_when_it_is_due() -> None:
    authority = World().authority()
    courses = {purpose: rotated(purpose) for purpose in Purpose}
    for step, moment in ((0, NOW + 2134 * HOUR), (1, NOW + 2160 * HOUR)):
        authority.update(spec(), {purpose: course[step] for purpose, course in courses.items()}, ISSUER)
        identity = await joined(authority, now=moment)
        issued = await authority.issue(identity, request(), now=moment)
        for purpose, signer in issued.authorities.items():
            assert signer == courses[purpose][step][0].id
            states = [anchor.state for anchor in authority.trust().of(purpose)]
            assert states == [AnchorState.ACTIVE, (AnchorState.PREPARED, AnchorState.OLD)[step]]
        first = authority.trust().of(Purpose.IDENTITY)[0]
        x509_of(issued).verify_directly_issued_by(x509.load_pem_x509_certificate(first.public))


def test_trust_bundle_is_in_order_whatever_comes_in() -> None:
    authority = World().authority()
    published, taken_over = rotated(Purpose.SSH_HOST)
    shuffled = {
        Purpose.IDENTITY: all_generations()[Purpose.IDENTITY],
        Purpose.SSH_HOST: (replace(taken_over[1]), published[1], taken_over[0])[:1] + taken_over[:1],
    }
    authority.update(spec(), shuffled, ISSUER)
    bundle = authority.trust()
    assert bundle.cluster_name == CLUSTER
    assert [(anchor.purpose, anchor.state.value) for anchor in bundle.anchors] == [
        (Purpose.SSH_HOST, "Active"),
        (Purpose.SSH_HOST, "Old"),
        (Purpose.IDENTITY, "Active"),
    ]
    assert authority.trust() is bundle
    assert all(b"PRIVATE" not in anchor.public for anchor in bundle.anchors)
