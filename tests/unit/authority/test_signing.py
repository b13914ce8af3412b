"""Names, extensions, principals, and what OpenSSH and OpenSSL read of it."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.authority import ssh, x509
from machinebot.authority.keys import PublicKey
from machinebot.authority.profiles import IDENTITY, SSH_HOST, SSH_USER, SSHRequest, Stamp, Subject, X509Request
from machinebot.authority.subjects import common_name
from machinebot.errors import Invalid
from machinebot.policy.credential import BotRef, Purpose
from machinebot.policy.grants import SSHOptions
from unit.authority.builders import CLUSTER, DAY, MINUTE, NOW, REF, ca, ca_with, subject_key

STAMP = Stamp(serial=2**63 - 1, not_before=NOW - MINUTE, not_after=NOW - MINUTE + DAY)


def ssh_request(profile: Any = SSH_USER, **fields: Any) -> SSHRequest:
    given: dict[str, Any] = {
        "stamp": STAMP,
        "public_key": subject_key().public_key(),
        "key_id": REF.user,
        "principals": ("deploy",) if profile is SSH_USER else ("web-1.node.example.test",),
    }
    return SSHRequest(profile=profile, **(given | fields))


def x509_request(bot: BotRef = REF, **fields: Any) -> X509Request:
    given: dict[str, Any] = {
        "stamp": STAMP,
        "public_key": subject_key().public_key(),
        "subject": Subject(organizations=(CLUSTER,), common_name=common_name(bot), spiffe_id=bot.spiffe_id(CLUSTER)),
    }
    return X509Request(profile=IDENTITY, **(given | fields))


# --- names --------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


def test_common_name_is_the_user_while_it_fits() -> None:
    assert common_name(REF) == "bot:ci:deployer"
    longest = BotRef("n" * 20, "m" * 39)
    assert common_name(longest) == longest.user
    assert len(longest.user) == 64


def test_long_common_name_is_a_digest() -> None:
    name = common_name(BotRef("n" * 20, "m" * 40))
    assert re.fullmatch("bot:[0-9a-f]{60}", name)
    assert name == common_name(BotRef("n" * 20, "m" * 40))


@settings(max_examples=100, deadline=None)
@given(one=st.builds(BotRef, NAMES, NAMES), two=st.builds(BotRef, NAMES, NAMES))
def test_common_names_are_never_shared(one: Any, two: Any) -> None:
    assert len(common_name(one)) <= 64
    assert (common_name(one) == common_name(two)) == (one == two)
    # No bot can be named so that its name looks like another's digest.
    assert common_name(one).count(":") == (2 if len(one.user) <= 64 else 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param((False, False, False), (), id="nothing"),
        pytest.param((True, False, False), (b"permit-agent-forwarding",), id="agent"),
        pytest.param((False, True, False), (b"permit-port-forwarding",), id="ports"),
        pytest.param((False, False, True), (b"permit-pty",), id="terminal"),
        pytest.param((True, True, True), (b"permit-agent-forwarding", b"permit-port-forwarding", b"permit-pty"), id="all"),
    ],
)
def test_extensions(options: Any, expected: Any) -> None:
    agent, ports, terminal = options
    given = SSHOptions(forward_agent=agent, port_forwarding=ports, permit_pty=terminal, source_addresses=())
    assert ssh.extensions(given) == expected
    assert set(expected) <= SSH_USER.extensions


@pytest.mark.parametrize("principals", [(), ("*",), ("deploy,root",), ("deploy\n",), ("a",) * 257], ids=repr)
def test_principals_are_checked_at_the_signing_too(principals: Any) -> None:
    with pytest.raises(Invalid):
        ssh.sign(ssh_request(principals=principals), ca(Purpose.SSH_USER))


# --- OpenSSH and OpenSSL ------------------------------------------------------------------------------------------


def run(*command: object, check: Any = True) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout + done.stderr


SUBJECTS: dict[str, Callable[[], PublicKey]] = {
    "P-256": lambda: subject_key().public_key(),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()).public_key(),
    "Ed25519": lambda: ed25519.Ed25519PrivateKey.generate().public_key(),
    "RSA-2048": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
}


def printed(line: bytes, tmp_path: Path) -> str:
    (tmp_path / "key-cert.pub").write_bytes(line + b"\n")
    return run("env", "TZ=UTC", "ssh-keygen", "-L", "-f", tmp_path / "key-cert.pub")


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "Ed25519"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_ssh_keygen_reads_the_same_user_certificate(algorithm: Any, subject: Any, tmp_path: Any) -> None:
    issuer = ca(Purpose.SSH_USER, algorithm)
    request = ssh_request(
        public_key=SUBJECTS[subject](),
        principals=("CORP\\svc", "deploy", "web@corp"),
        extensions=(b"permit-port-forwarding", b"permit-pty"),
        source_addresses=("10.0.0.0/8", "2001:db8::/32"),
    )
    text = printed(ssh.sign(request, issuer), tmp_path)
    assert "user certificate" in text
    assert f'Key ID: "{REF.user}"' in text
    assert f"Serial: {2**63 - 1}" in text
    assert "Valid: from 2027-01-01T11:59:00 to 2027-01-02T11:59:00" in text
    assert issuer.anchor.fingerprint in text
    fields = [line.strip() for line in text.splitlines()]
    start = fields.index("Principals:")
    # ssh-keygen prints a backslash as an escape.
    assert [name.replace("\\\\", "\\") for name in fields[start + 1 : start + 4]] == ["CORP\\svc", "deploy", "web@corp"]
    assert fields[start + 4 :] == [
        "Critical Options:",
        "source-address 10.0.0.0/8,2001:db8::/32",
        "Extensions:",
        "permit-port-forwarding",
        "permit-pty",
    ]


def test_ssh_keygen_reads_the_same_host_certificate(tmp_path: Any) -> None:
    names = ("10.0.0.1", "fe80::1", "web-1.node.example.test")
    text = printed(ssh.sign(ssh_request(SSH_HOST, principals=names), ca(Purpose.SSH_HOST)), tmp_path)
    assert "host certificate" in text
    fields = [line.strip() for line in text.splitlines()]
    start = fields.index("Principals:")
    assert fields[start + 1 :] == [*names, "Critical Options: (none)", "Extensions: (none)"]


def test_ssh_keygen_knows_the_ca_by_the_same_fingerprint(tmp_path: Any) -> None:
    for purpose in (Purpose.SSH_USER, Purpose.SSH_HOST):
        (tmp_path / "ca.pub").write_bytes(ca(purpose).anchor.public + b"\n")
        assert ca(purpose).anchor.fingerprint in run("ssh-keygen", "-l", "-f", tmp_path / "ca.pub")


def x509_files(tmp_path: Path, algorithm: Any = "ECDSA-P256", **fields: Any) -> tuple[Path, Path]:
    issuer = ca(Purpose.IDENTITY, algorithm)
    leaf, authority = tmp_path / "leaf.pem", tmp_path / "ca.pem"
    leaf.write_bytes(x509.sign(x509_request(**fields), issuer))
    authority.write_bytes(issuer.anchor.public)
    return leaf, authority


def verify(leaf: Path, authority: Path, moment: Any = NOW, *more: object) -> str:
    epoch = int(moment.timestamp())
    return run("openssl", "verify", "-x509_strict", "-attime", epoch, *more, "-CAfile", authority, leaf, check=False)


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "Ed25519"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_openssl_reads_and_verifies_the_same_certificate(algorithm: Any, subject: Any, tmp_path: Any) -> None:
    key: PublicKey = SUBJECTS[subject]()
    leaf, authority = x509_files(tmp_path, algorithm, public_key=key)
    assert verify(leaf, authority, NOW, "-purpose", "sslclient").endswith("leaf.pem: OK\n")
    assert "unsuitable certificate purpose" in verify(leaf, authority, NOW, "-purpose", "sslserver")
    assert "certificate has expired" in verify(leaf, authority, NOW + DAY)
    assert "not yet valid" in verify(leaf, authority, NOW - 2 * MINUTE)
    text = re.sub(r"[ \n]+", " ", run("openssl", "x509", "-in", leaf, "-noout", "-text", "-nameopt", "RFC2253"))
    for expected in (
        "Version: 3 (0x2)",
        "Serial Number: 9223372036854775807 (0x7fffffffffffffff)",
        f"Issuer: CN=machinebot identity {ca(Purpose.IDENTITY, algorithm).id},O={CLUSTER}",
        f"Subject: CN=bot:ci:deployer,O={CLUSTER}",
        "Not Before: Jan 1 11:59:00 2027 GMT",
        "Not After : Jan 2 11:59:00 2027 GMT",
        "X509v3 Basic Constraints: critical CA:FALSE",
        "X509v3 Key Usage: critical Digital Signature",
        "X509v3 Extended Key Usage: TLS Web Client Authentication X509v3",
        f"X509v3 Subject Alternative Name: URI:{REF.spiffe_id(CLUSTER)} X509v3",
        "X509v3 Authority Key Identifier:",
        "X509v3 Subject Key Identifier:",
    ):
        assert expected in text


def test_openssl_accepts_the_ca_and_no_other(tmp_path: Any) -> None:
    leaf, authority = x509_files(tmp_path)
    assert verify(authority, authority, NOW).endswith("ca.pem: OK\n")
    other = tmp_path / "other.pem"
    other.write_bytes(ca(Purpose.DATABASE).anchor.public)
    assert "unable to get local issuer certificate" in verify(leaf, other)
    text = run("openssl", "x509", "-in", authority, "-noout", "-text")
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text


def test_openssl_takes_rsa_too(rsa_ca_key: Any, tmp_path: Any) -> None:
    issuer, ssh_issuer = ca_with(rsa_ca_key, Purpose.IDENTITY), ca_with(rsa_ca_key, Purpose.SSH_USER)
    leaf, authority = tmp_path / "leaf.pem", tmp_path / "ca.pem"
    leaf.write_bytes(x509.sign(x509_request(), issuer))
    authority.write_bytes(issuer.anchor.public)
    assert verify(leaf, authority, NOW, "-purpose", "sslclient").endswith("leaf.pem: OK\n")
    text = printed(ssh.sign(ssh_request(), ssh_issuer), tmp_path)
    assert f"Signing CA: RSA {ssh_issuer.anchor.fingerprint} (using rsa-sha2-512)" in text


def test_long_names_are_accepted_by_openssl(tmp_path: Any) -> None:
    bot = BotRef("n" * 63, "m" * 200)
    leaf, authority = x509_files(tmp_path, bot=bot)
    assert verify(leaf, authority).endswith("leaf.pem: OK\n")
    assert printed(ssh.sign(replace(ssh_request(), key_id=bot.user), ca(Purpose.SSH_USER)), tmp_path)
