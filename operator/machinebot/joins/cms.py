"""Signed messages (Cryptographic Message Syntax, RFC 5652; once PKCS #7): one signer, whose certificate leads to a given root.

The message is read as DER by the schema below and by nothing else, its content only from `verified_content`: the bytes that the
one signature is over, by the key of the very certificate that was checked.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from machinebot.errors import Denied
from machinebot.joins.keysets import MAX_RSA_BITS, MIN_RSA_BITS

MAX_MESSAGE: Final = 16 * 1024
"""Longest message that is read, bytes; one with a chain of three certificates has some 6 KiB."""

MAX_CERTIFICATES: Final = 8
"""Most certificates of a message."""

MAX_DEPTH: Final = 3
"""Most certificates between that of the signer and the root."""

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the parsers of certificates raise where these are broken; much is parsed only when it is asked for."""

_DATA: Final = x509.ObjectIdentifier("1.2.840.113549.1.7.1")
_SIGNED_DATA: Final = x509.ObjectIdentifier("1.2.840.113549.1.7.2")
_CONTENT_TYPE: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.4")

_RSA: Final = "1.2.840.113549.1.1"
_EC: Final = "1.2.840.10045.4.3"
_DIGESTS: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
        "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
        "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
        f"{_RSA}.11": hashes.SHA256(),  # what Azure writes instead of the first
        f"{_RSA}.12": hashes.SHA384(),
        f"{_RSA}.13": hashes.SHA512(),
    }
)
"""Digest algorithms that are taken, by their identifiers."""

_SIGNATURES: Final[Mapping[str, tuple[str, str | None]]] = MappingProxyType(
    {
        f"{_RSA}.1": ("RSA", None),
        f"{_RSA}.11": ("RSA", "sha256"),
        f"{_RSA}.12": ("RSA", "sha384"),
        f"{_RSA}.13": ("RSA", "sha512"),
        f"{_EC}.2": ("EC", "sha256"),
        f"{_EC}.3": ("EC", "sha384"),
        f"{_EC}.4": ("EC", "sha512"),
    }
)
"""Signature algorithms that are taken: the kind of key, and the digest where the identifier names one."""


@asn1.sequence
class _Algorithm:
    identifier: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class _Content:
    kind: x509.ObjectIdentifier
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class _IssuerAndSerial:
    issuer: asn1.TLV
    serial: int


@asn1.sequence
class _Attribute:
    kind: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _Signer:
    version: int
    certificate: _IssuerAndSerial | Annotated[bytes, asn1.Implicit(0)]
    digest: _Algorithm
    attributes: Annotated[asn1.SetOf[_Attribute] | None, asn1.Implicit(0)]
    algorithm: _Algorithm
    signature: bytes
    unsigned: Annotated[asn1.SetOf[_Attribute] | None, asn1.Implicit(1)]


@asn1.sequence
class _SignedData:
    version: int
    digests: asn1.SetOf[_Algorithm]
    encapsulated: _Content
    certificates: Annotated[asn1.SetOf[x509.Certificate] | None, asn1.Implicit(0)]
    revoked: Annotated[asn1.SetOf[x509.CertificateRevocationList] | None, asn1.Implicit(1)]
    signers: asn1.SetOf[_Signer]


@asn1.sequence
class _Message:
    kind: x509.ObjectIdentifier
    signed: Annotated[_SignedData, asn1.Explicit(0)]


@dataclass(frozen=True, slots=True)
class UnverifiedMessage:
    """A message that was taken apart. Nothing in it is to be believed.

    Attributes:
        content: What is said to be signed.
        signed: The bytes that the signature is over: the content, or attributes that hold its digest.
        signature: The signature.
        digest: How the bytes are hashed.
        key: Kind of key that is said to have signed: RSA or EC.
        signer: The certificate that the message names as the signer's.
        certificates: The others.
    """

    content: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    digest: hashes.HashAlgorithm
    key: str
    signer: x509.Certificate
    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Trusted:
    """What the certificate of a signer is held against.

    Attributes:
        roots: Certificates that are believed as they stand.
        intermediates: More certificates that may stand between; believed no more than those of the message.
        names: Pattern of the DNS names of which the signer must have one.
        now: The time.
    """

    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]
    names: re.Pattern[str]
    now: datetime


def take_apart(data: bytes) -> UnverifiedMessage:
    """The parts of a signed message.

    Raises:
        Denied: It is none in DER with exactly one signer, whose certificate it has once (`MessageUnreadable`), or signed in a
            way that is not taken (`AlgorithmNotTaken`).
    """
    if not 0 < len(data) <= MAX_MESSAGE:
        raise Denied("MessageUnreadable", f"a signed message has 1 to {MAX_MESSAGE} bytes")
    try:
        message = asn1.decode_der(_Message, data)
        (signer,) = message.signed.signers.as_list()
        listed = message.signed.certificates.as_list() if message.signed.certificates is not None else []
        (certificate,) = [each for each in listed if _is_named(each, signer.certificate)]
        content = message.signed.encapsulated.content
        if (message.kind, message.signed.encapsulated.kind) != (_SIGNED_DATA, _DATA) or len(listed) > MAX_CERTIFICATES:
            raise ValueError("another kind of message")
        digest = _DIGESTS.get(signer.digest.identifier.dotted_string)
        key, named = _SIGNATURES.get(signer.algorithm.identifier.dotted_string, ("", None))
        if digest is None or not key or named not in (None, digest.name):
            raise Denied("AlgorithmNotTaken", "the message is not signed by RSA or ECDSA with SHA-256, SHA-384 or SHA-512")
        signed = content if signer.attributes is None else _signed_attributes(signer.attributes, content, digest)
    except UNREADABLE:
        raise Denied(
            "MessageUnreadable",
            "what was sent is no signed message (PKCS #7, DER) with its content, one signer and the certificate of that signer",
        ) from None
    return UnverifiedMessage(
        content=content,
        signed=signed,
        signature=signer.signature,
        digest=digest,
        key=key,
        signer=certificate,
        certificates=tuple(each for each in listed if each is not certificate),
    )


def _is_named(certificate: x509.Certificate, named: _IssuerAndSerial | bytes) -> bool:
    """Whether a message means that certificate (RFC 5652, section 5.3, `sid`)."""
    if isinstance(named, bytes):
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        return hmac.compare_digest(identifier, named)
    return certificate.serial_number == named.serial and certificate.issuer.public_bytes() == asn1.encode_der(named.issuer)


def _signed_attributes(attributes: "asn1.SetOf[_Attribute]", content: bytes, digest: hashes.HashAlgorithm) -> bytes:
    """The attributes as they are signed, once they were found to be about that content (RFC 5652, sections 5.4 and 11).

    Raises:
        ValueError: They are not.
    """
    by_kind: dict[x509.ObjectIdentifier, asn1.TLV] = {}
    for attribute in attributes.as_list():
        (value,) = attribute.values.as_list()
        if by_kind.setdefault(attribute.kind, value) is not value:
            raise ValueError("an attribute stands there twice")
    hashed = hashes.Hash(digest)
    hashed.update(content)
    expected = {_CONTENT_TYPE: asn1.encode_der(_DATA), _MESSAGE_DIGEST: asn1.encode_der(hashed.finalize())}
    if any(kind not in by_kind or asn1.encode_der(by_kind[kind]) != value for kind, value in expected.items()):
        raise ValueError("the attributes are about something else")
    return asn1.encode_der(attributes)


def verified_content(message: UnverifiedMessage, trusted: Trusted) -> bytes:
    """The content of a message, once its signer was found to be trusted, and its signature to be the signer's.

    Raises:
        Denied: It is not (`SignerNotTrusted`, `SignatureInvalid`).
    """
    _check_signer(message, trusted)
    if not _is_signed(message):
        raise Denied("SignatureInvalid", "the signature of the message is not good")
    return message.content


def _check_signer(message: UnverifiedMessage, trusted: Trusted) -> None:
    try:
        name = next(name for name in dns_names(message.signer) if trusted.names.fullmatch(name))
        policy = PolicyBuilder().store(Store(list(trusted.roots))).time(trusted.now).max_chain_depth(MAX_DEPTH)
        # A wildcard stands for one label: any will do to have the rest compared.
        verifier = policy.build_server_verifier(x509.DNSName(name.replace("*", "any", 1)))
        verifier.verify(message.signer, [*message.certificates, *trusted.intermediates])
    except (VerificationError, StopIteration, *UNREADABLE):
        raise Denied(
            "SignerNotTrusted",
            "the certificate of the message's signer does not lead to a root certificate of the join token, has ended, or is for "
            "another name",
        ) from None


def _is_signed(message: UnverifiedMessage) -> bool:
    try:
        match message.signer.public_key(), message.key:
            case rsa.RSAPublicKey() as key, "RSA" if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                key.verify(message.signature, message.signed, padding.PKCS1v15(), message.digest)
            case ec.EllipticCurvePublicKey() as key, "EC":
                key.verify(message.signature, message.signed, ec.ECDSA(message.digest))
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def dns_names(certificate: x509.Certificate) -> Sequence[str]:
    """The DNS names of a certificate; none where it has no alternative names.

    Raises:
        UNREADABLE: The certificate is broken.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return names.get_values_for_type(x509.DNSName)
