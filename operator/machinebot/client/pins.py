"""Trust in a server that one knows by nothing but the hash of its CA's public key, as Teleport's CA pin.

The server is asked for its CAs over a connection that is not verified. What comes back is worth nothing but for a CA certificate
whose public key has the hash that was written down: only who has the private key of that CA can show a certificate by it, so that
a connection verified by this one certificate is one with the server that was meant. Nothing is sent over the first connection
but the question for the CAs, which are public.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from machinebot.client.api import TIMEOUT, JoinClient, unverified_server_ca
from machinebot.errors import Denied, Invalid

PIN: Final = re.compile("sha256:[0-9a-f]{64}")
"""`sha256:` and the SHA-256 of the CA certificate's SubjectPublicKeyInfo (RFC 5280, section 4.1) in hex."""

MAX_CERTIFICATES: Final = 16
"""Most CA certificates that a server may have: ours has three at most at a time."""


def pin_of(certificate: x509.Certificate) -> str:
    """The pin of a CA certificate."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def ca_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in a text that may sign others.

    Raises:
        ValueError: It holds something else, nothing, or too many.
    """
    found = x509.load_pem_x509_certificates(pem)
    if len(found) > MAX_CERTIFICATES:
        raise ValueError("too many certificates")
    return tuple(certificate for certificate in found if _may_sign(certificate))


def pinned_ca(pem: bytes, pin: str) -> bytes:
    """The CA certificates in a text from anybody that have the pin, PEM.

    Raises:
        Denied: There is none.
    """
    try:
        found = [certificate for certificate in ca_certificates(pem) if hmac.compare_digest(pin_of(certificate), pin)]
    except (ValueError, UnsupportedAlgorithm):
        found = []
    if not found:
        raise Denied(
            "CAPinMismatch",
            "no CA of the server at this address has the pin in ca.pin: either it is another server, or its CA was rotated since "
            "the pin was written down; `machinebot trust identity-ca` prints the CAs where there is a kubeconfig",
        )
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found)


def fetch_pinned(url: str, pin: str, *, timeout: float = TIMEOUT) -> bytes:
    """The CA certificates of the server, PEM, as it tells them over a connection that was verified by the pinned one.

    Args:
        url: Address of the server.
        pin: See `PIN`.
        timeout: Seconds, see `JoinClient`.

    Raises:
        Invalid: The pin is none.
        Denied: The server has no CA with that pin.
        Unavailable: It does not answer, or its certificate is not by the CA with the pin.
    """
    if PIN.fullmatch(pin) is None:
        raise Invalid(
            "InvalidPin",
            "ca.pin is sha256: and 64 hex digits: the SHA-256 of the public key of the CA certificate; see docs/agent.md",
        )
    anchor = pinned_ca(unverified_server_ca(url, timeout=timeout), pin)
    return merged((anchor, JoinClient(url, ca=anchor, timeout=timeout).server_ca()))


def merged(several: Sequence[bytes]) -> bytes:
    """The CA certificates in several texts, each once, PEM; what cannot be read is passed over."""
    found: dict[bytes, None] = {}
    for pem in several:
        try:
            found |= dict.fromkeys(certificate.public_bytes(Encoding.PEM) for certificate in ca_certificates(pem))
        except (ValueError, UnsupportedAlgorithm):
            continue
    return b"".join(found)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
