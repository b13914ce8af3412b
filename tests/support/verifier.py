"""What verifiers do: fetch over real HTTPS, verified, one request a connection."""

import http.client
import ssl
from dataclasses import dataclass
from typing import Any

HOST = "localhost"
"""The name that the certificate of an operator on this machine is good for."""

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL: for an operator whose clock was stepped away from the machine's."""

TIMEOUT = 20.0
"""Seconds for one request."""


@dataclass(frozen=True)
class Answer:
    """What came back; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    certificate: bytes

    @property
    def tag(self) -> str:
        """The ETag."""
        return self.headers["etag"]


def trusting(ca: bytes, *, any_time: bool = False) -> ssl.SSLContext:
    """A client's TLS that takes what these CAs signed for this machine, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode())
    if any_time:
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_CHECK_TIME)
    return context


def fetch(port: int, path: str, tls: ssl.SSLContext, *, method: str = "GET", **headers: str) -> Answer:
    """One request; headers by their names with `_` for `-`.

    Raises:
        OSError: No answer, or not by whom it should be.
    """
    connection = http.client.HTTPSConnection(HOST, port, context=tls, timeout=TIMEOUT)
    try:
        connection.connect()
        certificate = connection.sock.getpeercert(binary_form=True)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read(), certificate)
    finally:
        connection.close()


def public_of(authority: dict[str, Any], purpose: str) -> bytes:
    """The CAs of one purpose, as the status of a MachineAuthority tells them."""
    return "".join(each["public"] for each in authority["status"]["authorities"] if each["purpose"] == purpose).encode()
