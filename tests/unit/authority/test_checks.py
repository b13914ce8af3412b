"""What is held against a certificate before and after it is signed: every row of the tables fails for its own reason."""

import binascii
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    SSHCertificate,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_identity,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machinebot.authority import checks, ssh
from machinebot.authority import x509 as x509_signing
from machinebot.authority.checks import REQUEST_CHECKS, SSH_CHECKS, X509_CHECKS, check_request, check_ssh, check_x509
from machinebot.authority.profiles import IDENTITY, SSH_HOST, SSH_USER, SSHRequest, Stamp, X509Request
from machinebot.errors import Denied
from machinebot.policy.credential import AnchorState, Purpose
from unit.authority.builders import CLUSTER, DAY, MINUTE, NOW, ca, ending, subject_key

STAMP = Stamp(serial=7, not_before=NOW - MINUTE, not_after=NOW - MINUTE + DAY)
KEY = subject_key().public_key()
OTHER = ec.generate_private_key(ec.SECP256R1())
X509_CA = ca(Purpose.IDENTITY)
SSH_CA = ca(Purpose.SSH_USER)
X509_REQUEST = X509Request(
    profile=IDENTITY,
    stamp=STAMP,
    public_key=KEY,
    common_name="bot:ci:deployer",
    organization=CLUSTER,
    spiffe_id=f"spiffe://{CLUSTER}/ns/ci/bot/deployer",
)
SSH_REQUEST = SSHRequest(
    profile=SSH_USER,
    stamp=STAMP,
    public_key=KEY,
    key_id="bot:ci:deployer",
    principals=("deploy", "web"),
    extensions=(b"permit-pty",),
    source_addresses=("10.0.0.0/8",),
)


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(Denied) as caught:
        call(*arguments)
    assert caught.value.reason == "CertificateRefused"
    return caught.value.message


# --- before the signing -------------------------------------------------------------------------------------------


def stamped(request: Any, **fields: Any) -> Any:
    return replace(request, stamp=replace(request.stamp, **fields))


@pytest.mark.parametrize("request_", [X509_REQUEST, SSH_REQUEST], ids=["X.509", "SSH"])
@pytest.mark.parametrize(
    ("change", "issuer", "check"),
    [
        pytest.param(lambda r: r, lambda _: ca(Purpose.SSH_HOST), "ca of purpose", id="CA of another purpose"),
        pytest.param(lambda r: r, lambda g: replace(g, state=AnchorState.PREPARED), "ca is active", id="CA not signing yet"),
        pytest.param(lambda r: r, lambda g: replace(g, state=AnchorState.OLD), "ca is active", id="CA signing no more"),
        pytest.param(lambda r: stamped(r, serial=0), None, "serial in range", id="serial zero"),
        pytest.param(lambda r: stamped(r, serial=-1), None, "serial in range", id="serial negative"),
        pytest.param(lambda r: stamped(r, serial=2**63), None, "serial in range", id="serial too large"),
        pytest.param(lambda r: stamped(r, not_after=STAMP.not_before), None, "span", id="no span"),
        pytest.param(lambda r: stamped(r, not_after=STAMP.not_before - DAY), None, "span", id="ends before it begins"),
        pytest.param(
            lambda r: stamped(r, not_after=STAMP.not_after + timedelta(seconds=1)), None, "span", id="a second above 24 hours"
        ),
        pytest.param(lambda r: r, lambda g: ending(g, STAMP.not_after - MINUTE), "ends before its ca", id="outlives its CA"),
    ],
)
def test_request_checks(request_: Any, change: Any, issuer: Any, check: Any) -> None:
    own = ca(request_.profile.purpose)
    message = refusal(check_request, change(request_), own if issuer is None else issuer(own))
    assert f"`{check}` and nothing was signed" in message


@pytest.mark.parametrize("request_", [X509_REQUEST, SSH_REQUEST], ids=["X.509", "SSH"])
def test_key_of_the_ca_is_never_certified(request_: Any) -> None:
    own = ca(request_.profile.purpose)
    message = refusal(check_request, replace(request_, public_key=own.key.public_key), own)
    assert "`key is no ca`" in message


@pytest.mark.parametrize("request_", [X509_REQUEST, SSH_REQUEST], ids=["X.509", "SSH"])
def test_good_request_passes_every_check(request_: Any) -> None:
    own = ca(request_.profile.purpose)
    check_request(request_, own)
    assert all(check(request_, own) for check in REQUEST_CHECKS)


# --- X.509 --------------------------------------------------------------------------------------------------------

USAGE = IDENTITY.key_usage


def x509_signed(
    *,
    drop: Any = (),
    add: Any = (),
    critical: Any = (),
    issuer: Any = X509_CA,
    signer: Any = None,
    digest: Any = None,
    **fields: Any,
) -> bytes:
    """A certificate as `x509.sign` makes it, but for what the arguments say."""
    setters = {
        "issuer_name": issuer.issuer.subject,
        "subject_name": x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, CLUSTER), x509.NameAttribute(NameOID.COMMON_NAME, "bot:ci:deployer")]
        ),
        "public_key": KEY,
        "serial_number": STAMP.serial,
        "not_valid_before": STAMP.not_before,
        "not_valid_after": STAMP.not_after,
    } | fields
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]] = {
        x509.BasicConstraints: (x509.BasicConstraints(ca=False, path_length=None), True),
        x509.KeyUsage: (USAGE, True),
        x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        x509.SubjectAlternativeName: (
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(X509_REQUEST.spiffe_id)]),
            False,
        ),
        x509.AuthorityKeyIdentifier: (
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.key.subject_key_identifier),
            False,
        ),
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier.from_public_key(KEY), False),
    }
    for kind in drop:
        del extensions[kind]
    for value in add:
        extensions[type(value)] = (value, extensions.get(type(value), (value, False))[1])
    for kind in critical:
        extensions[kind] = (extensions[kind][0], not extensions[kind][1])
    builder = x509.CertificateBuilder()
    for name, value in setters.items():
        builder = getattr(builder, name)(value)
    for value, is_critical in extensions.values():
        builder = builder.add_extension(value, critical=is_critical)
    key = issuer.key.private_key if signer is None else signer
    return builder.sign(key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def name_of(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


ORGANIZATION, COMMON_NAME = (NameOID.ORGANIZATION_NAME, CLUSTER), (NameOID.COMMON_NAME, "bot:ci:deployer")
OWN = uri(X509_REQUEST.spiffe_id)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param({"serial_number": 8}, "x509 serial", id="another serial"),
        pytest.param({"not_valid_before": STAMP.not_before - MINUTE}, "x509 dates", id="begins earlier"),
        pytest.param({"not_valid_after": STAMP.not_after + MINUTE}, "x509 dates", id="ends later"),
        pytest.param({"public_key": OTHER.public_key()}, "x509 public key", id="another key"),
        pytest.param({"subject_name": name_of(COMMON_NAME)}, "x509 subject", id="no organization"),
        pytest.param({"subject_name": name_of(COMMON_NAME, ORGANIZATION)}, "x509 subject", id="another order"),
        pytest.param(
            {"subject_name": name_of((NameOID.ORGANIZATION_NAME, "system:masters"), COMMON_NAME)},
            "x509 subject",
            id="another organization",
        ),
        pytest.param(
            {"subject_name": name_of(ORGANIZATION, (NameOID.ORGANIZATION_NAME, "system:masters"), COMMON_NAME)},
            "x509 subject",
            id="a second organization",
        ),
        pytest.param({"subject_name": name_of(ORGANIZATION, (NameOID.COMMON_NAME, "root"))}, "x509 subject", id="another name"),
        pytest.param({"drop": [x509.KeyUsage]}, "x509 extensions", id="no keyUsage"),
        pytest.param({"drop": [x509.BasicConstraints]}, "x509 extensions", id="no basicConstraints"),
        pytest.param({"drop": [x509.ExtendedKeyUsage]}, "x509 extensions", id="no extendedKeyUsage: good for anything"),
        pytest.param({"drop": [x509.SubjectAlternativeName]}, "x509 extensions", id="no SPIFFE ID"),
        pytest.param({"drop": [x509.AuthorityKeyIdentifier]}, "x509 extensions", id="no AKI"),
        pytest.param({"critical": [x509.KeyUsage]}, "x509 extensions", id="keyUsage not critical"),
        pytest.param({"critical": [x509.BasicConstraints]}, "x509 extensions", id="basicConstraints not critical"),
        pytest.param({"critical": [x509.SubjectAlternativeName]}, "x509 extensions", id="subjectAltName critical"),
        pytest.param({"add": [x509.OCSPNoCheck()]}, "x509 extensions", id="an extension more"),
        pytest.param(
            {"add": [x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9999.1.13"), b"\x01")]},
            "x509 extensions",
            id="an unknown extension",
        ),
        pytest.param({"add": [x509.BasicConstraints(ca=True, path_length=0)]}, "x509 no ca", id="a CA"),
        pytest.param(
            {"add": [x509.KeyUsage(True, True, True, True, True, True, False, False, False)]},
            "x509 key usage",
            id="signs certificates",
        ),
        pytest.param(
            {"add": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])]},
            "x509 extended key usage",
            id="a server too",
        ),
        pytest.param(
            {"add": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])]},
            "x509 extended key usage",
            id="any usage",
        ),
        pytest.param({"add": [san(uri(f"spiffe://{CLUSTER}/ns/ci/bot/other"))]}, "x509 one spiffe id", id="another bot"),
        pytest.param({"add": [san(OWN, uri("spiffe://other.test/x"))]}, "x509 one spiffe id", id="a second URI"),
        pytest.param({"add": [san(OWN, x509.DNSName("example.test"))]}, "x509 one spiffe id", id="a DNS name"),
        pytest.param(
            {"add": [x509.SubjectKeyIdentifier(b"x" * 20)]}, "x509 key identifiers", id="another subject key identifier"
        ),
        pytest.param(
            {"add": [x509.AuthorityKeyIdentifier(b"x" * 20, None, None)]}, "x509 key identifiers", id="AKI of another CA"
        ),
        pytest.param({"signer": OTHER}, "x509 signature", id="signed by another key"),
        pytest.param({"issuer_name": name_of(ORGANIZATION, COMMON_NAME)}, "x509 signature", id="another issuer"),
    ],
)
def test_x509_checks(change: Any, check: Any) -> None:
    message = refusal(check_x509, x509_signed(**change), X509_REQUEST, X509_CA)
    assert f"`{check}` and it was not handed out" in message


def test_x509_key_of_the_ca_is_never_certified() -> None:
    own = X509_CA.key.public_key
    identifier = x509.SubjectKeyIdentifier.from_public_key(own)
    wrong = x509_signed(public_key=own, add=[identifier])
    assert "`x509 public key`" in refusal(check_x509, wrong, replace(X509_REQUEST, public_key=own), X509_CA)


def test_x509_span_is_held_against_the_ceiling_and_the_ca() -> None:
    long = stamped(X509_REQUEST, not_after=STAMP.not_after + MINUTE)
    signed = x509_signed(not_valid_after=STAMP.not_after + MINUTE)
    assert "`x509 span`" in refusal(check_x509, signed, long, X509_CA)
    end = X509_CA.issuer.not_valid_after_utc
    late = replace(X509_REQUEST, stamp=Stamp(serial=7, not_before=end - MINUTE, not_after=end + MINUTE))
    signed = x509_signed(not_valid_before=end - MINUTE, not_valid_after=end + MINUTE)
    assert "`x509 span`" in refusal(check_x509, signed, late, X509_CA)


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x00", x509_signed()[:-1], x509_signed() + b"\x00"], ids=range(5))
def test_x509_garbage_is_not_handed_out(der: Any) -> None:
    assert "`readable`" in refusal(check_x509, der, X509_REQUEST, X509_CA)


def test_x509_changed_bit_is_not_handed_out() -> None:
    good = x509_signed()
    # The parser lets the count of unused bits in front of the signature be anything; it changes nothing.
    unused = len(good) - len(x509.load_der_x509_certificate(good).signature) - 1
    for place in range(0, len(good), 5):
        if place == unused:
            continue
        changed = bytearray(good)
        changed[place] ^= 1
        assert "not handed out" in refusal(check_x509, bytes(changed), X509_REQUEST, X509_CA)


def test_x509_good_one_passes_every_check() -> None:
    certificate = check_x509(x509_signed(), X509_REQUEST, X509_CA)
    assert all(check(certificate, X509_REQUEST, X509_CA) for check in X509_CHECKS)


# --- SSH ----------------------------------------------------------------------------------------------------------


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


# --- signing ------------------------------------------------------------------------------------------------------


def test_signing_asks_before_and_after(monkeypatch: Any) -> None:
    outlives = ending(SSH_CA, NOW)
    refusal(ssh.sign, SSH_REQUEST, outlives)
    refusal(x509_signing.sign, X509_REQUEST, ending(X509_CA, NOW))
    monkeypatch.setattr(checks, "SSH_CHECKS", (lambda *_: False,))
    monkeypatch.setattr(checks, "X509_CHECKS", (lambda *_: False,))
    refusal(ssh.sign, SSH_REQUEST, SSH_CA)
    refusal(x509_signing.sign, X509_REQUEST, X509_CA)


def test_what_the_signers_make_is_what_the_tables_expect() -> None:
    assert check_x509(x509_signed(), X509_REQUEST, X509_CA)
    pem = x509_signing.sign(X509_REQUEST, X509_CA)
    assert (
        x509.load_pem_x509_certificate(pem).tbs_certificate_bytes
        == x509.load_der_x509_certificate(x509_signed()).tbs_certificate_bytes
    )
    check_ssh(ssh.sign(SSH_REQUEST, SSH_CA), SSH_REQUEST, SSH_CA)
