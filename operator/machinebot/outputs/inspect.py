"""Reads the content of a Secret back: does the private key fit every certificate, and from when to when do they hold?

The same look is taken before a Secret is written and when one is found, so that the Secret alone is enough to go on from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_identity,
)

from machinebot.errors import Invalid
from machinebot.outputs import packing
from machinebot.outputs.registry import MachineOutput

MAX_PIECE: Final = 64 * 1024
"""Largest key or certificate that is parsed, bytes; real ones have below 8 KiB."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the content of a Secret amounts to.

    Attributes:
        serial: Of every certificate in it.
        not_before: Begin, UTC.
        not_after: End, UTC.
    """

    serial: int
    not_before: datetime
    not_after: datetime


def digest(data: Mapping[str, bytes]) -> str:
    """SHA-256 over keys and values, each with its length before it, in the order of the keys; hex."""
    total = hashlib.sha256()
    for key in sorted(data):
        for part in (key.encode(), data[key]):
            total.update(len(part).to_bytes(8))
            total.update(part)
    return total.hexdigest()


def inspect(output: MachineOutput, data: Mapping[str, bytes]) -> Content:
    """What the content of a Secret of that output amounts to.

    Raises:
        Invalid: A key is missing or too many, a piece cannot be read, the private key does not fit a certificate, or the
            credentials differ in serial or dates. The message never shows content.
    """
    _check_keys(packing.keys(output), data)
    try:
        parts = output.type.parts(output.settings, packing.unpacked(output, data))
    except ValueError:
        raise Invalid("SecretDamaged", "a key of the Secret holds something that cannot be read") from None
    found = {_token(name, text) for name, text in parts.tokens.items()}
    if parts.private_key is not None:
        public = _public_key(parts.private_key)
        found |= {_certificate(name, text, public) for name, text in parts.certificates.items()}
    if len(found) != 1:
        raise Invalid("SecretDamaged", "the credentials in the Secret are not of one issue")
    return found.pop()


def _check_keys(keys: frozenset[str], data: Mapping[str, bytes]) -> None:
    missing, surplus = sorted(keys - data.keys()), sorted(data.keys() - keys)
    if missing or surplus:
        raise Invalid("SecretDamaged", f"the Secret lacks the keys {missing} and has the foreign keys {surplus}")
    large = sorted(key for key, value in data.items() if len(value) > MAX_PIECE)
    if large:
        raise Invalid("SecretDamaged", f"the keys {large} of the Secret are larger than {MAX_PIECE} bytes")


def _public_key(text: bytes) -> bytes:
    """The public half of a private key, as DER."""
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in text else load_pem_private_key
    try:
        key = load(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid("SecretDamaged", "the Secret holds no private key where one belongs") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificate(name: str, text: bytes, public: bytes) -> Content:
    try:
        content, certified = _x509(text) if text.startswith(b"-----BEGIN") else _ssh(text)
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):  # OverflowError: an SSH certificate without an end
        raise Invalid("SecretDamaged", f"{name!r} in the Secret holds no certificate") from None
    if certified != public:
        raise Invalid("SecretDamaged", f"the private key in the Secret does not fit the certificate {name!r}")
    return content


def _x509(text: bytes) -> tuple[Content, bytes]:
    certificate = x509.load_pem_x509_certificate(text)
    content = Content(
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )
    return content, certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _ssh(text: bytes) -> tuple[Content, bytes]:
    certificate = load_ssh_public_identity(text)
    if not isinstance(certificate, SSHCertificate):
        raise TypeError("a plain key")
    content = Content(
        serial=certificate.serial,
        not_before=datetime.fromtimestamp(certificate.valid_after, UTC),
        not_after=datetime.fromtimestamp(certificate.valid_before, UTC),
    )
    return content, certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _token(name: str, text: bytes) -> Content:
    """What a JWT says of itself. It is not verified: whether the Secret is as we wrote it is told by its digest."""
    try:
        unverified = jwt.decode(text.strip().decode("ascii"), options={"verify_signature": False})
        return Content(
            serial=int(unverified["jti"]),
            not_before=datetime.fromtimestamp(int(unverified["nbf"]), UTC),
            not_after=datetime.fromtimestamp(int(unverified["exp"]), UTC),
        )
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, OverflowError, OSError):
        raise Invalid("SecretDamaged", f"{name!r} in the Secret holds no token") from None
