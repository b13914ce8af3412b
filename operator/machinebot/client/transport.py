"""One HTTPS request to the join API: TLS, limits, and what a failure means. The standard library alone; blocking.

Every request has a connection of its own, as the server wants it, so that a client may be used from several threads.
"""

import contextlib
import os
import ssl
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass

from typing_extensions import override

from machinebot.errors import Denied, Invalid, Unavailable
from machinebot.protocol.messages import MAX_ANSWER

UNREACHABLE: Final = "JoinAPIUnreachable"
"""Reason where no answer came."""

UNTRUSTED: Final = "JoinAPIUntrusted"
"""Reason where somebody answers whose certificate is not by a CA that is trusted, or for another name."""

UNREADABLE: Final = "JoinAPIAnswerUnreadable"
"""Reason where the answer is none of the join API's."""

IDENTITY_REFUSED: Final = "IdentityRefused"
"""Reason where the server ends the TLS handshake over the client's certificate."""

_ALERTS: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")
"""Words in the names of TLS alerts by which a server refuses a client's certificate (RFC 8446, section 6.2)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a bot shows in mutual TLS.

    Attributes:
        certificate: PEM.
        private_key: Its key, PEM, without a passphrase.
    """

    certificate: bytes
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever it says.

    Attributes:
        status: Of HTTP.
        body: At most `MAX_ANSWER` bytes.
        retry_after: The header field Retry-After, or empty.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the join API is.

    Attributes:
        host: DNS name or IP address.
        port: TCP port.
        prefix: Path before ours, without a slash at the end; mostly empty.
    """

    host: str
    port: int
    prefix: str

    @classmethod
    def of(cls, url: str) -> "Address":
        """The parts of an address such as `https://machinebot.example.test`.

        Raises:
            Invalid: It is none, or holds what has no place in it.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or 443
        except ValueError:
            parts, port = urlsplit(""), 0
        plain = not (parts.username or parts.password or parts.query or parts.fragment) and url.isprintable() and " " not in url
        if parts.scheme != "https" or not parts.hostname or not plain:
            # The address is not shown: one with a password in it is refused here too.
            raise Invalid(
                "InvalidServer",
                "the address of the server is none: write it as https://machinebot.example.test, with :PORT and a path where "
                "there is one, and nothing else",
            )
        return cls(parts.hostname, port, parts.path.rstrip("/"))


def context(ca: bytes | None, identity: Identity | None) -> ssl.SSLContext:
    """TLS 1.2 or later that verifies the server's chain and name.

    Args:
        ca: CA certificates that are trusted, PEM, and no others; None for the machine's own.
        identity: What is shown where the server asks; None for nothing.

    Raises:
        Invalid: The CA certificates or the identity cannot be used.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    made.sslsocket_class = _DeadlineSocket
    _load_ca(made, ca)
    if identity is not None:
        _load_identity(made, identity)
    return made


def unverified_context() -> ssl.SSLContext:
    """TLS with whoever answers, for what is checked by its own content: see `machinebot.client.pins`."""
    made = context(None, None)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def _load_ca(made: ssl.SSLContext, ca: bytes | None) -> None:
    if ca is None:
        made.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return
    try:
        made.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise Invalid(
            "InvalidCA",
            "the CA certificates that the server is verified by cannot be read: they are PEM, such as the piece identity-ca that "
            "`machinebot trust identity-ca` prints",
        ) from error


def _load_identity(made: ssl.SSLContext, identity: Identity) -> None:
    try:
        with _file(identity.certificate + b"\n" + identity.private_key) as path:
            # An empty passphrase: without one OpenSSL would ask for it at the terminal.
            made.load_cert_chain(path, password="")
    except (OSError, ValueError) as error:
        raise Invalid(
            "InvalidIdentity", "the certificate and the key of the identity cannot be used, or do not fit each other: join again"
        ) from error


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A path for what only reads files. On Linux the content never reaches a disk; elsewhere nobody else may read it."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("machinebot", os.MFD_CLOEXEC)
        name = f"/proc/self/fd/{descriptor}"
    else:
        descriptor, name = tempfile.mkstemp(prefix="machinebot-")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield name
    finally:
        os.close(descriptor)
        if sys.platform != "linux":
            os.unlink(name)  # noqa: PTH108 - beside the calls that made it


def send(
    address: Address,
    tls: ssl.SSLContext,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    timeout: float,
) -> Answer:
    """One request, and its answer; redirects are not followed.

    Args:
        address: Where to.
        tls: See `context`.
        path: Path of ours, behind the address's own.
        body: JSON to be sent by POST; None for a GET.
        headers: More header fields.
        timeout: Seconds for connecting, for the handshake, and for all of the answer.

    Raises:
        Unavailable: No answer, or not by whom it should be, or one that is too long.
        Denied: The server refuses the client's certificate.
    """
    connection = _connection(address, tls, timeout)
    fields = {"User-Agent": "machinebot", "Accept": "application/json", "Connection": "close", **headers}
    if body is not None:
        fields["Content-Type"] = "application/json"
    try:
        connection.connect()
        if isinstance(connection.sock, _DeadlineSocket):
            connection.sock.deadline = time.monotonic() + timeout
        connection.request("GET" if body is None else "POST", f"{address.prefix}{path}", body=body, headers=fields)
        with connection.getresponse() as response:
            return _read(response)
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            UNTRUSTED,
            f"{address.host} is not shown to be the server that is meant ({error.verify_message}): let ca name the CA that signs "
            "its certificate, and let the address be a name that the certificate holds",
        ) from error
    except ssl.SSLError as error:
        if any(word in (error.reason or "") for word in _ALERTS):
            raise Denied(IDENTITY_REFUSED, f"{address.host} refuses the TLS certificate of this identity: join again") from error
        raise _unreachable(address, error) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(address, error) from error
    finally:
        connection.close()


def _read(response: HTTPResponse) -> Answer:
    body = response.read(MAX_ANSWER + 1)
    if len(body) > MAX_ANSWER:
        raise Unavailable(UNREADABLE, f"the answer is longer than {MAX_ANSWER} bytes: is this the address of a join API?")
    if response.length:
        raise IncompleteRead(body, response.length)
    return Answer(response.status, body, response.getheader("Retry-After", ""))


def _unreachable(address: Address, error: Exception) -> Unavailable:
    # An HTTPException may repeat what the server sent, at any length.
    detail = str(error)[:200] if isinstance(error, OSError) else type(error).__name__
    return Unavailable(
        UNREACHABLE, f"{address.host}:{address.port} does not answer ({detail}): check the address, the network and any proxy"
    )


class _DeadlineSocket(ssl.SSLSocket):
    """Gives up reading at a moment, however slowly the other side sends."""

    deadline: float | None = None
    """By the monotonic clock; None for no such moment."""

    @override
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer takes too long")
            self.settimeout(left)
        return super().recv_into(*args, **kwargs)


# --- proxies ------------------------------------------------------------------------------------------------------------


def _connection(address: Address, tls: ssl.SSLContext, timeout: float) -> HTTPConnection:
    proxy = _proxy(address)
    if proxy is None:
        return HTTPSConnection(address.host, address.port, timeout=timeout, context=tls)
    connection = HTTPSConnection(proxy.host, proxy.port, timeout=timeout, context=tls)
    connection.set_tunnel(address.host, address.port, headers=dict(proxy.headers))
    return connection


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    headers: Mapping[str, str] = field(repr=False)


def _proxy(address: Address) -> _Proxy | None:
    """The HTTP proxy that CONNECT is sent to (RFC 9110, section 9.3.6), as `HTTPS_PROXY` and `NO_PROXY` say.

    Raises:
        Invalid: `HTTPS_PROXY` is no address of an HTTP proxy.
    """
    written = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
    if not written:
        return None
    if proxy_bypass(f"{address.host}:{address.port}"):
        return None
    try:
        parts = urlsplit(written if "://" in written else f"http://{written}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        parts, host, port = urlsplit(""), None, 0
    if parts.scheme != "http" or host is None:
        raise Invalid("InvalidProxy", "HTTPS_PROXY is no address of an HTTP proxy: write it as http://proxy.example.test:3128")
    headers: dict[str, str] = {}
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
    return _Proxy(host, port, headers)
