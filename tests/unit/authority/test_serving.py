"""The certificate of our own HTTPS: signed by the CA of identities, for our names, and replaced in time."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from machinebot.authority.serving import dns_names, serving_certificate
from machinebot.errors import Denied
from machinebot.policy.credential import AnchorState, Purpose
from unit.authority.builders import CLUSTER, DAY, HOUR, MINUTE, NOW, ca, ending

NAMES = ("machinebot.system.svc", "machinebot.system", "machinebot.system.svc.cluster.local", "localhost")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("machinebot.system.svc", NAMES, id="the Service"),
        pytest.param("id.example.test", ("id.example.test", "machinebot.system", *NAMES[:1], *NAMES[2:]), id="another"),
        pytest.param("ID.example.test", ("id.example.test", "machinebot.system", *NAMES[:1], *NAMES[2:]), id="capitals"),
        pytest.param("127.0.0.1", ("machinebot.system", *NAMES[:1], *NAMES[2:]), id="an address"),
        pytest.param("::1", ("machinebot.system", *NAMES[:1], *NAMES[2:]), id="an IPv6 address"),
        pytest.param("", ("machinebot.system", *NAMES[:1], *NAMES[2:]), id="none"),
        pytest.param("*.example.test", ("machinebot.system", *NAMES[:1], *NAMES[2:]), id="a wildcard"),
    ],
)
def test_it_names_the_service_the_address_and_this_machine(host: str, expected: tuple[str, ...]) -> None:
    assert dns_names("machinebot", "system", host) == expected


def test_it_is_for_servers_alone_and_for_a_day() -> None:
    made = serving_certificate(ca(Purpose.IDENTITY), CLUSTER, NAMES, NOW)
    certificate = x509.load_pem_x509_certificate(made.certificate)
    certificate.verify_directly_issued_by(ca(Purpose.IDENTITY).issuer)
    assert (made.not_before, made.not_after) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    assert (made.not_before, made.not_after) == (NOW - MINUTE, NOW - MINUTE + DAY)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == NAMES
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{CLUSTER}/machinebot"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [each.dotted_string for each in usage] == ["1.3.6.1.5.5.7.3.1"]
    assert [each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["machinebot"]


def test_it_never_outlives_its_ca() -> None:
    issuer = ending(ca(Purpose.IDENTITY), NOW + 3 * HOUR)
    assert serving_certificate(issuer, CLUSTER, NAMES, NOW).not_after == NOW + 3 * HOUR


def test_each_has_a_key_and_serial_of_its_own_and_does_not_show_the_key() -> None:
    one, other = (serving_certificate(ca(Purpose.IDENTITY), CLUSTER, NAMES, NOW) for _ in range(2))
    assert one.private_key != other.private_key
    assert len({x509.load_pem_x509_certificate(each.certificate).serial_number for each in (one, other)}) == 2
    assert "PRIVATE" not in repr(one)


@pytest.mark.parametrize(
    ("after", "due"),
    [
        (timedelta(0), False),
        (12 * HOUR - MINUTE - timedelta(seconds=1), False),
        (12 * HOUR - MINUTE, True),
        (48 * HOUR, True),
        (-MINUTE, False),
        (-MINUTE - timedelta(seconds=1), True),
    ],
    ids=["new", "just before half", "half", "ended", "its begin", "a clock that was ahead"],
)
def test_it_is_replaced_at_half_of_its_life(after: timedelta, due: bool) -> None:
    made = serving_certificate(ca(Purpose.IDENTITY), CLUSTER, NAMES, NOW)
    assert made.is_due(ca(Purpose.IDENTITY), NAMES, NOW + after) is due


def test_another_ca_or_name_replaces_it() -> None:
    made = serving_certificate(ca(Purpose.IDENTITY), CLUSTER, NAMES, NOW)
    assert made.is_due(replace(ca(Purpose.IDENTITY), id="0" * 16), NAMES, NOW)
    assert made.is_due(ca(Purpose.IDENTITY), ("other",), NOW)


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param(ca(Purpose.WORKLOAD), id="another purpose"),
        pytest.param(replace(ca(Purpose.IDENTITY), state=AnchorState.OLD), id="an old generation"),
        pytest.param(ending(ca(Purpose.IDENTITY), NOW - HOUR), id="one that has ended"),
    ],
)
def test_a_ca_that_may_not_sign_it_does_not(issuer) -> None:
    with pytest.raises(Denied, match="CertificateRefused"):
        serving_certificate(issuer, CLUSTER, NAMES, NOW)


@pytest.mark.parametrize("names", [("*.example.test",), ("UPPER.test",), ("a b",)])
def test_a_name_that_is_none_is_not_signed(names: tuple[str, ...]) -> None:
    with pytest.raises(Denied, match="CertificateRefused"):
        serving_certificate(ca(Purpose.IDENTITY), CLUSTER, names, NOW)
