"""PKCS #12 files (RFC 7292) of a credential: a keystore with the certificate and its key, a truststore with the CAs."""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import KeySerializationEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import pkcs12 as files

from machinebot.outputs.base import Material
from machinebot.policy.credential import TrustAnchor

KEYSTORE: Final = "keystore.p12"
TRUSTSTORE: Final = "truststore.p12"
PASSWORD: Final = "keystore.password"  # noqa: S105 - the name of a key

PKCS12_KEYS: Final = frozenset({KEYSTORE, TRUSTSTORE})
"""The keys of the Secret that hold the files."""

ROUNDS: Final = 10_000
"""Iterations of PBKDF2, which takes some milliseconds: the password is as strong as a key where it is made for you."""

ALIAS: Final = b"machinebot"
"""The friendlyName of the certificate with the key, as Java's programs ask for it."""


def pkcs12(material: Material, password: str, *, show_password: bool) -> dict[str, bytes]:
    """Both files, and the password where it is to be shown.

    AES-256 in PBES2 and an HMAC with SHA-256, which OpenSSL from 1.1 and Java from 8u301 read.

    Args:
        material: With an X.509 certificate.
        password: Protects both files.
        show_password: Whether the password stands beside them.

    Raises:
        ValueError: There is no X.509 certificate: a fault of ours.
    """
    if material.issued.x509_certificate is None:
        raise ValueError("a keystore holds an X.509 certificate")
    certificate = x509.load_pem_x509_certificate(material.issued.x509_certificate)
    authorities = [(anchor, x509.load_pem_x509_certificate(anchor.public)) for anchor in _anchors(material)]
    encoded = password.encode()
    data = {
        KEYSTORE: _pkcs12(material, certificate, [each for _, each in authorities], encoded),
        TRUSTSTORE: _truststore(authorities, encoded),
    }
    return data | ({PASSWORD: encoded} if show_password else {})


def _pkcs12(material: Material, certificate: x509.Certificate, authorities: list[x509.Certificate], password: bytes) -> bytes:
    return files.serialize_key_and_certificates(ALIAS, material.key.private_key, certificate, authorities, _encryption(password))


def _truststore(authorities: list[tuple[TrustAnchor, x509.Certificate]], password: bytes) -> bytes:
    entries = [files.PKCS12Certificate(each, f"machinebot-{anchor.id}".encode()) for anchor, each in authorities]
    return files.serialize_java_truststore(entries, _encryption(password))


def _encryption(password: bytes) -> KeySerializationEncryption:
    return (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(ROUNDS)
        .key_cert_algorithm(files.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password)
    )


def _anchors(material: Material) -> tuple[TrustAnchor, ...]:
    """The CAs of the purpose that signed the X.509 certificate."""
    purpose = next(purpose for purpose in material.issued.authorities if not purpose.is_ssh)
    return material.trust.of(purpose)
