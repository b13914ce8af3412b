"""Signs X.509 certificates from closed requests (RFC 5280, X509-SVID)."""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from machinebot.authority.checks import check_request, check_x509
from machinebot.authority.generations import Generation, signature_hash
from machinebot.authority.profiles import X509Request
from machinebot.policy.credential import BotRef

MAX_COMMON_NAME: Final = 64
"""Longest CN, in characters (RFC 5280, appendix A.1: ub-common-name)."""

_NO_CA: Final = x509.BasicConstraints(ca=False, path_length=None)


def common_name(bot: BotRef) -> str:
    """The CN of a bot: `bot:<namespace>:<name>`, or where that is too long `bot:` and 60 hex digits of its SHA-256.

    The short form has one colon, so that no bot's name can be written to look like another's. Who needs the whole name reads
    the SPIFFE ID.
    """
    if len(bot.user) <= MAX_COMMON_NAME:
        return bot.user
    return "bot:" + hashlib.sha256(bot.user.encode()).hexdigest()[: MAX_COMMON_NAME - len("bot:")]


def sign(request: X509Request, issuer: Generation) -> bytes:
    """The certificate as PEM, checked before and after the signing.

    Raises:
        Denied: A check failed.
    """
    check_request(request, issuer)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, request.organization),
            x509.NameAttribute(NameOID.COMMON_NAME, request.common_name),
        ]
    )
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.key.subject_key_identifier)
    spiffe_id = x509.UniformResourceIdentifier(request.spiffe_id)
    certificate = (
        x509.CertificateBuilder()
        .issuer_name(issuer.issuer.subject)
        .subject_name(subject)
        .public_key(request.public_key)
        .serial_number(request.stamp.serial)
        .not_valid_before(request.stamp.not_before)
        .not_valid_after(request.stamp.not_after)
        .add_extension(_NO_CA, critical=True)
        .add_extension(request.profile.key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(request.profile.extended_key_usage), critical=False)
        .add_extension(x509.SubjectAlternativeName([spiffe_id]), critical=False)
        .add_extension(authority_key, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key), critical=False)
        .sign(issuer.key.private_key, signature_hash(issuer.key.private_key))
    )
    return check_x509(certificate.public_bytes(Encoding.DER), request, issuer).public_bytes(Encoding.PEM)
