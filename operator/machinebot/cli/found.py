"""What is told of one certificate, key or token, and what all of them share."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


@dataclass(frozen=True, slots=True)
class Found:
    """One certificate, key or token.

    Attributes:
        form: What it is, for people: `SSH user certificate`.
        files: Names of the files, or keys of the Secret, that hold it.
        subject: Who it is for.
        names: Principals, alternative names, or audiences.
        serial: Serial number, decimal.
        not_before: Begin, UTC.
        not_after: End, UTC.
        issuer: Who signed it: the CA's name or key.
        extensions: What it permits and demands, and what else it says.
        algorithm: Algorithm of its key.
        fingerprint: SHA-256, as the tools of its form print it.
        private_key: Name of the file whose private key fits it; None where none does, or none could.
        authority: Whether it is the certificate of a CA.
        problem: Why it cannot be read.
        public: Its public key, DER, to hold private keys against; empty where it has none.
        identity: What tells it from others.
    """

    form: str
    files: tuple[str, ...] = ()
    subject: str = ""
    names: tuple[str, ...] = ()
    serial: str = ""
    not_before: datetime | None = None
    not_after: datetime | None = None
    issuer: str = ""
    extensions: tuple[str, ...] = ()
    algorithm: str = ""
    fingerprint: str = ""
    private_key: str | None = None
    authority: bool = False
    problem: str = ""
    public: bytes = field(default=b"", repr=False)
    identity: bytes = field(default=b"", repr=False)

    @property
    def wants_key(self) -> bool:
        """Whether a private key belongs to it: it is somebody's certificate."""
        return self.form.endswith("certificate") and not self.authority


PRIVATE_KEY: Final = "private key"


def spki_of(key: Any) -> bytes:
    """SubjectPublicKeyInfo, DER: the form that all kinds of keys share."""
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def algorithm(key: object) -> str:
    """Algorithm and size of a public key, as `privateKey.algorithm` spells them."""
    match key:
        case rsa.RSAPublicKey():
            return f"RSA-{key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"ECDSA-P{key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case _:
            return type(key).__name__.removesuffix("PublicKey").strip("_")
