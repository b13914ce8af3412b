"""The authority of another cluster over real HTTPS: what is asked there, what of the answers is taken, and what a bad one does."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from machinebot.authority import x509
from machinebot.authority.interface import REJOIN, Authority
from machinebot.authority.profiles import BOT, Stamp, Subject, X509Request, new_serial
from machinebot.authority.signing import Signer
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, Unavailable
from machinebot.policy.credential import BotIdentity, BotRef, Purpose, TrustBundle
from machinebot.policy.grants import MAX_NAMES
from machinebot.policy.locks import Lock
from machinebot.protocol import convert
from machinebot.protocol.messages import IssueRequest as IssueMessage
from machinebot.reconcile import holding
from machinebot.reconcile.connection import MAX_PAUSE, PAUSE, SLOTS
from machinebot.reconcile.holding import NO_TERMS, Terms
from machinebot.reconcile.remote import RemoteAuthority, status_of, told_before
from machinebot.resources.authority import MAX_CA_BUNDLE, MachineAuthority, MachineAuthoritySpec, MachineAuthorityStatus, Remote
from machinebot.resources.output import Granted, GrantedName
from support.issuing import assembled
from support.waiting import eventually_async
from unit.authority.builders import (
    CLUSTER,
    DAY,
    HOUR,
    ISSUER,
    NOW,
    REF,
    World,
    all_generations,
    bot,
    der,
    request,
    role,
    spec,
    ssh_of,
)
from unit.client.server import Asked, Said, Server, identity_ca, server_context, serving
from unit.reconcile.builders import parsed

Json = dict[str, Any]
Answer = Callable[[Asked], Said]

CA = identity_ca()
OTHER_CA = identity_ca()
BOTS = identity_ca(Purpose.BOT)
UID = "sa-1"
SECOND = timedelta(seconds=1)
TRUST = "/authorities/default/v1/trust"
SERVER_CA = "/trust/identity-ca"


def service_account_token(**changes: Any) -> str:
    """What an API server makes for a ServiceAccount; who verifies it is elsewhere."""
    inside = {"namespace": "ci", "serviceaccount": {"name": "machinebot-deployer", "uid": UID}, **changes}
    return assembled({"alg": "RS256", "kid": "a"}, {"kubernetes.io": inside}, lambda _: b"signature")


TOKEN = service_account_token()


def refusal(status: int, reason: str, message: str = "no", **headers: str) -> Said:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Said(status, json.dumps({"reason": reason, "message": message}).encode(), named)


class Elsewhere:
    """The other cluster: its CAs sign for real; a test may put another answer to any path."""

    def __init__(self) -> None:
        self.world = World()
        self.signer = Signer("default", spec(), all_generations(), ISSUER, self.world)
        self.trust = self.signer.trust
        self.identity: Json = {"namespace": REF.namespace, "bot": REF.name}
        self.life = HOUR
        self.paths: dict[str, Answer] = {
            TRUST: lambda _: Said(body=convert.trust_answer(self.trust).json_bytes()),
            SERVER_CA: lambda _: Said(body=CA.anchor.public),
            "/v1/join": self.join,
            "/v1/issue": self.issue,
        }

    def __call__(self, asked: Asked) -> Said:
        found = self.paths.get(asked.path)
        return refusal(404, "NotFound") if found is None else found(asked)

    def join(self, asked: Asked) -> Said:
        return self.joined(base64.b64decode(json.loads(asked.body)["publicKey"]))

    def joined(self, public_key: bytes) -> Said:
        """An identity for a public key."""
        key = load_der_public_key(public_key)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        begin = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
        wanted = X509Request(
            profile=BOT,
            stamp=Stamp(new_serial(), begin, begin + self.life),
            public_key=key,
            subject=Subject((CLUSTER,), "bot:ci:deployer", f"spiffe://{CLUSTER}/ns/ci/bot/deployer", note="{}"),
        )
        identity = {
            "instance": "11111111-1111-4111-8111-111111111111",
            "generation": 1,
            "certificate": x509.sign(wanted, BOTS).decode(),
            "notAfter": "2099-01-01T00:00:00Z",
            "renewable": False,
            **self.identity,
        }
        return Said(body=self._with_trust({"identity": identity, "outputs": []}))

    def issue(self, asked: Asked) -> Said:
        (output,) = IssueMessage.model_validate_json(asked.body).outputs
        try:
            issued = self.signer.issue(self.world.bots[REF], convert.issue_request(output), now=NOW)
        except MachinebotError as error:
            return Said(body=self._with_trust({"outputs": [convert.refused(output.name, error).model_dump(mode="json")]}))
        credential = json.loads(convert.credential(issued).json_bytes())
        return Said(body=self._with_trust({"outputs": [{"name": output.name, "credential": credential}]}))

    def change(self, path: str, edit: Callable[[Json], None]) -> None:
        """Have an honest answer edited."""
        honest = self.paths[path]

        def edited(asked: Asked) -> Said:
            said = honest(asked)
            body = json.loads(said.body)
            edit(body)
            return Said(body=json.dumps(body).encode())

        self.paths[path] = edited

    def _with_trust(self, body: Json) -> bytes:
        return json.dumps({**body, "trust": json.loads(convert.trust_answer(self.trust).json_bytes())}).encode()


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def server(elsewhere: Elsewhere) -> Iterator[Server]:
    with serving(elsewhere, server_context(CA, clients=BOTS.anchor.public)) as running:
        yield running


def written(server: Server, *, remote: Mapping[str, Any] | None = None, **fields: Any) -> MachineAuthoritySpec:
    where = {"url": server.url, "caBundle": CA.anchor.public.decode(), **(remote or {})}
    return MachineAuthoritySpec.model_validate({"clusterName": CLUSTER, "remote": where, **fields})


@pytest.fixture
def here() -> World:
    return World()


@pytest.fixture
def told() -> list[str]:
    """One entry for each time that the trust bundle was told to be another one."""
    return []


@pytest.fixture
def authority(server: Server, here: World, told: list[str]) -> RemoteAuthority:
    return RemoteAuthority("remote", written(server), here, changed=lambda: told.append("changed"))


async def joined(authority: RemoteAuthority, now: datetime = NOW, token: str = TOKEN) -> BotIdentity:
    return await authority.join(REF, token, expected_uid=UID, now=now)


async def failed(doing: Any, kind: type[MachinebotError] = Denied) -> MachinebotError:
    with pytest.raises(kind) as caught:
        await doing
    return caught.value


def paths(server: Server) -> list[str]:
    return [asked.path for asked in server.seen]


def test_it_is_an_authority_and_needs_to_be_remote(authority: RemoteAuthority, here: World) -> None:
    known: Authority = authority
    assert (known.name, known.join_method) == ("remote", "remote")
    with pytest.raises(ValueError, match="not remote"):
        RemoteAuthority("remote", spec(), here)


# --- trust --------------------------------------------------------------------------------------------------------------


async def test_trust_is_what_the_other_side_told(authority: RemoteAuthority, elsewhere: Elsewhere, told: list[str]) -> None:
    with pytest.raises(Unavailable, match="AuthorityNotReady"):
        authority.trust()
    await authority.refresh(NOW)
    assert authority.trust() == elsewhere.trust
    assert authority.server_ca == CA.anchor.public
    assert told == []


async def test_another_authority_there_is_asked_for_by_its_name(here: World, server: Server, elsewhere: Elsewhere) -> None:
    elsewhere.paths["/authorities/prod/v1/trust"] = elsewhere.paths[TRUST]
    authority = RemoteAuthority("remote", written(server, remote={"authority": "prod"}), here)
    await authority.refresh(NOW)
    assert paths(server) == ["/authorities/prod/v1/trust", SERVER_CA]


async def test_rotation_of_the_ca_of_the_server_is_followed(here: World, server: Server, elsewhere: Elsewhere) -> None:
    """Two rotations later nothing that a person wrote is good any more."""
    authority = RemoteAuthority("remote", written(server), here)
    elsewhere.paths[SERVER_CA] = lambda _: Said(body=CA.anchor.public + OTHER_CA.anchor.public)
    await authority.refresh(NOW)
    known = authority.server_ca
    with serving(elsewhere, server_context(OTHER_CA)) as later:
        moved = RemoteAuthority("remote", written(later), here, server_ca=known)
        elsewhere.paths[SERVER_CA] = lambda _: Said(body=OTHER_CA.anchor.public)
        await moved.refresh(NOW)
        assert moved.server_ca == OTHER_CA.anchor.public
        unknowing = RemoteAuthority("remote", written(later), here)
        assert (await failed(unknowing.refresh(NOW), Unavailable)).reason == "JoinAPIUntrusted"


STRANGE = {
    "of somebody else": lambda _: Said(body=OTHER_CA.anchor.public),
    "none": lambda _: Said(body=b"nothing"),
    "refused": lambda _: refusal(404, "AuthorityMissing"),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
async def test_cas_that_have_nothing_to_do_with_what_is_written_are_not_learnt(
    authority: RemoteAuthority, elsewhere: Elsewhere, answer: Answer
) -> None:
    elsewhere.paths[SERVER_CA] = answer
    await authority.refresh(NOW)
    assert authority.server_ca == b""


BAD_TRUST: dict[str, tuple[Callable[[Json], None], type[MachinebotError], str]] = {
    "another cluster": (lambda body: body.update(clusterName="other.test"), Denied, "WrongClusterName"),
    "no anchors": (lambda body: body.update(anchors=[]), Unavailable, "JoinAPIAnswerUnreadable"),
    "an unknown state": (lambda body: body["anchors"][0].update(state="New"), Unavailable, "JoinAPIAnswerUnreadable"),
    "an end that is none": (lambda body: body["anchors"][0].update(notAfter="soon"), Unavailable, "JoinAPIAnswerUnreadable"),
    "more than status holds": (lambda body: body.update(anchors=body["anchors"] * 20), Unavailable, "JoinAPIAnswerUnreadable"),
    "a very long key": (lambda body: body["anchors"][0].update(public="x" * 9000), Unavailable, "JoinAPIAnswerUnreadable"),
}


@pytest.mark.parametrize(("edit", "kind", "reason"), BAD_TRUST.values(), ids=BAD_TRUST)
async def test_trust_bundles_that_are_not_taken(
    authority: RemoteAuthority, elsewhere: Elsewhere, edit: Any, kind: type[MachinebotError], reason: str
) -> None:
    await authority.refresh(NOW)
    elsewhere.change(TRUST, edit)
    assert (await failed(authority.refresh(NOW), kind)).reason == reason
    assert authority.trust() == elsewhere.trust


async def test_ca_that_is_missing_in_an_answer_stays_and_one_that_was_replaced_does_not(
    authority: RemoteAuthority, elsewhere: Elsewhere
) -> None:
    await authority.refresh(NOW)
    full = elsewhere.trust
    other = replace(full.of(Purpose.IDENTITY)[0], id="later")
    ssh = full.of(Purpose.SSH_USER)
    elsewhere.trust = replace(full, anchors=(other, *full.of(Purpose.BOT)))
    await authority.refresh(NOW)
    assert authority.trust().of(Purpose.SSH_USER) == ssh
    assert authority.trust().of(Purpose.IDENTITY) == (other,)
    assert [each.purpose for each in authority.trust().anchors] == list(Purpose)


async def test_other_trust_that_comes_with_an_issue_is_told_once(
    authority: RemoteAuthority, elsewhere: Elsewhere, told: list[str]
) -> None:
    await authority.refresh(NOW)
    identity = await joined(authority)
    await authority.issue(identity, request(), now=NOW)
    assert told == []
    elsewhere.trust = replace(elsewhere.trust, issuer="https://elsewhere.test")
    for _ in range(2):
        await authority.issue(identity, request(), now=NOW)
    assert told == ["changed"]
    assert authority.trust().issuer == "https://elsewhere.test"


# --- what is kept over a restart ----------------------------------------------------------------------------------------


def kept(bundle: TrustBundle, *, observed: int = 2, **changes: Any) -> MachineAuthority:
    status = MachineAuthorityStatus(observed_generation=observed, **status_of(bundle)).model_copy(update=changes)
    where = {"clusterName": CLUSTER, "remote": {"url": "https://a.test"}}
    body = {"metadata": {"name": "remote", "uid": "u", "generation": 2}, "spec": where, "status": status.wire()}
    return MachineAuthority.model_validate(body)


def test_trust_is_read_back_from_status(elsewhere: Elsewhere) -> None:
    assert told_before(kept(elsewhere.trust)) == elsewhere.trust


def test_status_that_is_about_something_else_is_not_read_back(elsewhere: Elsewhere) -> None:
    public = kept(elsewhere.trust).status.authorities[0]
    assert told_before(kept(elsewhere.trust, observed=1)) is None
    assert told_before(kept(elsewhere.trust, issuer=None)) is None
    assert told_before(kept(elsewhere.trust, authorities=())) is None
    for changes in ({"public": None}, {"purpose": "coffee"}, {"state": "New"}, {"not_after": "soon"}):
        assert told_before(kept(elsewhere.trust, authorities=(public.model_copy(update=changes),))) is None


def test_cas_of_a_server_fit_into_status() -> None:
    assert len(CA.anchor.public) * 16 < MAX_CA_BUNDLE


# --- joining ------------------------------------------------------------------------------------------------------------


async def test_bot_joins_as_the_one_of_the_same_name(authority: RemoteAuthority, server: Server) -> None:
    identity = await joined(authority)
    assert (identity.bot, identity.authority, identity.joined_at) == (REF, "remote", NOW)
    assert (identity.service_account.name, identity.service_account.uid) == ("machinebot-deployer", UID)
    (asked,) = server.seen
    body = json.loads(asked.body)
    assert asked.peer is None
    assert (body["namespace"], body["joinToken"], body["proof"]) == ("ci", "deployer", {"token": TOKEN})


@pytest.mark.parametrize(
    ("template", "name"),
    [
        pytest.param("{{ bot.name }}", "deployer", id="the default"),
        pytest.param("b-{{bot.name}}", "b-deployer", id="with something in front"),
        pytest.param("cluster-b", "cluster-b", id="one for all"),
    ],
)
def test_name_of_the_join_token(template: str, name: str) -> None:
    assert Remote.model_validate({"url": "https://a.test", "joinToken": template}).join_token_of("deployer") == name


async def test_identity_counts_from_now_whatever_the_clock_there_says(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    elsewhere.life = timedelta(minutes=31)
    assert (await joined(authority)).expires_at == NOW + timedelta(minutes=30)


async def test_second_join_shows_the_first_identity_and_has_another_key(authority: RemoteAuthority, server: Server) -> None:
    first, second = await joined(authority), await joined(authority, NOW + SECOND)
    assert first != second
    keys = [json.loads(asked.body)["publicKey"] for asked in server.seen]
    assert keys[0] != keys[1]
    assert [asked.peer is None for asked in server.seen] == [True, False]


async def test_identity_that_is_over_is_not_shown(authority: RemoteAuthority, server: Server) -> None:
    identity = await joined(authority)
    await joined(authority, identity.expires_at)
    assert [asked.peer for asked in server.seen] == [None, None]


async def test_identity_that_is_refused_is_no_hindrance(authority: RemoteAuthority, server: Server, elsewhere: Elsewhere) -> None:
    await joined(authority)
    honest = elsewhere.paths["/v1/join"]
    elsewhere.paths["/v1/join"] = lambda asked: honest(asked) if asked.peer is None else refusal(403, "IdentityRefused")
    assert await joined(authority, NOW + SECOND)
    elsewhere.paths["/v1/join"] = lambda asked: honest(asked) if asked.peer is None else refusal(403, "Locked")
    assert (await failed(joined(authority, NOW + SECOND))).reason == "Locked"
    assert len(server.seen) == 4


async def test_other_bot_than_was_meant_is_refused(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    for other in ({"namespace": "prod"}, {"bot": "other"}):
        elsewhere.identity = {"namespace": "ci", "bot": "deployer", **other}
        error = await failed(joined(authority))
        assert (error.reason, "remote.joinToken" in error.message) == ("WrongBot", True)


@pytest.mark.parametrize("uid", ["", "sa-2"])
async def test_service_account_of_the_same_name_is_another_one(authority: RemoteAuthority, server: Server, uid: str) -> None:
    error = await failed(authority.join(REF, TOKEN, expected_uid=uid, now=NOW))
    assert (error.reason, server.seen) == ("ServiceAccountReplaced", [])


TOKENS = {
    "no JWT": ("opaque", "TokenUnreadable"),
    "of a user": (assembled({"alg": "RS256", "kid": "a"}, {"sub": "alice"}, lambda _: b"x"), "NotAServiceAccount"),
    "no object": (assembled({"alg": "RS256", "kid": "a"}, b"[]", lambda _: b"x"), "NotAServiceAccount"),
    "without an account": (service_account_token(serviceaccount=None), "NotAServiceAccount"),
    "of another namespace": (service_account_token(namespace="prod"), "NotAServiceAccount"),
}


@pytest.mark.parametrize(("token", "reason"), TOKENS.values(), ids=TOKENS)
async def test_tokens_that_the_own_api_server_would_not_make(
    authority: RemoteAuthority, server: Server, token: str, reason: str
) -> None:
    error = await failed(joined(authority, token=token))
    assert (error.reason, server.seen) == (reason, [])
    assert token not in str(error)


async def test_identity_for_another_key_is_not_kept(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    elsewhere.paths["/v1/join"] = lambda _: elsewhere.joined(der(other))
    assert (await failed(joined(authority), Unavailable)).reason == "JoinAPIAnswerUnreadable"
    elsewhere.identity["certificate"] = "none"
    assert (await failed(joined(authority), Unavailable)).reason == "JoinAPIAnswerUnreadable"


async def test_refusal_says_whose_it_is(authority: RemoteAuthority, elsewhere: Elsewhere, server: Server) -> None:
    elsewhere.paths["/v1/join"] = lambda _: refusal(403, "TokenNotBound", "set unbound")
    assert (await failed(joined(authority))).message == f"{server.url} says: set unbound"
    elsewhere.paths["/v1/join"] = lambda _: refusal(400, "InvalidPublicKey", "y" * 1024)
    assert len((await failed(joined(authority), Invalid)).message) == 1024


async def test_who_was_quicker_there_is_nobody_of_this_cluster(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    elsewhere.paths["/v1/join"] = lambda _: refusal(409, "Busy")
    error = await failed(joined(authority), Unavailable)
    assert not isinstance(error, Conflict)


# --- issuing ------------------------------------------------------------------------------------------------------------


async def test_credential_is_what_the_other_side_signed(authority: RemoteAuthority, server: Server) -> None:
    issued = await authority.issue(await joined(authority), request(), now=NOW)
    assert ssh_of(issued).valid_principals == [b"deploy"]
    assert issued.grant.plain(next(iter(issued.grant.names))) == ("deploy",)
    assert issued.lifetime.reduced_by is None
    asked = server.seen[-1]
    assert (asked.path, asked.peer is None) == ("/v1/issue", False)


async def test_roles_and_life_are_those_that_this_cluster_allows(server: Server, elsewhere: Elsewhere, here: World) -> None:
    elsewhere.world.bots[REF] = bot(roles=["access", "more"])
    elsewhere.world.known_roles["more"] = role("more", allow={"logins": ["root"]})
    authority = RemoteAuthority("remote", written(server, maxTTL="2h"), here)
    identity = await joined(authority)
    issued = await authority.issue(identity, request(), now=NOW)
    assert issued.grant.roles == ("access",)
    assert issued.not_after - issued.not_before == 2 * HOUR
    assert issued.lifetime.reduced_by == "the authority's maxTTL (2h)"
    here.bots[REF] = bot(maxSessionTTL="1h")
    issued = await authority.issue(identity, request(), now=NOW)
    assert issued.lifetime.reduced_by == "the bot's maxSessionTTL (1h)"
    elsewhere.world.known_roles["access"] = role(options={"maxSessionTTL": "30m"})
    issued = await authority.issue(identity, request(), now=NOW)
    assert issued.lifetime.reduced_by == "role access (maxSessionTTL 30m)"
    assert (await failed(authority.issue(identity, request(roles=["more"]), now=NOW))).reason == "RoleNotOfBot"


LOCKS = {
    "bot": Lock(name="l", bot=REF),
    "role": Lock(name="l", role="access"),
}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
async def test_locks_of_this_cluster_count_before_anything_is_asked(
    authority: RemoteAuthority, here: World, server: Server, lock: Lock
) -> None:
    identity = await joined(authority)
    here.known_locks = (lock,)
    assert (await failed(authority.issue(identity, request(), now=NOW))).reason == "Locked"
    with pytest.raises(Denied, match="Locked"):
        authority.plan(bot(), request(), now=NOW)
    assert len(server.seen) == 1


def test_plan_is_known_elsewhere_alone(authority: RemoteAuthority) -> None:
    authority.check_bot(bot(roles=["unknown"]))
    assert authority.plan(bot(roles=["unknown"]), request(), now=NOW) is None
    with pytest.raises(Denied, match="BotDeleting"):
        authority.plan(bot({"deletionTimestamp": "2027-01-01T00:00:00Z"}), request(), now=NOW)


def test_a_namespace_that_the_authority_is_not_for_asks_nobody(authority: RemoteAuthority, server: Server) -> None:
    authority.update(authority.spec.model_copy(update={"namespaces": ("prod", "c")}))
    for check in (lambda: authority.check_bot(bot()), lambda: authority.plan(bot(), request(), now=NOW)):
        with pytest.raises(Denied, match="AuthorityNotForNamespace"):
            check()
    assert server.seen == []


async def test_identities_that_are_over(authority: RemoteAuthority, here: World, server: Server) -> None:
    identity = await joined(authority)
    for now, reason in (
        (identity.expires_at - SECOND, None),
        (identity.expires_at, "IdentityExpired"),
        (NOW - timedelta(minutes=2), "IdentityExpired"),
    ):
        if reason is None:
            assert await authority.issue(identity, request(), now=now)
        else:
            assert (await failed(authority.issue(identity, request(), now=now))).reason == reason
    authority.forget(REF)
    assert (await failed(authority.issue(identity, request(), now=NOW))).reason == "IdentityReplaced"
    again = await joined(authority)
    authority.update(authority.spec)
    assert await authority.issue(again, request(), now=NOW)
    authority.update(written(server, remote={"joinToken": "other"}))
    assert (await failed(authority.issue(again, request(), now=NOW))).reason == "IdentityReplaced"
    assert {"IdentityReplaced", "IdentityExpired", "IdentityInvalid", "IdentityRefused", "JoinTokenUnknown"} <= REJOIN
    del here.bots[REF]
    assert (await failed(authority.issue(again, request(), now=NOW))).reason == "BotNotFound"


async def test_spec_that_leads_elsewhere_forgets_whom_to_trust(server: Server, here: World) -> None:
    authority = RemoteAuthority("remote", written(server), here)
    await authority.refresh(NOW)
    assert authority.server_ca
    authority.update(written(server, maxTTL="1h"))
    assert authority.server_ca
    authority.update(written(server, remote={"url": "https://elsewhere.test"}))
    assert authority.server_ca == b""


async def test_refused_output_is_refused_here(authority: RemoteAuthority, elsewhere: Elsewhere, server: Server) -> None:
    identity = await joined(authority)
    elsewhere.world.known_locks = (Lock(name="stolen", bot=REF, message="a laptop"),)
    error = await failed(authority.issue(identity, request(), now=NOW))
    assert error.reason == "Locked"
    assert error.message.startswith(f"{server.url} says: ")
    assert "stolen" in error.message


def problem(reason: str) -> Callable[[Json], None]:
    return lambda body: body["outputs"][0].update(credential=None, problem={"reason": reason, "message": "m\nm"})


def credential(**changes: Any) -> Callable[[Json], None]:
    return lambda body: body["outputs"][0]["credential"].update(changes)


WRONG: dict[str, tuple[Callable[[Json], None], str]] = {
    "the CA is about to end": (problem("CAEnding"), "CAEnding"),
    "a reason that is none": (problem("no reason\n"), "JoinAPIAnswerUnreadable"),
    "no output": (lambda body: body.update(outputs=[]), "JoinAPIAnswerUnreadable"),
    "two outputs": (lambda body: body.update(outputs=body["outputs"] * 2), "JoinAPIAnswerUnreadable"),
    "another output": (lambda body: body["outputs"][0].update(name="other"), "JoinAPIAnswerUnreadable"),
    "neither": (lambda body: body["outputs"][0].update(credential=None), "JoinAPIAnswerUnreadable"),
    "a date that is none": (credential(notAfter="soon"), "JoinAPIAnswerUnreadable"),
    "a serial that is none": (credential(serial="x"), "JoinAPIAnswerUnreadable"),
    "a name that status has no room for": (credential(names={"logins": ["x" * 1000]}), "JoinAPIAnswerUnreadable"),
    "more names than status has room for": (
        credential(names={"logins": [f"u{number}" for number in range(MAX_NAMES + 1)]}),
        "JoinAPIAnswerUnreadable",
    ),
    "no SSH certificate": (credential(sshCertificate=None), "IssuedOtherThanAsked"),
    "a token on top": (credential(token="a.b.c"), "IssuedOtherThanAsked"),
    "another CA": (credential(authorities={"identity": "1", "database": "2"}), "IssuedOtherThanAsked"),
    "a longer life": (credential(notAfter="2027-01-03T12:00:00Z"), "IssuedOtherThanAsked"),
    "no life": (credential(notAfter="2026-12-01T12:00:00Z"), "IssuedOtherThanAsked"),
    "another role": (credential(roles=["access", "root"]), "IssuedOtherThanAsked"),
}


@pytest.mark.parametrize(("edit", "reason"), WRONG.values(), ids=WRONG)
async def test_answers_that_nothing_is_stored_from(
    authority: RemoteAuthority, elsewhere: Elsewhere, edit: Any, reason: str
) -> None:
    identity = await joined(authority)
    elsewhere.change("/v1/issue", edit)
    assert (await failed(authority.issue(identity, request(), now=NOW), Unavailable)).reason == reason


async def test_trust_of_another_cluster_that_comes_along_is_refused(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    identity = await joined(authority)
    elsewhere.trust = replace(elsewhere.trust, cluster_name="other.test")
    assert (await failed(authority.issue(identity, request(), now=NOW))).reason == "WrongClusterName"


# --- outages ------------------------------------------------------------------------------------------------------------


async def test_where_no_answer_came_nobody_asks_for_a_while(
    authority: RemoteAuthority, server: Server, elsewhere: Elsewhere
) -> None:
    identity = await joined(authority)
    elsewhere.paths["/v1/issue"] = lambda _: Said(raw=lambda connection: connection.close())
    assert (await failed(authority.issue(identity, request(), now=NOW), Unavailable)).reason == "JoinAPIUnreachable"
    asked = len(server.seen)
    error = await failed(authority.refresh(NOW + PAUSE - SECOND), Unavailable)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.retry_after, len(server.seen)) == ("JoinAPIUnreachable", 1, asked)
    await authority.refresh(NOW + PAUSE)
    assert len(server.seen) > asked


async def test_identity_is_doubted_where_the_connection_ends(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    identity = await joined(authority)
    honest, elsewhere.paths["/v1/issue"] = elsewhere.paths["/v1/issue"], lambda _: Said(raw=lambda each: each.close())
    await failed(authority.issue(identity, request(), now=NOW), Unavailable)
    elsewhere.paths["/v1/issue"] = honest
    later = NOW + PAUSE
    assert (await failed(authority.issue(identity, request(), now=later))).reason == "IdentityReplaced"
    assert await authority.issue(await joined(authority, later), request(), now=later)


async def test_clock_that_was_set_back_waits_for_nothing(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    honest, elsewhere.paths[TRUST] = elsewhere.paths[TRUST], lambda _: Said(raw=lambda each: each.close())
    await failed(authority.refresh(NOW), Unavailable)
    elsewhere.paths[TRUST] = honest
    await authority.refresh(NOW - DAY)
    await authority.refresh(NOW)


@pytest.mark.parametrize(
    ("seconds", "pause"),
    [pytest.param(3, timedelta(seconds=3), id="short"), pytest.param(900, MAX_PAUSE, id="long")],
)
async def test_pause_that_the_other_side_asks_for_is_kept(
    authority: RemoteAuthority, server: Server, elsewhere: Elsewhere, seconds: int, pause: timedelta
) -> None:
    elsewhere.paths["/v1/join"] = lambda _: refusal(429, "TooManyRequests", Retry_After=str(seconds))
    error = await failed(joined(authority), Unavailable)
    assert isinstance(error, Unavailable)
    assert error.retry_after == seconds
    waiting = await failed(authority.refresh(NOW + pause - SECOND), Unavailable)
    assert isinstance(waiting, Unavailable)
    assert (waiting.retry_after, len(server.seen)) == (seconds, 1)
    await authority.refresh(NOW + pause)


async def test_what_only_one_meets_is_no_pause_for_others(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    elsewhere.paths["/v1/join"] = lambda _: refusal(503, "IssuerAway")
    assert (await failed(joined(authority), Unavailable)).reason == "IssuerAway"
    await authority.refresh(NOW)


async def test_ca_bundle_that_cannot_be_read_is_a_mistake_of_people(server: Server, here: World) -> None:
    bundle = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    authority = RemoteAuthority("remote", written(server, remote={"caBundle": bundle}), here)
    assert (await failed(authority.refresh(NOW), Invalid)).reason == "InvalidCA"


async def test_without_a_ca_bundle_the_cas_of_the_system_count(server: Server, here: World) -> None:
    authority = RemoteAuthority("remote", written(server, remote={"caBundle": None}), here)
    assert (await failed(authority.refresh(NOW), Unavailable)).reason == "JoinAPIUntrusted"
    assert server.seen == []


async def test_server_that_the_system_trusts_is_not_asked_for_its_cas(
    server: Server, here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(CA.anchor.public)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    authority = RemoteAuthority("remote", written(server, remote={"caBundle": None}), here)
    await authority.refresh(NOW)
    assert (paths(server), authority.server_ca) == ([TRUST], b"")


async def test_identity_is_kept_where_the_other_side_is_busy(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    identity = await joined(authority)
    honest, elsewhere.paths["/v1/issue"] = elsewhere.paths["/v1/issue"], lambda _: refusal(503, "JoinsNotReady")
    assert (await failed(authority.issue(identity, request(), now=NOW), Unavailable)).reason == "JoinsNotReady"
    elsewhere.paths["/v1/issue"] = honest
    assert await authority.issue(identity, request(), now=NOW)


async def test_no_more_requests_at_a_time_than_there_are_threads_for(authority: RemoteAuthority, elsewhere: Elsewhere) -> None:
    honest, release = elsewhere.paths["/v1/join"], threading.Event()
    lock = threading.Lock()
    inside: list[int] = [0, 0]

    def slow(asked: Asked) -> Said:
        with lock:
            inside[0] += 1
            inside[1] = max(inside)
        release.wait(20)
        with lock:
            inside[0] -= 1
        return honest(asked)

    elsewhere.paths["/v1/join"] = slow
    bots = [BotRef("ci", f"bot-{number}") for number in range(SLOTS + 4)]
    work = [asyncio.create_task(authority.join(each, TOKEN, expected_uid=UID, now=NOW)) for each in bots]

    async def full() -> bool:
        return inside[0] == SLOTS

    await eventually_async("every thread is busy", full)
    release.set()
    results = await asyncio.gather(*work, return_exceptions=True)
    assert {getattr(each, "reason", "") for each in results} == {"WrongBot"}, results
    assert inside == [0, SLOTS]


# --- what the Secret tells ----------------------------------------------------------------------------------------------


def test_terms_are_kept_in_the_secret_and_bounded() -> None:
    terms = Terms(granted=Granted(roles=("access",), logins=(GrantedName(name="deploy", role="access"),)), reduced_by="a limit")
    assert holding._terms(noted(terms)[holding.TERMS]) == terms
    long = Terms(granted=Granted(logins=tuple(GrantedName(name="x" * 250, role="y" * 250) for _ in range(256))))
    assert noted(long)[holding.TERMS] == "{}"
    assert holding.TERMS not in noted(None)


def noted(terms: Terms | None) -> dict[str, str]:
    return holding.annotations(parsed(), inputs="i", digest="d", authorities={}, reason="Requested", fulfilled=None, terms=terms)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"granted": {"roles": "x"}}', "x" * 100_000])
def test_terms_that_are_none_tell_nothing(text: str) -> None:
    assert holding._terms(text) == NO_TERMS


async def test_terms_of_an_issue_name_the_roles(authority: RemoteAuthority, elsewhere: Elsewhere, here: World) -> None:
    elsewhere.world.known_roles["more"] = role("more", allow={"logins": ["app"]})
    for world in (elsewhere.world, here):
        world.bots[REF] = bot(roles=["access", "more"])
    issued = await authority.issue(await joined(authority), request(), now=NOW)
    terms = holding.terms_of(replace(issued, lifetime=replace(issued.lifetime, reduced_by="z" * 600)))
    assert [(each.name, each.role) for each in terms.granted.logins] == [("app", "access, more"), ("deploy", "access, more")]
    assert terms.reduced_by == "z" * 512
