"""What stands in a Secret, read by the programs that will use it: ssh-keygen and openssl."""

import base64
import hashlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from controlplane.pki import write_private


@dataclass(frozen=True)
class StoredSecret:
    """A Secret as the API server has it."""

    body: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def version(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body["metadata"].get("labels") or {})

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.body["metadata"].get("annotations") or {})

    @property
    def owners(self) -> list[dict[str, Any]]:
        return list(self.body["metadata"].get("ownerReferences") or [])

    @property
    def data(self) -> dict[str, bytes]:
        return {key: base64.b64decode(value) for key, value in (self.body.get("data") or {}).items()}

    @property
    def type(self) -> str:
        return str(self.body["type"])

    @property
    def serial(self) -> str:
        """Serial number of its credentials, decimal, whatever their form and the names of their keys."""
        (serial,) = {serial for text in self.data.values() for serial in _serials(text)}
        return serial

    @property
    def certificate(self) -> x509.Certificate:
        """Its X.509 certificate, wherever it stands."""
        (found,) = {each for text in self.data.values() for each in _leaves(text)}
        return found


def _serials(text: bytes) -> Iterator[str]:
    """Serial numbers of the credentials in one key: SSH and X.509 certificates and JWTs. CAs and keys have none."""
    for line in text.splitlines():
        if b"-cert-v01@openssh.com " in line:
            yield str(ssh_certificate(line).serial)
    if re.fullmatch(rb"[\w-]+(\.[\w-]+){2}", text):
        yield str(jwt.decode(text, options={"verify_signature": False})["jti"])
    yield from (str(certificate.serial_number) for certificate in _leaves(text))


def _leaves(text: bytes) -> Iterator[x509.Certificate]:
    """X.509 certificates in one key that are no CA's; those of a kubeconfig and of Argo CD's config stand there in base64."""
    embedded = re.findall(rb"(?:client-certificate-data: |\"certData\": \")([A-Za-z0-9+/=]+)", text)
    for each in (text, *map(base64.b64decode, embedded)):
        if b"-----BEGIN CERTIFICATE-----" not in each:
            continue
        for certificate in x509.load_pem_x509_certificates(each):
            if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                yield certificate


def ssh_certificate(line: bytes) -> SSHCertificate:
    certificate = load_ssh_public_identity(line)
    assert isinstance(certificate, SSHCertificate)
    return certificate


@dataclass(frozen=True)
class Shown:
    """An SSH certificate as `ssh-keygen -L` shows it."""

    kind: str
    key: str
    authority: str
    key_id: str
    serial: str
    valid: tuple[str, str]
    principals: tuple[str, ...]
    extensions: tuple[str, ...]


def ssh_keygen_shows(path: Path) -> Shown:
    """What the real ssh-keygen says of a certificate; times are local times of UTC."""
    text = _run("ssh-keygen", "-L", "-f", str(path), environment={"TZ": "UTC"})

    def field(pattern: str) -> str:
        found = re.search(pattern, text)
        assert found is not None, text
        return found[1]

    def block(title: str) -> tuple[str, ...]:
        found = re.search(rf"{title}:\s*\n((?: {{16}}\S.*\n?)*)", text)
        return tuple(line.strip() for line in found[1].splitlines()) if found else ()

    return Shown(
        kind=field(r"Type: \S+ (\w+) certificate"),
        key=field(r"Public key: \S+ (SHA256:\S+)"),
        authority=field(r"Signing CA: \S+ (SHA256:\S+)"),
        key_id=field(r'Key ID: "(.*)"'),
        serial=field(r"Serial: (\d+)"),
        valid=(field(r"Valid: from (\S+) to"), field(r"Valid: from \S+ to (\S+)")),
        principals=block("Principals"),
        extensions=block("Extensions"),
    )


def public_half(private_key: Path) -> str:
    """The public key line that the real ssh-keygen works out of a private key, without a comment."""
    return " ".join(_run("ssh-keygen", "-y", "-f", str(private_key)).split()[:2])


def openssl_verifies(certificate: Path, authorities: Path, now: datetime) -> bool:
    """Whether the real openssl finds the certificate signed by one of the authorities, and good at that time."""
    command = ["openssl", "verify", "-attime", str(int(now.timestamp())), "-CAfile", str(authorities), str(certificate)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def openssl_public_key(path: Path, *, certificate: bool) -> str:
    """The public key, PEM, in a certificate or of a private key."""
    if certificate:
        return _run("openssl", "x509", "-in", str(path), "-noout", "-pubkey")
    return _run("openssl", "pkey", "-in", str(path), "-pubout")


def ssh_public_key_as_pem(path: Path) -> str:
    """A public key line of OpenSSH in the form that openssl prints."""
    return _run("ssh-keygen", "-e", "-m", "PKCS8", "-f", str(path))


def openssl_pkcs12(path: Path, password: str, *options: str) -> str:
    """What the real openssl finds in a PKCS #12 file: PEM, and with `-info` how it is protected.

    Raises:
        subprocess.CalledProcessError: The file or the password is not right.
    """
    command = ["openssl", "pkcs12", "-in", str(path), "-passin", "env:PASSWORD", *options]
    return _run(*command, environment={"PASSWORD": password}, with_errors="-info" in options)


def keytool_lists(path: Path, password: str) -> dict[str, str]:
    """What Java's own keytool finds in a PKCS #12 file: alias to kind of entry.

    Raises:
        subprocess.CalledProcessError: The file or the password is not right.
    """
    command = ["keytool", "-list", "-storetype", "PKCS12", "-keystore", str(path), "-storepass:env", "PASSWORD"]
    shown = _run(*command, environment={"PASSWORD": password, "LC_ALL": "C"})
    return dict(re.findall(r"^(\S+), .*, (\w+Entry)", shown, re.MULTILINE))


def write_all(directory: Path, content: Mapping[str, bytes]) -> dict[str, Path]:
    """Each key of a Secret as a file, as a volume would have them."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {name: directory / name for name in content}
    for name, path in paths.items():
        path.unlink(missing_ok=True)
        write_private(path, content[name])
    return paths


def fingerprint(public_line: bytes) -> str:
    """As ssh-keygen prints it."""
    blob = base64.b64decode(public_line.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _run(*command: str, environment: Mapping[str, str] | None = None, with_errors: bool = False) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin:/usr/local/bin", **(environment or {})}
    )
    return done.stdout + done.stderr if with_errors else done.stdout
