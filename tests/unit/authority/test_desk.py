"""The desk of the join API: who is let in, who is not, and what it takes to stay."""

import asyncio
import json
import logging
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from machinebot.authority.bot_certificates import DELEGATED_LIFE, RENEWABLE_LIFE, read
from machinebot.authority.visits import Welcome
from machinebot.clock import rfc3339
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, Unavailable
from machinebot.policy.credential import BotRef, Issued, Purpose
from machinebot.policy.lifetimes import BACKDATE
from machinebot.policy.locks import Lock
from machinebot.policy.names import NameKind
from unit.authority.builders import BOTH, HOST, HOUR, ISSUER, MINUTE, NOW, REF, all_generations, bot, ca, request, spec
from unit.authority.desk_world import SECRET, DeskWorld, join_token, secret_token, shown

OTHER = BotRef("ci", "other")


@pytest.fixture
def world() -> DeskWorld:
    return DeskWorld()


async def refusal(work: Awaitable[Any], kind: type[MachinebotError] = Denied) -> str:
    with pytest.raises(kind) as caught:
        await work
    assert SECRET not in str(caught.value)
    return caught.value.reason


# --- the offer ------------------------------------------------------------------------------------------------------


def test_the_offer_says_what_a_join_takes(world: DeskWorld) -> None:
    offer = world.desk.offer("ci", "runners", world.public_key, now=NOW)
    assert (offer.method, offer.cluster_name, offer.audience) == ("kubernetes", "example.test", "example.test")
    assert (offer.challenge, offer.expires_at) == (None, None)


def test_a_method_with_a_challenge_offers_one(world: DeskWorld) -> None:
    world.tokens["aws"] = join_token("aws", "token-3", iam={"allow": [{"account": "123456789012"}]})
    offer = world.desk.offer("ci", "aws", world.public_key, now=NOW)
    assert offer.method == "iam"
    assert offer.challenge is not None
    assert offer.expires_at == NOW + timedelta(minutes=2)


@pytest.mark.parametrize(
    ("namespace", "name", "reason"),
    [("ci", "nothing", "JoinTokenUnknown"), ("prod", "runners", "JoinTokenUnknown"), ("ci", "late", "JoinTokenExpired")],
)
def test_nothing_is_offered_where_nobody_joins(world: DeskWorld, namespace: str, name: str, reason: str) -> None:
    world.tokens["late"] = join_token("late", expires="2027-01-01T12:00:00Z")
    with pytest.raises(Denied) as caught:
        world.desk.offer(namespace, name, world.public_key, now=NOW)
    assert caught.value.reason == reason


def test_a_key_that_is_none_is_told_at_once(world: DeskWorld) -> None:
    with pytest.raises(Invalid):
        world.desk.offer("ci", "runners", b"no key", now=NOW)


def test_the_method_for_metrics(world: DeskWorld) -> None:
    assert world.desk.method("ci", "runners") == "kubernetes"
    assert world.desk.method("ci", "nothing") == "unknown"


# --- joining --------------------------------------------------------------------------------------------------------


async def test_a_good_proof_gives_an_identity_for_an_hour(world: DeskWorld) -> None:
    welcome = await world.join()
    identity = welcome.identity
    assert (identity.bot, identity.bot_uid, identity.method, identity.generation) == (REF, "bot-1", "kubernetes", 1)
    assert (identity.join_token, identity.join_token_uid) == ("runners", "token-1")
    assert identity.expires_at == NOW - BACKDATE + DELEGATED_LIFE
    assert not welcome.renewable
    assert read(shown(welcome), [ca(Purpose.BOT)], now=NOW) == identity
    assert [visit.attributes for visit in world.ledger.visits] == [{"serviceAccount": "ci:web", "pod": "web-1"}]
    assert world.ledger.stored == {}  # no object is written for a join that a platform vouches for


async def test_credentials_come_with_the_join_and_one_refused_harms_no_other(world: DeskWorld) -> None:
    wanted = (request(BOTH), request(HOST, names={NameKind.HOST_PRINCIPALS: ["elsewhere.test"]}), request(BOTH, roles=["root"]))
    good, refused, foreign = (await world.join(outputs=wanted)).results
    assert isinstance(good, Issued)
    assert good.ssh_certificate
    assert good.x509_certificate
    assert isinstance(refused, Denied)
    assert refused.reason == "PrincipalNotAllowed"
    assert isinstance(foreign, Denied)
    assert foreign.reason == "RoleNotOfBot"


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        pytest.param({"join_token": "nothing"}, Denied, "JoinTokenUnknown", id="no such join token"),
        pytest.param({"namespace": "prod"}, Denied, "JoinTokenUnknown", id="of another namespace"),
        pytest.param({"public_key": b"none"}, Invalid, "InvalidPublicKey", id="no key"),
        pytest.param({"proof": {}}, Invalid, "ProofUnreadable", id="no proof"),
        pytest.param({"proof": {"token": 5}}, Invalid, "ProofUnreadable", id="a number as proof"),
        pytest.param({"proof": {"secret": SECRET}}, Invalid, "ProofUnreadable", id="the proof of another method"),
        pytest.param({"proof": {"token": "good", "more": "x"}}, Invalid, "ProofUnreadable", id="more than a proof"),
        pytest.param({"proof": {"token": "bad"}}, Denied, "TokenNotAuthenticated", id="a bad proof"),
        pytest.param({"proof": {"token": "away"}}, Unavailable, "ApiServerAway", id="nobody to ask"),
    ],
)
async def test_who_is_not_let_in(world: DeskWorld, fields: Any, kind: Any, reason: str) -> None:
    assert await refusal(world.join(**fields), kind) == reason
    assert world.ledger.visits == []


async def test_the_key_of_a_ca_is_no_key_of_a_client(world: DeskWorld) -> None:
    assert await refusal(world.join(public_key=ca(Purpose.BOT).key.spki)) == "PublicKeyOfCA"


async def test_a_bot_that_is_gone_or_of_another_authority(world: DeskWorld) -> None:
    world.bots = {}
    assert await refusal(world.join()) == "BotNotFound"
    world.bots = {REF: bot(authority="other")}
    assert await refusal(world.join()) == "AuthorityMissing"
    world.bots = {REF: bot({"deletionTimestamp": "2027-01-01T00:00:00Z"})}
    assert await refusal(world.join()) == "BotDeleting"


async def test_an_authority_that_is_not_for_the_namespace(world: DeskWorld) -> None:
    welcome = await world.join()
    world.signer.update(spec(namespaces=["prod"]), all_generations(), ISSUER)
    assert await refusal(world.join()) == "AuthorityNotForNamespace"
    assert issue_refusal(world, shown(welcome), NOW) == "AuthorityNotForNamespace"


async def test_what_changes_while_others_are_asked_counts(world: DeskWorld) -> None:
    def lock() -> None:
        world.known_locks = (Lock(name="stop", bot=REF),)

    world.while_asked = lock
    assert await refusal(world.join()) == "Locked"
    world.known_locks = ()

    def make_anew() -> None:
        world.tokens["runners"] = join_token(uid="token-9")

    world.while_asked = make_anew
    assert await refusal(world.join()) == "JoinTokenUnknown"

    def narrow() -> None:
        rules = {"allow": [{"serviceAccount": "ci:another"}]}
        world.tokens["runners"] = join_token(uid="token-9", kubernetes=rules)

    world.while_asked = narrow
    assert await refusal(world.join(), Conflict) == "Busy"
    world.while_asked = lambda: None
    assert await refusal(world.join()) == "RulesNotMatched"


async def test_a_join_token_that_is_being_deleted_is_gone(world: DeskWorld) -> None:
    delegated, secret = await world.join(), await world.join_by_secret()
    for name, token in world.tokens.items():
        metadata = token.metadata.model_copy(update={"deletion_timestamp": rfc3339(NOW)})
        world.tokens[name] = replace(token, metadata=metadata)
    assert await refusal(world.join()) == await refusal(world.join_by_secret()) == "JoinTokenUnknown"
    assert await refusal(world.renew(secret, NOW)) == "JoinTokenUnknown"
    assert {issue_refusal(world, shown(each), NOW) for each in (delegated, secret)} == {"JoinTokenUnknown"}


async def test_an_identity_goes_with_the_method_that_it_came_by(world: DeskWorld) -> None:
    first = await world.join_by_secret()
    await world.renew(first, NOW + HOUR)
    # The same object with another method: what had been replaced must not come back to life.
    world.tokens["secret"] = join_token("secret", "token-2")
    assert issue_refusal(world, shown(first), NOW + HOUR) == "JoinTokenUnknown"


@pytest.mark.parametrize(
    "lock",
    [Lock(name="stop", bot=REF, message="leaked key"), Lock(name="stop", join_token=("ci", "runners"))],
    ids=["bot", "join token"],
)
async def test_locks_stop_joins_until_they_end(world: DeskWorld, lock: Lock) -> None:
    world.known_locks = (replace(lock, expires_at=NOW + HOUR),)
    assert await refusal(world.join()) == "Locked"
    with pytest.raises(Denied):
        world.desk.offer("ci", "runners", world.public_key, now=NOW)
    assert (await world.join(now=NOW + HOUR)).identity.generation == 1


async def test_locks_of_others_stop_nobody(world: DeskWorld) -> None:
    world.known_locks = (
        Lock(name="a", bot=OTHER),
        Lock(name="b", join_token=("prod", "runners")),
        Lock(name="c", instance="another"),
        Lock(name="d", role="other"),
    )
    assert (await world.join(outputs=(request(),))).identity.generation == 1


async def test_a_locked_role_refuses_the_credential_and_not_the_join(world: DeskWorld) -> None:
    world.known_locks = (Lock(name="stop", role="access"),)
    (refused,) = (await world.join(outputs=(request(),))).results
    assert isinstance(refused, Denied)
    assert refused.reason == "Locked"


# --- coming again ---------------------------------------------------------------------------------------------------


async def test_who_shows_its_identity_at_a_join_stays_the_same_instance(world: DeskWorld) -> None:
    first = await world.join()
    again = await world.join(now=NOW + 30 * MINUTE, presented=shown(first), public_key=world.new_key())
    assert again.identity.instance == first.identity.instance
    assert again.identity.generation == 2
    assert again.identity.expires_at > first.identity.expires_at


@pytest.mark.parametrize("presented", [None, b"no certificate"], ids=["none", "unreadable"])
async def test_who_shows_none_is_a_new_instance(world: DeskWorld, presented: bytes | None) -> None:
    first = await world.join()
    again = await world.join(presented=presented)
    assert again.identity.instance != first.identity.instance


async def test_an_identity_of_another_join_token_is_no_reason_to_be_the_same(world: DeskWorld) -> None:
    world.tokens["others"] = join_token("others", "token-8")
    first = await world.join(join_token="others")
    assert (await world.join(presented=shown(first))).identity.instance != first.identity.instance


async def test_a_locked_instance_does_not_come_back_under_another_name_by_mistake(world: DeskWorld) -> None:
    first = await world.join()
    world.known_locks = (Lock(name="stop", instance=first.identity.instance),)
    assert await refusal(world.join(presented=shown(first))) == "Locked"


async def test_a_lock_in_the_moment_of_the_join_counts(world: DeskWorld) -> None:
    first = await world.join()

    looks = 0

    def locks() -> tuple[Lock, ...]:
        nonlocal looks
        looks += 1
        return (Lock(name="stop", instance=first.identity.instance),) if looks > 3 else ()

    world.locks = locks  # type: ignore[method-assign]
    assert await refusal(world.join(presented=shown(first))) == "Locked"


# --- issues ---------------------------------------------------------------------------------------------------------


async def test_an_identity_gets_credentials(world: DeskWorld) -> None:
    welcome = await world.join()
    (issued,), trust = world.desk.issue(shown(welcome), [request()], address="192.0.2.1", now=NOW)
    assert isinstance(issued, Issued)
    assert trust.cluster_name == "example.test"
    assert issued.not_after == NOW - BACKDATE + timedelta(hours=24)


def issue_refusal(world: DeskWorld, certificate: bytes, now: datetime = NOW) -> str:
    with pytest.raises(Denied) as caught:
        world.desk.issue(certificate, [request()], address="", now=now)
    return caught.value.reason


async def test_an_identity_is_good_for_nothing_any_more(world: DeskWorld) -> None:
    certificate = shown(await world.join())
    assert issue_refusal(world, certificate, NOW + HOUR) == "IdentityExpired"
    for change, reason in (
        ({"tokens": {}}, "JoinTokenUnknown"),
        ({"tokens": {"runners": join_token(uid="token-9")}}, "JoinTokenUnknown"),
        ({"tokens": {"runners": join_token(bot="other")}}, "JoinTokenUnknown"),
        ({"bots": {}}, "IdentityInvalid"),
        ({"bots": {REF: bot({"uid": "bot-9"})}}, "IdentityReplaced"),
        ({"known_locks": (Lock(name="stop", bot=REF),)}, "Locked"),
        ({"known_locks": (Lock(name="stop", join_token=("ci", "runners")),)}, "Locked"),
    ):
        changed = DeskWorld(**change)  # type: ignore[arg-type]
        assert issue_refusal(changed, certificate) == reason, change
    assert issue_refusal(world, b"none") == "IdentityInvalid"


async def test_a_join_token_that_has_ended_lets_identities_live_to_their_end(world: DeskWorld) -> None:
    world.tokens["runners"] = join_token(expires="2027-01-01T12:30:00Z")
    certificate = shown(await world.join())
    results, _ = world.desk.issue(certificate, [request()], address="", now=NOW + 45 * MINUTE)
    assert isinstance(results[0], Issued)
    assert await refusal(world.join(now=NOW + 30 * MINUTE)) == "JoinTokenExpired"


# --- secrets --------------------------------------------------------------------------------------------------------


async def test_a_secret_gives_an_identity_that_is_renewed(world: DeskWorld) -> None:
    welcome = await world.join_by_secret()
    assert welcome.renewable
    assert welcome.identity.expires_at == NOW - BACKDATE + RENEWABLE_LIFE
    stored = world.ledger.stored["token-2"]
    assert (stored.id, stored.generation, stored.key) == (welcome.identity.instance, 1, welcome.identity.key)


@pytest.mark.parametrize("secret", ["", "f" * 31, "f" * 63, "f" * 65, "F" * 64, SECRET + "\n", "f" * 300])
async def test_only_the_secret_is_the_secret(world: DeskWorld, secret: str) -> None:
    assert (
        await refusal(world.desk.join(world.attempt(join_token="secret", proof={"secret": secret}), now=NOW)) == "SecretInvalid"
    )
    assert world.ledger.stored == {}


async def test_a_secret_is_used_once(world: DeskWorld) -> None:
    await world.join_by_secret()
    assert await refusal(world.join_by_secret(public_key=world.new_key())) == "SecretUsed"


async def test_who_lost_the_answer_gets_it_again_for_the_same_key(world: DeskWorld) -> None:
    first = await world.join_by_secret()
    again = await world.join_by_secret(now=NOW + MINUTE)
    assert (again.identity.instance, again.identity.generation) == (first.identity.instance, 1)
    renewed = await world.renew(again, NOW + HOUR)
    assert renewed.identity.generation == 2
    assert await refusal(world.join_by_secret()) == "SecretUsed"


async def test_an_answer_that_is_given_again_lengthens_nothing(world: DeskWorld) -> None:
    world.tokens["secret"] = secret_token(expires="2028-01-01T00:00:00Z")
    first = await world.join_by_secret()
    later = await world.join_by_secret(now=NOW + 20 * HOUR)
    assert later.identity.expires_at == first.identity.expires_at
    # The machine was off for too long: its secret, left on the disk, counts no more.
    assert await refusal(world.join_by_secret(now=first.identity.expires_at)) == "InstanceExpired"
    assert await refusal(world.join_by_secret(now=NOW + timedelta(days=20))) == "InstanceExpired"


async def test_an_answer_that_is_given_again_holds_no_credentials(world: DeskWorld) -> None:
    """The public key is no secret: who repeats it has not shown the private one."""
    world.tokens["secret"] = secret_token(expires="2028-01-01T00:00:00Z")
    first = await world.join_by_secret(outputs=(request(),))
    assert isinstance(first.results[0], Issued)
    again = await world.join_by_secret(outputs=(request(),))
    assert reasons(again) == ["AskWithIdentity"]
    key = world.new_key()
    once = await world.desk.renew(shown(again), key, [request()], address="", now=NOW + HOUR)
    assert isinstance(once.results[0], Issued)
    twice = await world.desk.renew(shown(again), key, [request()], address="", now=NOW + 13 * HOUR)
    assert reasons(twice) == ["AskWithIdentity"]
    assert twice.identity == once.identity
    results, _ = world.desk.issue(shown(twice), [request()], address="", now=NOW + 13 * HOUR)
    assert isinstance(results[0], Issued)


def reasons(welcome: Welcome) -> list[str]:
    return [each.reason for each in welcome.results if isinstance(each, MachinebotError)]


async def test_of_two_who_race_one_joins(world: DeskWorld) -> None:
    keys = [world.new_key(), world.new_key()]
    done = await asyncio.gather(*(world.join_by_secret(public_key=key) for key in keys), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["Denied", "Welcome"]


async def test_who_loses_the_race_at_the_write_is_told_that_the_secret_is_used(world: DeskWorld) -> None:
    winner = await world.join_by_secret()
    record = world.ledger.stored.pop("token-2")

    def quicker() -> None:
        world.ledger.stored["token-2"] = record

    world.ledger.before_write = quicker
    assert await refusal(world.join_by_secret(public_key=world.new_key())) == "SecretUsed"
    assert winner.identity.instance == record.id


async def test_a_join_token_that_changes_otherwise_meanwhile_is_written_to_all_the_same(world: DeskWorld) -> None:
    changes = iter((True, False))

    def changed() -> None:
        if next(changes):
            raise Conflict("Busy", "a condition was written")

    world.ledger.before_write = changed
    welcome = await world.join_by_secret()
    assert world.ledger.stored["token-2"].id == welcome.identity.instance


async def test_a_write_that_is_refused_for_another_reason_is_tried_again_by_the_client(world: DeskWorld) -> None:
    async def busy(*_: Any) -> None:
        raise Conflict("Busy", "the object changed")

    world.ledger.write = busy  # type: ignore[method-assign]
    assert await refusal(world.join_by_secret(), Conflict) == "Busy"


# --- renewals -------------------------------------------------------------------------------------------------------


async def test_a_day_of_renewals_counts_generations(world: DeskWorld) -> None:
    welcome = await world.join_by_secret()
    world.tokens["secret"] = replace(world.tokens["secret"], spec=secret_token(expires="2028-01-01T00:00:00Z").spec)
    for hours in range(12, 61, 12):
        welcome = await world.renew(welcome, NOW + timedelta(hours=hours))
    assert welcome.identity.generation == 6
    assert world.ledger.stored["token-2"].generation == 6
    assert welcome.identity.expires_at == NOW + timedelta(hours=60) - BACKDATE + RENEWABLE_LIFE


async def test_a_renewal_whose_answer_was_lost_is_answered_again(world: DeskWorld) -> None:
    first = await world.join_by_secret()
    key = world.new_key()
    once = await world.renew(first, NOW + HOUR, public_key=key)
    again = await world.renew(first, NOW + HOUR + MINUTE, public_key=key)
    assert (
        (again.identity.generation, again.identity.key) == (once.identity.generation, once.identity.key) == (2, once.identity.key)
    )
    assert world.ledger.locked == []


async def test_a_copied_identity_locks_the_instance_for_both(world: DeskWorld) -> None:
    first = await world.join_by_secret()
    await world.renew(first, NOW + HOUR)  # the thief, say
    assert await refusal(world.renew(first, NOW + HOUR + MINUTE)) == "GenerationMismatch"
    ((instance, message),) = world.ledger.locked
    assert instance == first.identity.instance
    assert "copy" in message
    assert await refusal(world.renew(first, NOW + HOUR + MINUTE)) == "Locked"
    assert issue_refusal(world, shown(first), NOW + HOUR) == "Locked"


async def test_a_copy_that_cannot_be_locked_is_told_in_the_audit_log(world: DeskWorld, caplog: pytest.LogCaptureFixture) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("ApiServerAway", "the API server does not answer")

    first = await world.join_by_secret()
    await world.renew(first, NOW + HOUR)
    world.ledger.lock = away  # type: ignore[method-assign]
    assert await refusal(world.renew(first, NOW + HOUR), Unavailable) == "ApiServerAway"
    assert [entry.message for entry in caplog.records if entry.levelno == logging.ERROR] == ["instance not locked"]


async def test_an_identity_that_was_replaced_gets_no_credentials(world: DeskWorld) -> None:
    first = await world.join_by_secret()
    second = await world.renew(first, NOW + HOUR)
    assert issue_refusal(world, shown(first), NOW + HOUR) == "IdentityReplaced"
    results, _ = world.desk.issue(shown(second), [request()], address="", now=NOW + HOUR)
    assert isinstance(results[0], Issued)


async def test_a_watch_that_lags_behind_refuses_nobody(world: DeskWorld) -> None:
    welcome = await world.join_by_secret()
    world.tokens["secret"] = secret_token()  # as it was before the join
    results, _ = world.desk.issue(shown(welcome), [request()], address="", now=NOW)
    assert isinstance(results[0], Issued)


async def test_what_is_not_renewed(world: DeskWorld) -> None:
    assert await refusal(world.renew(await world.join(), NOW)) == "NotRenewable"
    welcome = await world.join_by_secret()
    assert await refusal(world.renew(welcome, NOW + timedelta(hours=12))) == "JoinTokenExpired"
    assert await refusal(world.renew(welcome, NOW + timedelta(hours=25))) == "IdentityExpired"
    assert await refusal(world.desk.renew(shown(welcome), b"none", (), address="", now=NOW), Invalid) == "InvalidPublicKey"


@pytest.mark.parametrize("stored", ["another", None], ids=["another instance", "none"])
async def test_an_instance_that_is_not_the_stored_one(world: DeskWorld, stored: str | None) -> None:
    welcome = await world.join_by_secret()
    record = world.ledger.stored.pop("token-2")
    if stored is not None:
        world.ledger.stored["token-2"] = record.model_copy(update={"id": stored})
    assert await refusal(world.renew(welcome, NOW)) == "InstanceUnknown"
    assert world.ledger.locked == []


async def test_two_renewals_at_once_give_one_identity(world: DeskWorld) -> None:
    welcome = await world.join_by_secret()
    key = world.new_key()
    done = await asyncio.gather(*(world.renew(welcome, NOW, public_key=key) for _ in range(2)), return_exceptions=True)
    assert {getattr(each, "identity", None) and each.identity.generation for each in done if not isinstance(each, Conflict)} == {
        2
    }
    assert world.ledger.stored["token-2"].generation == 2


# --- lives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bots", "authority", "life"),
    [
        pytest.param({"maxSessionTTL": "10m"}, {}, timedelta(minutes=10), id="the bot's"),
        pytest.param({}, {"maxTTL": "20m"}, timedelta(minutes=20), id="the authority's"),
        pytest.param({"maxSessionTTL": "24h"}, {"maxTTL": "24h"}, DELEGATED_LIFE, id="its own"),
    ],
)
async def test_an_identity_outlives_no_limit(bots: Any, authority: Any, life: timedelta) -> None:
    world = DeskWorld(bots={REF: bot(**bots)}, authority=authority)
    assert (await world.join()).identity.expires_at == NOW - BACKDATE + life


async def test_an_identity_outlives_no_ca(world: DeskWorld) -> None:
    ending = replace(ca(Purpose.BOT), not_after=NOW + 3 * HOUR)
    world.signer.update(spec(), all_generations() | {Purpose.BOT: (ending,)}, ISSUER)
    assert (await world.join_by_secret()).identity.expires_at == NOW + 3 * HOUR


async def test_an_identity_with_no_life_left_is_not_given(world: DeskWorld) -> None:
    world.bots = {REF: bot()}
    world.bots[REF] = world.bots[REF].model_copy(
        update={"spec": world.bots[REF].spec.model_copy(update={"max_session_ttl": "4m"})}
    )
    assert await refusal(world.join()) == "LifetimeTooShort"


# --- the audit log --------------------------------------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the audit log says, without what every record has."""
    plain = set(vars(logging.makeLogRecord({})))
    records = [record for record in caplog.records if record.name == "machinebot.audit"]
    return [
        {"event": record.message, **{k: v for k, v in vars(record).items() if k not in plain | {"message"}}} for record in records
    ]


async def test_the_audit_log_says_who_joined_how_and_what_was_issued(world: DeskWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "machinebot.audit")
    welcome = await world.join(outputs=(request(),), address="192.0.2.7")
    (entry,) = told(caplog)
    issued = welcome.results[0]
    assert isinstance(issued, Issued)
    assert entry["event"] == "joined"
    assert (entry["bot"], entry["method"], entry["address"]) == ("deployer", "kubernetes", "192.0.2.7")
    assert entry["subject"] == "system:serviceaccount:ci:web"
    assert entry["outputs"][0]["serial"] == str(issued.serial)
    assert entry["outputs"][0]["names"] == {"logins": ["deploy"]}
    json.dumps(entry)


async def test_the_audit_log_says_what_was_refused_and_no_secret(world: DeskWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "machinebot.audit")
    await refusal(world.desk.join(world.attempt(join_token="secret", proof={"secret": "g" * 64}), now=NOW))
    welcome = await world.join_by_secret(outputs=(request(roles=["root"]),))
    await world.renew(welcome, NOW)
    await refusal(world.renew(welcome, NOW))
    entries = told(caplog)
    assert [entry["event"] for entry in entries] == ["join refused", "joined", "renewed", "instance locked"]
    assert entries[0]["reason"] == "SecretInvalid"
    assert entries[1]["outputs"] == [{"output": "out", "reason": "RoleNotOfBot"}]
    text = json.dumps(entries)
    assert SECRET not in text
    assert "g" * 64 not in text
    assert "PRIVATE" not in text


async def test_a_genuine_proof_that_no_rule_lets_in_is_told_whole_in_the_audit_log_alone(
    world: DeskWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.tokens["runners"] = join_token(kubernetes={"allow": [{"serviceAccount": "ci:other"}]})
    with pytest.raises(Denied) as caught:
        await world.join()
    assert "ci:" not in caught.value.message
    (entry,) = told(caplog)
    assert (entry["reason"], entry["subject"]) == ("RulesNotMatched", "system:serviceaccount:ci:web")
    assert entry["attributes"] == {"serviceAccount": "ci:web", "pod": "web-1"}


async def test_a_proof_with_a_challenge_must_contain_one_of_ours(world: DeskWorld) -> None:
    world.tokens["aws"] = join_token("aws", "token-3", iam={"allow": [{"account": "123456789012"}]})
    assert await refusal(world.join(join_token="aws", proof={"request": "eA=="})) == "ChallengeInvalid"
    offer = world.desk.offer("ci", "aws", world.public_key, now=NOW)
    reason = await refusal(world.join(join_token="aws", proof={"request": "eA=="}, challenge=offer.challenge))
    assert reason not in ("ChallengeInvalid", "ProofUnreadable")
