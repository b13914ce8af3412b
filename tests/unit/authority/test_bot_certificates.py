"""Identities at the join API: what their certificates say, and which certificates are none."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding

from machinebot.authority import bot_certificates
from machinebot.authority import x509 as signing
from machinebot.authority.bot_certificates import InstanceIdentity, key_digest
from machinebot.authority.profiles import BOT, Stamp, Subject, X509Request
from machinebot.authority.rotation import advance
from machinebot.errors import Denied
from machinebot.policy.credential import AnchorState, BotRef, Purpose, Usage
from machinebot.policy.lifetimes import BACKDATE
from unit.authority.builders import CLUSTER, HOUR, NOW, REF, ROTATION, ca, der, issued_for, subject_key, x509_of

IDENTITY = InstanceIdentity(
    bot=REF,
    bot_uid="bot-1",
    instance="0b8d7f10-7c1e-4a51-bd5c-0c3c2c7f6f5e",
    generation=3,
    method="github",
    join_token="runners",
    join_token_uid="token-1",
    key=key_digest(der(subject_key().public_key())),
    expires_at=NOW + HOUR,
)


def signed(identity: InstanceIdentity = IDENTITY) -> bytes:
    pem = bot_certificates.sign(identity, subject_key().public_key(), ca(Purpose.BOT), cluster_name=CLUSTER, now=NOW)
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def refusal(certificate: bytes, now: Any = NOW, generations: Any = None) -> str:
    with pytest.raises(Denied) as caught:
        bot_certificates.read(certificate, generations or [ca(Purpose.BOT)], now=now)
    return caught.value.reason


def test_what_is_signed_is_read() -> None:
    assert bot_certificates.read(signed(), [ca(Purpose.BOT)], now=NOW) == IDENTITY
    assert bot_certificates.unverified_bot(signed()) == REF


def test_the_longest_names_fit() -> None:
    longest = replace(IDENTITY, bot=BotRef("n" * 63, "b" * 200), join_token="t" * 200, join_token_uid="u" * 36, bot_uid="v" * 36)
    assert bot_certificates.read(signed(longest), [ca(Purpose.BOT)], now=NOW) == longest


def test_it_is_a_certificate_for_clients_with_the_name_of_the_bot() -> None:
    certificate = x509.load_der_x509_certificate(signed())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [REF.spiffe_id(CLUSTER)]
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == list(BOT.extended_key_usage)
    assert certificate.not_valid_before_utc == NOW - BACKDATE


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        pytest.param(NOW - 2 * BACKDATE, "IdentityExpired", id="before it begins"),
        pytest.param(NOW + HOUR, "IdentityExpired", id="at its end"),
        pytest.param(NOW + 2 * HOUR, "IdentityExpired", id="after its end"),
    ],
)
def test_it_counts_for_its_time_alone(moment: Any, reason: str) -> None:
    assert refusal(signed(), now=moment) == reason


def test_no_other_ca_makes_one() -> None:
    other = advance((), NOW, purpose=Purpose.BOT, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION)[0]
    assert refusal(signed(), generations=[other]) == "IdentityInvalid"
    assert refusal(signed(), generations=[ca(Purpose.IDENTITY)]) == "IdentityInvalid"
    assert bot_certificates.read(signed(), [other, replace(ca(Purpose.BOT), state=AnchorState.OLD)], now=NOW) == IDENTITY


def test_a_ca_that_does_not_sign_yet_has_signed_nothing() -> None:
    assert refusal(signed(), generations=[replace(ca(Purpose.BOT), state=AnchorState.PREPARED)]) == "IdentityInvalid"


def test_a_credential_of_an_output_is_no_identity() -> None:
    certificate = x509_of(issued_for([Usage.IDENTITY])).public_bytes(Encoding.DER)
    assert refusal(certificate, generations=[ca(Purpose.IDENTITY)]) == "IdentityInvalid"
    assert bot_certificates.unverified_bot(certificate) is None


@pytest.mark.parametrize("certificate", [b"", b"x", signed()[:-1], signed() + b"x"], ids=["empty", "none", "cut", "longer"])
def test_what_is_no_certificate(certificate: bytes) -> None:
    assert refusal(certificate) == "IdentityInvalid"
    assert bot_certificates.unverified_bot(certificate) is None


GOOD = {
    "bot": "deployer",
    "botUID": "bot-1",
    "generation": 3,
    "instance": "i",
    "joinToken": "runners",
    "joinTokenUID": "token-1",
    "method": "github",
    "namespace": "ci",
}


def noted(note: str) -> bytes:
    """A certificate of our CA with that note: a fault of ours that must do no harm."""
    request = X509Request(
        profile=BOT,
        stamp=Stamp(serial=7, not_before=NOW - BACKDATE, not_after=NOW + HOUR),
        public_key=subject_key().public_key(),
        subject=Subject(organizations=(CLUSTER,), common_name=REF.user, spiffe_id=REF.spiffe_id(CLUSTER), note=note),
    )
    return x509.load_pem_x509_certificate(signing.sign(request, ca(Purpose.BOT))).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "note",
    [
        "{}",
        "[]",
        "no JSON",
        json.dumps(GOOD)[:-1] + ',"bot":"other"}',
        *(json.dumps({key: value for key, value in GOOD.items() if key != left_out}) for left_out in GOOD),
        *(json.dumps({**GOOD, key: 5}) for key in GOOD if key != "generation"),
        json.dumps({**GOOD, "generation": "3"}),
        json.dumps({**GOOD, "generation": True}),
        json.dumps({**GOOD, "generation": 3.0}),
    ],
)
def test_a_note_that_does_not_say_all_is_none(note: str) -> None:
    assert refusal(noted(note)) == "IdentityInvalid"


@pytest.mark.parametrize("note", ["{}", "no JSON", json.dumps({**GOOD, "bot": 5}), json.dumps({**GOOD, "namespace": None})])
def test_a_note_without_a_bot_gives_no_hint(note: str) -> None:
    assert bot_certificates.unverified_bot(noted(note)) is None


def test_a_key_that_we_never_certify_is_none() -> None:
    issuer = ca(Purpose.BOT)
    made = (
        x509.CertificateBuilder()
        .issuer_name(issuer.issuer.subject)
        .subject_name(x509.Name([]))
        .public_key(ed448.Ed448PrivateKey.generate().public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(minutes=1))
        .not_valid_after(NOW + HOUR)
        .add_extension(signing.note(json.dumps(GOOD)), critical=False)
    )
    assert isinstance(issuer.key.private_key, ec.EllipticCurvePrivateKey)
    certificate = made.sign(issuer.key.private_key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert refusal(certificate) == "IdentityInvalid"
