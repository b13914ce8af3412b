"""How a generation of a CA is made."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from machinebot.authority.generations import CA_BACKDATE, SLACK, Generation, Schedule, common_name, new_generation, signature_hash
from machinebot.errors import Invalid
from machinebot.policy.credential import AnchorState, Purpose
from machinebot.resources.authority import Rotation
from unit.authority.builders import CLUSTER, DAY, HOUR, NOW, ROTATION, secret_number

X509_PURPOSES = [purpose for purpose in Purpose if not purpose.is_ssh]
SSH_PURPOSES = [purpose for purpose in Purpose if purpose.is_ssh]


def make(purpose: Any, algorithm: Any = "ECDSA-P256", **overrides: Any) -> Generation:
    fields: dict[str, Any] = {"cluster_name": CLUSTER, "rotation": ROTATION, "now": NOW} | overrides
    return new_generation(purpose, algorithm=algorithm, **fields)


@pytest.mark.parametrize("purpose", X509_PURPOSES)
def test_ca_certificate_is_as_rfc_5280_wants_it(purpose: Any) -> None:
    generation = make(purpose)
    certificate = generation.issuer
    assert certificate.version is x509.Version.v3
    assert certificate.subject == certificate.issuer
    assert [(part.oid, part.value) for part in certificate.subject] == [
        (NameOID.ORGANIZATION_NAME, CLUSTER),
        (NameOID.COMMON_NAME, f"machinebot {purpose.value} {generation.id}"),
    ]
    certificate.verify_directly_issued_by(certificate)
    critical = {extension.oid._name: extension.critical for extension in certificate.extensions}
    expected = {"basicConstraints": True, "keyUsage": True, "subjectKeyIdentifier": False}
    assert critical == expected | ({"subjectAltName": False} if purpose is Purpose.WORKLOAD else {})
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature, usage.key_encipherment) == (True, True, False, False)
    assert 0 < certificate.serial_number < 2**63


def test_workload_ca_names_its_trust_domain() -> None:
    names = make(Purpose.WORKLOAD).issuer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(f"spiffe://{CLUSTER}")]


@pytest.mark.parametrize("purpose", SSH_PURPOSES)
def test_ssh_ca_has_no_certificate(purpose: Any) -> None:
    generation = make(purpose, "Ed25519")
    assert generation.certificate is None
    assert generation.anchor.public == generation.key.authorized_key
    assert generation.anchor.public.startswith(b"ssh-ed25519 ")
    with pytest.raises(Invalid) as caught:
        _ = generation.issuer
    assert caught.value.reason == "NoCACertificate"


@pytest.mark.parametrize("purpose", list(Purpose))
def test_new_generation_is_prepared_and_lives_for_its_whole_rotation(purpose: Any) -> None:
    generation = make(purpose, now=NOW + timedelta(microseconds=700))
    assert (generation.state, generation.created_at) == (AnchorState.PREPARED, NOW)
    assert (generation.activated_at, generation.superseded_at) == (None, None)
    assert generation.not_after == NOW + 26 * HOUR + 2160 * HOUR + 26 * HOUR + SLACK
    if not purpose.is_ssh:
        assert generation.issuer.not_valid_after_utc == generation.not_after
        assert generation.issuer.not_valid_before_utc == NOW - CA_BACKDATE


def test_generations_differ_in_id_subject_and_key_identifier() -> None:
    one, two = make(Purpose.IDENTITY), make(Purpose.IDENTITY)
    assert one.id != two.id
    assert one.issuer.subject != two.issuer.subject
    assert one.key.subject_key_identifier != two.key.subject_key_identifier
    assert one.anchor.fingerprint != two.anchor.fingerprint


@pytest.mark.parametrize("purpose", list(Purpose))
def test_subject_fits_rfc_5280_upper_bound(purpose: Any) -> None:
    assert len(common_name(purpose, "0" * 16)) <= 64
    assert make(purpose, cluster_name="c" * 63).anchor.public


def test_anchor_of_x509_is_the_certificate() -> None:
    generation = make(Purpose.IDENTITY)
    anchor = generation.anchor
    assert (anchor.purpose, anchor.id, anchor.state) == (Purpose.IDENTITY, generation.id, AnchorState.PREPARED)
    assert anchor.public == generation.certificate == generation.issuer.public_bytes(Encoding.PEM)
    assert anchor.fingerprint == generation.issuer.fingerprint(hashes.SHA256()).hex()
    assert anchor.not_after == generation.not_after


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=["P-256", "P-384"])
def test_signatures_are_as_strong_as_the_curve(curve: Any) -> None:
    algorithm = signature_hash(ec.generate_private_key(curve))
    assert algorithm.digest_size * 8 == curve.key_size


def test_rsa_signs_with_sha256(rsa_ca_key: Any) -> None:
    assert isinstance(signature_hash(rsa_ca_key.private_key), hashes.SHA256)


def test_generation_never_shows_its_key() -> None:
    generation = make(Purpose.IDENTITY)
    assert "PRIVATE" not in repr(generation)
    assert secret_number(generation.key) not in repr(generation)


@pytest.mark.parametrize(
    ("every", "overlap", "expected"),
    [
        pytest.param("2160h", "26h", (90 * DAY, 26 * HOUR), id="default"),
        pytest.param("50h", "25h", (50 * HOUR, 25 * HOUR), id="shortest"),
        pytest.param("50h", "1h", (50 * HOUR, 25 * HOUR), id="overlap raised: no credential may outlive the trust in its CA"),
        pytest.param("1h", "30h", (60 * HOUR, 30 * HOUR), id="every raised to twice the overlap"),
        pytest.param("0s", "0s", (50 * HOUR, 25 * HOUR), id="both raised"),
    ],
)
def test_schedule_never_falls_below_its_floors(every: Any, overlap: Any, expected: Any) -> None:
    schedule = Schedule.of(Rotation(every=every, overlap=overlap))
    assert (schedule.every, schedule.overlap) == expected
    assert schedule.life == schedule.every + 2 * schedule.overlap + SLACK


def test_unreadable_rotation_is_invalid() -> None:
    with pytest.raises(Invalid) as caught:
        Schedule.of(Rotation(every="soon"))
    assert caught.value.reason == "InvalidSpec"
    assert "embedded.rotation" in caught.value.message
