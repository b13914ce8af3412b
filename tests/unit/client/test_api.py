"""The client of the join API against a real HTTPS server: whom it trusts, what it sends, and what it makes of each answer."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from machinebot.authority import x509
from machinebot.authority.profiles import BOT, Stamp, Subject, X509Request, new_serial
from machinebot.client.api import MAX_RETRY_AFTER, JoinClient
from machinebot.client.transport import Address, Identity
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, NotFound, Unavailable
from machinebot.policy.credential import Purpose, Usage
from machinebot.protocol.messages import (
    MAX_ANSWER,
    ChallengeRequest,
    IssueRequest,
    JoinRequest,
    OutputRequest,
    RenewRequest,
)
from unit.client.server import CLUSTER, Said, Server, connect_proxy, identity_ca, server_context, serving

CA = identity_ca()
BOTS = identity_ca(Purpose.BOT)
KEY = base64.b64encode(b"key").decode()
CHALLENGE = ChallengeRequest(namespace="ci", join_token="here", public_key=KEY)
TRUST = {"clusterName": CLUSTER, "issuer": "https://m.example.test", "anchors": []}


def identity(*, begin: datetime | None = None, life: timedelta = timedelta(hours=1)) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    start = (begin or datetime.now(UTC)).replace(microsecond=0) - timedelta(minutes=1)
    request = X509Request(
        profile=BOT,
        stamp=Stamp(new_serial(), start, start + life),
        public_key=key.public_key(),
        subject=Subject((CLUSTER,), "bot:ci:deployer", f"spiffe://{CLUSTER}/ns/ci/bot/deployer", note="{}"),
    )
    assert request.profile.usage is Usage.BOT
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Identity(x509.sign(request, BOTS), private)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda _: Said(), server_context(CA, clients=BOTS.anchor.public)) as running:
        yield running


def client(server: Server, **how) -> JoinClient:
    return JoinClient(server.url, **{"ca": CA.anchor.public, "timeout": 10.0, **how})


# --- what is sent and read ----------------------------------------------------------------------------------------------


def test_a_challenge_is_asked_for_and_read(server: Server) -> None:
    server.answer = lambda _: Said(body=json.dumps({"method": "github", "clusterName": CLUSTER, "later": 1}).encode())
    answer = client(server).challenge(CHALLENGE)
    assert (answer.method, answer.cluster_name, answer.challenge) == ("github", CLUSTER, None)
    asked = server.seen[0]
    assert (asked.method, asked.path, asked.peer) == ("POST", "/v1/challenge", None)
    assert json.loads(asked.body) == {"namespace": "ci", "joinToken": "here", "publicKey": KEY}
    assert asked.headers["content-type"] == "application/json"


def test_each_call_has_its_path_and_its_answer(server: Server) -> None:
    joined = {
        "identity": {
            "namespace": "ci",
            "bot": "deployer",
            "instance": "i",
            "generation": 1,
            "certificate": "C",
            "notAfter": "2027-01-01T00:00:00Z",
            "renewable": True,
        },
        "trust": TRUST,
    }
    bodies = {
        "/v1/join": joined,
        "/v1/renew": joined,
        "/v1/issue": {"outputs": [{"name": "a", "problem": {"reason": "RoleUnknown", "message": "m"}}], "trust": TRUST},
        "/v1/trust": TRUST,
    }
    server.answer = lambda asked: Said(body=json.dumps(bodies[asked.path]).encode())
    calls = client(server)
    assert calls.join(JoinRequest(namespace="ci", join_token="t", public_key=KEY, proof={"token": "x"})).identity.renewable
    assert calls.renew(RenewRequest(public_key=KEY)).identity.bot == "deployer"
    problem = calls.issue(IssueRequest(outputs=(OutputRequest(name="a", usages=(Usage.IDENTITY,)),))).outputs[0].problem
    assert problem is not None
    assert problem.reason == "RoleUnknown"
    assert calls.trust().cluster_name == CLUSTER
    assert [(asked.method, asked.path) for asked in server.seen] == [
        ("POST", "/v1/join"),
        ("POST", "/v1/renew"),
        ("POST", "/v1/issue"),
        ("GET", "/v1/trust"),
    ]


def test_a_path_before_ours_is_kept(server: Server) -> None:
    JoinClient(f"{server.url}/machinebot/", ca=CA.anchor.public).server_ca()
    assert server.seen[0].path == "/machinebot/trust/identity-ca"


def test_the_identity_is_shown_in_tls(server: Server) -> None:
    server.answer = lambda _: Said(body=json.dumps(TRUST).encode())
    shown = identity()
    client(server, identity=shown).trust()
    client(server).trust()
    assert [asked.peer is not None for asked in server.seen] == [True, False]
    assert "PRIVATE" not in repr(shown)


# --- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(400, Invalid, id="invalid"),
        pytest.param(401, Denied, id="no identity"),
        pytest.param(403, Denied, id="denied"),
        pytest.param(404, NotFound, id="not found"),
        pytest.param(408, Unavailable, id="too slow"),
        pytest.param(409, Conflict, id="conflict"),
        pytest.param(413, Invalid, id="too long"),
        pytest.param(429, Unavailable, id="too many"),
        pytest.param(500, Unavailable, id="crash"),
        pytest.param(503, Unavailable, id="away"),
    ],
)
def test_each_status_is_one_of_our_errors(server: Server, status: int, kind: type[MachinebotError]) -> None:
    body = json.dumps({"reason": "Locked", "message": "the bot\n is locked"}).encode()
    server.answer = lambda _: Said(status, body, {"Retry-After": "7"})
    with pytest.raises(MachinebotError) as caught:
        client(server).challenge(CHALLENGE)
    assert type(caught.value) is kind
    assert (caught.value.reason, caught.value.message) == ("Locked", "the bot is locked")
    if kind is Unavailable:
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("3601", MAX_RETRY_AFTER),
        ("99999999", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
    ],
)
def test_a_pause_is_taken_only_as_seconds_within_bounds(server: Server, text: str, seconds: float | None) -> None:
    server.answer = lambda _: Said(
        429, b'{"reason": "TooManyRequests", "message": "m"}', {"Retry-After": text.encode().decode("latin-1")}
    )
    with pytest.raises(Unavailable) as caught:
        client(server).trust()
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(502, b"<html>Bad gateway</html>", id="a proxy's page"),
        pytest.param(403, b"<html>no</html>", id="a proxy's refusal is none of ours"),
        pytest.param(403, b'{"reason": "no word", "message": "m"}', id="a reason that is none"),
        pytest.param(403, b'{"reason": "' + b"A" * 65 + b'", "message": "m"}', id="a reason that is too long"),
        pytest.param(302, b"", id="a redirect"),
        pytest.param(302, b'{"reason": "Moved", "message": "m"}', id="a redirect with a reason"),
        pytest.param(204, b"", id="nothing"),
        pytest.param(200, b"[]", id="another document"),
        pytest.param(200, b"\xff", id="no text"),
        pytest.param(200, b"{" * 5000, id="deep"),
        pytest.param(200, b"x" * (MAX_ANSWER + 1), id="too long"),
    ],
)
def test_what_is_no_answer_of_a_join_api_is_tried_again_later(server: Server, status: int, body: bytes) -> None:
    server.answer = lambda _: Said(status, body, {"Location": "https://elsewhere.example.test/"})
    with pytest.raises(Unavailable) as caught:
        client(server).challenge(CHALLENGE)
    assert caught.value.reason == "JoinAPIAnswerUnreadable"
    assert len(caught.value.message) < 300
    assert len(server.seen) == 1


def test_a_message_without_end_is_cut(server: Server) -> None:
    server.answer = lambda _: Said(403, json.dumps({"reason": "Denied", "message": "x" * 100_000}).encode())
    with pytest.raises(Denied) as caught:
        client(server).trust()
    assert len(caught.value.message) == 1024


# --- whom it trusts -----------------------------------------------------------------------------------------------------


def test_another_ca_is_not_trusted(server: Server) -> None:
    with pytest.raises(Unavailable) as caught:
        client(server, ca=identity_ca().anchor.public).trust()
    assert caught.value.reason == "JoinAPIUntrusted"
    assert server.seen == []


def test_the_machines_own_cas_do_not_know_ours(server: Server) -> None:
    with pytest.raises(Unavailable, match="JoinAPIUntrusted"):
        client(server, ca=None).trust()


def test_another_name_is_not_trusted() -> None:
    with serving(lambda _: Said(), server_context(CA, names=("elsewhere.example.test",))) as server:
        with pytest.raises(Unavailable) as caught:
            client(server).trust()
        assert caught.value.reason == "JoinAPIUntrusted"
        assert "localhost" in caught.value.message


def test_an_identity_of_another_ca_is_denied_by_the_handshake() -> None:
    with (
        serving(lambda _: Said(), server_context(CA, clients=CA.anchor.public, required=True)) as strict,
        pytest.raises(MachinebotError) as caught,
    ):
        client(strict, identity=identity()).trust()
    assert caught.value.reason in {"IdentityRefused", "JoinAPIUnreachable"}


def test_who_speaks_no_tls_is_unreachable() -> None:
    with serving(lambda _: Said(), None) as server, pytest.raises(Unavailable) as caught:
        client(server).trust()
    assert caught.value.reason == "JoinAPIUnreachable"


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        JoinClient(f"https://localhost:{port}", ca=CA.anchor.public).trust()
    assert caught.value.reason == "JoinAPIUnreachable"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(lambda connection: connection.close(), id="closed"),
        pytest.param(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"), id="cut off"),
        pytest.param(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n" * 4), id="another protocol"),
        pytest.param(
            lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n"), id="header without end"
        ),
    ],
)
def test_what_breaks_off_is_unreachable(server: Server, raw) -> None:
    server.answer = lambda _: Said(raw=raw)
    with pytest.raises(Unavailable) as caught:
        client(server).trust()
    assert caught.value.reason == "JoinAPIUnreachable"


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"], ids=["header", "body"])
def test_who_answers_drop_by_drop_is_given_up(server: Server, begin: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(begin or b"H")
        for _ in range(600):
            connection.sendall(b"T")
            time.sleep(0.02)

    server.answer = lambda _: Said(raw=drip)
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        client(server, timeout=0.5).trust()
    assert caught.value.reason == "JoinAPIUnreachable"
    assert time.monotonic() - started < 9


# --- what cannot work ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://machinebot.example.test",
        "machinebot.example.test",
        "https://",
        "https://user:secret@machinebot.example.test",
        "https://machinebot.example.test/?a=b",
        "https://machinebot.example.test/#a",
        "https://machinebot.example.test:port",
        "https://machinebot.example.test:70000",
        "https://machinebot example.test",
        "https://machinebot.example.test\n",
        "https://[::1",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        JoinClient(url)
    assert caught.value.reason == "InvalidServer"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://m.example.test", Address("m.example.test", 443, "")),
        ("https://m.example.test:8443/", Address("m.example.test", 8443, "")),
        ("https://[::1]:8443/a/b/", Address("::1", 8443, "/a/b")),
    ],
)
def test_the_parts_of_an_address(url: str, wanted: Address) -> None:
    assert Address.of(url) == wanted


@pytest.mark.parametrize("ca", [b"", b"none", b"\xff", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"])
def test_what_is_no_ca_is_refused(ca: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        JoinClient("https://m.example.test", ca=ca)
    assert caught.value.reason == "InvalidCA"


@pytest.mark.parametrize("case", ["another key", "no key", "no certificate", "a passphrase"])
def test_an_identity_that_is_none_is_refused(case: str) -> None:
    good, other = identity(), identity()
    made = {
        "another key": Identity(good.certificate, other.private_key),
        "no key": Identity(good.certificate, b""),
        "no certificate": Identity(b"none", good.private_key),
        "a passphrase": Identity(
            good.certificate, b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
        ),
    }[case]
    with pytest.raises(Invalid) as caught:
        JoinClient("https://m.example.test", ca=CA.anchor.public, identity=made)
    assert caught.value.reason == "InvalidIdentity"


# --- proxies ------------------------------------------------------------------------------------------------------------


def proxied(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_proxy_is_asked_for_a_tunnel_with_its_password(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as (port, asked):
        proxied(monkeypatch, HTTPS_PROXY=f"http://me:s%65cret@127.0.0.1:{port}")
        with pytest.raises(Unavailable) as caught:
            client(server).trust()
    assert asked[0].startswith(f"CONNECT localhost:{server.port} HTTP/1.".encode())
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:secret") in asked[0]
    assert caught.value.reason == "JoinAPIUnreachable"
    assert "secret" not in str(caught.value)


def test_a_request_goes_through_the_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_proxy() as (port, asked):
        proxied(monkeypatch, https_proxy=f"127.0.0.1:{port}")
        client(server).server_ca()
    assert len(asked) == len(server.seen) == 1


def test_what_is_excepted_goes_past_the_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    proxied(monkeypatch, HTTPS_PROXY="http://127.0.0.1:1", NO_PROXY="localhost")
    client(server).server_ca()
    assert len(server.seen) == 1


@pytest.mark.parametrize("written", ["socks5://127.0.0.1:1080", "http://", "http://127.0.0.1:port"])
def test_a_proxy_that_is_none_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    proxied(monkeypatch, HTTPS_PROXY=written)
    with pytest.raises(Invalid) as caught:
        client(server).trust()
    assert caught.value.reason == "InvalidProxy"
