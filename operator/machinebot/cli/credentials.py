"""What a file of a credential says of itself: SSH certificates, X.509 certificates, JWTs, keys. Pure, and bounded by its input.

Nothing is verified but that keys and certificates belong together; nothing of a private key or a signature is kept.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    SSHCertificateType,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_identity,
    ssh_key_fingerprint,
)

from machinebot.cli.certificates import read_x509
from machinebot.cli.found import PRIVATE_KEY, Found, algorithm, spki_of

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
        return _guarded("X.509 certificate", read_x509, block)
    if label.endswith("PRIVATE KEY"):
        return _guarded(PRIVATE_KEY, _private_key, block)
    if label == "PUBLIC KEY":
        return _guarded("public key", _public_key, block)
    return _problem(label.lower(), "it is of no kind that is shown", block)


_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    OSError,
    RecursionError,
    UnsupportedAlgorithm,
    jwt.InvalidTokenError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the libraries raise for content that is not what it seems: a date out of range, brackets without an end, and so on."""


def _guarded(form: str, read_one: Callable[[bytes], Found], content: bytes) -> Found:
    """What it says, or that it cannot be read: never what the library says of it, which may hold content."""
    try:
        return read_one(content)
    except _UNREADABLE:
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
            public=spki_of(key),
            identity=b"ssh" + spki_of(key),
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
        public=spki_of(public),
        identity=hashlib.sha256(key.public_bytes()).digest(),
    )


def _value(value: bytes) -> str:
    return f"={value.decode(errors='replace')}" if value else ""


def _ssh_time(seconds: int) -> datetime | None:
    return None if seconds >= _FOREVER else datetime.fromtimestamp(seconds, UTC)


def _ssh_fingerprint(key: Any) -> str:
    """As `ssh-keygen -l` has it."""
    return "SHA256:" + base64.b64encode(ssh_key_fingerprint(key, hashes.SHA256())).decode().rstrip("=")


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
    spki = spki_of(public)
    return Found(
        form=PRIVATE_KEY,
        algorithm=algorithm(public),
        fingerprint=_spki_fingerprint(spki),
        public=spki,
        identity=b"private" + spki,
    )


def _public_key(block: bytes) -> Found:
    key = load_pem_public_key(block)
    spki = spki_of(key)
    return Found(
        form="public key",
        algorithm=algorithm(key),
        fingerprint=_spki_fingerprint(spki),
        public=spki,
        identity=b"public" + spki,
    )


def _spki_fingerprint(spki: bytes) -> str:
    return hashlib.sha256(spki).hexdigest()
