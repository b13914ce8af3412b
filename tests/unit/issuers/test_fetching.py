"""Keys of issuers: when they are fetched, for how long they are kept, and what no answer can do to us."""

import asyncio
import gzip
import json
import logging
import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from controlplane.ports import LOOPBACK
from machinebot.errors import Invalid, MachinebotError, Unavailable
from machinebot.issuers import fetching
from machinebot.issuers.fetching import COOLDOWN, FRESH, LAST_GOOD, MAX_ANSWER, MAX_CONFIGURATION, RETRY, WELL_KNOWN, Issuers
from machinebot.joins.base import HTTPSRequest
from machinebot.joins.keysets import MAX_JWKS
from support.issuing import jwks, public_jwk, rsa_key
from support.waiting import eventually_async
from unit.issuers.server import GOOD, HOST, ISSUER, KEYS, Answer, FixedClock, Script, configuration, response

SECOND = timedelta(seconds=1)


async def error_of(issuers: Issuers, issuer: str = ISSUER, kid: str = "a") -> MachinebotError:
    with pytest.raises(MachinebotError) as caught:
        await issuers.keys(issuer, kid)
    return caught.value


# --- when keys are fetched ------------------------------------------------------------------------------------------------


async def test_keys_are_found_by_discovery(issuers: Issuers, script: Script, counts: list[str]) -> None:
    assert "a" in await issuers.keys(ISSUER, "a")
    assert [head.split(b" ")[1].decode() for head in script.seen] == [WELL_KNOWN, "/keys"]
    assert counts == ["good"]
    head = script.seen[0].decode().lower()
    assert f"host: {HOST}\r\n" in head
    assert "accept-encoding: identity" in head
    assert "cookie" not in head
    assert "authorization" not in head


async def test_keys_on_another_host(issuers: Issuers, script: Script) -> None:
    script.answers[WELL_KNOWN] = response(configuration(keys="https://keys.example.test/keys"))
    assert "a" in await issuers.keys(ISSUER, "a")
    assert b"Host: keys.example.test\r\n" in script.seen[1]


@pytest.mark.parametrize("issuer", [f"{ISSUER}/realms/ci", f"{ISSUER}/realms/ci/", f"{ISSUER}/", f"{ISSUER}:443"])
async def test_issuer_with_a_path(issuers: Issuers, script: Script, issuer: str) -> None:
    path = issuer.removeprefix(ISSUER).removeprefix(":443").rstrip("/") + WELL_KNOWN
    script.answers = {path: response(configuration(issuer)), "/keys": response(GOOD)}
    assert "a" in await issuers.keys(issuer, "a")


async def test_keys_are_kept_for_an_hour(issuers: Issuers, script: Script, clock: FixedClock) -> None:
    await issuers.keys(ISSUER, "a")
    clock.step(FRESH - SECOND)
    await issuers.keys(ISSUER, "a")
    assert script.asked("/keys") == 1
    clock.step(SECOND)
    await issuers.keys(ISSUER, "a")
    assert script.asked("/keys") == 2


async def test_withdrawn_key_is_gone_after_an_hour(issuers: Issuers, script: Script, clock: FixedClock) -> None:
    assert "a" in await issuers.keys(ISSUER, "a")
    script.good("b")
    clock.step(FRESH)
    assert "a" not in await issuers.keys(ISSUER, "a")


async def test_unknown_kid_asks_again_once_a_minute(issuers: Issuers, script: Script, clock: FixedClock) -> None:
    await issuers.keys(ISSUER, "a")
    for number in range(50):
        assert f"x{number}" not in await issuers.keys(ISSUER, f"x{number}")
    assert script.asked("/keys") == 1
    script.good("a", "b")
    clock.step(COOLDOWN - SECOND)
    assert "b" not in await issuers.keys(ISSUER, "b")
    clock.step(SECOND)
    assert "b" in await issuers.keys(ISSUER, "b")
    assert script.asked("/keys") == 2


async def test_issuer_that_fails_is_asked_again_after_a_while(issuers: Issuers, script: Script, clock: FixedClock) -> None:
    script.answers = {}
    for _ in range(10):
        error = await error_of(issuers)
        assert (error.reason, getattr(error, "retry_after", None)) == ("IssuerAway", RETRY.total_seconds())
    assert script.asked(WELL_KNOWN) == 1
    script.good()
    clock.step(RETRY - SECOND)
    await error_of(issuers)
    clock.step(SECOND)
    assert "a" in await issuers.keys(ISSUER, "a")


async def test_last_good_keys_are_kept_for_a_day(issuers: Issuers, script: Script, clock: FixedClock, counts: list[str]) -> None:
    await issuers.keys(ISSUER, "a")
    script.answers = {}
    clock.step(FRESH)
    assert "a" in await issuers.keys(ISSUER, "a")
    assert "a" in await issuers.keys(ISSUER, "a")
    assert script.asked(WELL_KNOWN) == 2
    clock.step(LAST_GOOD - FRESH - SECOND)
    assert "a" in await issuers.keys(ISSUER, "a")
    clock.step(SECOND)
    assert (await error_of(issuers)).reason == "IssuerAway"
    script.good()
    clock.step(COOLDOWN)
    assert "a" in await issuers.keys(ISSUER, "a")
    assert counts == ["good", "IssuerAway", "IssuerAway", "good"]


async def test_clock_that_was_put_back_does_not_make_old_keys_fresh(issuers: Issuers, script: Script, clock: FixedClock) -> None:
    await issuers.keys(ISSUER, "a")
    clock.step(-timedelta(days=7))
    assert "a" in await issuers.keys(ISSUER, "a")
    assert script.asked("/keys") == 2


async def test_old_keys_without_a_known_problem_are_not_used(issuers: Issuers, script: Script, clock: FixedClock) -> None:
    await issuers.keys(ISSUER, "a")
    script.answers = {}
    entry = issuers._entries[ISSUER]
    entry.tried_at = clock.at + LAST_GOOD
    clock.step(LAST_GOOD)
    assert (await error_of(issuers)).reason == "IssuerAway"
    assert script.asked(WELL_KNOWN) == 1


async def test_many_who_join_at_once_wait_for_one_fetch(issuers: Issuers, script: Script) -> None:
    gate = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(response(GOOD))
        await writer.drain()

    script.answers["/keys"] = late
    waiting = [asyncio.create_task(issuers.keys(ISSUER, f"x{number % 3}")) for number in range(30)]
    await eventually_async("the keys are asked for", lambda: _soon(script.asked("/keys")))
    waiting[0].cancel()  # whoever was first hangs up
    gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all("a" in each for each in results[1:] if not isinstance(each, BaseException))
    assert not any(isinstance(each, BaseException) for each in results[1:])
    assert (script.asked(WELL_KNOWN), script.asked("/keys")) == (1, 1)


async def _soon(value: int) -> int:
    return value


async def test_known_key_does_not_wait_for_an_unknown_one(issuers: Issuers, script: Script, clock: FixedClock) -> None:
    await issuers.keys(ISSUER, "a")
    gate = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(response(GOOD))

    script.answers["/keys"] = late
    clock.step(COOLDOWN)
    unknown = asyncio.create_task(issuers.keys(ISSUER, "b"))
    await eventually_async("the keys are asked for again", lambda: _soon(script.asked("/keys") == 2))
    assert "a" in await issuers.keys(ISSUER, "a")
    assert not unknown.done()
    gate.set()
    await unknown


async def test_issuers_are_kept_up_to_a_number(issuers: Issuers, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_ISSUERS", 2)
    names = [f"{ISSUER}/{number}" for number in range(3)]
    script.answers |= {f"/{number}{WELL_KNOWN}": response(configuration(name)) for number, name in enumerate(names)}
    await issuers.keys(names[0], "a")
    await issuers.keys(names[1], "a")
    await issuers.keys(names[0], "a")
    await issuers.keys(names[2], "a")
    assert list(issuers._entries) == [names[0], names[2]]
    assert script.asked("/keys") == 3


async def test_close_ends_a_fetch_that_is_under_way(issuers: Issuers, script: Script) -> None:
    async def never(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    script.answers["/keys"] = never
    waiting = asyncio.create_task(issuers.keys(ISSUER, "a"))
    await eventually_async("the keys are asked for", lambda: _soon(script.asked("/keys")))
    await issuers.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_close_of_what_was_never_used(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def review(token: str, audience: str) -> Mapping[str, Any]:
        return {"token": token, "audience": audience}

    issuers = Issuers(review=review, ssl_context=tls[1])
    assert await issuers.review("t", "a") == {"token": "t", "audience": "a"}
    await issuers.close()


# --- what is no issuer ------------------------------------------------------------------------------------------------------


def keys_at(place: object) -> dict[str, bytes]:
    return {WELL_KNOWN: response(configuration(keys=place)), "/keys": response(GOOD)}


def keys_as(body: bytes, status: str = "200 OK", *headers: str) -> dict[str, bytes]:
    return {WELL_KNOWN: response(configuration()), "/keys": response(body, status, *headers)}


def discovery(body: bytes, status: str = "200 OK", *headers: str) -> dict[str, bytes]:
    return {WELL_KNOWN: response(body, status, *headers), "/keys": response(GOOD)}


REDIRECT = ("302 Found", f"Location: {KEYS}")


def ending(data: bytes) -> Mapping[str, Answer]:
    """An answer after which the server hangs up."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return {WELL_KNOWN: write}


UNUSABLE: dict[str, tuple[Mapping[str, bytes | Answer], str]] = {
    "another issuer": (discovery(configuration("https://evil.example.test")), "IssuerUnusable"),
    "the issuer with a slash": (discovery(configuration(ISSUER + "/")), "IssuerUnusable"),
    "no issuer": (discovery(json.dumps({"jwks_uri": KEYS}).encode()), "IssuerUnusable"),
    "no place of keys": (discovery(json.dumps({"issuer": ISSUER}).encode()), "IssuerUnusable"),
    "a place of keys that is a list": (keys_at([KEYS]), "IssuerUnusable"),
    "configuration twice": (discovery(b'{"issuer":"x",' + configuration()[1:]), "IssuerUnusable"),
    "no JSON": (discovery(b"<html>marked</html>"), "IssuerUnusable"),
    "an empty answer": (discovery(b""), "IssuerUnusable"),
    "a list": (discovery(b"[]"), "IssuerUnusable"),
    "deep JSON": (discovery(b'{"a":' * 10_000), "IssuerUnusable"),
    "no keys": (keys_as(b'{"keys":[]}'), "IssuerUnusable"),
    "symmetric keys": (keys_as(jwks({"kty": "oct", "kid": "a", "k": "c2VjcmV0"}).encode()), "IssuerUnusable"),
    "keys by http": (keys_at(KEYS.replace("https", "http")), "IssuerRefused"),
    "keys on this machine": (keys_at("https://127.0.0.1/keys"), "IssuerRefused"),
    "keys on this machine by name": (keys_at("https://localhost/keys"), "IssuerRefused"),
    "keys with a user": (keys_at(f"https://issuer@{HOST}/keys"), "IssuerRefused"),
    "keys in a file": (keys_at("file:///etc/passwd"), "IssuerRefused"),
    "keys beside it": (keys_at("/keys"), "IssuerRefused"),
    "keys where nobody proves the name": (keys_at("https://other.example.test/keys"), "IssuerAway"),
    "a redirect": (discovery(b"", *REDIRECT), "IssuerAway"),
    "a redirect of the keys": (keys_as(b"", *REDIRECT), "IssuerAway"),
    "not found": ({}, "IssuerAway"),
    "forbidden": (discovery(configuration(), "403 Forbidden"), "IssuerAway"),
    "broken": (discovery(configuration(), "500 Internal Server Error"), "IssuerAway"),
    "no content": (discovery(b"", "204 No Content"), "IssuerAway"),
    "a very long configuration": (discovery(b" " * MAX_CONFIGURATION + configuration()), "IssuerAway"),
    "very long keys": (keys_as(b" " * MAX_JWKS + GOOD), "IssuerAway"),
    "compressed": (discovery(gzip.compress(configuration()), "200 OK", "Content-Encoding: gzip"), "IssuerUnusable"),
    "compressed by what nobody knows": (discovery(b"x", "200 OK", "Content-Encoding: xyz"), "IssuerUnusable"),
    "an answer cut off": (ending(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{"), "IssuerAway"),
    "no HTTP": (ending(b"SSH-2.0-OpenSSH_9.9\r\n"), "IssuerAway"),
    "HTTP of another time": (ending(b"HTTP/9.9 999 x\r\n\r\n"), "IssuerAway"),
    "a status that is none": (ending(b"HTTP/1.1 abc OK\r\n\r\n"), "IssuerAway"),
    "a length that is none": (ending(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "IssuerAway"),
    "two lengths": ({WELL_KNOWN: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"}, "IssuerAway"),
    "length and pieces": (
        ending(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "IssuerAway",
    ),
    "pieces that are none": (ending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "IssuerAway"),
    "a header without an end": (ending(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "IssuerAway"),
    "many headers": (ending(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 50_000 + b"\r\n"), "IssuerAway"),
    "a header with bytes that are no text": (ending(b"HTTP/1.1 302 \xff\xfe\r\nLocation: \xff\xfe\r\n\r\n"), "IssuerAway"),
    "another protocol": (
        ending(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        "IssuerAway",
    ),
}


@pytest.mark.parametrize(("answers", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_answers_that_are_no_issuer_s(
    issuers: Issuers, script: Script, counts: list[str], answers: Mapping[str, bytes | Answer], reason: str
) -> None:
    script.answers = dict(answers)
    error = await error_of(issuers)
    assert error.reason == reason
    assert counts == [reason]
    assert "marked" not in str(error)
    assert (await error_of(issuers)).message == error.message


async def test_answers_that_are_as_long_as_may_be(issuers: Issuers, script: Script) -> None:
    long = b" " * (MAX_CONFIGURATION - len(configuration())) + configuration()
    script.answers = {
        WELL_KNOWN: response(long, "200 OK", "Content-Type: text/html", "Set-Cookie: a=b"),
        "/keys": response(b" " * (MAX_JWKS - len(GOOD)) + GOOD),
    }
    assert "a" in await issuers.keys(ISSUER, "a")


async def test_answer_in_drops_is_not_waited_for(issuers: Issuers, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.3)

    async def drops(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    script.answers[WELL_KNOWN] = drops
    assert (await error_of(issuers)).reason == "IssuerAway"


async def test_answer_without_an_end_is_not_read_to_it(issuers: Issuers, script: Script) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()

    script.answers[WELL_KNOWN] = endless
    assert (await error_of(issuers)).reason == "IssuerAway"


async def test_nobody_listens(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def review(_token: str, _audience: str) -> Mapping[str, Any]:
        return {}

    with socket.socket() as held:
        held.bind((LOOPBACK, 0))
        issuers = Issuers(review=review, ssl_context=tls[1], connect={HOST: held.getsockname()})
        assert (await error_of(issuers)).reason == "IssuerAway"
        await issuers.close()


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "http://issuer.example.test",
        "https://127.0.0.1",
        "https://[::1]",
        "https://localhost",
        f"{ISSUER}/?x",
        f"{ISSUER}#",
        "x",
    ],
)
async def test_issuers_that_nobody_is_asked_by(issuers: Issuers, script: Script, issuer: str) -> None:
    error = await error_of(issuers, issuer)
    assert isinstance(error, Invalid)
    assert error.reason == "IssuerRefused"
    assert script.seen == []
    assert list(issuers._entries) == []


async def test_name_that_leads_to_this_machine_is_refused(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def review(_token: str, _audience: str) -> Mapping[str, Any]:
        return {}

    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, script.port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [place])
    issuers = Issuers(review=review, ssl_context=tls[1])
    assert (await error_of(issuers, f"{ISSUER}:{script.port}")).reason == "IssuerRefused"
    assert script.seen == []
    await issuers.close()


async def test_environment_s_proxy_is_not_used(issuers: Issuers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert "a" in await issuers.keys(ISSUER, "a")


async def test_failure_is_logged_without_what_was_answered(
    issuers: Issuers, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.answers = discovery(b'{"marked": 1}')
    with caplog.at_level(logging.INFO, logger="machinebot"):
        await error_of(issuers)
    (record,) = [each for each in caplog.records if each.name == fetching.log.name]
    assert (record.levelname, record.__dict__["issuer"], record.__dict__["reason"]) == ("WARNING", ISSUER, "IssuerUnusable")
    assert "marked" not in json.dumps(record.__dict__, default=str)


# --- requests of methods ------------------------------------------------------------------------------------------------------

POST = HTTPSRequest("POST", HOST, "/x?y=1", {"Content-Type": "application/x-www-form-urlencoded", "X-Signed": "a"}, b"Action=Get")


async def test_request_goes_out_as_it_is(issuers: Issuers, script: Script) -> None:
    script.answers["/x?y=1"] = response(b"body", "403 Forbidden")
    answer = await issuers.send(POST)
    assert (answer.status, answer.body) == (403, b"body")
    head, _, body = script.seen[0].partition(b"\r\n\r\n")
    assert body == b"Action=Get"
    lines = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert lines == {b"host", b"content-type", b"x-signed", b"content-length"}
    assert f"Host: {HOST}\r\n".encode() in head


async def test_redirect_is_an_answer(issuers: Issuers, script: Script) -> None:
    script.answers["/"] = response(b"", "307 Temporary Redirect", f"Location: {ISSUER}/keys")
    assert (await issuers.send(HTTPSRequest("GET", HOST, "/", {}))).status == 307
    assert len(script.seen) == 1


@pytest.mark.parametrize(
    ("path", "length", "good"),
    [("/", MAX_ANSWER, True), ("/", MAX_ANSWER + 1, False), ("/absent", 0, True)],
)
async def test_answers_are_bounded(issuers: Issuers, script: Script, path: str, length: int, good: bool) -> None:
    script.answers["/"] = response(b"x" * length)
    request = HTTPSRequest("GET", HOST, path, {})
    if good:
        assert len((await issuers.send(request)).body) == length
    else:
        with pytest.raises(Unavailable, match="ServiceAway"):
            await issuers.send(request)


async def test_service_that_does_not_answer_in_time(issuers: Issuers, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.2)

    async def never(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    script.answers["/"] = never
    with pytest.raises(Unavailable, match="ServiceAway"):
        await issuers.send(HTTPSRequest("GET", HOST, "/", {}))


async def test_service_that_does_not_prove_its_name(issuers: Issuers) -> None:
    with pytest.raises(Unavailable, match="ServiceAway"):
        await issuers.send(HTTPSRequest("GET", "other.example.test", "/", {}))


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(HTTPSRequest("PUT", HOST, "/", {}), id="another way"),
        pytest.param(HTTPSRequest("get", HOST, "/", {}), id="small letters"),
        pytest.param(HTTPSRequest("GET", "127.0.0.1", "/", {}), id="an address"),
        pytest.param(HTTPSRequest("GET", "localhost", "/", {}), id="a name without a dot"),
        pytest.param(HTTPSRequest("GET", HOST + ":8443", "/", {}), id="a port"),
        pytest.param(HTTPSRequest("GET", HOST, ":8443/", {}), id="a port in the path"),
        pytest.param(HTTPSRequest("GET", HOST, ".evil.example.test/", {}), id="a longer host by the path"),
        pytest.param(HTTPSRequest("GET", HOST, "@evil.example.test/", {}), id="another host by the path"),
        pytest.param(HTTPSRequest("GET", "x@" + HOST, "/", {}), id="a user"),
        pytest.param(HTTPSRequest("GET", HOST.upper(), "/", {}), id="capital letters"),
        pytest.param(HTTPSRequest("GET", HOST + "/x", "/", {}), id="a path in the host"),
        pytest.param(HTTPSRequest("GET", HOST, "/#x", {}), id="a fragment"),
        pytest.param(HTTPSRequest("GET", HOST, "/ HTTP/1.1\r\nX: y", {}), id="a line break in the path"),
        pytest.param(HTTPSRequest("GET", HOST, "/", {"X": "a\r\nY: b"}), id="a line break in a header"),
        pytest.param(HTTPSRequest("GET", HOST, "/", {"X\n": "a"}), id="a line break in a header's name"),
        pytest.param(HTTPSRequest("GET", HOST, "/", {"X": "a\x00"}), id="a zero byte in a header"),
    ],
)
async def test_requests_that_are_not_sent(issuers: Issuers, script: Script, request_: HTTPSRequest) -> None:
    with pytest.raises(Invalid) as caught:
        await issuers.send(request_)
    assert caught.value.reason == "RequestRefused"
    assert script.seen == []


def test_key_that_is_published_is_the_one_of_the_tests() -> None:
    assert json.loads(GOOD)["keys"] == [public_jwk(rsa_key("issuer"), "a")]


async def test_issuers_whose_name_servers_hang_do_not_hold_up_what_methods_send(
    issuers: Issuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()

    def getaddrinfo(host: str, port: int, *_flags: object) -> list[Any]:
        if host.startswith("issuer-"):
            assert told.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(fetching, "SECONDS", 60.0)
    hanging = [asyncio.ensure_future(issuers.keys(f"https://issuer-{number}.example.test", "any")) for number in range(40)]
    try:
        with pytest.raises(Invalid, match="IssuerRefused"):  # it was looked up, and leads to this machine
            await issuers.send(HTTPSRequest("GET", "sts.example.test", "/", {}))
        assert not any(each.done() for each in hanging)
    finally:
        told.set()
    outcomes = await asyncio.gather(*hanging, return_exceptions=True)
    assert {each.reason for each in outcomes if isinstance(each, MachinebotError)} == {"IssuerRefused"}
