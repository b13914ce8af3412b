"""An Azure made up for tests: its authorities, what its metadata service signs, its tokens, and what its Resource Manager knows.

The messages are signed by cryptography's builder of PKCS #7 and the tokens by PyJWT; nothing of ours takes part in making them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from machinebot.joins.base import HTTPSAnswer, HTTPSRequest
from machinebot.joins.keysets import KeySet, parse_jwks

NOW: Final = datetime(2026, 11, 30, 12, tzinfo=UTC)
TENANT: Final = "72f988bf-86f1-41af-91ab-2d7cd011db47"
SUBSCRIPTION: Final = "8d10da13-8125-4ba9-a717-bf7490507b3d"
VM_ID: Final = "02aab8a4-74ef-476e-8182-f6d2ba4166a6"
VM: Final = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/CI-Runners/providers/Microsoft.Compute/virtualMachines/runner-1"
ISSUER: Final = f"https://sts.windows.net/{TENANT}/"
AUDIENCE: Final = "https://management.azure.com/"
SIGNER: Final = "eastus.metadata.azure.com"
PLACE: Final = "http://www.microsoft.com/pkiops/certs/Made%20Up%20TLS%20Issuing%20CA%2001.crt"

_SHA256: Final = bytes.fromhex("0609608648016503040201")
_SHA256_WITH_RSA: Final = bytes.fromhex("06092a864886f70d01010b")

Key = rsa.RSAPrivateKey


def new_key(bits: int = 2048) -> Key:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(
    subject: str,
    issuer: Issued | None = None,
    *,
    is_ca: bool = False,
    names: tuple[str, ...] = (),
    key: Any = None,
    place: str | None = None,
    serial: int | None = None,
    begins: datetime = NOW - timedelta(days=30),
    ends: datetime = NOW + timedelta(days=300),
) -> Issued:
    """A certificate of that issuer, or one that signs itself."""
    key = key or new_key()
    signing, issuing = (issuer.key, issuer.certificate.subject) if issuer else (key, name(subject))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuing)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .add_extension(x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False), critical=True)
    )
    if not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
    if place is not None:
        access = [
            x509.AccessDescription(method, x509.UniformResourceIdentifier(address))
            for method, address in (
                (AuthorityInformationAccessOID.OCSP, "http://oneocsp.microsoft.com/ocsp"),
                (AuthorityInformationAccessOID.CA_ISSUERS, place),
            )
        ]
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
    return Issued(builder.sign(signing, hashes.SHA256()), key)


def signed(content: bytes, *signers: Issued, others: tuple[Issued, ...] = (), attributes: bool = False) -> bytes:
    """A signed message, its content inside. Without attributes, as Azure makes them, the signature is over the content itself."""
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
    for signer in signers:
        builder = builder.add_signer(signer.certificate, signer.key, hashes.SHA256())
    for other in others:
        builder = builder.add_certificate(other.certificate)
    options = [pkcs7.PKCS7Options.Binary, *([] if attributes else [pkcs7.PKCS7Options.NoAttributes])]
    return builder.sign(Encoding.DER, options)


def as_azure_writes(message: bytes) -> bytes:
    """The message with the identifier of the digest that Azure writes: that of a signature."""
    return message.replace(_SHA256, _SHA256_WITH_RSA)


def document(nonce: str, /, **changes: Any) -> bytes:
    """What the metadata service signs; fields of another value, or without those that are `...`."""
    fields = {
        "licenseType": "",
        "nonce": nonce,
        "plan": {"name": "", "product": "", "publisher": ""},
        "timeStamp": {"createdOn": "11/30/26 11:59:00 -0000", "expiresOn": "11/30/26 17:59:00 -0000"},
        "vmId": VM_ID,
        "subscriptionId": SUBSCRIPTION,
        "sku": "22_04-lts",
        **changes,
    }
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


@dataclass
class Azure:
    """The whole of it, as a join method reaches it (`joins.base.Outside`)."""

    root: Issued = field(default_factory=lambda: issue("Made Up Global Root", is_ca=True))
    key: Key = field(default_factory=new_key)
    between_key: Key = field(default_factory=new_key)
    signer_key: Key = field(default_factory=new_key)
    machines: dict[str, HTTPSAnswer] = field(default_factory=dict)
    sent: list[HTTPSRequest] = field(default_factory=list)
    answer: HTTPSAnswer | None = None

    def __post_init__(self) -> None:
        self.intermediate = issue("Made Up TLS Issuing CA 01", self.root, is_ca=True, key=self.between_key)
        self.signer = issue(SIGNER, self.intermediate, names=(SIGNER,), place=PLACE, key=self.signer_key)
        self.knows(VM, VM_ID)

    def knows(self, path: str, vm_id: str) -> None:
        body = {"name": path.rpartition("/")[2], "id": path, "properties": {"vmId": vm_id, "provisioningState": "Succeeded"}}
        self.machines[f"{path}?api-version=2024-07-01"] = HTTPSAnswer(200, json.dumps(body).encode())

    def token(self, *, key: Key | None = None, algorithm: str = "RS256", **changes: Any) -> str:
        """An access token of the machine's own identity; claims of another value, or without those that are `...`."""
        claims = {
            "aud": AUDIENCE,
            "iss": ISSUER,
            "iat": int(NOW.timestamp()) - 600,
            "nbf": int(NOW.timestamp()) - 600,
            "exp": int(NOW.timestamp()) + 3600,
            "appid": "0b8d7f10-7c1e-4a51-bd5c-0c3c2c7f6f5e",
            "idtyp": "app",
            "tid": TENANT,
            "xms_mirid": VM,
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not ...}
        return jwt.encode(kept, key or self.key, algorithm, headers={"kid": "azure-1"})

    async def keys(self, issuer: str, kid: str) -> KeySet:
        assert (issuer.split("/")[2], kid) in {("sts.windows.net", "azure-1"), ("sts.chinacloudapi.cn", "azure-1")}
        jwk = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return parse_jwks(json.dumps({"keys": [{**jwk, "kid": kid, "use": "sig"}]}).encode())

    async def send(self, request: HTTPSRequest) -> HTTPSAnswer:
        self.sent.append(request)
        if self.answer is not None:
            return self.answer
        if f"http://{request.host}{request.path}" == PLACE:
            return HTTPSAnswer(200, self.intermediate.der)
        return self.machines.get(request.path, HTTPSAnswer(404, b"{}"))

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        raise AssertionError(token, audience)
