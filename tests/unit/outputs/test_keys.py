"""Private keys: fresh, in every form that is needed, and never printed."""

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from machinebot.outputs.keys import generate
from machinebot.resources.output import PrivateKeyAlgorithm

ALGORITHMS: tuple[PrivateKeyAlgorithm, ...] = ("ECDSA-P256", "ECDSA-P384", "Ed25519")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_forms_are_of_one_key(algorithm: PrivateKeyAlgorithm) -> None:
    pair = generate(algorithm)
    public = load_der_public_key(pair.spki)
    halves = (
        load_pem_private_key(pair.pkcs8, password=None).public_key(),
        load_ssh_private_key(pair.openssh, password=None).public_key(),
        load_ssh_public_key(pair.authorized_key),
    )
    expected = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert {half.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for half in halves} == {expected}


@pytest.mark.parametrize(
    ("algorithm", "prefix"),
    [("ECDSA-P256", b"ecdsa-sha2-nistp256 "), ("ECDSA-P384", b"ecdsa-sha2-nistp384 "), ("Ed25519", b"ssh-ed25519 ")],
)
def test_the_algorithm_is_the_one_asked_for(algorithm: PrivateKeyAlgorithm, prefix: bytes) -> None:
    assert generate(algorithm).authorized_key.startswith(prefix)


def test_every_key_is_new() -> None:
    assert generate("Ed25519").spki != generate("Ed25519").spki


def test_a_key_is_never_printed() -> None:
    pair = generate("Ed25519")
    assert repr(pair) == str(pair) == f"{pair}" == "PrivateKeyPair(...)"
