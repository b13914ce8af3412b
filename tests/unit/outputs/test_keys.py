"""Private keys: fresh, in every form that is needed, and never printed."""

from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from machinebot.outputs.keys import SLOW, generate
from machinebot.resources.output import PrivateKeyAlgorithm

ALGORITHMS: tuple[PrivateKeyAlgorithm, ...] = get_args(PrivateKeyAlgorithm)


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
    [
        ("ECDSA-P256", b"ecdsa-sha2-nistp256 "),
        ("ECDSA-P384", b"ecdsa-sha2-nistp384 "),
        ("Ed25519", b"ssh-ed25519 "),
        ("RSA-2048", b"ssh-rsa "),
        ("RSA-4096", b"ssh-rsa "),
    ],
)
def test_the_algorithm_is_the_one_asked_for(algorithm: PrivateKeyAlgorithm, prefix: bytes) -> None:
    assert generate(algorithm).authorized_key.startswith(prefix)


@pytest.mark.parametrize("algorithm", sorted(SLOW))
def test_an_rsa_key_has_the_bits_of_its_name(algorithm: PrivateKeyAlgorithm) -> None:
    public = load_der_public_key(generate(algorithm).spki)
    assert isinstance(public, rsa.RSAPublicKey)
    assert f"RSA-{public.key_size}" == algorithm
    assert public.public_numbers().e == 65537


def test_every_key_is_new() -> None:
    assert generate("Ed25519").spki != generate("Ed25519").spki


def test_a_key_is_never_printed() -> None:
    pair = generate("Ed25519")
    assert repr(pair) == str(pair) == f"{pair}" == "PrivateKeyPair(...)"
