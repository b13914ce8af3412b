"""The agent against the product's own join API: joins, files, renewal by the certificate's dates, outages, refusals, rotation."""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from machinebot.agent.agent import LOOK, Agent, State
from machinebot.agent.membership import Membership
from machinebot.client.api import JoinClient
from machinebot.client.pins import pins_of
from machinebot.errors import Unavailable
from machinebot.policy.credential import Purpose
from machinebot.policy.locks import Lock
from machinebot.protocol.messages import OutputAnswer, Problem
from unit.agent.api import Rig, rotated
from unit.authority.builders import HOUR, ISSUER, MINUTE, NOW, REF, all_generations, bot, spec
from unit.authority.desk_world import SECRET, join_token, secret_token
from unit.client.server import identity_ca

CA_CERTIFICATE = identity_ca().anchor.public.decode()


def outputs(state: State) -> dict[str, tuple[bool, str]]:
    return {output.name: (output.ready, output.reason) for output in state.outputs}


def serial(rig: Rig, name: str = "ssh") -> str:
    return str(json.loads(rig.files(name)[".machinebot.json"])["serial"])


def rounds(rig: Rig, agent: Agent, begin: datetime, length: timedelta) -> datetime:
    """Rounds for that long, each when the one before wants it; the server's clock goes along."""
    now = begin
    while now < begin + length:
        rig.api.clock.time = now
        now = agent.round(now)
    return now


# --- joining and writing ------------------------------------------------------------------------------------------------


def test_one_round_joins_and_writes_every_output(rig: Rig) -> None:
    rig.output("ssh")
    rig.output("db", database={"user": "app"})
    rig.output("token", jwtSVID={"audiences": ["vault"]})
    agent = rig.agent()
    agent.round(NOW)
    state = agent.state(NOW)
    assert outputs(state) == {"ssh": (True, ""), "db": (True, ""), "token": (True, "")}
    assert state.ready
    assert not agent.unfinished
    assert state.joins == {("kubernetes", "success"): 1}
    assert state.issues == {(kind, "FilesMissing", "success"): 1 for kind in ("identity", "database", "jwtSVID")}
    assert set(rig.files("token")) == {"jwt_svid", ".machinebot.json"}
    assert len(rig.api.world.ledger.visits) == 1, "one request joins and gets all"


def test_an_ssh_config_names_the_files_where_they_are(rig: Rig) -> None:
    rig.output("ssh")
    rig.agent().round(NOW)
    assert f"IdentityFile {rig.path}/ssh/key\n" in rig.files("ssh")["ssh_config"].decode()


def test_more_outputs_than_one_request_takes(rig: Rig) -> None:
    for number in range(35):
        rig.output(f"out-{number}", jwtSVID={"audiences": ["vault"]})
    agent = rig.agent()
    agent.round(NOW)
    assert agent.state(NOW).ready
    assert len(rig.api.world.ledger.visits) == 3


def test_a_restart_issues_nothing(rig: Rig) -> None:
    rig.output("ssh")
    rig.agent().round(NOW)
    before, visits = rig.files("ssh"), len(rig.api.world.ledger.visits)
    again = rig.agent()
    again.round(NOW + MINUTE)
    assert again.state(NOW + MINUTE).ready
    assert rig.files("ssh") == before
    assert len(rig.api.world.ledger.visits) == visits, "the identity was read back too"


def test_without_storage_a_restart_joins_and_issues_nothing(rig: Rig) -> None:
    rig.more["storage"] = None
    rig.output("ssh")
    rig.agent().round(NOW)
    before = serial(rig)
    agent = rig.agent()
    agent.round(NOW + MINUTE)
    assert serial(rig) == before
    assert agent.state(NOW + MINUTE).joins == {("kubernetes", "success"): 1}


@pytest.mark.parametrize("how", ["deleted", "changed", "another file", "the set is gone", "not ours"])
def test_files_that_somebody_has_changed_are_whole_at_the_next_look(rig: Rig, how: str) -> None:
    rig.output("ssh")
    agent = rig.agent()
    due = agent.round(NOW)
    assert due <= NOW + LOOK
    first, data = serial(rig), rig.path / "ssh" / "..data"
    match how:
        case "deleted":
            (data / "key").unlink()
        case "changed":
            (data / "known_hosts").write_bytes(b"* ssh-rsa AAAA\n")
        case "another file":
            (data / "extra").write_bytes(b"")
        case "the set is gone":
            data.unlink()
        case _:
            (data / ".machinebot.json").write_bytes(b"{}")
    agent.round(due)
    assert serial(rig) != first
    assert agent.state(due).ready
    reason = "FilesMissing" if how == "the set is gone" else "FilesChanged"
    assert agent.state(due).issues["identity", reason, "success"] >= 1


def test_another_configuration_makes_the_files_anew_and_another_directory_does_not(rig: Rig) -> None:
    written = rig.output("ssh", identity={})
    rig.agent().round(NOW)
    first = serial(rig)
    written["directory"]["mode"] = "0750"
    rig.agent().round(NOW + MINUTE)
    assert serial(rig) == first
    written["credentialTTL"] = "2h"
    agent = rig.agent()
    agent.round(NOW + MINUTE)
    assert serial(rig) != first
    assert agent.state(NOW + MINUTE).issues == {("identity", "ConfigChanged", "success"): 1}
    assert agent.state(NOW + MINUTE).outputs[0].not_after == NOW + 2 * HOUR - MINUTE


# --- renewal ------------------------------------------------------------------------------------------------------------


def test_outputs_are_replaced_by_their_own_dates(rig: Rig) -> None:
    rig.output("short", identity={}, credentialTTL="1h")
    rig.output("long", identity={}, renewBefore="4h")
    agent = rig.agent()
    agent.round(NOW)
    times = {output.name: output.renew_at for output in agent.state(NOW).outputs}
    assert times["short"] is not None
    assert NOW + 23 * MINUTE <= times["short"] <= NOW + 30 * MINUTE
    assert times["long"] is not None
    assert NOW + 17 * HOUR <= times["long"] <= NOW + 20 * HOUR
    short, long = serial(rig, "short"), serial(rig, "long")
    rounds(rig, agent, NOW, times["short"] - NOW)
    rig.api.clock.time = times["short"]
    agent.round(times["short"])
    assert serial(rig, "short") != short
    assert serial(rig, "long") == long


def test_agents_of_one_configuration_spread_their_renewals(rig: Rig) -> None:
    rig.output("ssh")
    rig.agent().round(NOW)
    moments = set()
    for host in ("web-1", "web-2", "web-3"):
        rig.host = host
        agent = rig.agent()
        agent.round(NOW)
        moments.add(agent.state(NOW).outputs[0].renew_at)
    assert len(moments) == 3


def test_a_delegated_method_joins_anew_in_time_as_the_same_instance(rig: Rig) -> None:
    rig.output("ssh")
    agent = rig.agent()
    agent.round(NOW)
    for hour in range(1, 4):
        rig.api.clock.time = NOW + hour * HOUR / 2
        agent.round(rig.api.clock.time)
    instances = {visit.identity.instance for visit in rig.api.world.ledger.visits}
    assert len(instances) == 1
    assert rig.api.world.ledger.visits[-1].identity.generation == 4
    assert agent.state(NOW).joins == {("kubernetes", "success"): 4}


def test_after_a_long_pause_another_instance_joins(rig: Rig) -> None:
    rig.output("ssh")
    rig.agent().round(NOW)
    rig.api.clock.time = NOW + 2 * HOUR
    rig.agent().round(NOW + 2 * HOUR)
    assert [visit.identity.generation for visit in rig.api.world.ledger.visits] == [1, 1]


def test_a_signal_replaces_everything(rig: Rig) -> None:
    rig.output("ssh")
    agent = rig.agent()
    agent.round(NOW)
    first = serial(rig)
    agent.request()
    agent.round(NOW + MINUTE)
    assert serial(rig) != first
    assert agent.state(NOW).issues["identity", "Requested", "success"] == 1
    assert agent.state(NOW).joins == {("kubernetes", "success"): 2}
    second = serial(rig)
    agent.round(NOW + 2 * MINUTE)
    assert serial(rig) == second, "once"


# --- the method token ---------------------------------------------------------------------------------------------------


@pytest.fixture
def another(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Rig]]:
    """Another machine with the same configuration."""
    with contextlib.ExitStack() as stack:

        def made() -> Rig:
            other = Rig(rig.api, tmp_path_factory.mktemp("other"), stack, method=rig.method, host="web-2")
            other.output("ssh")
            return other

        yield made


@pytest.fixture
def by_secret(rig: Rig) -> Rig:
    rig.method = "token"
    rig.api.world.tokens["secret"] = secret_token(expires="2028-01-01T00:00:00Z")
    rig.output("ssh")
    return rig


def test_a_secret_counts_once_and_the_identity_is_renewed(by_secret: Rig) -> None:
    agent = by_secret.agent()
    agent.round(NOW)
    (by_secret.path / "given-secret").unlink()
    agent = by_secret.agent()
    for _ in range(3):
        renew_at = agent._membership.renew_at()
        assert renew_at is not None
        by_secret.api.clock.time = renew_at
        agent.round(renew_at)
    assert [visit.identity.generation for visit in by_secret.api.world.ledger.visits][-1] == 4
    assert agent.state(NOW).joins == {("renewal", "success"): 3}


class LostError(Exception):
    """The answer never arrived."""


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a kill"])
def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    by_secret: Rig, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    """The write-ahead key: neither the secret is lost, nor is the instance locked for a second renewal."""
    keep = Membership._keep

    def lost(*_: object) -> None:
        raise Unavailable("JoinAPIUnreachable", "the connection broke")

    agent = by_secret.agent()
    for begin, generation in ((NOW, 1), (NOW + 13 * HOUR, 2)):
        by_secret.api.clock.time = begin
        monkeypatch.setattr(Membership, "_keep", lost)
        agent.round(begin)
        assert agent.state(begin).identity_reason == "JoinAPIUnreachable"
        monkeypatch.setattr(Membership, "_keep", keep)
        if restart:
            agent = by_secret.agent()
        agent.round(begin + MINUTE)
        state = agent.state(begin + MINUTE)
        assert state.identity_reason == ""
        assert by_secret.api.world.ledger.stored["token-2"].generation == generation
        assert outputs(state) == {"ssh": (True, "")}, "what came without credentials is asked for in the same round"
    assert by_secret.api.world.ledger.locked == []


def test_a_copied_identity_locks_the_instance_and_says_so(
    by_secret: Rig, another: Callable[[], Rig], caplog: pytest.LogCaptureFixture
) -> None:
    agent = by_secret.agent()
    agent.round(NOW)
    thief = another()
    shutil.copytree(by_secret.path / "state", thief.path / "state")
    later = by_secret.api.clock.time = NOW + 13 * HOUR
    thief.agent().round(later)
    assert serial(thief)
    before = by_secret.files("ssh")
    with caplog.at_level(logging.WARNING):
        agent.round(later)
    state = agent.state(later)
    assert state.identity_reason == "GenerationMismatch"
    assert [(record.levelno, record.message) for record in caplog.records if record.name.endswith("membership")] == [
        (logging.ERROR, "this instance is locked: see who has its identity; the files stay")
    ]
    assert by_secret.files("ssh") == before
    assert state.ready
    retry = agent._membership.retry_at
    assert retry is not None
    agent.round(retry)
    assert agent.state(retry).identity_reason == "Locked"


def test_another_secret_lets_the_machine_join_again(by_secret: Rig) -> None:
    agent = by_secret.agent()
    agent.round(NOW)
    # A person makes the join token anew, with another secret.
    other = "e" * 64
    by_secret.api.world.tokens["secret"] = secret_token(
        token={"secretHash": "sha256:" + hashlib.sha256(other.encode()).hexdigest()}, expires="2028-01-01T00:00:00Z"
    )
    by_secret.api.world.tokens["secret"].metadata.__dict__["uid"] = "token-3"
    later = by_secret.api.clock.time = NOW + 13 * HOUR
    due = agent.round(later)
    assert agent.state(later).identity_reason == "JoinTokenUnknown"
    assert by_secret.files("ssh"), "the files stay"
    (by_secret.path / "given-secret").write_text(other)
    agent.round(due)
    assert agent.state(due).identity_reason == ""
    assert by_secret.api.world.ledger.visits[-1].identity.generation == 1


# --- trouble ------------------------------------------------------------------------------------------------------------


def test_the_files_stay_through_an_outage_and_all_is_well_after_it(rig: Rig) -> None:
    rig.output("ssh", identity={}, credentialTTL="4h")
    agent = rig.agent()
    now = agent.round(NOW)
    before = rig.files("ssh")
    rig.api.away = True
    now = rounds(rig, agent, now, 3 * HOUR)
    state = agent.state(now)
    assert rig.files("ssh") == before
    assert state.ready
    assert state.identity_reason == "JoinsNotReady"
    attempts = state.joins["kubernetes", "JoinsNotReady"]
    assert 15 <= attempts <= 30, "with pauses that grow to ten minutes"
    rig.api.away = False
    now = rounds(rig, agent, now, HOUR / 4)
    assert rig.files("ssh") != before
    assert agent.state(now).identity_reason == ""


def test_a_credential_that_has_ended_is_not_ready(rig: Rig) -> None:
    rig.output("ssh", identity={}, credentialTTL="5m")
    agent = rig.agent()
    agent.round(NOW)
    rig.api.away = True
    rounds(rig, agent, NOW, HOUR / 6)
    assert not agent.state(NOW + HOUR / 6).ready


def test_one_refused_output_harms_no_other(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.output("good")
    rig.output("bad", identity={}, roles=["unknown"])
    rig.output("blocked", identity={})
    (rig.path / "blocked").mkdir(mode=0o700)
    (rig.path / "blocked" / "key").write_bytes(b"mine")
    agent = rig.agent()
    agent.round(NOW)
    state = agent.state(NOW)
    assert outputs(state) == {
        "good": (True, ""),
        "bad": (False, "RoleNotOfBot"),
        "blocked": (False, "DirectoryConflict"),
    }
    assert state.issues["identity", "FilesMissing", "DirectoryConflict"] == 1
    assert len(rig.api.world.ledger.visits) == 1
    assert agent.unfinished
    told = {record.__dict__.get("output"): record.levelno for record in caplog.records if hasattr(record, "output")}
    assert told["bad"] == logging.ERROR


def test_what_trips_us_in_one_output_harms_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.output("good")
    rig.output("bad", database={"user": "app"})
    agent = rig.agent()
    bad = next(work for work in agent._works if work.output.name == "bad")
    monkeypatch.setattr(bad.directory, "write", lambda *_: 1 / 0)
    agent.round(NOW)
    assert outputs(agent.state(NOW)) == {"good": (True, ""), "bad": (False, "Crashed")}


def test_files_that_do_not_last_are_tried_again_with_a_pause(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.output("ssh")
    agent = rig.agent()
    monkeypatch.setattr(agent._works[0].directory, "write", lambda *_: None)
    due = agent.round(NOW)
    assert outputs(agent.state(NOW)) == {"ssh": (False, "NotKept")}
    assert due > NOW + timedelta(seconds=1)


def test_a_lock_stops_the_agent_and_its_end_lets_it_go_on(rig: Rig) -> None:
    rig.output("ssh", identity={}, credentialTTL="2h")
    agent = rig.agent()
    now = agent.round(NOW)
    before = rig.files("ssh")
    rig.api.world.known_locks = (Lock(name="lock", bot=REF, message="leaked"),)
    now = rounds(rig, agent, now, HOUR)
    assert agent.state(now).identity_reason == "Locked"
    assert rig.files("ssh") == before
    rig.api.world.known_locks = ()
    now = rounds(rig, agent, now, HOUR / 4)
    assert agent.state(now).identity_reason == ""
    assert rig.files("ssh") != before


def test_an_identity_of_a_bot_that_was_made_anew_is_dropped_for_another(rig: Rig) -> None:
    rig.output("ssh", identity={}, credentialTTL="20m")
    agent = rig.agent()
    now = agent.round(NOW)
    first = serial(rig)
    rig.api.world.bots[REF] = bot(metadata={"uid": "bot-2"})
    rounds(rig, agent, now, HOUR / 4)
    assert serial(rig) != first
    assert agent.state(now).issues["identity", "Expiring", "IdentityReplaced"] == 1
    assert rig.api.world.ledger.visits[-1].identity.generation == 1


def test_clocks_far_apart_make_no_hot_loop(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.output("ssh")
    agent = rig.agent()
    now = NOW + 50 * MINUTE
    for _ in range(10):
        now = agent.round(now)
    assert now >= NOW + 59 * MINUTE
    assert "set the clock" in caplog.text


def test_a_join_token_of_another_method_is_told(rig: Rig) -> None:
    rig.output("ssh")
    rig.api.world.tokens["runners"] = join_token(github={"allow": [{"repositoryID": "1"}]})
    agent = rig.agent()
    agent.round(NOW)
    state = agent.state(NOW)
    assert state.identity_reason == "MethodMismatch"
    assert "'github'" in state.identity_message
    assert not agent.hopeful


def test_a_platform_that_gives_no_proof_is_told(rig: Rig) -> None:
    rig.output("ssh")
    (rig.path / "given-token").unlink()
    agent = rig.agent()
    agent.round(NOW)
    assert agent.state(NOW).identity_reason == "ProofMissing"
    assert rig.config.onboarding.settings["tokenPath"] in agent.state(NOW).identity_message


def test_a_proof_that_trips_us_is_told_without_what_it_held(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.output("ssh")

    def trip(*_: object) -> dict[str, str]:
        raise ValueError("secret")

    monkeypatch.setattr("machinebot.agent.proofs.kubernetes.prove", trip)
    agent = rig.agent()
    agent.round(NOW)
    state = agent.state(NOW)
    assert (state.identity_reason, "secret" in state.identity_message) == ("ProofUnavailable", False)


def test_a_ca_file_that_cannot_be_read_is_told(rig: Rig) -> None:
    rig.output("ssh")
    (rig.path / "given-ca.pem").unlink()
    agent = rig.agent()
    agent.round(NOW)
    assert agent.state(NOW).identity_reason == "CAUnreadable"


# --- a server that answers something else -------------------------------------------------------------------------------

Answer = Callable[[Any], Any]


def with_output(**changes: Any) -> Answer:
    """Changes the credential of the first output."""

    def change(answer: Any) -> Any:
        first = answer.outputs[0]
        credential = first.credential.model_copy(update=changes)
        return answer.model_copy(update={"outputs": (first.model_copy(update={"credential": credential}), *answer.outputs[1:])})

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda answer: answer.model_copy(update={"outputs": ()}), "OutputUnanswered", id="nothing"),
        pytest.param(
            lambda answer: answer.model_copy(update={"outputs": (OutputAnswer(name="ssh"),)}), "OutputUnanswered", id="neither"
        ),
        pytest.param(
            lambda answer: answer.model_copy(
                update={"outputs": (OutputAnswer(name="ssh", problem=Problem(reason="CAEnding", message="m")),)}
            ),
            "CAEnding",
            id="a trouble that passes",
        ),
        pytest.param(with_output(serial="x"), "OutputUnanswered", id="no number"),
        pytest.param(with_output(serial="7"), "CredentialMismatch", id="another number"),
        pytest.param(with_output(not_after="soon"), "OutputUnanswered", id="no date"),
        pytest.param(with_output(x509_certificate=None), "CredentialMismatch", id="no certificate"),
        pytest.param(with_output(ssh_certificate="ssh-rsa AAAA"), "CredentialMismatch", id="a certificate that is none"),
        pytest.param(with_output(x509_certificate=CA_CERTIFICATE), "CredentialMismatch", id="a certificate of another key"),
    ],
)
def test_an_answer_that_does_not_fit_is_not_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, change: Answer, reason: str
) -> None:
    rig.output("ssh")
    rig.output("jwt", jwtSVID={"audiences": ["vault"]})
    join = JoinClient.join
    monkeypatch.setattr(JoinClient, "join", lambda self, request: change(join(self, request)))
    agent = rig.agent()
    agent.round(NOW)
    assert outputs(agent.state(NOW))["ssh"] == (False, reason)
    assert not (rig.path / "ssh" / "..data").exists()
    assert agent.state(NOW).identity_reason == ""
    monkeypatch.undo()


def with_identity(**changes: Any) -> Answer:
    return lambda answer: answer.model_copy(update={"identity": answer.identity.model_copy(update=changes)})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(with_identity(certificate="none"), id="no certificate"),
        pytest.param(with_identity(certificate=CA_CERTIFICATE), id="a certificate of another key"),
        pytest.param(
            lambda answer: answer.model_copy(
                update={
                    "trust": answer.trust.model_copy(
                        update={"anchors": (answer.trust.anchors[0].model_copy(update={"state": "New"}),)}
                    )
                }
            ),
            id="a trust bundle of another version",
        ),
    ],
)
def test_an_identity_that_does_not_fit_is_not_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch, change: Answer) -> None:
    rig.output("ssh")
    join = JoinClient.join
    monkeypatch.setattr(JoinClient, "join", lambda self, request: change(join(self, request)))
    agent = rig.agent()
    agent.round(NOW)
    assert agent.state(NOW).identity_reason == "JoinAPIAnswerUnreadable"


def test_a_challenge_that_is_none_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.output("ssh")
    challenge = JoinClient.challenge
    monkeypatch.setattr(
        JoinClient, "challenge", lambda self, request: challenge(self, request).model_copy(update={"challenge": "x" * 65})
    )
    agent = rig.agent()
    agent.round(NOW)
    assert agent.state(NOW).identity_reason == "JoinAPIAnswerUnreadable"


def test_a_directory_that_is_refused_is_told_and_looked_at_again(rig: Rig) -> None:
    rig.output("ssh")
    rig.output("jwt", jwtSVID={"audiences": ["vault"]})
    (rig.path / "ssh").mkdir()
    (rig.path / "ssh").chmod(0o777)
    agent = rig.agent()
    due = agent.round(NOW)
    assert outputs(agent.state(NOW)) == {"ssh": (False, "DirectoryRefused"), "jwt": (True, "")}
    (rig.path / "ssh").chmod(0o700)
    rounds(rig, agent, due, MINUTE)
    assert agent.state(NOW).ready


# --- rotation -----------------------------------------------------------------------------------------------------------


def test_a_prepared_ca_is_in_the_files_after_the_next_contact(rig: Rig) -> None:
    rig.output("ssh")
    agent = rig.agent()
    now = agent.round(NOW)
    assert len(x509.load_pem_x509_certificates(rig.files("ssh")["ca.crt"])) == 1
    rotated(rig, (Purpose.IDENTITY,), NOW)
    now = rounds(rig, agent, now, HOUR)
    assert len(x509.load_pem_x509_certificates(rig.files("ssh")["ca.crt"])) == 2
    assert agent.state(now).issues["identity", "CARotated", "success"] == 1


def test_the_ca_of_bots_alone_is_no_reason(rig: Rig) -> None:
    rig.output("ssh")
    agent = rig.agent()
    now = agent.round(NOW)
    first = serial(rig)
    rotated(rig, (Purpose.BOT,), NOW)
    rounds(rig, agent, now, HOUR)
    assert serial(rig) == first


@pytest.mark.parametrize("trust", ["file", "pins"])
def test_the_rotation_of_the_servers_ca_is_followed(rig: Rig, trust: str) -> None:
    if trust == "pins":
        rig.more["ca"] = {"pins": list(pins_of(rig.api.ca))}
    rig.output("ssh")
    agent = rig.agent()
    now = agent.round(NOW)
    rotated(rig, (Purpose.IDENTITY,), NOW)
    now = rounds(rig, agent, now, HOUR)
    kept = json.loads((rig.path / "state" / "server-ca.json").read_text())
    assert len(x509.load_pem_x509_certificates(kept["certificates"].encode())) == 2
    # After a restart, what was learnt is trusted still; after another configuration it is not.
    assert len(x509.load_pem_x509_certificates(rig.agent()._membership._server_ca() or b"")) == 2
    if trust == "pins":
        rig.more["ca"] = {"pins": ["sha256:" + "0" * 64]}
        agent = rig.agent()
        agent.request()
        agent.round(now)
        assert agent.state(now).identity_reason == "CAPinMismatch"
    else:
        other = identity_ca().anchor.public
        (rig.path / "given-ca.pem").write_bytes(other)
        assert rig.agent()._membership._server_ca() == other


def test_the_rotation_of_the_servers_ca_is_followed_without_storage_while_the_agent_lives(rig: Rig) -> None:
    rig.more |= {"ca": {"pins": list(pins_of(rig.api.ca))}, "storage": None}
    rig.output("ssh")
    agent = rig.agent()
    now = agent.round(NOW)
    rotated(rig, (Purpose.IDENTITY,), NOW)
    rounds(rig, agent, now, HOUR)
    assert len(x509.load_pem_x509_certificates(agent._membership._server_ca() or b"")) == 2


def test_a_server_that_is_not_ours_teaches_nothing(rig: Rig) -> None:
    """With a CA of somebody else's in ca.file, say a company's, what the server tells of its CAs is not taken over."""
    rig.output("ssh")
    agent = rig.agent()
    (rig.path / "given-ca.pem").write_bytes(rig.api.ca)
    membership = agent._membership
    agent.round(NOW)
    (rig.path / "state" / "server-ca.json").unlink()
    rig.api.world.signer.update(spec(), dict(all_generations()) | {Purpose.IDENTITY: (identity_ca(),)}, ISSUER)
    membership._learn_server_ca()
    assert not (rig.path / "state" / "server-ca.json").exists()


# --- nothing secret -----------------------------------------------------------------------------------------------------


def test_no_secret_is_logged_or_told(by_secret: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    agent = by_secret.agent()
    agent.round(NOW)
    agent.request()
    agent.round(NOW + MINUTE)
    told = repr([record.__dict__ for record in caplog.records]) + repr(agent.state(NOW)) + repr(by_secret.config)
    secrets = [SECRET, "PRIVATE KEY", *(line for line in by_secret.files("ssh")["tls.key"].decode().splitlines()[1:-1])]
    assert not [secret for secret in secrets if secret in told]
