"""What a request must fulfil before it is signed, and what was signed must fulfil before it is handed out.

The signed bytes are parsed again and held against the request, so that neither a mistake of ours nor one of the library gets
out (boulder's lints, SPIRE's credvalidator). Every check is a row; a new one is a row and a row of the tests.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity
from cryptography.x509.oid import ExtensionOID, NameOID

from machinebot.authority.generations import Generation
from machinebot.authority.keys import UNREADABLE, authorized_key, spki
from machinebot.authority.profiles import Request, SSHRequest, TokenRequest, X509Request
from machinebot.errors import Denied
from machinebot.policy.credential import AnchorState, Purpose
from machinebot.policy.names import MAX_SUBJECT_PART, NAME_RULES, NameKind

_CertificateT = TypeVar("_CertificateT", x509.Certificate, SSHCertificate, "ReadToken")
_RequestT = TypeVar("_RequestT", X509Request, SSHRequest, TokenRequest)

REASON: Final = "CertificateRefused"
"""Reason where a check fails: always a defect, never what a person wrote."""


def check_request(request: Request, issuer: Generation) -> None:
    """Holds what shall be signed against its profile and CA.

    Raises:
        Denied: A check fails; nothing was signed.
    """
    for check in REQUEST_CHECKS:
        if not check(request, issuer):
            raise _refused(request.profile.purpose, check.__name__, "nothing was signed")


def check_x509(der: bytes, request: X509Request, issuer: Generation) -> x509.Certificate:
    """Holds a signed certificate against what was asked for.

    Args:
        der: What was signed.
        request: What was asked for.
        issuer: The CA that signed.

    Raises:
        Denied: It differs; it must not be handed out.
    """
    return _hold(lambda: x509.load_der_x509_certificate(der), X509_CHECKS, request, issuer)


def check_ssh(line: bytes, request: SSHRequest, issuer: Generation) -> None:
    """Holds a signed certificate against what was asked for.

    Args:
        line: What was signed, as OpenSSH writes it.
        request: What was asked for.
        issuer: The CA that signed.

    Raises:
        Denied: It differs; it must not be handed out.
    """
    _hold(lambda: _load_ssh(line), SSH_CHECKS, request, issuer)


@dataclass(frozen=True, slots=True)
class ReadToken:
    """A JWT as its bytes say, nothing of it verified yet.

    Attributes:
        unverified_header: Its header.
        unverified_claims: Its claims.
        token: The compact form.
    """

    unverified_header: Mapping[str, Any]
    unverified_claims: Mapping[str, Any]
    token: str


def check_token(token: str, request: TokenRequest, issuer: Generation) -> None:
    """Holds a signed JWT against what was asked for.

    Args:
        token: What was signed, in compact form.
        request: What was asked for.
        issuer: The CA that signed.

    Raises:
        Denied: It differs; it must not be handed out.
    """
    _hold(lambda: _load_token(token), TOKEN_CHECKS, request, issuer)


def _load_token(token: str) -> ReadToken:
    read = jwt.decode_complete(token, options={"verify_signature": False})
    return ReadToken(unverified_header=read["header"], unverified_claims=read["payload"], token=token)


def _load_ssh(line: bytes) -> SSHCertificate:
    certificate = load_ssh_public_identity(line)
    if not isinstance(certificate, SSHCertificate):
        raise TypeError("a plain public key, no certificate")
    return certificate


def _hold(
    load: Callable[[], _CertificateT],
    checks: Iterable[Callable[[_CertificateT, _RequestT, Generation], bool]],
    request: _RequestT,
    issuer: Generation,
) -> _CertificateT:
    failed = "readable"
    try:
        certificate = load()
        for check in checks:
            failed = check.__name__
            if not check(certificate, request, issuer):
                raise _refused(request.profile.purpose, failed, "it was not handed out")
    except (*UNREADABLE, jwt.InvalidTokenError) as error:
        raise _refused(request.profile.purpose, failed, "it was not handed out") from error
    return certificate


def _refused(purpose: Purpose, check: str, outcome: str) -> Denied:
    name = check.strip("_").replace("_", " ")
    return Denied(REASON, f"a credential of the CA {purpose.value} failed the check `{name}` and {outcome}: report this defect")


# --- before the signing -------------------------------------------------------------------------------------------


def _ca_of_purpose(request: Request, issuer: Generation) -> bool:
    return issuer.purpose is request.profile.purpose


def _ca_is_active(_request: Request, issuer: Generation) -> bool:
    return issuer.state is AnchorState.ACTIVE


def _serial_in_range(request: Request, _issuer: Generation) -> bool:
    return 0 < request.stamp.serial < 2**63


def _span(request: Request, _issuer: Generation) -> bool:
    return timedelta(0) < request.stamp.not_after - request.stamp.not_before <= request.profile.ceiling


def _ends_before_its_ca(request: Request, issuer: Generation) -> bool:
    return request.stamp.not_after <= issuer.not_after


def _key_is_no_ca(request: Request, issuer: Generation) -> bool:
    return isinstance(request, TokenRequest) or spki(request.public_key) != issuer.key.spki


REQUEST_CHECKS: Final[tuple[Callable[[Request, Generation], bool], ...]] = (
    _ca_of_purpose,
    _ca_is_active,
    _serial_in_range,
    _span,
    _ends_before_its_ca,
    _key_is_no_ca,
)
"""What every request must fulfil."""

# --- X.509 (RFC 5280; X509-SVID, sections 2 to 5) -----------------------------------------------------------------

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


def _x509_extensions(certificate: x509.Certificate, _request: X509Request, _issuer: Generation) -> bool:
    return {extension.oid: extension.critical for extension in certificate.extensions} == _EXTENSIONS


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
    _x509_key_identifiers,
    _x509_signature,
)
"""What a signed X.509 certificate must fulfil. Those after `_x509_extensions` rely on it: every extension is there."""

# --- SSH (PROTOCOL.certkeys) --------------------------------------------------------------------------------------


def _ssh_type(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    return certificate.type is request.profile.type


def _ssh_serial(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    return certificate.serial == request.stamp.serial


def _ssh_dates(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    asked = (_seconds(request.stamp.not_before), _seconds(request.stamp.not_after))
    return (certificate.valid_after, certificate.valid_before) == asked


def _ssh_span(certificate: SSHCertificate, request: SSHRequest, issuer: Generation) -> bool:
    span = timedelta(seconds=certificate.valid_before - certificate.valid_after)
    return span <= request.profile.ceiling and certificate.valid_before <= _seconds(issuer.not_after)


def _ssh_public_key(certificate: SSHCertificate, request: SSHRequest, issuer: Generation) -> bool:
    key = certificate.public_key()
    return key == request.public_key and key != issuer.key.public_key


def _ssh_key_id(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    return certificate.key_id == request.key_id.encode()


def _ssh_principals(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    # None would mean all.
    names = certificate.valid_principals
    return bool(names) and names == [principal.encode() for principal in request.principals]


def _ssh_extensions(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    asked = dict.fromkeys(request.extensions, b"")
    return certificate.extensions == asked and asked.keys() <= request.profile.extensions


def _ssh_critical_options(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    asked = {b"source-address": ",".join(request.source_addresses).encode()} if request.source_addresses else {}
    return certificate.critical_options == asked and asked.keys() <= request.profile.critical_options


def _ssh_signed_by_plain_key(certificate: SSHCertificate, _request: SSHRequest, issuer: Generation) -> bool:
    # A certificate in this field would let its holder play the CA (CVE-2025-49825); only a plain key equals the CA's line.
    return authorized_key(certificate.signature_key()) == issuer.key.authorized_key


def _ssh_signature(certificate: SSHCertificate, _request: SSHRequest, _issuer: Generation) -> bool:
    certificate.verify_cert_signature()  # raises where it is not
    return True


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


SSH_CHECKS: Final[tuple[Callable[[SSHCertificate, SSHRequest, Generation], bool], ...]] = (
    _ssh_type,
    _ssh_serial,
    _ssh_dates,
    _ssh_span,
    _ssh_public_key,
    _ssh_key_id,
    _ssh_principals,
    _ssh_extensions,
    _ssh_critical_options,
    _ssh_signed_by_plain_key,
    _ssh_signature,
)
"""What a signed SSH certificate must fulfil. The last one relies on the one before: the key that signed is the CA's."""

# --- JWT (RFC 7519; JWT-SVID, sections 2 and 3) ---------------------------------------------------------------------


def _token_header(read: ReadToken, _request: TokenRequest, issuer: Generation) -> bool:
    algorithms = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}
    algorithm, key = read.unverified_header.get("alg"), issuer.key.public_key
    if isinstance(key, ec.EllipticCurvePublicKey):
        fits = isinstance(key.curve, algorithms.get(str(algorithm), ()))
    else:
        fits = isinstance(key, rsa.RSAPublicKey) and algorithm == "RS256"
    return fits and read.unverified_header == {"alg": algorithm, "kid": issuer.id, "typ": "JWT"}


def _token_serial(read: ReadToken, request: TokenRequest, _issuer: Generation) -> bool:
    return read.unverified_claims.get("jti") == str(request.stamp.serial)


def _token_dates(read: ReadToken, request: TokenRequest, _issuer: Generation) -> bool:
    begin, end = _seconds(request.stamp.not_before), _seconds(request.stamp.not_after)
    told = [read.unverified_claims.get(name) for name in ("iat", "nbf", "exp")]
    return told == [begin, begin, end]


def _token_span(read: ReadToken, request: TokenRequest, issuer: Generation) -> bool:
    begin, end = read.unverified_claims["nbf"], read.unverified_claims["exp"]
    return timedelta(seconds=end - begin) <= request.profile.ceiling and end <= _seconds(issuer.not_after)


def _token_names(read: ReadToken, request: TokenRequest, _issuer: Generation) -> bool:
    told = [read.unverified_claims.get(name) for name in ("iss", "sub", "aud")]
    return told == [request.issuer, request.subject, list(request.audiences)] and bool(request.audiences)


def _token_nothing_else(read: ReadToken, _request: TokenRequest, _issuer: Generation) -> bool:
    return read.unverified_claims.keys() == {"iss", "sub", "aud", "iat", "nbf", "exp", "jti"}


def _token_signature(read: ReadToken, request: TokenRequest, issuer: Generation) -> bool:
    # Raises where it is not the CA's. The algorithm was held against the key before; the dates were too.
    jwt.decode(
        read.token,
        issuer.key.public_key,
        algorithms=[str(read.unverified_header["alg"])],
        audience=request.audiences[0],
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    return True


TOKEN_CHECKS: Final[tuple[Callable[[ReadToken, TokenRequest, Generation], bool], ...]] = (
    _token_header,
    _token_serial,
    _token_dates,
    _token_span,
    _token_names,
    _token_nothing_else,
    _token_signature,
)
"""What a signed JWT must fulfil. The last one relies on the first: the algorithm is the key's own."""
