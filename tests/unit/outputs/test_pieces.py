"""The pieces of the trust bundle, and the documents of OpenID Connect and SPIFFE."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc.jwk import ECKey, KeySet, RSAKey

from machinebot.authority.generations import Generation, new_generation
from machinebot.authority.keys import CAKey
from machinebot.authority.tokens import algorithm
from machinebot.outputs.trust import PIECES, known_hosts, openid_configuration, pieces
from machinebot.policy.credential import Purpose, TrustBundle
from machinebot.resources.authority import KeyAlgorithm, Rotation
from unit.authority.builders import CLUSTER, ISSUER, NOW, all_generations, ca, ca_with
from unit.authority.conftest import rsa_ca_key

__all__ = ["rsa_ca_key"]  # a fixture


def bundle_of(*generations: Generation) -> TrustBundle:
    return TrustBundle(cluster_name=CLUSTER, issuer=ISSUER, anchors=tuple(each.anchor for each in generations))


def whole() -> TrustBundle:
    return bundle_of(*(each for several in all_generations().values() for each in several))


def keys(bundle: TrustBundle, piece: str = "jwks") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(pieces(bundle)[piece])["keys"]
    return found


def later(generation: Generation, hours: int, algorithm: KeyAlgorithm = "ECDSA-P256") -> Generation:
    """The next one of the same CA."""
    now = NOW + timedelta(hours=hours)
    return new_generation(generation.purpose, algorithm=algorithm, cluster_name=CLUSTER, rotation=Rotation(), now=now)


def test_every_piece_is_there_and_ends_with_a_newline() -> None:
    found = pieces(whole())
    assert list(found) == list(PIECES)
    assert all(body.endswith(b"\n") for body in found.values())
    # A ConfigMap takes text only, and its keys must be names of files.
    assert all(body.decode("ascii") for body in found.values())
    assert all(name.replace("-", "").isalnum() for name in found)


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.BOT])
def test_a_ca_that_is_not_there_leaves_its_pieces_out(purpose: Purpose) -> None:
    rest = bundle_of(*(each for one, several in all_generations().items() if one is not purpose for each in several))
    missing = {piece.name for piece in PIECES.values() if piece.purpose is purpose}
    assert missing
    assert pieces(rest).keys() == PIECES.keys() - missing


def test_known_hosts_is_for_the_cluster_and_everything_below_it() -> None:
    anchors = whole().of(Purpose.SSH_HOST)
    assert pieces(whole())["known-hosts"] == known_hosts(anchors, (CLUSTER, f"*.{CLUSTER}"))


@pytest.mark.parametrize("kind", ["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-4096"])
def test_a_key_is_the_one_that_signs(kind: KeyAlgorithm, rsa_ca_key: CAKey) -> None:
    generation = ca_with(rsa_ca_key, Purpose.WORKLOAD) if kind == "RSA-4096" else ca(Purpose.WORKLOAD, kind)
    (key,) = keys(bundle_of(generation))
    assert (key["kid"], key["use"], key["alg"]) == (generation.id, "sig", algorithm(generation.key.public_key))
    (read,) = KeySet.import_key_set({"keys": [key]}).keys
    assert isinstance(read, ECKey | RSAKey)
    assert read.public_key == generation.key.public_key
    assert not {"d", "p", "q", "key_ops"} & key.keys()


def test_coordinates_have_their_full_length() -> None:
    # RFC 7518, section 6.2.1.2: with their leading zeros, which one key in 128 has.
    for hour in range(200):
        (key,) = keys(bundle_of(later(ca(Purpose.WORKLOAD), hour)))
        assert {len(base64.urlsafe_b64decode(key[name] + "=")) for name in "xy"} == {32}


def test_every_generation_is_there_before_it_signs_and_after() -> None:
    one, other = ca(Purpose.WORKLOAD), later(ca(Purpose.WORKLOAD), 1)
    both = bundle_of(one, other)
    assert [key["kid"] for key in keys(both)] == [one.id, other.id]
    assert pieces(both)["workload-ca"] == one.anchor.public + other.anchor.public
    assert len(keys(both, "spiffe-bundle")) == 4


def test_the_spiffe_bundle_has_certificates_and_keys_apart() -> None:
    generation = ca(Purpose.WORKLOAD)
    certificate, key = keys(bundle_of(generation), "spiffe-bundle")
    assert certificate["use"] == "x509-svid"
    assert x509.load_der_x509_certificate(base64.b64decode(certificate["x5c"][0])) == generation.issuer
    assert base64.b64decode(certificate["x5c"][0]) == generation.issuer.public_bytes(Encoding.DER)
    assert "kid" not in certificate
    assert (key["use"], key["kid"]) == ("jwt-svid", generation.id)


def test_the_sequence_of_the_spiffe_bundle_grows_with_each_change() -> None:
    one, two, three = ca(Purpose.WORKLOAD), later(ca(Purpose.WORKLOAD), 1), later(ca(Purpose.WORKLOAD), 2)
    life = [(one,), (one, two), (two, one), (two,), (two, three), (three, two), (three,)]
    numbers = [json.loads(pieces(bundle_of(*each))["spiffe-bundle"])["spiffe_sequence"] for each in life]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 5, "which one signs is no change of the keys"


def test_the_discovery_document_names_the_issuer_the_keys_and_their_algorithms() -> None:
    one, other = ca(Purpose.WORKLOAD), later(ca(Purpose.WORKLOAD), 1, "ECDSA-P384")
    assert json.loads(openid_configuration(bundle_of(one, other))) == {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "ES384"],
    }


def test_a_key_of_another_kind_is_a_fault_of_ours() -> None:
    anchor = replace(ca(Purpose.SSH_USER).anchor, purpose=Purpose.WORKLOAD)
    with pytest.raises(ValueError, match="PEM"):
        pieces(TrustBundle(CLUSTER, ISSUER, (anchor,)))


def test_nobody_but_the_join_api_verifies_identities_of_bots() -> None:
    assert all(piece.purpose is not Purpose.BOT for piece in PIECES.values())
