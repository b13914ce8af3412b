"""CA keys, and which public keys are taken."""

import copy
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.authority import keys
from machinebot.authority.keys import CAKey, load_pkcs8, parse_public_key
from machinebot.errors import Invalid
from machinebot.policy.credential import Purpose
from unit.authority.builders import der, secret_number, subject_key

P256_SPKI_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""DER of a P-256 key up to the point (RFC 5480)."""


def rsa_key(bits: Any, exponent: Any = 65537) -> Any:
    return rsa.generate_private_key(public_exponent=exponent, key_size=bits)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: ec.generate_private_key(ec.SECP256R1()), id="P-256"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP384R1()), id="P-384"),
        pytest.param(ed25519.Ed25519PrivateKey.generate, id="Ed25519"),
        pytest.param(lambda: rsa_key(2048), id="RSA-2048"),
        pytest.param(lambda: rsa_key(3072), id="RSA-3072"),
    ],
)
def test_public_keys_that_are_taken(make: Any) -> None:
    key = make().public_key()
    assert parse_public_key(der(key)) == key


def fake_rsa(bits: Any, exponent: Any = 65537) -> Any:
    """A public key that nobody has the private half of: quick, and enough for the checks of its size."""
    return rsa.RSAPublicNumbers(e=exponent, n=(1 << (bits - 1)) + 1).public_key()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP521R1()).public_key(), id="P-521"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()).public_key(), id="secp256k1"),
        pytest.param(ec.generate_private_key(ec.SECP224R1()).public_key(), id="P-224"),
        pytest.param(ed448.Ed448PrivateKey.generate().public_key(), id="Ed448"),
        pytest.param(x25519.X25519PrivateKey.generate().public_key(), id="X25519"),
        pytest.param(fake_rsa(1024), id="RSA-1024"),
        pytest.param(fake_rsa(2047), id="RSA-2047"),
        pytest.param(fake_rsa(4097), id="RSA-4097"),
        pytest.param(fake_rsa(2048, exponent=3), id="RSA with the exponent 3"),
        pytest.param(fake_rsa(2048, exponent=(1 << 32) + 1), id="RSA with a long exponent"),
    ],
)
def test_public_keys_that_are_not_allowed(key: Any) -> None:
    with pytest.raises(Invalid) as caught:
        parse_public_key(der(key))
    assert caught.value.reason == "PublicKeyNotAllowed"


def test_largest_rsa_key_is_taken() -> None:
    assert parse_public_key(der(fake_rsa(4096)))


def point(x: Any, y: Any) -> Any:
    return P256_SPKI_HEAD + b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


GOOD = subject_key().public_key()
NUMBERS = GOOD.public_numbers()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30", id="cut off"),
        pytest.param(b"A" * 100, id="text"),
        pytest.param(der(GOOD) + b"\x00", id="a byte after"),
        pytest.param(der(GOOD)[:-1], id="a byte short"),
        pytest.param(point(NUMBERS.x, NUMBERS.y ^ 1), id="point off the curve"),
        pytest.param(point(0, 0), id="zero point"),
        pytest.param(P256_SPKI_HEAD[:1] + b"\x1a" + P256_SPKI_HEAD[2:-2] + b"\x02\x00\x00", id="infinite point"),
        pytest.param(
            b"\x30\x39" + P256_SPKI_HEAD[2:-3] + b"\x03\x22\x00" + GOOD.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
            id="compressed point",
        ),
        pytest.param(GOOD.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), id="PEM"),
        pytest.param(GOOD.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), id="OpenSSH line"),
        pytest.param(der(GOOD) + b"\x00" * keys.MAX_SPKI, id="too long"),
        pytest.param(subject_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), id="a private key"),
    ],
)
def test_public_keys_that_are_unreadable(data: Any) -> None:
    with pytest.raises(Invalid) as caught:
        parse_public_key(data)
    assert caught.value.reason == "InvalidPublicKey"


def test_dsa_is_refused() -> None:
    # Made up: making real parameters takes a second.
    parameters = dsa.DSAParameterNumbers(p=(1 << 2047) + 1, q=(1 << 255) + 1, g=2)
    key = dsa.DSAPublicNumbers(y=4, parameter_numbers=parameters).public_key()
    with pytest.raises(Invalid):
        parse_public_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), place=st.integers(0, 90), bits=st.integers(1, 255))
def test_whatever_comes_in_nothing_but_invalid_is_raised(data: Any, place: Any, bits: Any) -> None:
    good = bytearray(der(GOOD))
    good[place] ^= bits
    for hostile in (data, bytes(good)):
        try:
            key = parse_public_key(hostile)
        except Invalid:
            continue
        assert der(key) == hostile


@pytest.mark.parametrize(
    ("algorithm", "purpose", "expected"),
    [
        pytest.param("ECDSA-P256", Purpose.IDENTITY, "ECDSA-P256", id="P-256 for X.509"),
        pytest.param("ECDSA-P384", Purpose.SSH_USER, "ECDSA-P384", id="P-384 for SSH"),
        pytest.param("Ed25519", Purpose.SSH_USER, "Ed25519", id="Ed25519 for SSH users"),
        pytest.param("Ed25519", Purpose.SSH_HOST, "Ed25519", id="Ed25519 for SSH hosts"),
        pytest.param("Ed25519", Purpose.IDENTITY, "ECDSA-P256", id="X.509 instead of Ed25519"),
        pytest.param("Ed25519", Purpose.WORKLOAD, "ECDSA-P256", id="workloads instead of Ed25519"),
        pytest.param("RSA-4096", Purpose.IDENTITY, "RSA-4096", id="RSA"),
    ],
)
def test_algorithm_of_a_ca(algorithm: Any, purpose: Any, expected: Any) -> None:
    assert keys.ca_algorithm(algorithm, purpose) == expected


def test_generated_keys_are_of_their_algorithm_and_never_the_same() -> None:
    p256, p384 = keys.generate("ECDSA-P256", Purpose.IDENTITY), keys.generate("ECDSA-P384", Purpose.IDENTITY)
    assert isinstance(p256.public_key, ec.EllipticCurvePublicKey)
    assert isinstance(p384.public_key, ec.EllipticCurvePublicKey)
    assert (p256.public_key.curve.name, p384.public_key.curve.name) == ("secp256r1", "secp384r1")
    assert isinstance(keys.generate("Ed25519", Purpose.SSH_USER).public_key, ed25519.Ed25519PublicKey)
    assert keys.generate("ECDSA-P256", Purpose.IDENTITY) != p256


def test_rsa_4096_is_made_and_read(rsa_ca_key: Any) -> None:
    assert isinstance(rsa_ca_key.public_key, rsa.RSAPublicKey)
    assert rsa_ca_key.public_key.key_size == 4096
    assert load_pkcs8(rsa_ca_key.pkcs8()) == rsa_ca_key


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "Ed25519"])
def test_ca_key_survives_being_stored(algorithm: Any) -> None:
    key = keys.generate(algorithm, Purpose.SSH_USER)
    again = load_pkcs8(key.pkcs8())
    assert again == key
    assert hash(again) == hash(key)
    assert again.id == hashlib.sha256(key.spki).hexdigest()[:16]
    assert again.authorized_key.split()[0] in {b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384"}


def test_ca_key_never_shows_itself() -> None:
    key = keys.generate("ECDSA-P256", Purpose.SSH_USER)
    number = secret_number(key)
    for text in (repr(key), str(key), f"{key}", json.dumps(key, default=str), repr([key]), repr(copy.copy(key))):
        assert number not in text
        assert "PRIVATE" not in text
        assert "object at" not in text


def encrypted() -> Any:
    return subject_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", id="no key in it"),
        pytest.param(encrypted(), id="encrypted"),
        pytest.param(b" " * (keys.MAX_PRIVATE_PEM + 1), id="too long"),
        pytest.param(
            ec.generate_private_key(ec.SECP521R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), id="P-521"
        ),
        pytest.param(
            ed448.Ed448PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), id="Ed448"
        ),
        pytest.param(rsa_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), id="RSA-1024"),
    ],
)
def test_private_keys_that_are_refused(pem: Any) -> None:
    with pytest.raises(Invalid) as caught:
        load_pkcs8(pem)
    assert caught.value.reason == "InvalidPrivateKey"
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, Invalid)


def test_equality_is_only_between_ca_keys() -> None:
    key = keys.generate("ECDSA-P256", Purpose.SSH_USER)
    other: object = key.spki
    assert key != other
    assert CAKey.of(key.private_key) == key
