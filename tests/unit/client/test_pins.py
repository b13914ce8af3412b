"""Trust by a pin: who has no CA with the pinned key is nobody, whatever they send."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from machinebot.authority.serving import serving_certificate
from machinebot.client.api import JoinClient
from machinebot.client.pins import fetch_pinned, heirs, merged, pin_of, pinned_ca, pins_of
from machinebot.errors import Denied, Invalid, Unavailable
from unit.client.server import CLUSTER, HOST, Said, Server, identity_ca, server_context, serving

CA, HEIR, OTHER = identity_ca(), identity_ca(), identity_ca()
PEM = CA.anchor.public + HEIR.anchor.public
PIN = pin_of(x509.load_pem_x509_certificate(CA.anchor.public))
NO_PINS = ["", "sha256:", PIN.upper(), PIN + "\n", PIN[7:], "sha1:" + "0" * 64]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda _: Said(body=PEM), server_context(CA)) as running:
        yield running


def test_the_pin_is_what_openssl_makes_of_a_ca() -> None:
    command = "openssl x509 -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r"
    done = subprocess.run(["sh", "-c", command], input=CA.anchor.public, capture_output=True, check=True)
    assert f"sha256:{done.stdout.split()[0].decode()}" == PIN


def test_a_pinned_server_tells_its_cas_over_a_verified_connection(server: Server) -> None:
    found = fetch_pinned(server.url, [PIN])
    assert found == PEM
    assert [asked.path for asked in server.seen] == ["/trust/identity-ca"] * 2
    JoinClient(server.url, ca=found).server_ca()


def test_nothing_but_the_pinned_ca_counts_until_the_connection_is_verified() -> None:
    # Somebody in between shows a certificate of their own CA, and the true CA beside it.
    with serving(lambda _: Said(body=CA.anchor.public + OTHER.anchor.public), server_context(OTHER)) as liar:
        with pytest.raises(Unavailable) as caught:
            fetch_pinned(liar.url, [PIN])
        assert caught.value.reason == "JoinAPIUntrusted"
        assert len(liar.seen) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(OTHER.anchor.public, id="another CA"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>hello</html>", id="another document"),
        pytest.param(CA.anchor.public[:200], id="cut off"),
        pytest.param(CA.anchor.public * 17, id="too many"),
        pytest.param(
            serving_certificate(CA, CLUSTER, (HOST,), datetime.now(UTC)).certificate, id="a certificate that is no CA's"
        ),
    ],
)
def test_without_the_pinned_ca_it_is_nobody(server: Server, body: bytes) -> None:
    server.answer = lambda _: Said(body=body)
    with pytest.raises(Denied) as caught:
        fetch_pinned(server.url, [PIN])
    assert caught.value.reason == "CAPinMismatch"
    assert len(server.seen) == 1


def test_a_leaf_with_the_pinned_key_is_no_ca() -> None:
    leaf = serving_certificate(CA, CLUSTER, (HOST,), datetime.now(UTC)).certificate
    with pytest.raises(Denied):
        pinned_ca(leaf, [pin_of(x509.load_pem_x509_certificate(leaf))])


def test_of_several_pins_one_is_enough(server: Server) -> None:
    absent = "sha256:" + "0" * 64
    assert fetch_pinned(server.url, [absent, PIN]) == PEM
    # The CA that is about to take over signs nothing yet: its pin alone does not verify the server.
    with pytest.raises(Unavailable) as caught:
        fetch_pinned(server.url, pins_of(HEIR.anchor.public))
    assert caught.value.reason == "JoinAPIUntrusted"


def test_the_pins_of_a_text_are_those_of_its_cas_each_once() -> None:
    leaf = serving_certificate(CA, CLUSTER, (HOST,), datetime.now(UTC)).certificate
    assert pins_of(PEM + leaf + PEM) == (PIN, *pins_of(HEIR.anchor.public))


def test_heirs_live_longer_than_everything_that_is_pinned() -> None:
    now = datetime.now(UTC)
    old, active, next_one = (self_signed(now + timedelta(days=days)) for days in (1, 2, 3))
    everything = old + active + next_one
    assert heirs(everything, pins_of(active)) == pins_of(next_one)
    assert heirs(everything, pins_of(old)) == pins_of(active + next_one)
    assert heirs(everything, pins_of(next_one)) == heirs(everything, pins_of(everything)) == heirs(everything, [PIN]) == ()


def self_signed(end: datetime) -> bytes:
    """A CA certificate of a new key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "identity")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), datetime.now(UTC), end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("pins", [[], *([pin] for pin in NO_PINS), [PIN, "sha256:"]])
def test_a_pin_that_is_none_is_refused_before_anybody_is_asked(server: Server, pins: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        fetch_pinned(server.url, pins)
    assert caught.value.reason == "InvalidPin"
    assert server.seen == []


def test_certificates_are_merged_once_each_and_the_unreadable_passed_over() -> None:
    assert merged((PEM, b"none", HEIR.anchor.public + OTHER.anchor.public)) == PEM + OTHER.anchor.public
