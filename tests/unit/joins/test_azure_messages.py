"""Signed messages: one signer, found by what the message says, trusted by its chain, and nothing read but what it has signed."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from machinebot.errors import Denied
from machinebot.joins import cms
from support.azure import NOW, SIGNER, Azure, Issued, as_azure_writes, issue, new_key, signed

CONTENT = b'{"nonce":"1"}'
NAMES = re.compile(r"([a-z0-9-]+\.|\*\.)?metadata\.azure\.com")


@pytest.fixture(scope="module")
def azure() -> Azure:
    return Azure()


def trusted(*roots: Issued, intermediates: tuple[Issued, ...] = ()) -> cms.Trusted:
    return cms.Trusted(
        roots=tuple(each.certificate for each in roots),
        intermediates=tuple(each.certificate for each in intermediates),
        names=NAMES,
        now=NOW,
    )


def content_of(message: bytes, trust: cms.Trusted) -> bytes:
    return cms.verified_content(cms.take_apart(message), trust)


def reason_of(message: bytes, trust: cms.Trusted) -> str:
    with pytest.raises(Denied) as caught:
        content_of(message, trust)
    return caught.value.reason


def rewritten(message: bytes, change: Callable[[Any], None]) -> bytes:
    """The message with something of its structure changed, and nothing signed anew."""
    parsed = asn1.decode_der(cms._Message, message)
    change(parsed.signed)
    return asn1.encode_der(parsed)


@pytest.mark.parametrize("attributes", [False, True], ids=["the content is signed", "attributes are signed"])
def test_content_of_a_good_message(azure: Azure, attributes: bool) -> None:
    message = signed(CONTENT, azure.signer, others=(azure.intermediate,), attributes=attributes)
    assert content_of(message, trusted(azure.root)) == CONTENT
    assert content_of(as_azure_writes(message), trusted(azure.root)) == CONTENT


def test_what_stands_between_may_be_known_already(azure: Azure) -> None:
    message = signed(CONTENT, azure.signer)
    assert content_of(message, trusted(azure.root, intermediates=(azure.intermediate,))) == CONTENT
    assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"


def test_elliptic_curves(azure: Azure) -> None:
    signer = issue(SIGNER, azure.root, names=(SIGNER,), key=ec.generate_private_key(ec.SECP256R1()))
    assert content_of(signed(CONTENT, signer), trusted(azure.root)) == CONTENT
    assert content_of(signed(CONTENT, signer, attributes=True), trusted(azure.root)) == CONTENT


def test_signer_may_be_named_by_the_identifier_of_its_key(azure: Azure) -> None:
    identifier = azure.signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest

    def name_it(message: Any) -> None:
        (signer,) = message.signers.as_list()
        signer.certificate = identifier
        message.signers = asn1.SetOf([signer])

    message = rewritten(signed(CONTENT, azure.signer, others=(azure.intermediate,)), name_it)
    assert content_of(message, trusted(azure.root)) == CONTENT


# --- the signer -----------------------------------------------------------------------------------------------------------


def test_another_root(azure: Azure) -> None:
    other = Azure()
    message = signed(CONTENT, other.signer, others=(other.intermediate, other.root))
    assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"
    assert content_of(message, trusted(azure.root, other.root)) == CONTENT


@pytest.mark.parametrize(
    ("options", "good"),
    [
        pytest.param({"names": ("metadata.azure.com",)}, True, id="the name without a region"),
        pytest.param({"names": ("*.metadata.azure.com",)}, True, id="every region"),
        pytest.param({"names": ("example.test", SIGNER)}, True, id="one of two names"),
        pytest.param({"names": ("metadata.azure.com.example.test",)}, False, id="a longer name"),
        pytest.param({"names": ("evilmetadata.azure.com",)}, False, id="a name that ends alike"),
        pytest.param({"names": ("a.b.metadata.azure.com",)}, False, id="two labels below"),
        pytest.param({"names": ("metadata.azure.us",)}, False, id="another cloud"),
        pytest.param({"names": ("*.azure.com",)}, False, id="a wider wildcard"),
        pytest.param({"names": ("example.test",)}, False, id="another name"),
        pytest.param({}, False, id="the name as subject alone"),
        pytest.param({"names": (SIGNER,), "is_ca": True}, False, id="an authority"),
        pytest.param({"names": (SIGNER,), "ends": NOW - timedelta(seconds=1)}, False, id="ended"),
        pytest.param({"names": (SIGNER,), "begins": NOW + timedelta(seconds=1)}, False, id="not begun"),
    ],
)
def test_certificate_of_the_signer(azure: Azure, options: dict[str, Any], good: bool) -> None:
    message = signed(CONTENT, issue(SIGNER, azure.root, key=azure.signer.key, **options))
    if good:
        assert content_of(message, trusted(azure.root)) == CONTENT
    else:
        assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"is_ca": False}, id="no authority"),
        pytest.param({"is_ca": True, "ends": NOW - timedelta(seconds=1)}, id="ended"),
    ],
)
def test_certificate_between(azure: Azure, options: dict[str, Any]) -> None:
    between = issue("Between", azure.root, **options)
    message = signed(CONTENT, issue(SIGNER, between, names=(SIGNER,)), others=(between,))
    assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"


def test_chain_that_is_too_long(azure: Azure) -> None:
    between: list[Issued] = []
    for number in range(cms.MAX_DEPTH + 1):
        between.append(issue(f"Between {number}", between[-1] if between else azure.root, is_ca=True, key=azure.key))
    message = signed(CONTENT, issue(SIGNER, between[-1], names=(SIGNER,), key=azure.key), others=tuple(between))
    assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"
    assert content_of(message, trusted(between[0])) == CONTENT


def test_signer_is_its_own_root(azure: Azure) -> None:
    alone = issue(SIGNER, names=(SIGNER,))
    assert reason_of(signed(CONTENT, alone), trusted(azure.root)) == "SignerNotTrusted"


def test_key_that_is_too_short(azure: Azure) -> None:
    signer = issue(SIGNER, azure.root, names=(SIGNER,), key=new_key(1024))
    assert reason_of(signed(CONTENT, signer), trusted(azure.root)) == "SignatureInvalid"


def test_certificate_that_is_broken(azure: Azure) -> None:
    signer = issue(SIGNER, azure.root, names=(SIGNER,))
    alternative = signer.der.index(b"\x06\x03\x55\x1d\x11")  # becomes a second subjectKeyIdentifier
    broken = signer.der[: alternative + 4] + b"\x0e" + signer.der[alternative + 5 :]
    message = signed(CONTENT, signer).replace(signer.der, broken)
    assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"


# --- who has signed ---------------------------------------------------------------------------------------------------------


def test_certificate_of_azure_beside_a_signer_that_is_not(azure: Azure) -> None:
    stranger = issue(SIGNER, names=(SIGNER,))
    message = signed(CONTENT, stranger, others=(azure.signer, azure.intermediate))
    assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"


def test_stranger_who_takes_the_name_and_number_of_a_certificate_of_azure(azure: Azure) -> None:
    genuine = azure.signer.certificate
    issuer = Issued(azure.intermediate.certificate, new_key())
    stranger = issue(SIGNER, issuer, names=(SIGNER,), serial=genuine.serial_number)
    message = signed(CONTENT, stranger, others=(azure.intermediate,))
    assert reason_of(message, trusted(azure.root)) == "SignerNotTrusted"

    def swap(inside: Any) -> None:
        kept = [each for each in inside.certificates.as_list() if each != stranger.certificate]
        inside.certificates = asn1.SetOf([*kept, genuine])

    assert reason_of(rewritten(message, swap), trusted(azure.root)) == "SignatureInvalid"
    both = signed(CONTENT, stranger, others=(azure.intermediate, azure.signer))
    assert reason_of(both, trusted(azure.root)) == "MessageUnreadable"


def test_two_signers(azure: Azure) -> None:
    stranger = issue("example.test", names=("example.test",))
    for signers in ((azure.signer, stranger), (stranger, azure.signer), (azure.signer, azure.signer)):
        message = signed(CONTENT, *signers, others=(azure.intermediate,))
        assert reason_of(message, trusted(azure.root)) == "MessageUnreadable"


def test_no_signer_and_no_certificate(azure: Azure) -> None:
    message = signed(CONTENT, azure.signer)

    def nobody(inside: Any) -> None:
        inside.signers = asn1.SetOf([])

    def bare(inside: Any) -> None:
        inside.certificates = None

    assert reason_of(rewritten(message, nobody), trusted(azure.root)) == "MessageUnreadable"
    assert reason_of(rewritten(message, bare), trusted(azure.root)) == "MessageUnreadable"


def test_too_many_certificates(azure: Azure) -> None:
    others = tuple(issue(f"Other {number}", azure.root, key=azure.key) for number in range(cms.MAX_CERTIFICATES))
    assert reason_of(signed(CONTENT, azure.signer, others=others), trusted(azure.root)) == "MessageUnreadable"


# --- what is signed -------------------------------------------------------------------------------------------------------


def with_content(message: bytes, content: bytes) -> bytes:
    def put(inside: Any) -> None:
        inside.encapsulated.content = content

    return rewritten(message, put)


def test_other_content_than_was_signed(azure: Azure) -> None:
    trust = trusted(azure.root, intermediates=(azure.intermediate,))
    plain, attributed = signed(CONTENT, azure.signer), signed(CONTENT, azure.signer, attributes=True)
    assert reason_of(with_content(plain, CONTENT.replace(b"1", b"2")), trust) == "SignatureInvalid"
    assert reason_of(with_content(attributed, CONTENT.replace(b"1", b"2")), trust) == "MessageUnreadable"


def test_attributes_are_signed_and_not_the_content_alone(azure: Azure) -> None:
    """The attributes are replaced by those of another content: their digest is right, their signature is not."""
    trust = trusted(azure.root, intermediates=(azure.intermediate,))
    theirs = asn1.decode_der(cms._Message, signed(b"other", azure.signer, attributes=True)).signed.signers.as_list()[0]

    def take(inside: Any) -> None:
        (signer,) = inside.signers.as_list()
        signer.attributes = theirs.attributes
        inside.signers = asn1.SetOf([signer])

    message = with_content(rewritten(signed(CONTENT, azure.signer, attributes=True), take), b"other")
    assert reason_of(message, trust) == "SignatureInvalid"

    def drop(inside: Any) -> None:
        (signer,) = inside.signers.as_list()
        signer.attributes = None
        inside.signers = asn1.SetOf([signer])

    assert reason_of(rewritten(signed(CONTENT, azure.signer, attributes=True), drop), trust) == "SignatureInvalid"


def test_signed_attributes_do_not_pass_for_content(azure: Azure) -> None:
    """The signature over attributes is one over their bytes: as content they are taken, and are no document."""
    message = asn1.decode_der(cms._Message, signed(CONTENT, azure.signer, attributes=True))
    (signer,) = message.signed.signers.as_list()
    inner = asn1.encode_der(signer.attributes)
    signer.attributes = None
    message.signed.signers = asn1.SetOf([signer])
    message.signed.encapsulated.content = inner
    trust = trusted(azure.root, intermediates=(azure.intermediate,))
    assert content_of(asn1.encode_der(message), trust) == inner
    assert inner.startswith(b"\x31")


@pytest.mark.parametrize("what", ["no content type", "no digest", "an attribute twice", "two values", "no value"])
def test_attributes_that_say_too_little_or_too_much(azure: Azure, what: str) -> None:
    def change(inside: Any) -> None:
        (signer,) = inside.signers.as_list()
        kept = signer.attributes.as_list()
        missing = {"no content type": cms._CONTENT_TYPE, "no digest": cms._MESSAGE_DIGEST}.get(what)
        kept = [each for each in kept if each.kind != missing]
        if what == "an attribute twice":
            kept = [*kept, kept[-1]]
        if what == "two values":
            kept[-1].values = asn1.SetOf([*kept[-1].values.as_list(), *kept[0].values.as_list()])
        if what == "no value":
            kept[-1].values = asn1.SetOf([])
        signer.attributes = asn1.SetOf(kept)
        inside.signers = asn1.SetOf([signer])

    message = rewritten(signed(CONTENT, azure.signer, attributes=True), change)
    with pytest.raises(Denied) as caught:
        cms.take_apart(message)
    assert caught.value.reason == "MessageUnreadable"


SHA256, SHA384 = "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2"


@pytest.mark.parametrize(
    ("digest", "algorithm", "reason"),
    [
        pytest.param("1.3.14.3.2.26", None, "AlgorithmNotTaken", id="SHA-1"),
        pytest.param("1.2.840.113549.2.5", None, "AlgorithmNotTaken", id="MD5"),
        pytest.param(None, "1.2.840.113549.1.1.5", "AlgorithmNotTaken", id="RSA with SHA-1"),
        pytest.param(None, "1.2.840.113549.1.1.12", "AlgorithmNotTaken", id="the digests differ"),
        pytest.param(None, "1.2.840.10045.4.3.2", "SignatureInvalid", id="another kind of key"),
        pytest.param(SHA384, None, "SignatureInvalid", id="another digest than was signed"),
        pytest.param(None, "1.2.840.113549.1.1.11", None, id="RSA with SHA-256"),
    ],
)
def test_algorithms(azure: Azure, digest: str | None, algorithm: str | None, reason: str | None) -> None:
    def change(inside: Any) -> None:
        (signer,) = inside.signers.as_list()
        signer.digest.identifier = x509.ObjectIdentifier(digest or SHA256)
        signer.algorithm.identifier = x509.ObjectIdentifier(algorithm or "1.2.840.113549.1.1.1")
        inside.signers = asn1.SetOf([signer])

    message = rewritten(signed(CONTENT, azure.signer, others=(azure.intermediate,)), change)
    if reason is None:
        assert content_of(message, trusted(azure.root)) == CONTENT
    else:
        assert reason_of(message, trusted(azure.root)) == reason


def test_key_of_a_kind_that_is_not_taken(azure: Azure) -> None:
    signer = issue(SIGNER, azure.root, names=(SIGNER,), key=azure.signer.key)
    other = issue(SIGNER, azure.root, names=(SIGNER,), key=ed25519.Ed25519PrivateKey.generate())
    message = replace(cms.take_apart(signed(CONTENT, signer)), signer=other.certificate)
    with pytest.raises(Denied):
        cms.verified_content(message, trusted(azure.root))


# --- the bytes ------------------------------------------------------------------------------------------------------------


def test_message_is_der_with_its_content_and_nothing_behind_it(azure: Azure) -> None:
    good = signed(CONTENT, azure.signer)

    def other_kind(inside: Any) -> None:
        inside.encapsulated.kind = cms._SIGNED_DATA

    enveloped = good.replace(bytes.fromhex("06092a864886f70d010702"), bytes.fromhex("06092a864886f70d010703"), 1)
    rows = {
        "nothing": b"",
        "no DER": b"\x00" * 64,
        "cut": good[:-1],
        "longer": good + b"\x00",
        "too long": good + b"\x00" * cms.MAX_MESSAGE,
        "PEM": b"-----BEGIN PKCS7-----",
        "another kind": enveloped,
        "another kind of content": rewritten(good, other_kind),
    }
    for what, data in rows.items():
        with pytest.raises(Denied) as caught:
            cms.take_apart(data)
        assert caught.value.reason == "MessageUnreadable", what


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_sent_is_denied(azure: Azure, data: st.DataObject) -> None:
    good = signed(CONTENT, azure.signer, others=(azure.intermediate,), attributes=True)
    place = data.draw(st.integers(0, len(good) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    changed = good[:place] + noise + good[place + len(noise) :]
    with contextlib.suppress(Denied):
        assert content_of(changed, trusted(azure.root)) == CONTENT
