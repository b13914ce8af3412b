"""What files of credentials say of themselves."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from typer.testing import CliRunner

from machinebot.authority.profiles import NOTE
from machinebot.cli.credentials import MAX_FOUND, MAX_PIECE, read, read_all
from machinebot.cli.found import Found, algorithm
from machinebot.cli.inspecting import MAX_FILES, table
from machinebot.cli.main import app

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ed25519.Ed25519PrivateKey.generate()
CA = ec.generate_private_key(ec.SECP256R1())
PKCS8 = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OPENSSH = KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bot:ci:deployer")])
CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.test identity")])


def ssh(*, end: int | None = None, principals: tuple[bytes, ...] = (b"deploy",), host: bool = False) -> bytes:
    begin = int(NOW.timestamp())
    builder = (
        SSHCertificateBuilder()
        .public_key(KEY.public_key())
        .serial(7)
        .type(SSHCertificateType.HOST if host else SSHCertificateType.USER)
        .key_id(b"bot:ci:deployer")
        .valid_after(begin)
        .valid_before(begin + 3600 if end is None else end)
    )
    builder = builder.valid_principals(list(principals)) if principals else builder.valid_for_all_principals()
    if not host:
        builder = builder.add_extension(b"permit-pty", b"").add_critical_option(b"source-address", b"10.0.0.0/8")
    return builder.sign(CA).public_bytes() + b"\n"


def certificate(key: Any = KEY, *, ca: bool = False, issuer: x509.Name = CA_NAME, signer: Any = CA) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(CA_NAME if ca else NAME)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier(b"\x01\x02", None, None), critical=False)
    )
    if not ca:
        names = [x509.UniformResourceIdentifier("spiffe://example.test/ns/ci/bot/deployer"), x509.DNSName("web.test")]
        usage = {name: name == "digital_signature" for name in KEY_USAGES}
        builder = (
            builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier(b"\x03"), critical=False)
            .add_extension(x509.UnrecognizedExtension(NOTE, b'\x0c\x0b{"id":"0b"}'), critical=False)
        )
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
CLAIMS = {
    "sub": "spiffe://example.test/x",
    "aud": ["vault", "b"],
    "iss": "https://id.test",
    "jti": "7",
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 3600,
    "note": {"a": 1},
}


def token(**claims: Any) -> bytes:
    return jwt.encode({**CLAIMS, **claims}, KEY, algorithm="ES256", headers={"kid": "k1"}).encode()


def one(content: bytes) -> Found:
    (found,) = read(content)
    return found


# --- what each says -----------------------------------------------------------------------------------------------------


def test_an_ssh_certificate() -> None:
    found = one(ssh())
    assert found.form == "SSH user certificate"
    assert (found.subject, found.names, found.serial) == ("bot:ci:deployer", ("deploy",), "7")
    assert (found.not_before, found.not_after) == (NOW, NOW + timedelta(hours=1))
    assert found.extensions == ("source-address=10.0.0.0/8 (critical)", "permit-pty")
    assert found.issuer.startswith("SHA256:")
    assert found.fingerprint.startswith("SHA256:")
    assert found.issuer != found.fingerprint
    assert found.algorithm == "ECDSA-P256"


def test_an_ssh_host_certificate() -> None:
    assert one(ssh(host=True)).form == "SSH host certificate"


def test_an_ssh_certificate_without_an_end_or_a_principal_says_so() -> None:
    found = one(ssh(end=2**64 - 1, principals=()))
    assert found.not_after is None
    assert found.names == ("any: to sshd it is good for all",)
    assert ("ends", "no end") in [(row[0], getattr(row[1], "text", "")) for row in table("x", [found], NOW).rows]


def test_an_x509_certificate() -> None:
    found = one(certificate())
    assert (found.form, found.subject, found.serial) == ("X.509 certificate", "CN=bot:ci:deployer", "7")
    assert found.names == ("URI:spiffe://example.test/ns/ci/bot/deployer", "DNS:web.test")
    assert (found.not_before, found.not_after) == (NOW, NOW + timedelta(hours=1))
    assert found.issuer == "CN=example.test identity (key 0102)"
    assert not found.authority
    assert set(found.extensions) == {
        "CA no (critical)",
        "clientAuth",
        "digital signature (critical)",
        "key id 03",
        f'{NOTE.dotted_string}={{"id":"0b"}}',
    }


def test_the_certificate_of_a_ca() -> None:
    found = one(certificate(CA, ca=True))
    assert found.authority
    assert not found.wants_key
    assert found.issuer == "itself"


def test_who_only_has_the_name_of_its_ca_is_not_signed_by_itself() -> None:
    assert one(certificate(KEY, ca=True)).issuer == "CN=example.test identity"


def test_a_token() -> None:
    found = one(token() + b"\n")
    assert (found.form, found.subject, found.serial) == ("JWT", CLAIMS["sub"], "7")
    assert found.names == ("aud:vault", "aud:b")
    assert (found.not_before, found.not_after) == (NOW, NOW + timedelta(hours=1))
    assert found.issuer == "https://id.test (key k1)"
    assert (found.algorithm, found.extensions) == ("ES256", ('note={"a": 1}',))
    assert one(token(aud="vault")).names == ("aud:vault",)


@pytest.mark.parametrize(
    ("content", "form", "name"),
    [
        pytest.param(PKCS8, "private key", "ECDSA-P256", id="PKCS8"),
        pytest.param(OPENSSH, "private key", "ECDSA-P256", id="OpenSSH"),
        pytest.param(
            KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
            "private key",
            "ECDSA-P256",
            id="SEC1",
        ),
        pytest.param(
            OTHER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "private key", "Ed25519", id="Ed25519"
        ),
        pytest.param(
            KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "public key",
            "ECDSA-P256",
            id="public",
        ),
        pytest.param(
            KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "SSH public key", "ECDSA-P256", id="SSH public"
        ),
        pytest.param(
            b"@cert-authority *.test " + KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "SSH public key",
            "ECDSA-P256",
            id="known_hosts",
        ),
    ],
)
def test_keys(content: bytes, form: str, name: str) -> None:
    found = one(content)
    assert (found.form, found.algorithm, found.problem) == (form, name, "")
    assert found.authority is content.startswith(b"@cert-authority")


def test_algorithms_are_spelled_as_in_the_resources() -> None:
    assert algorithm(rsa.generate_private_key(65537, 2048).public_key()) == "RSA-2048"
    assert algorithm(ec.generate_private_key(ec.SECP384R1()).public_key()) == "ECDSA-P384"
    assert "DSA" in algorithm(dsa.generate_private_key(2048).public_key())


# --- what cannot be read ------------------------------------------------------------------------------------------------


def segment(content: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")


def twice() -> bytes:
    """A certificate that has one extension two times: its second key id is made to be another first one."""
    pem = x509.load_pem_x509_certificate(certificate())
    der = pem.public_bytes(Encoding.DER).replace(b"\x06\x03\x55\x1d\x0e", b"\x06\x03\x55\x1d\x23")
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


ENCRYPTED = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"x" * (MAX_PIECE + 1), "larger than", id="too large"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "cannot be read", id="X.509"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "cannot be read", id="key"),
        pytest.param(
            b"-----BEGIN OPENSSH PRIVATE KEY-----\nMIIB\n-----END OPENSSH PRIVATE KEY-----", "cannot be read", id="SSH key"
        ),
        pytest.param(twice(), "cannot be read", id="an extension twice"),
        pytest.param(ENCRYPTED, "has a passphrase", id="passphrase"),
        pytest.param(b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n", "of no kind that is shown", id="CRL"),
        pytest.param(b"ssh-ed25519 AAAA", "cannot be read", id="SSH"),
        pytest.param(ssh()[:120] + b"\n", "cannot be read", id="half an SSH certificate"),
    ],
)
def test_what_cannot_be_read_says_so_and_nothing_else(content: bytes, problem: str) -> None:
    found = one(content)
    assert problem in found.problem
    assert found.subject == ""


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\x00\xfe", id="bytes"),
        pytest.param(b"a.b.c", id="dots"),
        pytest.param(b".".join((segment({"alg": "none"}), segment([]), b"x")), id="a list for claims"),
        pytest.param(b".".join((segment({"alg": "ES256"}), segment({"exp": "x"}), b"x")), id="no number"),
        pytest.param(b".".join((segment({"alg": "ES256"}), segment({"exp": 10**30}), b"x")), id="no date"),
        pytest.param(
            b".".join((segment({"alg": "ES256"}), base64.urlsafe_b64encode(b"[" * 45_000).rstrip(b"="), b"x")), id="brackets"
        ),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END PRIVATE KEY-----\n", id="another end"),
        pytest.param(b"Host *\n  User deploy\n", id="ssh_config"),
    ],
)
def test_what_is_no_credential_is_passed_over(content: bytes) -> None:
    assert read(content) == ()


def test_a_file_with_many_is_bounded() -> None:
    assert len(read(b"-----BEGIN X-----\n-----END X-----\n" * (MAX_FOUND + 9))) == MAX_FOUND


# --- together -----------------------------------------------------------------------------------------------------------


def files() -> dict[str, bytes]:
    return {
        "tls.crt": certificate(),
        "tlscert": certificate(),
        "key-cert.pub": ssh(),
        "tls.key": PKCS8,
        "key": OPENSSH,
        "ca.crt": certificate(CA, ca=True),
        "ssh_config": b"Host *",
    }


def test_one_thing_in_two_files_is_told_once_and_keys_are_held_against_certificates() -> None:
    content = files()
    content["tlscert"] = content["tls.crt"]
    found = {each.form + (" of a CA" if each.authority else ""): each for each in read_all(content)}
    assert found["X.509 certificate"].files == ("tls.crt", "tlscert")
    assert found["X.509 certificate"].private_key == "key"
    assert found["SSH user certificate"].private_key == "key"
    assert found["private key"].files == ("key", "tls.key")
    assert found["X.509 certificate of a CA"].private_key is None
    assert [each.authority for each in read_all(content)][-1]


def test_a_key_that_does_not_fit_is_told() -> None:
    content = {**files(), "tls.key": OTHER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())}
    del content["key"]
    for each in read_all(content):
        if each.wants_key:
            assert each.private_key is None
    rows = {row[0]: row[1:] for row in table("x", read_all(content), NOW).rows}
    assert "none here fits" in [getattr(cell, "text", cell) for cell in rows["private key"]]


def test_a_key_that_a_certificate_is_about_has_no_column_of_its_own() -> None:
    line = KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    other = OTHER.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    found = read_all({**files(), "key.pub": line, "known_hosts": b"@cert-authority *.test " + other})
    (what,) = [row[1:] for row in table("x", found, NOW).rows if row[0] == "what"]
    assert "private key" not in what
    assert "SSH public key" not in what
    assert "SSH public key of a CA" in what


def test_nothing_of_a_private_key_or_a_signature_is_kept() -> None:
    text = repr(read_all({**files(), "token": token()}))
    for secret in (PKCS8, OPENSSH):
        assert secret.decode().splitlines()[1] not in text
    assert token().decode().rpartition(".")[2] not in text


# --- the command --------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["inspect", *arguments], env={"KUBECONFIG": "/nonexistent"})
    return result.exit_code, result.stdout, result.stderr


def test_a_directory_is_shown_side_by_side(tmp_path: Path) -> None:
    for name, content in {**files(), "token": token()}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    code, said, _ = run(str(tmp_path))
    assert code == 0
    heading = said.splitlines()[2]
    assert heading.startswith("what ")
    assert all(form in heading for form in ("JWT", "SSH user certificate", "X.509 certificate of a CA"))
    assert "fits (in key)" in said
    code, said, _ = run(str(tmp_path), "-o", "json")
    content = json.loads(said)
    assert code == 0
    assert {each["form"] for each in content["credentials"]} >= {"JWT", "SSH user certificate", "private key"}
    assert all(each["expired"] in (True, False) for each in content["credentials"])


def test_a_file_is_shown(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(ssh())
    code, said, _ = run(str(tmp_path / "x"))
    assert code == 0
    assert "none here fits" in said


def test_a_key_alone_is_shown(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(PKCS8)
    code, said, _ = run(str(tmp_path / "x"))
    assert code == 0
    assert "private key" in said


def test_what_cannot_be_shown_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing")
    (tmp_path / "many").mkdir()
    for number in range(MAX_FILES + 1):
        (tmp_path / "many" / str(number)).touch()
    for source, words in (
        (tmp_path / "text", "holds no certificate, key or token"),
        (tmp_path / "many", f"more than {MAX_FILES} files"),
        (tmp_path / "nothing", "cannot be read: No such file"),
        (Path("/dev/zero"), "is no plain file"),
    ):
        code, said, complaint = run(str(source))
        assert (code, said) == (1, "")
        assert words in complaint
        assert complaint.count("\n") == 1
