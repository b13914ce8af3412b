"""Credentials of every purpose in the hands of somebody who stole one, and makes of it whatever he can."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt as pyjwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID

from support.mounting import mount
from workbench.chart import CLUSTER_NAME

PATH = "/ns/shop/sa/web"
"""Of the SPIFFE ID in SVIDs, and in what somebody signs for himself."""

USER = "app"
"""The user of databases and Kubernetes."""

DATABASE = "db.data.svc"
WEB = "web.apps.svc"
SERVERS = (DATABASE, "localhost", WEB)
"""The DNS names of servers."""

NAMES = (
    "SSH user certificate",
    "SSH host certificate",
    "identity X.509 certificate",
    "application certificate",
    "database client certificate",
    "database server certificate",
    "Kubernetes client certificate",
    "X509-SVID",
    "JWT-SVID",
)
"""What `collected` gives."""


@dataclass(frozen=True)
class Credential:
    """A credential in every form: its own, and what its holder can make of it.

    Attributes:
        key: Its private key; beside a token, one of the holder's own.
        ssh: Its SSH certificate, if it is one.
        x509: Its X.509 certificate, PEM; else one that the key signed for itself.
        token: The token; else one that the key signed, with the genuine header and claims.
    """

    key: ec.EllipticCurvePrivateKey
    ssh: bytes | None
    x509: bytes
    token: str = ""

    @property
    def pkcs8(self) -> bytes:
        """The key as TLS reads it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def openssh(self) -> bytes:
        """The key as ssh reads it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())

    def put(self, directory: Path) -> Path:
        """All of it as files."""
        certificate = {} if self.ssh is None else {"id-cert.pub": self.ssh}
        content = {"id": self.openssh, "tls.crt": self.x509, "tls.key": self.pkcs8, **certificate}
        return mount(directory, content)


def of_ssh(key: bytes, certificate: bytes) -> Credential:
    private = load_ssh_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return Credential(private, certificate, signed_by_itself(private))


def of_x509(key: bytes, certificate: bytes) -> Credential:
    private = load_pem_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return Credential(private, None, certificate)


def signed_by_itself(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate that names everything that the genuine ones name."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, CLUSTER_NAME), x509.NameAttribute(NameOID.COMMON_NAME, USER)])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"spiffe://{CLUSTER_NAME}{PATH}")]
    names += [x509.DNSName(each) for each in SERVERS]
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def with_token(credential: Credential, genuine: str) -> Credential:
    """The same with a token that its key signed, in the place of the CA."""
    header = pyjwt.get_unverified_header(genuine)
    claims = pyjwt.decode(genuine, options={"verify_signature": False})
    der = x509.load_pem_x509_certificate(credential.x509).public_bytes(Encoding.DER)
    named = {"kid": header["kid"], "x5c": [base64.b64encode(der).decode()]}
    return replace(credential, token=pyjwt.encode(claims, credential.key, "ES256", headers=named))


def collected(secrets: Mapping[str, Mapping[str, bytes]]) -> dict[str, Credential]:
    """Every credential of `NAMES`.

    Args:
        secrets: Data of the Secrets of the outputs `identity`, `host`, `application`, `database-client`, `database-server`,
            `kubernetes`, `x509-svid` and `jwt-svid`; the keys are ECDSA-P256.
    """
    identity, host, svid = (secrets[name] for name in ("identity", "host", "x509-svid"))
    user = yaml.safe_load(secrets["kubernetes"]["kubeconfig.yaml"])["users"][0]["user"]
    parts = [base64.b64decode(user[f"client-{part}-data"]) for part in ("key", "certificate")]
    genuine, own = secrets["jwt-svid"]["jwt_svid"].decode(), ec.generate_private_key(ec.SECP256R1())
    found = {
        "SSH user certificate": of_ssh(identity["key"], identity["key-cert.pub"]),
        "SSH host certificate": of_ssh(host["ssh_host"], host["ssh_host-cert.pub"]),
        "identity X.509 certificate": of_x509(identity["tls.key"], identity["tlscert"]),
        "Kubernetes client certificate": of_x509(*parts),
        "X509-SVID": of_x509(svid["svid_key.pem"], svid["svid.pem"]),
    }
    for name in ("application", "database-client", "database-server"):
        found[f"{name.replace('-', ' ')} certificate"] = of_x509(secrets[name]["tls.key"], secrets[name]["tls.crt"])
    found = {name: with_token(each, genuine) for name, each in found.items()}
    found["JWT-SVID"] = Credential(own, None, signed_by_itself(own), genuine)
    assert found.keys() == set(NAMES)
    return found
