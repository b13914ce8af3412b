"""What a signed X.509 certificate must fulfil before it is handed out (RFC 5280; X509-SVID, sections 2 to 5): see `checks`."""

from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.asn1 import decode_der
from cryptography.x509.oid import ExtensionOID, NameOID

from machinebot.authority.checks import hold
from machinebot.authority.generations import Generation
from machinebot.authority.profiles import MAX_NOTE, NOTE, X509Request
from machinebot.policy.names import MAX_SUBJECT_PART, NAME_RULES, NameKind


def check_x509(der: bytes, request: X509Request, issuer: Generation) -> x509.Certificate:
    """Holds a signed certificate against what was asked for.

    Args:
        der: What was signed.
        request: What was asked for.
        issuer: The CA that signed.

    Raises:
        Denied: It differs; it must not be handed out.
    """
    return hold(lambda: x509.load_der_x509_certificate(der), X509_CHECKS, request, issuer)


_EXTENSIONS: Final = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
}
"""The extensions that a certificate has, no more and no less, and which are critical."""


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> x509.ExtensionType:
    return certificate.extensions.get_extension_for_oid(oid).value


def _x509_serial(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    return certificate.serial_number == request.stamp.serial


def _x509_dates(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (begin, end) == (request.stamp.not_before, request.stamp.not_after)


def _x509_span(certificate: x509.Certificate, request: X509Request, issuer: Generation) -> bool:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - begin <= request.profile.ceiling and end <= issuer.issuer.not_valid_after_utc


def _x509_public_key(certificate: x509.Certificate, request: X509Request, issuer: Generation) -> bool:
    key = certificate.public_key()
    return key == request.public_key and key != issuer.key.public_key


def _x509_subject(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    asked = request.subject
    parts = [(NameOID.ORGANIZATION_NAME, organization) for organization in asked.organizations]
    parts += [(NameOID.ORGANIZATIONAL_UNIT_NAME, asked.unit)] if asked.unit is not None else []
    parts += [(NameOID.COMMON_NAME, asked.common_name)] if asked.common_name is not None else []
    fits = bool(parts) and all(0 < len(text) <= MAX_SUBJECT_PART for _, text in parts)
    return fits and [(part.oid, part.value) for part in certificate.subject] == parts


def _x509_extensions(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    asked = {**_EXTENSIONS, NOTE: False} if request.profile.note else _EXTENSIONS
    return {extension.oid: extension.critical for extension in certificate.extensions} == asked


def _x509_no_ca(certificate: x509.Certificate, _request: X509Request, _issuer: Generation) -> bool:
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    return _extension(certificate, ExtensionOID.BASIC_CONSTRAINTS) == constraints


def _x509_key_usage(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    return _extension(certificate, ExtensionOID.KEY_USAGE) == request.profile.key_usage


def _x509_extended_key_usage(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    usage = _extension(certificate, ExtensionOID.EXTENDED_KEY_USAGE)
    return usage == x509.ExtendedKeyUsage(request.profile.extended_key_usage)


def _x509_one_spiffe_id(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    names = _extension(certificate, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    asked = [x509.UniformResourceIdentifier(request.subject.spiffe_id), *map(x509.DNSName, request.subject.dns_names)]
    return names == x509.SubjectAlternativeName(asked)


def _x509_dns_names(_certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    names = request.subject.dns_names
    return not names or (request.profile.dns_names and all(NAME_RULES[NameKind.DNS_NAMES].fits(name) for name in names))


def _x509_note(certificate: x509.Certificate, request: X509Request, _issuer: Generation) -> bool:
    asked = request.subject.note
    if not request.profile.note or asked is None:
        return not request.profile.note and asked is None
    found = _extension(certificate, NOTE)
    return isinstance(found, x509.UnrecognizedExtension) and len(asked) <= MAX_NOTE and decode_der(str, found.value) == asked


def _x509_key_identifiers(certificate: x509.Certificate, request: X509Request, issuer: Generation) -> bool:
    own = x509.SubjectKeyIdentifier.from_public_key(request.public_key)
    of_ca = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.key.subject_key_identifier)
    return (
        _extension(certificate, ExtensionOID.SUBJECT_KEY_IDENTIFIER) == own
        and _extension(certificate, ExtensionOID.AUTHORITY_KEY_IDENTIFIER) == of_ca
    )


def _x509_signature(certificate: x509.Certificate, _request: X509Request, issuer: Generation) -> bool:
    # Raises where it is not the CA's; holds the issuer's name against the CA's subject too.
    certificate.verify_directly_issued_by(issuer.issuer)
    return True


X509_CHECKS: Final[tuple[Callable[[x509.Certificate, X509Request, Generation], bool], ...]] = (
    _x509_serial,
    _x509_dates,
    _x509_span,
    _x509_public_key,
    _x509_subject,
    _x509_extensions,
    _x509_no_ca,
    _x509_key_usage,
    _x509_extended_key_usage,
    _x509_one_spiffe_id,
    _x509_dns_names,
    _x509_note,
    _x509_key_identifiers,
    _x509_signature,
)
"""What a signed X.509 certificate must fulfil. Those after `_x509_extensions` rely on it: every extension is there."""
