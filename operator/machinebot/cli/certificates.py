"""What an X.509 certificate says of itself (RFC 5280). Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from machinebot.cli.found import Found, algorithm, spki_of


def read_x509(block: bytes) -> Found:
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
        public=spki_of(key),
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
