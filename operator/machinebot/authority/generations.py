"""One generation of a CA: what it is, and how it is made.

How generations are kept stands in `stored`, when one follows another in `rotation`.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from machinebot.authority import keys
from machinebot.authority.profiles import new_serial
from machinebot.errors import Invalid
from machinebot.policy.credential import AnchorState, Purpose, TrustAnchor
from machinebot.resources.authority import MIN_OVERLAP, KeyAlgorithm, Rotation
from machinebot.resources.meta import parse_duration

SLACK: Final = timedelta(days=1)
"""A CA lives this much longer than its rotation needs, so that a rotation that is late by a day shortens no credential."""

CA_BACKDATE: Final = timedelta(hours=25)
"""How far a CA's notBefore lies in the past: a clock that steps back by less makes no credential begin before its CA."""

CA_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
"""What the key of a CA is for (RFC 5280, section 4.2.1.3)."""

CA_CONSTRAINTS: Final = x509.BasicConstraints(ca=True, path_length=0)
"""No CA below ours."""


@dataclass(frozen=True)
class Generation:
    """One generation of the CA of one purpose.

    Attributes:
        id: Identifier: the key id, so that it changes with the key.
        purpose: What it signs.
        state: PREPARED (published, not signing), ACTIVE (signing) or OLD (trusted, not signing).
        created_at: When it was made and published.
        activated_at: When it began to sign.
        superseded_at: When it signed last.
        not_after: When it ends; nothing that it signs ends later.
        key: The private key, in a type that does not print itself.
        certificate: The CA certificate as PEM; None for SSH.
    """

    id: str
    purpose: Purpose
    state: AnchorState
    created_at: datetime
    activated_at: datetime | None
    superseded_at: datetime | None
    not_after: datetime
    key: keys.CAKey
    certificate: bytes | None

    @cached_property
    def issuer(self) -> x509.Certificate:
        """The CA certificate, parsed.

        Raises:
            Invalid: It is an SSH CA, which has none.
        """
        if self.certificate is None:
            raise Invalid("NoCACertificate", f"the CA {self.purpose.value} has a key and no certificate")
        return x509.load_pem_x509_certificate(self.certificate)

    @cached_property
    def anchor(self) -> TrustAnchor:
        """The generation as verifiers need it."""
        return TrustAnchor(
            purpose=self.purpose,
            id=self.id,
            state=self.state,
            public=self.certificate or self.key.authorized_key,
            fingerprint=self.issuer.fingerprint(hashes.SHA256()).hex() if self.certificate else _ssh_fingerprint(self.key),
            not_after=self.not_after,
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rotation as lengths, never below what keeps every credential good.

    Attributes:
        every: How long one generation signs.
        overlap: How long one is published before it signs, and trusted after it has signed last.
    """

    every: timedelta
    overlap: timedelta

    @classmethod
    def of(cls, rotation: Rotation) -> Self:
        """The lengths of a rotation, raised to the floors that the CRD sets too: an older schema may have let others pass.

        Raises:
            Invalid: One is no duration.
        """
        try:
            every, overlap = parse_duration(rotation.every), parse_duration(rotation.overlap)
        except ValueError as error:
            raise Invalid("InvalidSpec", f"embedded.rotation: {error}") from error
        overlap = max(overlap, parse_duration(MIN_OVERLAP))
        return cls(every=max(every, 2 * overlap), overlap=overlap)

    @property
    def life(self) -> timedelta:
        """From the making of a generation to its end: published, signing, trusted, and a slack."""
        return self.overlap + self.every + self.overlap + SLACK


def new_generation(
    purpose: Purpose, *, algorithm: KeyAlgorithm, cluster_name: str, rotation: Rotation, now: datetime
) -> Generation:
    """A new generation, PREPARED. With RSA-4096 it takes a second or more and belongs into a thread.

    Args:
        purpose: What it will sign.
        algorithm: `embedded.keyAlgorithm`; see `keys.ca_algorithm`.
        cluster_name: Name of the cluster, in the certificate's subject.
        rotation: `embedded.rotation`, which gives its life.
        now: The time.
    """
    now = now.replace(microsecond=0)
    key = keys.generate(algorithm, purpose)
    not_after = now + Schedule.of(rotation).life
    certificate = None
    if not purpose.is_ssh:
        certificate = _ca_certificate(purpose, key, cluster_name=cluster_name, not_before=now - CA_BACKDATE, not_after=not_after)
    return Generation(
        id=key.id,
        purpose=purpose,
        state=AnchorState.PREPARED,
        created_at=now,
        activated_at=None,
        superseded_at=None,
        not_after=not_after,
        key=key,
        certificate=certificate,
    )


def signature_hash(key: keys.PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash of X.509 signatures by the key: as strong as its curve. X.509 CAs are EC or RSA, see `keys.ca_algorithm`."""
    return (
        hashes.SHA384()
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
        else hashes.SHA256()
    )


def _ca_certificate(purpose: Purpose, key: keys.CAKey, *, cluster_name: str, not_before: datetime, not_after: datetime) -> bytes:
    # Each generation has its own subject: verifiers that find many CAs of one name try all and give up (spire#4415).
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_name),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name(purpose, key.id)),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key)
        .serial_number(new_serial())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(CA_CONSTRAINTS, critical=True)
        .add_extension(CA_KEY_USAGE, critical=True)
        .add_extension(key.subject_key_identifier, critical=False)
    )
    if purpose is Purpose.WORKLOAD:
        # A signing certificate of SPIFFE may name its trust domain (X509-SVID, section 3.1).
        spiffe = x509.UniformResourceIdentifier(f"spiffe://{cluster_name}")
        builder = builder.add_extension(x509.SubjectAlternativeName([spiffe]), critical=False)
    return builder.sign(key.private_key, signature_hash(key.private_key)).public_bytes(Encoding.PEM)


def common_name(purpose: Purpose, key_id: str) -> str:
    """The CN of a CA certificate: at most 38 characters of the 64 that RFC 5280 allows."""
    return f"machinebot {purpose.value} {key_id}"


def _ssh_fingerprint(key: keys.CAKey) -> str:
    """As `ssh-keygen -l` prints it."""
    blob = base64.b64decode(key.authorized_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
