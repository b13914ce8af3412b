"""Signs X.509 certificates from closed requests (RFC 5280, X509-SVID)."""

from typing import Final

from cryptography import x509
from cryptography.hazmat.asn1 import encode_der
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from machinebot.authority.checks import check_request
from machinebot.authority.generations import Generation, signature_hash
from machinebot.authority.profiles import NOTE, Subject, X509Request
from machinebot.authority.x509_checks import check_x509

_NO_CA: Final = x509.BasicConstraints(ca=False, path_length=None)


def distinguished_name(subject: Subject) -> x509.Name:
    """O, OU and CN in this order; PostgreSQL and MariaDB compare the whole."""
    parts = [(NameOID.ORGANIZATION_NAME, organization) for organization in subject.organizations]
    if subject.unit is not None:
        parts.append((NameOID.ORGANIZATIONAL_UNIT_NAME, subject.unit))
    if subject.common_name is not None:
        parts.append((NameOID.COMMON_NAME, subject.common_name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def alternative_names(subject: Subject) -> x509.SubjectAlternativeName:
    """The SPIFFE ID, then the DNS names."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(subject.spiffe_id)]
    names += [x509.DNSName(name) for name in subject.dns_names]
    return x509.SubjectAlternativeName(names)


def note(text: str) -> x509.UnrecognizedExtension:
    """The extension `NOTE` with that text as a UTF8String (X.690, section 8.23)."""
    return x509.UnrecognizedExtension(NOTE, encode_der(text))


def sign(request: X509Request, issuer: Generation) -> bytes:
    """The certificate as PEM, checked before and after the signing.

    Raises:
        Denied: A check failed.
    """
    check_request(request, issuer)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.key.subject_key_identifier)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer.issuer.subject)
        .subject_name(distinguished_name(request.subject))
        .public_key(request.public_key)
        .serial_number(request.stamp.serial)
        .not_valid_before(request.stamp.not_before)
        .not_valid_after(request.stamp.not_after)
        .add_extension(_NO_CA, critical=True)
        .add_extension(request.profile.key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(request.profile.extended_key_usage), critical=False)
        .add_extension(alternative_names(request.subject), critical=False)
        .add_extension(authority_key, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key), critical=False)
    )
    if request.subject.note is not None:
        builder = builder.add_extension(note(request.subject.note), critical=False)
    certificate = builder.sign(issuer.key.private_key, signature_hash(issuer.key.private_key))
    return check_x509(certificate.public_bytes(Encoding.DER), request, issuer).public_bytes(Encoding.PEM)
