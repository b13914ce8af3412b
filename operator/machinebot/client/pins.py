"""Trust in a server that one knows by nothing but the hash of its CA's public key, as Teleport's CA pin.

The server is asked for its CAs over a connection that is not verified. What comes back is worth nothing but for a CA certificate
whose public key has the hash that was written down: only who has the private key of that CA can show a certificate by it, so that
a connection verified by this one certificate is one with the server that was meant. Nothing is sent over the first connection
but the question for the CAs, which are public. There may be several pins, since the next CA is published before it takes over.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
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


MAX_PINS: Final = MAX_CERTIFICATES
"""Most pins that one may write down for a server."""


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


def pins_of(pem: bytes) -> tuple[str, ...]:
    """The pins of the CA certificates in a text, each once, in their order.

    Raises:
        ValueError: It holds something else, nothing, or too many.
    """
    return tuple(dict.fromkeys(map(pin_of, ca_certificates(pem))))


def heirs(pem: bytes, pins: Collection[str]) -> tuple[str, ...]:
    """The pins of those CAs in the server's own text that live longer than every one that is pinned.

    Raises:
        ValueError: As `pins_of`.
    """
    found = {pin_of(certificate): certificate.not_valid_after_utc for certificate in ca_certificates(pem)}
    last = max((end for pin, end in found.items() if pin in pins), default=None)
    return tuple(pin for pin, end in found.items() if last is not None and end > last)


def pinned_ca(pem: bytes, pins: Collection[str]) -> bytes:
    """The CA certificates in a text from anybody that have one of the pins, PEM.

    Raises:
        Denied: There is none.
    """
    try:
        found = [certificate for certificate in ca_certificates(pem) if pin_of(certificate) in pins]
    except (ValueError, UnsupportedAlgorithm):
        found = []
    if not found:
        raise Denied(
            "CAPinMismatch",
            "no CA of the server at this address has a pin in ca.pins: either it is another server, or its CA was rotated since "
            "they were written down; `machinebot trust identity-ca --pins` prints them where there is a kubeconfig",
        )
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found)


def fetch_pinned(url: str, pins: Collection[str], *, timeout: float = TIMEOUT) -> bytes:
    """The CA certificates of the server, PEM, as it tells them over a connection that was verified by a pinned one.

    Args:
        url: Address of the server.
        pins: One or more, see `PIN`.
        timeout: Seconds, see `JoinClient`.

    Raises:
        Invalid: There is none, or one is none.
        Denied: The server has no CA with such a pin.
        Unavailable: It does not answer, or its certificate is not by a CA with such a pin.
    """
    if not pins or any(PIN.fullmatch(pin) is None for pin in pins):
        raise Invalid(
            "InvalidPin",
            "a pin in ca.pins is sha256: and 64 hex digits, the SHA-256 of a CA certificate's public key: see docs/agent.md",
        )
    anchor = pinned_ca(unverified_server_ca(url, timeout=timeout), pins)
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
