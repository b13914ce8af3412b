"""Credentials of every usage as others read them: cryptography, OpenSSL, and a JWT by its bytes alone."""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from machinebot.authority.generations import Generation
from machinebot.authority.profiles import FOR_BOTS, PROFILES, X509Profile
from machinebot.authority.subjects import SERVER_UNIT, SUBJECTS
from machinebot.policy.credential import Form, Purpose, Usage
from machinebot.policy.lifetimes import BACKDATE
from machinebot.policy.names import NAME_RULES, NameKind
from unit.authority.builders import (
    CLUSTER,
    DAY,
    ISSUER,
    MINUTE,
    NOW,
    REF,
    allowing,
    ca,
    ca_with,
    issued_for,
    ssh_of,
    subject_key,
    x509_of,
)

X509 = [usage for usage in Usage if usage.form is Form.X509 and usage in FOR_BOTS]
OWN = REF.spiffe_id(CLUSTER)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
O, OU, CN = NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.COMMON_NAME  # noqa: E741 - as in X.500

SUBJECT = {
    Usage.IDENTITY: [(O, CLUSTER), (CN, "bot:ci:deployer")],
    Usage.DATABASE_CLIENT: [(O, CLUSTER), (OU, "orders"), (CN, "app")],
    Usage.DATABASE_SERVER: [(O, CLUSTER), (OU, SERVER_UNIT)],
    Usage.DATABASE_NODE: [(O, CLUSTER), (OU, SERVER_UNIT), (CN, "node")],
    Usage.KUBERNETES: [(O, "team:ops"), (O, "viewers"), (CN, "team:deployer")],
    Usage.WORKLOAD: [(O, CLUSTER)],
}
"""Who the certificate of each usage names, in order."""

ALTERNATIVES: dict[Usage, tuple[str, list[str]]] = {
    Usage.IDENTITY: (OWN, []),
    Usage.DATABASE_CLIENT: (OWN, []),
    Usage.DATABASE_SERVER: (OWN, ["db.test"]),
    Usage.DATABASE_NODE: (OWN, ["db", "db.test"]),
    Usage.KUBERNETES: (OWN, []),
    Usage.WORKLOAD: (f"spiffe://{CLUSTER}/ns/ci/web", ["web.test"]),
}
"""The one URI and the DNS names of each."""

EXTENDED = {
    Usage.IDENTITY: [CLIENT],
    Usage.IDENTITY_SERVER: [SERVER],
    Usage.DATABASE_CLIENT: [CLIENT],
    Usage.DATABASE_SERVER: [SERVER],
    Usage.DATABASE_NODE: [CLIENT, SERVER],
    Usage.KUBERNETES: [CLIENT],
    Usage.WORKLOAD: [CLIENT, SERVER],
    Usage.BOT: [CLIENT],
}
"""What each is good for, and for nothing else."""


def test_every_usage_of_x509_is_here() -> None:
    assert set(SUBJECT) == set(ALTERNATIVES) == set(SUBJECTS) == set(X509)
    assert {usage for usage, profile in PROFILES.items() if isinstance(profile, X509Profile)} == set(EXTENDED)


@pytest.mark.parametrize("usage", EXTENDED, ids=str)
def test_profiles_say_what_a_certificate_is_good_for(usage: Usage) -> None:
    profile = PROFILES[usage]
    assert isinstance(profile, X509Profile)
    assert list(profile.extended_key_usage) == EXTENDED[usage]
    assert profile.dns_names is (SERVER in EXTENDED[usage])
    wanted = {"digital_signature": True, "key_cert_sign": False, "crl_sign": False, "key_agreement": False}
    assert {name: getattr(profile.key_usage, name) for name in wanted} == wanted


@pytest.mark.parametrize("usage", X509, ids=str)
def test_certificate_says_what_it_must_and_nothing_else(usage: Usage) -> None:
    issued = issued_for([usage])
    certificate = x509_of(issued)
    assert [(part.oid, part.value) for part in certificate.subject] == SUBJECT[usage]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uri, dns = ALTERNATIVES[usage]
    assert list(names) == [x509.UniformResourceIdentifier(uri), *map(x509.DNSName, dns)]
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == EXTENDED[usage]
    assert certificate.public_key() == subject_key().public_key()
    assert certificate.serial_number == issued.serial
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (NOW - BACKDATE, NOW - BACKDATE + DAY)
    assert {extension.oid: extension.critical for extension in certificate.extensions} == {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.EXTENDED_KEY_USAGE: False,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    }
    certificate.verify_directly_issued_by(ca(usage.purpose).issuer)
    assert (issued.ssh_certificate, issued.token) == (None, None)
    assert dict(issued.authorities) == {usage.purpose: ca(usage.purpose).id}


def test_ssh_certificates_name_logins_and_hosts() -> None:
    assert ssh_of(issued_for([Usage.SSH_USER])).valid_principals == [b"deploy"]
    assert ssh_of(issued_for([Usage.SSH_HOST])).valid_principals == [b"a.test", b"b.test"]


def test_one_issue_holds_one_of_each_form() -> None:
    issued = issued_for([Usage.SSH_USER, Usage.KUBERNETES, Usage.WORKLOAD_TOKEN])
    assert ssh_of(issued).serial == x509_of(issued).serial_number == issued.serial
    assert read(issued.token)[1]["jti"] == str(issued.serial)
    assert set(issued.authorities) == {Purpose.SSH_USER, Purpose.KUBERNETES, Purpose.WORKLOAD}


# --- names that could be taken for others -------------------------------------------------------------------------


def test_the_unit_of_servers_is_no_name_of_a_database() -> None:
    """MongoDB takes a client with the O and OU of a server for a member of its cluster; names may be compared without case and
    with blanks folded (RFC 4518)."""
    rule = NAME_RULES[NameKind.DB_NAMES]
    for text in (SERVER_UNIT, SERVER_UNIT.upper(), SERVER_UNIT.title(), SERVER_UNIT.replace(" ", "  "), f" {SERVER_UNIT} "):
        assert not rule.fits(text)
    assert " " in SERVER_UNIT
    assert not any(rule.fits(f"a{blank}b") for blank in " \t\n\u00a0\u2003\u3000")


@pytest.mark.parametrize(
    ("usage", "names", "subject"),
    [
        pytest.param(
            Usage.DATABASE_CLIENT, {NameKind.DB_USERS: ["app"]}, [(O, CLUSTER), (CN, "app")], id="client of any database"
        ),
        pytest.param(Usage.DATABASE_SERVER, {NameKind.DNS_NAMES: ["db"]}, [(O, CLUSTER), (OU, SERVER_UNIT)], id="server"),
    ],
)
def test_what_is_not_asked_for_is_not_in_the_subject(usage: Usage, names: Any, subject: Any) -> None:
    assert [(part.oid, part.value) for part in x509_of(issued_for([usage], names=names)).subject] == subject


def test_a_kubernetes_credential_without_a_user_names_the_bot() -> None:
    groups = allowing(allow={NameKind.KUBERNETES_GROUPS: ["viewers"]})
    subject = x509_of(issued_for([Usage.KUBERNETES], roles=[groups])).subject
    assert [(part.oid, part.value) for part in subject] == [(O, "viewers"), (CN, "bot:ci:deployer")]


def test_a_kubernetes_credential_without_a_group_has_none() -> None:
    user = allowing(allow={NameKind.KUBERNETES_USERS: ["person"]})
    subject = x509_of(issued_for([Usage.KUBERNETES], roles=[user])).subject
    assert [(part.oid, part.value) for part in subject] == [(CN, "person")]


def test_many_groups_are_all_there() -> None:
    many = [f"group-{number:03}" for number in range(64)]
    found = issued_for([Usage.KUBERNETES], roles=[allowing(allow={NameKind.KUBERNETES_GROUPS: many})])
    assert [part.value for part in x509_of(found).subject.get_attributes_for_oid(O)] == many


# --- OpenSSL ------------------------------------------------------------------------------------------------------


def openssl(*command: object) -> str:
    done = subprocess.run(["openssl", *map(str, command)], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def files(usage: Usage, issuer: Generation, tmp_path: Path) -> tuple[Path, Path]:
    leaf, authority = tmp_path / "leaf.pem", tmp_path / "ca.pem"
    leaf.write_bytes(issued_for([usage], {usage.purpose: issuer}).x509_certificate or b"")
    authority.write_bytes(issuer.anchor.public)
    return leaf, authority


def verified(leaf: Path, authority: Path, *more: object, moment: Any = NOW) -> str:
    return openssl("verify", "-x509_strict", "-attime", int(moment.timestamp()), *more, "-CAfile", authority, leaf)


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "RSA-4096"])
@pytest.mark.parametrize("usage", X509, ids=str)
def test_openssl_takes_it_for_its_purpose_alone(usage: Usage, algorithm: Any, rsa_ca_key: Any, tmp_path: Path) -> None:
    issuer = ca_with(rsa_ca_key, usage.purpose) if algorithm == "RSA-4096" else ca(usage.purpose, algorithm)
    leaf, authority = files(usage, issuer, tmp_path)
    for purpose, oid in (("sslclient", CLIENT), ("sslserver", SERVER)):
        text = verified(leaf, authority, "-purpose", purpose)
        assert text.endswith("leaf.pem: OK\n") if oid in EXTENDED[usage] else "unsuitable certificate purpose" in text
    for purpose in ("smimesign", "timestampsign", "crlsign"):
        assert "unsuitable certificate purpose" in verified(leaf, authority, "-purpose", purpose)
    assert "certificate has expired" in verified(leaf, authority, moment=NOW + DAY)
    assert "not yet valid" in verified(leaf, authority, moment=NOW - 2 * MINUTE)


@pytest.mark.parametrize("usage", X509, ids=str)
def test_openssl_reads_the_same_subject_and_names(usage: Usage, tmp_path: Path) -> None:
    leaf, _ = files(usage, ca(usage.purpose), tmp_path)
    text = re.sub(r"[ \n]+", " ", openssl("x509", "-in", leaf, "-noout", "-text", "-nameopt", "RFC2253,sep_comma_plus_space"))
    labels = {O: "O", OU: "OU", CN: "CN"}
    # RFC 2253 reads from the end.
    assert f"Subject: {', '.join(f'{labels[oid]}={value}' for oid, value in reversed(SUBJECT[usage]))} Subject" in text
    uri, dns = ALTERNATIVES[usage]
    assert f"X509v3 Subject Alternative Name: {', '.join([f'URI:{uri}', *(f'DNS:{name}' for name in dns)])} X509v3" in text
    words = {CLIENT: "TLS Web Client Authentication", SERVER: "TLS Web Server Authentication"}
    assert f"X509v3 Extended Key Usage: {', '.join(words[oid] for oid in EXTENDED[usage])} X509v3" in text
    assert "X509v3 Key Usage: critical Digital Signature X509v3" in text
    assert "X509v3 Basic Constraints: critical CA:FALSE" in text


@pytest.mark.parametrize(
    ("usage", "name", "good"),
    [
        (Usage.DATABASE_SERVER, "db.test", True),
        (Usage.DATABASE_SERVER, "other.test", False),
        (Usage.DATABASE_SERVER, "x.db.test", False),
        (Usage.DATABASE_NODE, "db", True),
        (Usage.DATABASE_NODE, "node", False),
        (Usage.WORKLOAD, "web.test", True),
        (Usage.WORKLOAD, CLUSTER, False),
    ],
)
def test_openssl_finds_the_dns_names_and_no_other(usage: Usage, name: str, tmp_path: Path, *, good: bool) -> None:
    leaf, authority = files(usage, ca(usage.purpose), tmp_path)
    assert verified(leaf, authority, "-verify_hostname", name).endswith("leaf.pem: OK\n") is good


# --- JWT ----------------------------------------------------------------------------------------------------------


def unpadded(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def read(token: bytes | None) -> tuple[Any, Any]:
    """Header and claims, by the bytes alone."""
    assert token is not None
    header, claims, _ = token.split(b".")
    return json.loads(unpadded(header)), json.loads(unpadded(claims))


def signed_by(token: bytes, issuer: Generation) -> None:
    """Verifies the signature by the key alone (RFC 7518, sections 3.3 and 3.4); raises where it is another's."""
    text, _, signature = token.rpartition(b".")
    value, key = unpadded(signature), issuer.key.public_key
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(value, text, padding.PKCS1v15(), hashes.SHA256())
        return
    assert isinstance(key, ec.EllipticCurvePublicKey)
    half = key.key_size // 8
    assert len(value) == 2 * half
    der = encode_dss_signature(int.from_bytes(value[:half]), int.from_bytes(value[half:]))
    key.verify(der, text, ec.ECDSA(hashes.SHA384() if half == 48 else hashes.SHA256()))


@pytest.mark.parametrize(("algorithm", "name"), [("ECDSA-P256", "ES256"), ("ECDSA-P384", "ES384"), ("RSA-4096", "RS256")])
def test_token_says_what_it_must_and_nothing_else(algorithm: Any, name: str, rsa_ca_key: Any) -> None:
    issuer = ca_with(rsa_ca_key, Purpose.WORKLOAD) if algorithm == "RSA-4096" else ca(Purpose.WORKLOAD, algorithm)
    issued = issued_for([Usage.WORKLOAD_TOKEN], {Purpose.WORKLOAD: issuer})
    header, claims = read(issued.token)
    begin = int((NOW - BACKDATE).timestamp())
    assert header == {"alg": name, "typ": "JWT", "kid": issuer.id}
    assert claims == {
        "iss": ISSUER,
        "sub": OWN,
        "aud": ["api", "vault"],
        "iat": begin,
        "nbf": begin,
        "exp": begin + 86_400,
        "jti": str(issued.serial),
    }
    signed_by(issued.token or b"", issuer)
    assert (issued.ssh_certificate, issued.x509_certificate) == (None, None)


def test_certificate_and_token_of_a_workload_are_one_spiffe_id() -> None:
    issued = issued_for([Usage.WORKLOAD, Usage.WORKLOAD_TOKEN])
    names = x509_of(issued).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [read(issued.token)[1]["sub"]]
    assert read(issued.token)[1]["sub"] == f"spiffe://{CLUSTER}/ns/ci/web"
