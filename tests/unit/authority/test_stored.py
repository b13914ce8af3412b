"""How CAs are kept, and what makes a stored one unusable."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.authority import generations as made
from machinebot.authority import keys
from machinebot.authority.generations import CA_CONSTRAINTS, CA_KEY_USAGE, Generation, new_generation
from machinebot.authority.rotation import advance
from machinebot.authority.stored import MAX_BYTES, dump, load
from machinebot.errors import Invalid
from machinebot.policy.credential import AnchorState, Purpose
from unit.authority.builders import CLUSTER, HOUR, NOW, ROTATION, ca, generations


def advanced(current: Any, now: Any, purpose: Any) -> Any:
    return advance(current, now, purpose=purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION)


def three(purpose: Any) -> Any:
    """An active, a prepared and an old generation."""
    current = generations(purpose)
    current = advanced(current, NOW + 2160 * HOUR, purpose)
    current = advanced(current, NOW + 2186 * HOUR, purpose)
    heir = new_generation(purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION, now=NOW + 2187 * HOUR)
    return (current[0], heir, *current[1:])


def damage(purpose: Any, data: Any) -> Any:
    with pytest.raises(Invalid) as caught:
        load(purpose, data)
    assert caught.value.reason == "CASecretDamaged"
    assert "PRIVATE" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.message


def document(purpose: Any = Purpose.IDENTITY, count: Any = 1) -> Any:
    return json.loads(dump(three(purpose)[:count]))


@pytest.mark.parametrize("purpose", list(Purpose))
def test_what_is_stored_is_read_again(purpose: Any) -> None:
    kept = three(purpose)
    assert [generation.state for generation in kept] == [AnchorState.ACTIVE, AnchorState.PREPARED, AnchorState.OLD]
    again = load(purpose, dump(kept))
    assert again == kept
    assert dump(again) == dump(kept)
    assert [each.key.pkcs8() for each in again] == [each.key.pkcs8() for each in kept]


def test_rsa_is_stored_too(rsa_ca_key: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(keys, "generate", lambda *_: rsa_ca_key)
    kept = advance((), NOW, purpose=Purpose.IDENTITY, algorithm="RSA-4096", cluster_name=CLUSTER, rotation=ROTATION)
    assert load(Purpose.IDENTITY, dump(kept)) == kept
    assert len(dump(kept)) * 8 < MAX_BYTES


def test_form_is_the_documented_one() -> None:
    form = document(count=3)
    assert (form["version"], form["purpose"]) == (1, "identity")
    active, prepared, old = form["generations"]
    common = {"id", "state", "createdAt", "notAfter", "privateKey", "certificate"}
    assert set(active) == common | {"activatedAt"}
    assert set(prepared) == common
    assert set(old) == common | {"activatedAt", "supersededAt"}
    assert (active["state"], prepared["state"], old["state"]) == ("Active", "Prepared", "Old")
    assert old["createdAt"] == "2027-01-01T12:00:00Z"
    assert set(document(Purpose.SSH_USER)["generations"][0]) == (common | {"activatedAt"}) - {"certificate"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b'{"version":1,"purpose":"identity","generations":' + b"[" * 90_000, id="nested inside"),
        pytest.param(b" " * (MAX_BYTES + 1), id="too long"),
        pytest.param(b'{"version":2,"purpose":"identity","generations":[]}', id="another version"),
        pytest.param(b'{"version":1,"purpose":"identity","generations":[]}', id="no generations"),
    ],
)
def test_what_is_no_stored_ca(data: Any) -> None:
    assert "cannot be used" in damage(Purpose.IDENTITY, data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("id", "0" * 16, id="another id"),
        pytest.param("id", "x" * 65, id="id too long"),
        pytest.param("id", ..., id="no id"),
        pytest.param("state", "Prepared", id="not active any more"),
        pytest.param("state", "Old", id="old without its time"),
        pytest.param("state", "Broken", id="unknown state"),
        pytest.param("createdAt", "yesterday", id="no time"),
        pytest.param("createdAt", "2027-01-01T12:00:00", id="time without a zone"),
        pytest.param("activatedAt", ..., id="active since never"),
        pytest.param("supersededAt", "2027-01-01T12:00:00Z", id="active and superseded"),
        pytest.param("notAfter", "2027-06-01T12:00:00Z", id="another end than its certificate"),
        pytest.param("privateKey", "", id="no key"),
        pytest.param("privateKey", "x" * (keys.MAX_PRIVATE_PEM + 1), id="key too long"),
        pytest.param("privateKey", ca(Purpose.DATABASE).key.pkcs8().decode(), id="another key"),
        pytest.param("certificate", ..., id="no certificate"),
        pytest.param("certificate", "", id="empty certificate"),
        pytest.param("certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", id="broken certificate"),
        pytest.param("certificate", (ca(Purpose.DATABASE).certificate or b"").decode(), id="another CA's certificate"),
        pytest.param("surprise", "x", id="unknown field"),
    ],
)
def test_damaged_generation(field: Any, value: Any) -> None:
    form = document()
    if value is ...:
        del form["generations"][0][field]
    else:
        form["generations"][0][field] = value
    damage(Purpose.IDENTITY, json.dumps(form).encode())


def test_ssh_ca_with_a_certificate_is_damaged() -> None:
    form = document(Purpose.SSH_USER)
    form["generations"][0]["certificate"] = (ca(Purpose.IDENTITY).certificate or b"").decode()
    damage(Purpose.SSH_USER, json.dumps(form).encode())


@pytest.mark.parametrize("other", [purpose for purpose in Purpose if purpose is not Purpose.IDENTITY])
def test_ca_of_another_purpose_is_refused(other: Any) -> None:
    assert "it is the CA identity" in damage(other, dump(generations(Purpose.IDENTITY)))


@pytest.mark.parametrize("other", [Purpose.DATABASE, Purpose.SSH_USER, Purpose.SSH_HOST])
def test_relabelled_ca_is_refused(other: Any) -> None:
    form = document()
    form["purpose"] = other.value
    damage(other, json.dumps(form).encode())


def certificate_with(
    monkeypatch: Any, constraints: Any = CA_CONSTRAINTS, usage: Any = CA_KEY_USAGE, name: Any = made.common_name
) -> Generation:
    monkeypatch.setattr(made, "CA_CONSTRAINTS", constraints)
    monkeypatch.setattr(made, "CA_KEY_USAGE", usage)
    monkeypatch.setattr(made, "common_name", name)
    generation = new_generation(Purpose.IDENTITY, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION, now=NOW)
    return replace(generation, state=AnchorState.ACTIVE, activated_at=NOW)


def usage_with(**bits: Any) -> Any:
    every = dict.fromkeys(
        [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    return x509.KeyUsage(**(every | bits))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"constraints": x509.BasicConstraints(ca=False, path_length=None)}, "CA:true", id="no CA"),
        pytest.param({"constraints": x509.BasicConstraints(ca=True, path_length=1)}, "CA:true", id="CAs below it"),
        pytest.param({"usage": usage_with(key_cert_sign=True)}, "keyUsage", id="signs no CRL"),
        pytest.param({"usage": usage_with(crl_sign=True)}, "keyUsage", id="signs no certificate"),
        pytest.param({"name": lambda *_: "someone"}, "subject", id="another subject"),
    ],
)
def test_certificate_of_a_ca_is_held_against_its_profile(change: Any, complaint: Any, monkeypatch: Any) -> None:
    with monkeypatch.context() as patched:
        wrong = certificate_with(patched, **change)
    with pytest.raises(Invalid) as caught:
        dump([wrong])
    assert complaint in caught.value.message


def test_certificate_signed_by_another_key_is_refused(monkeypatch: Any) -> None:
    right = replace(certificate_with(monkeypatch))
    lines = (right.certificate or b"").decode().splitlines()
    der = right.issuer.public_bytes(Encoding.DER)
    wrong = x509.load_der_x509_certificate(der[:-1] + bytes([der[-1] ^ 1])).public_bytes(Encoding.PEM)
    assert len(wrong.splitlines()) == len(lines)
    with pytest.raises(Invalid) as caught:
        dump([replace(right, certificate=wrong)])
    assert "not signed by its own key" in caught.value.message


def test_something_beside_the_certificate_is_refused() -> None:
    one, two = ca(Purpose.IDENTITY), ca(Purpose.DATABASE)
    with pytest.raises(Invalid) as caught:
        dump([replace(one, certificate=(one.certificate or b"") + (two.certificate or b""))])
    assert "beside" in caught.value.message


def test_ed25519_is_refused_for_x509() -> None:
    key = keys.generate("Ed25519", Purpose.SSH_USER)
    with pytest.raises(Invalid) as caught:
        dump([replace(ca(Purpose.IDENTITY), key=key, id=key.id)])
    assert "Ed25519" in caught.value.message


@pytest.mark.parametrize(
    ("pick", "complaint"),
    [
        pytest.param(lambda a, _p, _o: (a, a), "exactly one active", id="two active"),
        pytest.param(lambda _a, p, o: (p, o), "exactly one active", id="none active"),
        pytest.param(lambda a, p, _o: (a, p, p), "one prepared", id="two prepared"),
        pytest.param(lambda a, _p, o: (a, o, o), "twice", id="one twice"),
    ],
)
def test_set_of_generations_is_checked(pick: Any, complaint: Any) -> None:
    with pytest.raises(Invalid) as caught:
        dump(pick(*three(Purpose.SSH_HOST)))
    assert complaint in caught.value.message


def test_generations_of_two_purposes_are_never_mixed() -> None:
    with pytest.raises(Invalid):
        dump([ca(Purpose.IDENTITY), ca(Purpose.DATABASE)])


def test_nothing_is_never_stored() -> None:
    with pytest.raises(Invalid) as caught:
        dump([])
    assert caught.value.reason == "NoGenerations"


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_changed_byte_never_gives_another_key(place: Any, byte: Any) -> None:
    data = bytearray(dump(generations(Purpose.IDENTITY)))
    data[place % len(data)] = byte
    with suppress(Invalid):
        again = load(Purpose.IDENTITY, bytes(data))
        assert again[0].key == ca(Purpose.IDENTITY).key
