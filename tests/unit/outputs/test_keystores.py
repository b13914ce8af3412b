"""PKCS #12 files of outputs, read by the programs that they are for: openssl and Java's keytool."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from machinebot.outputs import keystores
from machinebot.outputs.registry import MachineOutput
from machinebot.policy.credential import Purpose
from machinebot.resources.output import PrivateKeyAlgorithm
from support.credentials import keytool_lists, openssl_pkcs12, write_all
from unit.outputs.builders import SPECS, authority, content, key, material, output

PASSWORD = "correct horse"
KEYSTORES: dict[str, Any] = {"pkcs12": {}}

X509 = {name: spec for name, spec in SPECS.items() if output(spec).type.x509}
"""Every type that holds an X.509 certificate."""

PURPOSES = {
    "identity": Purpose.IDENTITY,
    "application": Purpose.IDENTITY,
    "database": Purpose.DATABASE,
    "database in one file": Purpose.DATABASE,
    "database server": Purpose.DATABASE,
    "kubernetes": Purpose.KUBERNETES,
    "kubernetes for Argo CD": Purpose.KUBERNETES,
    "x509SVID": Purpose.WORKLOAD,
}


def stores(wanted: MachineOutput, directory: Path, password: str = PASSWORD) -> tuple[Path, Path]:
    """Keystore and truststore as files."""
    paths = write_all(directory, content(wanted, password=password))
    return paths[keystores.KEYSTORE], paths[keystores.TRUSTSTORE]


@pytest.mark.parametrize("name", X509)
def test_the_keystore_has_the_certificate_its_key_and_the_cas_of_its_purpose(name: str) -> None:
    wanted = output(X509[name], keystores=KEYSTORES)
    made = material(wanted)
    data = keystores.pkcs12(made, PASSWORD, show_password=False)
    assert data.keys() == keystores.PKCS12_KEYS
    found = pkcs12.load_pkcs12(data[keystores.KEYSTORE], PASSWORD.encode())
    assert found.key is not None
    assert found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) == made.key.pkcs8
    assert found.cert is not None
    assert made.issued.x509_certificate is not None
    assert found.cert.certificate == x509.load_pem_x509_certificate(made.issued.x509_certificate)
    assert found.cert.friendly_name == keystores.ALIAS
    authorities = {x509.load_pem_x509_certificate(anchor.public) for anchor in authority().trust().of(PURPOSES[name])}
    assert {each.certificate for each in found.additional_certs} == authorities
    trusted = pkcs12.load_pkcs12(data[keystores.TRUSTSTORE], PASSWORD.encode())
    assert trusted.key is None
    assert {each.certificate for each in trusted.additional_certs} == authorities


def test_the_table_of_purposes_has_every_type_with_a_certificate() -> None:
    assert PURPOSES.keys() == X509.keys()


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-2048", "RSA-4096"])
def test_openssl_reads_the_key_and_its_certificate(tmp_path: Path, algorithm: PrivateKeyAlgorithm) -> None:
    wanted = output({"application": {}}, privateKey={"algorithm": algorithm}, keystores=KEYSTORES)
    keystore, truststore = stores(wanted, tmp_path)
    pem = openssl_pkcs12(keystore, PASSWORD, "-noenc")
    assert pem.count("BEGIN CERTIFICATE") == 1 + len(authority().trust().of(Purpose.IDENTITY))
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=pem, capture_output=True, text=True, check=True).stdout
    certified = subprocess.run(
        ["openssl", "x509", "-noout", "-pubkey"], input=pem, capture_output=True, text=True, check=True
    ).stdout
    assert public == certified
    assert "PRIVATE KEY" not in openssl_pkcs12(truststore, PASSWORD, "-noenc")


@pytest.mark.parametrize("file", sorted(keystores.PKCS12_KEYS))
def test_the_files_are_encrypted_as_programs_of_today_want_it(tmp_path: Path, file: str) -> None:
    data = content(output({"application": {}}, keystores=KEYSTORES), password=PASSWORD)
    shown = openssl_pkcs12(write_all(tmp_path, data)[file], PASSWORD, "-info", "-nokeys")
    assert "MAC: sha256, Iteration" in shown
    encryptions = set(re.findall(r"PBES2.*", shown))
    assert encryptions == {f"PBES2, PBKDF2, AES-256-CBC, Iteration {keystores.ROUNDS}, PRF hmacWithSHA256"}


def test_another_password_opens_nothing(tmp_path: Path) -> None:
    for path in stores(output({"application": {}}, keystores=KEYSTORES), tmp_path):
        with pytest.raises(subprocess.CalledProcessError) as refusal:
            openssl_pkcs12(path, "another one", "-noenc")
        assert "invalid password" in refusal.value.stderr


@pytest.mark.parametrize("name", ["application", "x509SVID"])
def test_keytool_finds_the_key_and_trusts_the_cas(tmp_path: Path, name: str) -> None:
    keystore, truststore = stores(output(X509[name], keystores=KEYSTORES), tmp_path)
    assert keytool_lists(keystore, PASSWORD) == {"machinebot": "PrivateKeyEntry"}
    ids = [anchor.id for anchor in authority().trust().of(PURPOSES[name])]
    assert keytool_lists(truststore, PASSWORD) == {f"machinebot-{each}": "trustedCertEntry" for each in ids}


def test_a_credential_without_a_certificate_is_a_fault_of_ours() -> None:
    made = material(output(SPECS["sshHost"]))
    with pytest.raises(ValueError, match=r"X\.509"):
        keystores.pkcs12(made, PASSWORD, show_password=False)


def test_two_files_of_one_credential_are_of_one_key() -> None:
    wanted = output({"application": {}}, keystores=KEYSTORES)
    first, second = (content(wanted, password=PASSWORD)[keystores.KEYSTORE] for _ in range(2))
    assert first != second, "salts are new"
    keys = [pkcs12.load_pkcs12(each, PASSWORD.encode()).key for each in (first, second)]
    assert all(
        each is not None and each.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) == key("ECDSA-P256").pkcs8
        for each in keys
    )
