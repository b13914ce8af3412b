"""What a file of a credential says of itself: SSH certificates, X.509 certificates, JWTs, keys. Pure, and bounded by its input.

Nothing is verified but that keys and certificates belong together; nothing of a private key or a signature is kept.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_identity,
    ssh_key_fingerprint,
)

MAX_PIECE: Final = 64 * 1024
"""Largest file that is parsed, bytes; real ones have below 8 KiB."""

MAX_FOUND: Final = 64
"""Most certificates, keys and tokens that are read out of one file."""

_FOREVER: Final = 2**63
"""From here on the end of an SSH certificate means that it has none (PROTOCOL.certkeys: 2^64-1)."""

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_SSH_LINE: Final = re.compile(rb"(@cert-authority \S+ )?((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+)")
_JWT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_NAMED_CLAIMS: Final = frozenset({"sub", "aud", "iss", "jti", "nbf", "exp", "iat"})
"""Claims that have a field of their own."""

Json = dict[str, Any]


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


def read_all(files: Mapping[str, bytes]) -> tuple[Found, ...]:
    """Everything in the files. The same in two files is told once, private keys are held against certificates, CAs come last."""
    told: dict[bytes, Found] = {}
    for name, content in sorted(files.items()):
        for each in read(content):
            known = told.get(each.identity)
            named = (*(known.files if known else ()), name)
            told[each.identity] = replace(each, files=tuple(dict.fromkeys(named)))
    found = tuple(told.values())
    keys = {each.public: each.files[0] for each in found if each.form == PRIVATE_KEY and each.public}
    fitted = [replace(each, private_key=keys.get(each.public)) if each.wants_key else each for each in found]
    return tuple(sorted(fitted, key=_order))


def _order(each: Found) -> tuple[int, str, str]:
    rank = 0 if each.wants_key or each.form == "JWT" else 1 if each.form == PRIVATE_KEY else 2
    return (rank, each.form, each.files[0])


def read(content: bytes) -> tuple[Found, ...]:
    """What one file holds; nothing where it is something else."""
    if len(content) > MAX_PIECE:
        return (_problem("too large", f"it is larger than {MAX_PIECE} bytes", content),)
    blocks = [(found[1].decode("ascii"), found[0]) for found in _BEGIN.finditer(content)]
    if blocks:
        return tuple(_block(label, block) for label, block in blocks[:MAX_FOUND])
    stripped = content.strip()
    if _JWT.fullmatch(stripped) and not (token := _guarded("JWT", _token, stripped)).problem:
        return (token,)
    lines = [found for line in content.splitlines() if (found := _SSH_LINE.match(line)) is not None]
    return tuple(
        replace(_guarded("SSH public key", _ssh, found[2]), authority=found[1] is not None) for found in lines[:MAX_FOUND]
    )


def _block(label: str, block: bytes) -> Found:
    if label == "CERTIFICATE":
        return _guarded("X.509 certificate", _x509, block)
    if label.endswith("PRIVATE KEY"):
        return _guarded(PRIVATE_KEY, _private_key, block)
    if label == "PUBLIC KEY":
        return _guarded("public key", _public_key, block)
    return _problem(label.lower(), "it is of no kind that is shown", block)


def _guarded(form: str, read_one: Callable[[bytes], Found], content: bytes) -> Found:
    """What it says, or that it cannot be read: never what the library says of it, which may hold content."""
    try:
        return read_one(content)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, UnsupportedAlgorithm, jwt.InvalidTokenError):
        return _problem(form, "it cannot be read", content)


def _problem(form: str, problem: str, content: bytes) -> Found:
    return Found(form=form, problem=problem, identity=hashlib.sha256(content).digest())


# --- SSH ----------------------------------------------------------------------------------------------------------------


def _ssh(line: bytes) -> Found:
    """PROTOCOL.certkeys."""
    key = load_ssh_public_identity(line)
    if not isinstance(key, SSHCertificate):
        return Found(
            form="SSH public key",
            algorithm=algorithm(key),
            fingerprint=_ssh_fingerprint(key),
            public=_spki(key),
            identity=b"ssh" + _spki(key),
        )
    public = key.public_key()
    extensions = [f"{name.decode(errors='replace')}{_value(value)}" for name, value in sorted(key.extensions.items())]
    critical = [
        f"{name.decode(errors='replace')}{_value(value)} (critical)" for name, value in sorted(key.critical_options.items())
    ]
    return Found(
        form="SSH host certificate" if key.type is SSHCertificateType.HOST else "SSH user certificate",
        subject=key.key_id.decode(errors="replace"),
        names=tuple(name.decode(errors="replace") for name in key.valid_principals) or ("any: to sshd it is good for all",),
        serial=str(key.serial),
        not_before=_ssh_time(key.valid_after),
        not_after=_ssh_time(key.valid_before),
        issuer=_ssh_fingerprint(key.signature_key()),
        extensions=(*critical, *extensions),
        algorithm=algorithm(public),
        fingerprint=_ssh_fingerprint(public),
        public=_spki(public),
        identity=hashlib.sha256(key.public_bytes()).digest(),
    )


def _value(value: bytes) -> str:
    return f"={value.decode(errors='replace')}" if value else ""


def _ssh_time(seconds: int) -> datetime | None:
    return None if seconds >= _FOREVER else datetime.fromtimestamp(seconds, UTC)


def _ssh_fingerprint(key: Any) -> str:
    """As `ssh-keygen -l` has it."""
    return "SHA256:" + base64.b64encode(ssh_key_fingerprint(key, hashes.SHA256())).decode().rstrip("=")


# --- X.509 --------------------------------------------------------------------------------------------------------------


def _x509(block: bytes) -> Found:
    """RFC 5280."""
    certificate = x509.load_pem_x509_certificate(block)
    key = certificate.public_key()
    return Found(
        form="X.509 certificate",
        subject=certificate.subject.rfc4514_string(),
        names=_alternative_names(certificate),
        serial=str(certificate.serial_number),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        issuer=_issuer(certificate),
        extensions=_x509_extensions(certificate),
        algorithm=algorithm(key),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        authority=_is_authority(certificate),
        public=_spki(key),
        identity=certificate.fingerprint(hashes.SHA256()),
    )


def _issuer(certificate: x509.Certificate) -> str:
    name = certificate.issuer.rfc4514_string()
    if certificate.issuer == certificate.subject:
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, ValueError, TypeError):
            return name
        return "itself"
    return name + _key_id(certificate)


def _key_id(certificate: x509.Certificate) -> str:
    """The id of the CA's key: it tells generations of a CA apart."""
    try:
        identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return ""
    return f" (key {identifier.hex()})" if identifier else ""


_NAMES: Final[Mapping[type, str]] = {
    x509.DNSName: "DNS",
    x509.UniformResourceIdentifier: "URI",
    x509.IPAddress: "IP",
    x509.RFC822Name: "email",
}
"""Kinds of alternative names, as openssl spells them."""


def _alternative_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(f"{_NAMES.get(type(name), type(name).__name__)}:{name.value}" for name in names)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _x509_extensions(certificate: x509.Certificate) -> tuple[str, ...]:
    return tuple(text for each in certificate.extensions for text in _extension(each))


def _extension(extension: x509.Extension[Any]) -> Iterable[str]:  # noqa: PLR0911 - a table of kinds
    critical = " (critical)" if extension.critical else ""
    value = extension.value
    match value:
        case x509.SubjectAlternativeName() | x509.AuthorityKeyIdentifier():
            return ()  # these have fields of their own
        case x509.SubjectKeyIdentifier():
            return (f"key id {value.digest.hex()}{critical}",)
        case x509.BasicConstraints():
            return (f"CA {'yes' if value.ca else 'no'}{critical}",)
        case x509.ExtendedKeyUsage():
            return tuple(f"{each._name if each._name != 'Unknown OID' else each.dotted_string}{critical}" for each in value)  # noqa: SLF001 - the library's only name for it
        case x509.KeyUsage():
            return (f"{', '.join(_usages(value))}{critical}",)
        case x509.UnrecognizedExtension():
            return (f"{extension.oid.dotted_string}{_utf8(value.value)}{critical}",)
        case _:
            return (f"{extension.oid._name}{critical}",)  # noqa: SLF001 - the library's only name for it


_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def _usages(usage: x509.KeyUsage) -> Iterable[str]:
    return (name.replace("_", " ") for name in _USAGES if getattr(usage, name))


def _utf8(value: bytes) -> str:
    """The content of a short UTF8String (X.690, 8.23), such as the note of a bot's identity; else nothing."""
    if len(value) > 2 and value[0] == 0x0C and value[1] == len(value) - 2:  # noqa: PLR2004 - tag and short length
        return f"={value[2:].decode(errors='replace')}"
    if len(value) > 4 and value[:2] == b"\x0c\x81" and value[2] == len(value) - 3:  # noqa: PLR2004 - tag and long length
        return f"={value[3:].decode(errors='replace')}"
    return ""


# --- JWT ----------------------------------------------------------------------------------------------------------------


def _token(content: bytes) -> Found:
    """RFC 7519. Nothing is verified: who verifies it has the keys of its issuer."""
    text = content.decode("ascii")
    header = jwt.get_unverified_header(text)
    claims: Json = jwt.decode(text, options={"verify_signature": False})
    audience = claims.get("aud")
    others = {name: value for name, value in claims.items() if name not in _NAMED_CLAIMS}
    return Found(
        form="JWT",
        subject=str(claims.get("sub", "")),
        names=tuple(f"aud:{each}" for each in (audience if isinstance(audience, list) else [audience] if audience else [])),
        serial=str(claims.get("jti", "")),
        not_before=_token_time(claims, "nbf") or _token_time(claims, "iat"),
        not_after=_token_time(claims, "exp"),
        issuer=f"{claims.get('iss', '')} (key {header.get('kid', '-')})",
        extensions=tuple(f"{name}={json.dumps(value)[:256]}" for name, value in sorted(others.items())),
        algorithm=str(header.get("alg", "")),
        fingerprint=hashlib.sha256(content).hexdigest(),
        identity=hashlib.sha256(content).digest(),
    )


def _token_time(claims: Json, name: str) -> datetime | None:
    return datetime.fromtimestamp(int(claims[name]), UTC) if name in claims else None


# --- keys ---------------------------------------------------------------------------------------------------------------


def _private_key(block: bytes) -> Found:
    """Only what it is, and its public half."""
    if b"ENCRYPTED" in block[:64]:
        return _problem(PRIVATE_KEY, "it has a passphrase", block)
    load = load_ssh_private_key if block.startswith(b"-----BEGIN OPENSSH") else load_pem_private_key
    public = load(block, password=None).public_key()
    spki = _spki(public)
    return Found(
        form=PRIVATE_KEY,
        algorithm=algorithm(public),
        fingerprint=_spki_fingerprint(spki),
        public=spki,
        identity=b"private" + spki,
    )


def _public_key(block: bytes) -> Found:
    key = load_pem_public_key(block)
    spki = _spki(key)
    return Found(
        form="public key",
        algorithm=algorithm(key),
        fingerprint=_spki_fingerprint(spki),
        public=spki,
        identity=b"public" + spki,
    )


def _spki(key: Any) -> bytes:
    """SubjectPublicKeyInfo, DER: the form that all kinds of keys share."""
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _spki_fingerprint(spki: bytes) -> str:
    return hashlib.sha256(spki).hexdigest()


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
