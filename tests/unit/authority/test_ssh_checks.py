"""What is held against an SSH certificate after it is signed: every row of the table fails for its own reason."""

import binascii
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_identity,
)

from machinebot.authority import ssh, ssh_checks
from machinebot.authority.profiles import SSH_HOST
from machinebot.authority.ssh_checks import SSH_CHECKS, check_ssh
from machinebot.policy.credential import Purpose
from unit.authority.builders import MINUTE, NOW, ca, ending
from unit.authority.requests import KEY, OTHER, SSH_CA, SSH_REQUEST, STAMP, refusal, stamped


def ssh_signed(
    *,
    signer: Any = None,
    extensions: Any = ((b"permit-pty", b""),),
    options: Any = ((b"source-address", b"10.0.0.0/8"),),
    **fields: Any,
) -> Any:
    """A certificate as `ssh.sign` makes it, but for what the arguments say."""
    setters: dict[str, Any] = {
        "public_key": KEY,
        "serial": STAMP.serial,
        "type": SSHCertificateType.USER,
        "key_id": b"bot:ci:deployer",
        "valid_principals": [b"deploy", b"web"],
        "valid_after": int(STAMP.not_before.timestamp()),
        "valid_before": int(STAMP.not_after.timestamp()),
    } | fields
    builder = SSHCertificateBuilder()
    for name, value in setters.items():
        builder = getattr(builder, name)() if value is ... else getattr(builder, name)(value)
    for name, value in extensions:
        builder = builder.add_extension(name, value)
    for name, value in options:
        builder = builder.add_critical_option(name, value)
    return builder.sign(SSH_CA.key.private_key if signer is None else signer).public_bytes()


EPOCH = int(STAMP.not_after.timestamp())


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param({"type": SSHCertificateType.HOST}, "ssh type", id="for hosts"),
        pytest.param({"serial": 8}, "ssh serial", id="another serial"),
        pytest.param({"valid_after": 0}, "ssh dates", id="valid since ever"),
        pytest.param({"valid_before": 2**64 - 1}, "ssh dates", id="valid for ever"),
        pytest.param({"valid_before": EPOCH + 1}, "ssh dates", id="a second longer"),
        pytest.param({"public_key": OTHER.public_key()}, "ssh public key", id="another key"),
        pytest.param({"key_id": b"bot:ci:other"}, "ssh key id", id="another key id"),
        pytest.param({"valid_principals": [b"deploy"]}, "ssh principals", id="a principal less"),
        pytest.param({"valid_principals": [b"deploy", b"web", b"root"]}, "ssh principals", id="a principal more"),
        pytest.param({"valid_principals": [b"deploy,web"]}, "ssh principals", id="principals in one"),
        pytest.param({"valid_principals": [b"deploy", b"\xff"]}, "ssh principals", id="no UTF-8"),
        pytest.param({"extensions": ()}, "ssh extensions", id="no extension"),
        pytest.param(
            {"extensions": ((b"permit-pty", b""), (b"permit-X11-forwarding", b""))}, "ssh extensions", id="an extension more"
        ),
        pytest.param({"extensions": ((b"permit-pty", b"x"),)}, "ssh extensions", id="extension with a value"),
        pytest.param({"options": ()}, "ssh critical options", id="from anywhere"),
        pytest.param({"options": ((b"source-address", b"0.0.0.0/0"),)}, "ssh critical options", id="other networks"),
        pytest.param(
            {"options": ((b"source-address", b"10.0.0.0/8"), (b"force-command", b"sh"))},
            "ssh critical options",
            id="a critical option more",
        ),
        pytest.param({"signer": OTHER}, "ssh signed by plain key", id="signed by another key"),
    ],
)
def test_ssh_checks(change: Any, check: Any) -> None:
    message = refusal(check_ssh, ssh_signed(**change), SSH_REQUEST, SSH_CA)
    assert f"`{check}` and it was not handed out" in message


def test_ssh_certificate_for_all_principals_is_refused() -> None:
    builder = (
        SSHCertificateBuilder()
        .public_key(KEY)
        .serial(STAMP.serial)
        .type(SSHCertificateType.USER)
        .key_id(b"bot:ci:deployer")
        .valid_for_all_principals()  # type: ignore[no-untyped-call]
        .valid_after(int(STAMP.not_before.timestamp()))
        .valid_before(EPOCH)
    )
    wrong = builder.sign(SSH_CA.key.private_key).public_bytes()
    for request in (SSH_REQUEST, replace(SSH_REQUEST, principals=())):
        assert "`ssh principals`" in refusal(check_ssh, wrong, request, SSH_CA)


def test_ssh_profile_bounds_what_may_be_asked_for() -> None:
    asked = replace(SSH_REQUEST, extensions=(b"permit-X11-forwarding",))
    wrong = ssh_signed(extensions=((b"permit-X11-forwarding", b""),))
    assert "`ssh extensions`" in refusal(check_ssh, wrong, asked, SSH_CA)
    host_ca = ca(Purpose.SSH_HOST)
    host = replace(SSH_REQUEST, profile=SSH_HOST, extensions=())
    wrong = ssh_signed(type=SSHCertificateType.HOST, extensions=(), signer=host_ca.key.private_key)
    assert "`ssh critical options`" in refusal(check_ssh, wrong, host, host_ca)


def test_ssh_key_of_the_ca_is_never_certified() -> None:
    own = SSH_CA.key.public_key
    wrong = ssh_signed(public_key=own)
    assert "`ssh public key`" in refusal(check_ssh, wrong, replace(SSH_REQUEST, public_key=own), SSH_CA)


def test_ssh_span_is_held_against_the_ceiling_and_the_ca() -> None:
    long = stamped(SSH_REQUEST, not_after=STAMP.not_after + MINUTE)
    assert "`ssh span`" in refusal(check_ssh, ssh_signed(valid_before=EPOCH + 60), long, SSH_CA)
    ends = ending(SSH_CA, STAMP.not_after - MINUTE)
    assert "`ssh span`" in refusal(check_ssh, ssh_signed(), SSH_REQUEST, ends)


def nested() -> bytes:
    """A certificate whose field of the CA's key holds a certificate (CVE-2025-49825)."""
    line = ssh_signed().split()[1]
    blob = binascii.a2b_base64(line)
    plain = binascii.a2b_base64(SSH_CA.key.authorized_key.split()[1])
    sized = len(plain).to_bytes(4, "big") + plain
    assert sized in blob
    put = len(blob).to_bytes(4, "big") + blob
    changed = blob.replace(sized, put)
    encoded: bytes = binascii.b2a_base64(changed, newline=False)
    kind: bytes = ssh_signed().split()[0]
    return kind + b" " + encoded


def test_ssh_certificate_signed_by_a_certificate_is_refused() -> None:
    assert "not handed out" in refusal(check_ssh, nested(), SSH_REQUEST, SSH_CA)


@pytest.mark.parametrize(
    "line",
    [b"", b"ssh-ed25519", ssh_signed()[:-8], ssh_signed().replace(b"-cert-v01", b""), SSH_CA.key.authorized_key],
    ids=["nothing", "half a line", "cut off", "not called a certificate", "a plain key"],
)
def test_ssh_garbage_is_not_handed_out(line: Any) -> None:
    assert "`readable`" in refusal(check_ssh, line, SSH_REQUEST, SSH_CA)


def test_ssh_wrong_signature_is_not_handed_out() -> None:
    """The last check alone: right key in the field, signature over something else."""
    other = ssh_signed(serial=9)
    key, good = ssh_signed().split()
    one, two = binascii.a2b_base64(good), binascii.a2b_base64(other.split()[1])
    plain = binascii.a2b_base64(SSH_CA.key.authorized_key.split()[1])
    mixed = one[: one.rindex(plain) + len(plain)] + two[two.rindex(plain) + len(plain) :]
    line = key + b" " + binascii.b2a_base64(mixed, newline=False)
    assert "`ssh signature`" in refusal(check_ssh, line, SSH_REQUEST, SSH_CA)


def test_ssh_good_one_passes_every_check() -> None:
    check_ssh(ssh_signed(), SSH_REQUEST, SSH_CA)
    certificate = load_ssh_public_identity(ssh_signed())
    assert isinstance(certificate, SSHCertificate)
    assert all(check(certificate, SSH_REQUEST, SSH_CA) for check in SSH_CHECKS)


def test_ssh_signing_asks_before_and_after(monkeypatch: Any) -> None:
    refusal(ssh.sign, SSH_REQUEST, ending(SSH_CA, NOW))
    monkeypatch.setattr(ssh_checks, "SSH_CHECKS", (lambda *_: False,))
    refusal(ssh.sign, SSH_REQUEST, SSH_CA)


def test_ssh_what_the_signer_makes_is_what_the_table_expects() -> None:
    check_ssh(ssh.sign(SSH_REQUEST, SSH_CA), SSH_REQUEST, SSH_CA)
