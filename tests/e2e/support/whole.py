"""Whether a Secret is whole and is what the status of its output says. Looks with its own eyes, not with the product's."""

import hashlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_identity,
)

from e2e.support.objects import Json, content, is_ready

IDENTITY_KEYS = {"key", "key.pub", "key-cert.pub", "tlscert", "known_hosts", "ssh_config", "tls.crt", "tls.key", "ca.crt"}


def check_whole(output: Json, secret: Json) -> None:
    """An `identity` output is Ready, its Secret holds one key and the certificates of it, and status tells of this Secret."""
    name, status = output["metadata"]["name"], output["status"]
    assert is_ready(output), f"{name}: {status}"
    data, metadata = content(secret), secret["metadata"]
    assert data.keys() == IDENTITY_KEYS, name
    assert [owner["uid"] for owner in metadata["ownerReferences"]] == [output["metadata"]["uid"]], name

    key = load_pem_private_key(data["tls.key"], None)
    public = _spki(key)
    assert _spki(load_ssh_private_key(data["key"], None)) == public, name
    leaf = x509.load_pem_x509_certificate(data["tls.crt"])
    assert data["tlscert"] == data["tls.crt"], name
    assert leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == public, name
    certificate = load_ssh_public_identity(data["key-cert.pub"])
    assert isinstance(certificate, SSHCertificate)
    certified = certificate.public_key()
    assert certified.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == public, name
    assert any(_is_issued_by(leaf, authority) for authority in x509.load_pem_x509_certificates(data["ca.crt"])), (
        f"{name}: no CA in the Secret has signed its certificate"
    )

    assert str(leaf.serial_number) == str(certificate.serial) == status["serial"], name
    assert _moment(leaf.not_valid_after_utc) == status["notAfter"], name
    assert _moment(datetime.fromtimestamp(certificate.valid_before, UTC)) == status["notAfter"], name
    assert status["secret"] == {
        "name": metadata["name"],
        "resourceVersion": metadata["resourceVersion"],
        "digest": _digest(data),
    }, name


def serial(secret: Json) -> int:
    """Of the SSH certificate in a Secret."""
    data = content(secret)
    certificate = load_ssh_public_identity(next(value for key, value in data.items() if key.endswith("-cert.pub")))
    assert isinstance(certificate, SSHCertificate)
    return certificate.serial


def _spki(key: object) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def _is_issued_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - each way of not fitting has its own
        return False
    return True


def _moment(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(data: dict[str, bytes]) -> str:
    """As status has it: keys in order, each key and value with its length in eight bytes before it."""
    total = hashlib.sha256()
    for key in sorted(data):
        for part in (key.encode(), data[key]):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()
