"""Private keys of outputs: made where they are used, and never printed."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typing_extensions import override

from machinebot.resources.output import PrivateKeyAlgorithm

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_EXPONENT: Final = 65537
"""The public exponent of RSA keys: the one that our authority takes."""

_GENERATORS: Final[Mapping[PrivateKeyAlgorithm, Callable[[], PrivateKey]]] = {
    "ECDSA-P256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ECDSA-P384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA-2048": lambda: rsa.generate_private_key(public_exponent=_EXPONENT, key_size=2048),
    "RSA-4096": lambda: rsa.generate_private_key(public_exponent=_EXPONENT, key_size=4096),
}

SLOW: Final[frozenset[PrivateKeyAlgorithm]] = frozenset({"RSA-2048", "RSA-4096"})
"""Algorithms whose keys take 0.05 to some seconds: they belong off the event loop."""


class PrivateKeyPair:
    """A private key with its public half. Its text form shows neither."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key

    @override
    def __repr__(self) -> str:
        return "PrivateKeyPair(...)"

    @property
    def private_key(self) -> PrivateKey:
        """The key itself, for what is encrypted around it."""
        return self._key

    @cached_property
    def pkcs8(self) -> bytes:
        """The private key as PEM (PKCS#8, RFC 5958), unencrypted."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @cached_property
    def openssh(self) -> bytes:
        """The private key in OpenSSH's own form (PROTOCOL.key), unencrypted."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())

    @cached_property
    def spki(self) -> bytes:
        """The public key as DER SubjectPublicKeyInfo (RFC 5280)."""
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @cached_property
    def authorized_key(self) -> bytes:
        """The public key as one authorized_keys line, without comment and newline."""
        return self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def generate(algorithm: PrivateKeyAlgorithm) -> PrivateKeyPair:
    """A new private key. Elliptic curves take about 0.05 ms, quick enough for the event loop; for RSA see `SLOW`."""
    return PrivateKeyPair(_GENERATORS[algorithm]())
