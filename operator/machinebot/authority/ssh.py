"""Signs SSH certificates from closed requests (PROTOCOL.certkeys)."""

from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder

from machinebot.authority.checks import check_request, seconds
from machinebot.authority.generations import Generation
from machinebot.authority.profiles import SSHRequest
from machinebot.authority.ssh_checks import check_ssh
from machinebot.policy.grants import SSHOptions


def extensions(options: SSHOptions) -> tuple[bytes, ...]:
    """The extensions that the options permit, sorted; what is not there is forbidden (PROTOCOL.certkeys)."""
    permitted = (
        (b"permit-agent-forwarding", options.forward_agent),
        (b"permit-port-forwarding", options.port_forwarding),
        (b"permit-pty", options.permit_pty),
    )
    return tuple(name for name, allowed in permitted if allowed)


def sign(request: SSHRequest, issuer: Generation) -> bytes:
    """The certificate as one OpenSSH line without a newline, checked before and after the signing.

    Raises:
        Denied: A check failed.
        Invalid: The principals are none, too many, or one could be read as something else.
    """
    check_request(request, issuer)
    request.profile.check_principals(request.principals)
    builder = (
        SSHCertificateBuilder()
        .public_key(request.public_key)
        .serial(request.stamp.serial)
        .type(request.profile.type)
        .key_id(request.key_id.encode())
        .valid_principals([principal.encode() for principal in request.principals])
        .valid_after(seconds(request.stamp.not_before))
        .valid_before(seconds(request.stamp.not_after))
    )
    for name in request.extensions:
        builder = builder.add_extension(name, b"")
    if request.source_addresses:
        builder = builder.add_critical_option(b"source-address", ",".join(request.source_addresses).encode())
    line = builder.sign(issuer.key.private_key).public_bytes()
    check_ssh(line, request, issuer)
    return line
