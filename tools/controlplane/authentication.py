"""Whom the API server takes besides its own: client CAs and issuers of tokens that come and go while it runs.

It reads both files again when they change. What is here replaces a file at once as a whole, and knows how to tell when the
new one counts.
"""

import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from controlplane.commands import Layout
from controlplane.ports import LOOPBACK
from controlplane.processes import Part, wait_until

SECONDS = 90.0
"""For one change: the API server looks at once, but waits up to a minute for an issuer that does not answer, in steps of 10 s."""
METRICS_POLL_SECONDS = 0.5
"""Between two looks at the metrics: a few megabytes, which cost the API server far more than the change itself."""
HANDSHAKE_SECONDS = 10.0
"""For one TLS handshake."""

API_VERSION = "apiserver.config.k8s.io/v1"
"""Of the authentication configuration, since Kubernetes 1.34 (`OLDEST`)."""
OLDEST = (1, 34)
"""The first kube-apiserver that has `API_VERSION`, and that tells by a metric which configuration counts."""

_IN_FORCE = "apiserver_authentication_config_controller_last_config_info{"
_RELOADS = "apiserver_authentication_config_controller_automatic_reloads_total{"


class NotTakenError(RuntimeError):
    """The API server read the new configuration and refused it; its log says why."""


class Authentication:
    """The client CA bundle and the authentication configuration of one API server. Makes the files.

    Args:
        layout: Where the files are, and the API server's port.
        own: The authority of the control plane's own clients, PEM; it always counts.
        server: The API server; it need not run yet.
        metrics: Reads its metrics; raises OSError while it does not answer.
        configurable: Whether it has an authentication configuration at all.
    """

    def __init__(self, layout: Layout, own: bytes, server: Part, metrics: Callable[[], str], *, configurable: bool) -> None:
        self._layout, self._server, self._metrics, self._configurable = layout, server, metrics, configurable
        self._lock = threading.Lock()
        self._authorities: list[bytes] = [own]
        self._authenticators: list[Mapping[str, Any]] = []
        replace(layout.client_ca, own)
        replace(layout.authentication_config, configuration(()))

    @contextlib.contextmanager
    def clients(self, authorities: Sequence[bytes]) -> Iterator[None]:
        """See `ControlPlane.accepting_clients`."""
        subjects(authorities)
        try:
            with self._lock:
                self._authorities += authorities
                self._publish_authorities()
            yield
        finally:
            with self._lock:
                for authority in authorities:
                    self._authorities.remove(authority)
                self._publish_authorities(gone=authorities)

    @contextlib.contextmanager
    def tokens(self, authenticator: Mapping[str, Any]) -> Iterator[None]:
        """See `ControlPlane.accepting_tokens`."""
        if not self._configurable:
            raise ValueError(f"only a kube-apiserver of {'.'.join(map(str, OLDEST))} or newer is given issuers of tokens")
        try:
            with self._lock:
                self._authenticators.append(authenticator)
                self._publish_authenticators()
            yield
        finally:
            with self._lock:
                self._authenticators.remove(authenticator)
                self._publish_authenticators()

    def _publish_authorities(self, gone: Sequence[bytes] = ()) -> None:
        wanted = subjects(self._authorities)
        unwanted = subjects(gone) - wanted
        replace(self._layout.client_ca, b"\n".join(self._authorities))

        def named() -> bool:
            # The list is put together after the verifier has the new bundle, so that both have it once the list does. And
            # some clients send no certificate of a CA that is not in the list.
            flight = first_flight(self._layout.api_port)
            return all(name in flight for name in wanted) and not any(name in flight for name in unwanted)

        wait_until("the new client CAs", named, seconds=SECONDS, parts=[self._server])

    def _publish_authenticators(self) -> None:
        content = configuration(self._authenticators)
        failed = failures(self._metrics())
        replace(self._layout.authentication_config, content)

        def counts() -> bool:
            metrics = self._metrics()
            if in_force(content, metrics):
                return True
            if failures(metrics) > failed:
                raise NotTakenError(f"the API server did not take the authentication configuration; see {self._server.log}")
            return False

        what = "the new authentication configuration"
        wait_until(what, counts, seconds=SECONDS, parts=[self._server], interval=METRICS_POLL_SECONDS)


def configuration(authenticators: Sequence[Mapping[str, Any]]) -> bytes:
    """An AuthenticationConfiguration with these entries of `jwt`. It leaves `anonymous` out: there the flag counts."""
    body: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "AuthenticationConfiguration"}
    if authenticators:
        body["jwt"] = [dict(each) for each in authenticators]
    return json.dumps(body, indent=2).encode()  # JSON is YAML, and needs no package


def in_force(content: bytes, metrics: str) -> bool:
    """Whether the metrics say that this very authentication configuration counts."""
    digest = f'hash="sha256:{hashlib.sha256(content).hexdigest()}"'
    return any(line.startswith(_IN_FORCE) and digest in line for line in metrics.splitlines())


def failures(metrics: str) -> float:
    """How many authentication configurations were read and refused so far."""
    lines = (line for line in metrics.splitlines() if line.startswith(_RELOADS) and 'status="failure"' in line)
    return sum(float(line.split()[-1]) for line in lines)


def subjects(authorities: Iterable[bytes]) -> frozenset[bytes]:
    """The names of CAs, DER.

    Raises:
        ValueError: One is no PEM with a certificate or several.
    """
    certificates = [certificate for each in authorities for certificate in x509.load_pem_x509_certificates(each)]
    return frozenset(certificate.subject.public_bytes() for certificate in certificates)


def first_flight(port: int) -> bytes:
    """What a TLS server on loopback says in a handshake without a client certificate.

    In TLS 1.2 the names of the CAs whose client certificates it takes stand there in plain text (RFC 5246, section 7.4.4).

    Raises:
        OSError: It does not answer, or not with TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, and nothing here is believed
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    said = bytearray()
    with socket.create_connection((LOOPBACK, port), timeout=HANDSHAKE_SECONDS) as line:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                line.sendall(outgoing.read())
                answer = line.recv(2**16)
                if not answer:
                    raise ConnectionResetError("it hung up in the handshake") from None
                said += answer
                incoming.write(answer)
            else:
                return bytes(said)


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another at once: no reader sees half of it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
