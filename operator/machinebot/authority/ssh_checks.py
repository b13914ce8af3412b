"""What a signed SSH certificate must fulfil before it is handed out (PROTOCOL.certkeys): see `checks`."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from machinebot.authority.checks import hold, seconds
from machinebot.authority.generations import Generation
from machinebot.authority.keys import authorized_key
from machinebot.authority.profiles import SSHRequest


def check_ssh(line: bytes, request: SSHRequest, issuer: Generation) -> None:
    """Holds a signed certificate against what was asked for.

    Args:
        line: What was signed, as OpenSSH writes it.
        request: What was asked for.
        issuer: The CA that signed.

    Raises:
        Denied: It differs; it must not be handed out.
    """
    hold(lambda: _load_ssh(line), SSH_CHECKS, request, issuer)


def _load_ssh(line: bytes) -> SSHCertificate:
    certificate = load_ssh_public_identity(line)
    if not isinstance(certificate, SSHCertificate):
        raise TypeError("a plain public key, no certificate")
    return certificate


def _ssh_type(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    return certificate.type is request.profile.type


def _ssh_serial(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    return certificate.serial == request.stamp.serial


def _ssh_dates(certificate: SSHCertificate, request: SSHRequest, _issuer: Generation) -> bool:
    asked = (seconds(request.stamp.not_before), seconds(request.stamp.not_after))
    return (certificate.valid_after, certificate.valid_before) == asked


def _ssh_span(certificate: SSHCertificate, request: SSHRequest, issuer: Generation) -> bool:
    span = timedelta(seconds=certificate.valid_before - certificate.valid_after)
    return span <= request.profile.ceiling and certificate.valid_before <= seconds(issuer.not_after)


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
