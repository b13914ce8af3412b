"""The HTTPS server over real connections: TLS, the change of the certificate, and the one shape of every answer."""

import asyncio
import http.client
import json
import ssl
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from machinebot.authority.generations import Generation
from machinebot.authority.serving import serving_certificate
from machinebot.errors import Invalid
from machinebot.outputs.trust import PIECES, pieces
from machinebot.policy.credential import Purpose, TrustBundle
from machinebot.web import connections, https
from machinebot.web.certificates import FileCertificate, KeyPair, SignedCertificate
from machinebot.web.https import HttpsServer
from support.verifier import fetch, trusting
from support.waiting import eventually_async
from unit.authority.builders import CLUSTER, DAY, ISSUER, NOW, ca
from unit.web.serving import NAMES, TRUST, Clock, Served, read_to_the_end

# --- answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/authorities/default"])
@pytest.mark.parametrize("piece", PIECES)
async def test_a_piece_is_served_with_its_type_and_a_tag(served: Served, prefix: str, piece: str) -> None:
    answer = await served.get(f"{prefix}/trust/{piece}")
    assert (answer.status, answer.body) == (200, pieces(TRUST)[piece])
    assert answer.headers["content-type"] == PIECES[piece].content_type
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.tag.startswith('"')
    assert "set-cookie" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["server"] == "machinebot"


async def test_who_has_it_already_gets_304(served: Served) -> None:
    first = await served.get("/jwks")
    for condition in (first.tag, f'"other", {first.tag}', f"W/{first.tag}", "*"):
        again = await served.get("/jwks", If_None_Match=condition)
        assert (again.status, again.body, again.tag) == (304, b"", first.tag)
        assert "cache-control" in again.headers
    assert (await served.get("/jwks", If_None_Match='"other"')).status == 200
    assert (await served.get("/jwks", If_None_Match="nonsense")).status == 200


async def test_a_change_has_another_tag(served: Served) -> None:
    first = await served.get("/trust/ssh-user-ca")
    served.trusts.known["default"] = TrustBundle(CLUSTER, ISSUER, TRUST.anchors + TRUST.of(Purpose.SSH_USER))
    again = await served.get("/trust/ssh-user-ca", If_None_Match=first.tag)
    assert again.status == 200
    assert again.tag != first.tag


async def test_head_is_get_without_the_body(served: Served) -> None:
    get, head = await served.get("/jwks"), await served.get("/jwks", method="HEAD")
    assert (head.status, head.body, head.tag) == (200, b"", get.tag)
    assert head.headers["content-length"] == str(len(get.body))


ERRORS: dict[str, tuple[str, str, int, str]] = {
    "no such path": ("GET", "/admin", 404, "NotFound"),
    "no such authority": ("GET", "/authorities/nobody/jwks", 404, "AuthorityMissing"),
    "no such piece": ("GET", "/trust/private-keys", 404, "PieceUnknown"),
    "not yet": ("GET", "/authorities/young/trust", 503, "AuthorityNotReady"),
    "metrics": ("GET", "/metrics", 404, "NotFound"),
    "health": ("GET", "/healthz", 404, "NotFound"),
    "a step up": ("GET", "/trust/..%2f..%2fetc", 404, "PieceUnknown"),
    "another method": ("POST", "/jwks", 405, "MethodNotAllowed"),
    "delete": ("DELETE", "/trust/jwks", 405, "MethodNotAllowed"),
    "invalid": ("GET", "/fail/invalid", 400, "A"),
    "denied": ("GET", "/fail/denied", 403, "B"),
    "conflict": ("GET", "/fail/conflict", 409, "C"),
    "a defect": ("GET", "/fail/crash", 500, "Crashed"),
}


@pytest.mark.parametrize(("method", "path", "status", "reason"), ERRORS.values(), ids=ERRORS)
async def test_every_failure_has_one_shape(served: Served, method: str, path: str, status: int, reason: str) -> None:
    answer = await served.get(path, method=method)
    body = json.loads(answer.body)
    assert (answer.status, body["reason"], set(body)) == (status, reason, {"reason", "message"})
    assert body["message"]
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    assert "secret text" not in answer.body.decode()
    assert ("allow" in answer.headers) is (status == 405)
    assert ("retry-after" in answer.headers) is (status == 503)


async def test_a_ca_that_is_missing_is_no_empty_file(served: Served) -> None:
    served.trusts.known["default"] = TrustBundle(CLUSTER, ISSUER, TRUST.of(Purpose.SSH_USER))
    assert (await served.get("/trust/ssh-user-ca")).status == 200
    for path in ("/trust/identity-ca", "/jwks", "/.well-known/openid-configuration"):
        assert (await served.get(path)).status == 503


async def test_a_large_body_is_refused(served: Served) -> None:
    def send() -> int:
        connection = http.client.HTTPSConnection("localhost", served.port, context=served.tls, timeout=10)
        connection.request("POST", "/echo", body=b"x" * (https.MAX_BODY + 1))
        status = connection.getresponse().status
        connection.close()
        return status

    assert await asyncio.to_thread(send) == 413


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        pytest.param("/" + "x" * connections.MAX_LINE, {}, id="a long line"),
        pytest.param("/jwks", {"X": "x" * (connections.MAX_FIELD + 1)}, id="a long field"),
        pytest.param("/jwks", {f"X{number}": "x" for number in range(connections.MAX_FIELDS + 1)}, id="many fields"),
    ],
)
async def test_a_large_head_is_refused(served: Served, path: str, headers: dict[str, str]) -> None:
    assert (await served.get(path, **headers)).status == 400


# --- TLS ------------------------------------------------------------------------------------------------------------------


async def test_old_tls_is_refused(served: Served) -> None:
    old = trusting(ca(Purpose.IDENTITY).anchor.public, any_time=True)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert (await asyncio.to_thread(lambda: fetch(served.port, "/jwks", old))).status == 200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError, match=r"(?i)ssl|reset"):
        await asyncio.to_thread(lambda: fetch(served.port, "/jwks", old))


# --- the certificate ----------------------------------------------------------------------------------------------------


async def test_without_a_certificate_handshakes_fail_until_there_is_one(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "LOOK_SECONDS", 0.05)
    issuer: list[tuple[str, Generation]] = []
    server = HttpsServer(SignedCertificate(lambda: issuer[-1] if issuer else None, NAMES, Clock()), ())
    port = await server.start("127.0.0.1", 0)
    running = asyncio.create_task(server.run())
    try:
        with pytest.raises(OSError, match=r"(?i)ssl|reset"):
            await asyncio.to_thread(lambda: fetch(port, "/", served.tls))
        issuer.append((CLUSTER, ca(Purpose.IDENTITY)))

        async def answers() -> bool:
            return (await asyncio.to_thread(lambda: fetch(port, "/", served.tls))).status == 404

        await eventually_async("it answers", answers)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


async def test_a_new_certificate_is_shown_from_then_on_and_old_connections_go_on(served: Served) -> None:
    before = (await served.get("/jwks")).certificate
    with await served.send(b"") as held:
        served.clock.time = NOW + DAY / 2
        served.server._renew()
        after = (await served.get("/jwks")).certificate
        assert after != before
        assert held.getpeercert(binary_form=True) == before
        await asyncio.to_thread(held.sendall, b"GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.to_thread(read_to_the_end, held)).startswith(b"HTTP/1.1 200")
    served.server._renew()
    assert (await served.get("/jwks")).certificate == after, "one that is not due is kept"


def pair(key: Any = None) -> KeyPair:
    made = serving_certificate(ca(Purpose.IDENTITY), CLUSTER, NAMES, NOW)
    return KeyPair(made.certificate, made.private_key if key is None else key)


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    certificate, private_key = tmp_path / "tls.crt", tmp_path / "tls.key"
    source = FileCertificate(certificate, private_key)
    with pytest.raises(Invalid, match="ServingCertificateUnreadable"):
        source.look()
    for _ in range(2):
        made = pair()
        certificate.write_bytes(made.certificate)
        private_key.write_bytes(made.private_key)
        assert source.look() == made
        assert source.look() is None


def test_files_behind_a_link_are_read_again_when_it_moves(tmp_path: Path) -> None:
    """As the kubelet mounts a Secret."""
    data, source = tmp_path / "data", FileCertificate(tmp_path / "data" / "tls.crt", tmp_path / "data" / "tls.key")
    for number in range(2):
        made, folder = pair(), tmp_path / str(number)
        folder.mkdir()
        (folder / "tls.crt").write_bytes(made.certificate)
        (folder / "tls.key").write_bytes(made.private_key)
        data.unlink(missing_ok=True)
        data.symlink_to(folder)
        assert source.look() == made


def encrypted() -> bytes:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption  # noqa: PLC0415 - used here alone

    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def other_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: KeyPair(b"", b""), id="nothing"),
        pytest.param(lambda: KeyPair(b"x", b"y"), id="no PEM"),
        pytest.param(lambda: pair(other_key()), id="another key"),
        pytest.param(lambda: pair(encrypted()), id="a passphrase"),
    ],
)
def test_a_certificate_that_is_none_is_refused_and_shows_nothing(wrong) -> None:
    with pytest.raises(Invalid, match="ServingCertificateUnreadable") as caught:
        https._context(wrong())
    assert "PRIVATE" not in str(caught.value)


async def test_a_bad_file_keeps_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(https, "RETRY_SECONDS", 0.05)
    certificate, private_key, good = tmp_path / "tls.crt", tmp_path / "tls.key", pair()
    certificate.write_bytes(good.certificate)
    private_key.write_bytes(good.private_key)
    server = HttpsServer(FileCertificate(certificate, private_key), ())
    port = await server.start("127.0.0.1", 0)
    running = asyncio.create_task(server.run())
    tls = trusting(ca(Purpose.IDENTITY).anchor.public, any_time=True)

    async def shown() -> bytes:
        return (await asyncio.to_thread(lambda: fetch(port, "/", tls))).certificate

    def der(pem: bytes) -> bytes:
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

    try:
        assert await shown() == der(good.certificate)
        certificate.write_bytes(b"damaged")
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            assert await shown() == der(good.certificate)
        better = pair()
        certificate.write_bytes(better.certificate)
        private_key.write_bytes(better.private_key)

        async def renewed() -> bool:
            return await shown() == der(better.certificate)

        await eventually_async("the better one is shown", renewed)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


async def test_a_bad_file_at_the_start_stops_it(tmp_path: Path) -> None:
    server = HttpsServer(FileCertificate(tmp_path / "none", tmp_path / "none"), ())
    with pytest.raises(Invalid, match="ServingCertificateUnreadable"):
        await server.start("127.0.0.1", 0)
    await server.stop()
