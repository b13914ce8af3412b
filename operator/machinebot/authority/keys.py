"""Keys of CAs, which never print themselves, and public keys from outside, which are held against an allow-list."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from machinebot.errors import Invalid
from machinebot.policy.credential import Purpose
from machinebot.resources.authority import KeyAlgorithm

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

MAX_SPKI: Final = 1024
"""Longest public key that is parsed at all, in bytes of DER; one of RSA-4096 has 550."""

MAX_PRIVATE_PEM: Final = 8192
"""Longest private key that is parsed at all, in bytes of PEM; one of RSA-4096 has about 3,300."""

MIN_RSA_BITS: Final = 2048
"""Shorter RSA keys can be broken."""

MAX_RSA_BITS: Final = 4096
"""Longer RSA keys cost verifiers more than they gain."""

RSA_EXPONENT: Final = 65537
"""The one public exponent taken: what every generator makes. Small ones invite attacks, huge ones cost the verifier time."""

UNREADABLE: Final = (
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the parsers of keys and certificates raise where these are broken; much is parsed only when it is asked for."""

_GENERATORS: Final[Mapping[KeyAlgorithm, Callable[[], PrivateKey]]] = MappingProxyType(
    {
        "ECDSA-P256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ECDSA-P384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "RSA-4096": lambda: rsa.generate_private_key(public_exponent=RSA_EXPONENT, key_size=MAX_RSA_BITS),
    }
)


@dataclass(frozen=True)
class CAKey:
    """The private key of a CA with its public half. Its text form shows the id only; two are equal if their public keys are.

    Attributes:
        id: Identifier of the key: see `key_id`.
        spki: The public key as DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
        private_key: What signs.
    """

    id: str
    spki: bytes = field(repr=False)
    private_key: PrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, private_key: PrivateKey) -> Self:
        """The key with what follows from it."""
        public = spki(private_key.public_key())
        return cls(id=key_id(public), spki=public, private_key=private_key)

    @cached_property
    def public_key(self) -> PublicKey:
        """What verifies."""
        return self.private_key.public_key()

    @cached_property
    def authorized_key(self) -> bytes:
        """The public key as one authorized_keys line, without comment and newline."""
        return authorized_key(self.public_key)

    @cached_property
    def subject_key_identifier(self) -> x509.SubjectKeyIdentifier:
        """The extension by which certificates find their CA (RFC 5280, section 4.2.1.2, method 1)."""
        return x509.SubjectKeyIdentifier.from_public_key(self.public_key)

    def pkcs8(self) -> bytes:
        """The private key as PEM (PKCS#8, RFC 5958), unencrypted: for the Secret, and nothing else."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def ca_algorithm(algorithm: KeyAlgorithm, purpose: Purpose) -> KeyAlgorithm:
    """The algorithm that a CA gets: with Ed25519 only the SSH CAs use it, since many verifiers take no Ed25519 in X.509."""
    return "ECDSA-P256" if algorithm == "Ed25519" and not purpose.is_ssh else algorithm


def generate(algorithm: KeyAlgorithm, purpose: Purpose) -> CAKey:
    """A new CA key. Elliptic curves take 0.05 ms; RSA-4096 takes a second or more and belongs into a thread."""
    return CAKey.of(_GENERATORS[ca_algorithm(algorithm, purpose)]())


def load_pkcs8(pem: bytes) -> CAKey:
    """Reads a CA key as `CAKey.pkcs8` wrote it.

    Raises:
        Invalid: It is none, or of a kind that no CA of ours has.
    """
    damaged = Invalid("InvalidPrivateKey", "the private key of a CA is unreadable, or of an algorithm that is not taken")
    if len(pem) > MAX_PRIVATE_PEM:
        raise damaged
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the cause: it may show parts of the key.
        raise damaged from None
    if not isinstance(key, PrivateKey) or _allowed(key.public_key()) is None:
        raise damaged
    return CAKey.of(key)


def parse_public_key(der: bytes) -> PublicKey:
    """Reads a public key from outside: DER SubjectPublicKeyInfo of EC P-256 or P-384, Ed25519, or RSA of 2,048 to 4,096 bits.

    The parser refuses a point that does not lie on its curve, and the infinite one.

    Raises:
        Invalid: It is too long, unreadable, of another algorithm, or not in the one canonical form.
    """
    if len(der) > MAX_SPKI:
        raise Invalid("InvalidPublicKey", f"the public key has {len(der)} bytes, and at most {MAX_SPKI} are read")
    try:
        key = _allowed(serialization.load_der_public_key(der))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("InvalidPublicKey", "the public key is no DER SubjectPublicKeyInfo of a known algorithm") from error
    if key is None:
        raise Invalid(
            "PublicKeyNotAllowed",
            f"the public key is of an algorithm that is not taken: use EC P-256 or P-384, Ed25519, or RSA of {MIN_RSA_BITS} to "
            f"{MAX_RSA_BITS} bits with the exponent {RSA_EXPONENT}",
        )
    # One key, one form: whoever compares keys compares bytes.
    if spki(key) != der:
        raise Invalid(
            "InvalidPublicKey", "the public key is not in canonical DER: write it with an uncompressed point, nothing after"
        )
    return key


def spki(key: PublicKey) -> bytes:
    """A public key as DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def authorized_key(key: PublicKey) -> bytes:
    """A public key as one authorized_keys line, without comment and newline (sshd(8))."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def key_id(spki_der: bytes) -> str:
    """Identifier of a key: the first 16 hex digits of the SHA-256 of its SubjectPublicKeyInfo."""
    return hashlib.sha256(spki_der).hexdigest()[:16]


def _allowed(key: object) -> PublicKey | None:
    """The key if its algorithm and size are taken."""
    match key:
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return key
        case ed25519.Ed25519PublicKey():
            return key
        case rsa.RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and key.public_numbers().e == RSA_EXPONENT:
            return key
        case _:
            return None
