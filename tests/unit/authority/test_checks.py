"""What is held against every request, and against an X.509 certificate after it is signed: every row fails for its own reason."""

import ipaddress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machinebot.authority import x509 as x509_signing
from machinebot.authority import x509_checks
from machinebot.authority.checks import REQUEST_CHECKS, check_request
from machinebot.authority.profiles import (
    BOT,
    DATABASE_SERVER,
    IDENTITY,
    MAX_NOTE,
    NOTE,
    PROFILES,
    Stamp,
    Subject,
    X509Profile,
    X509Request,
)
from machinebot.authority.x509_checks import X509_CHECKS, check_x509
from machinebot.policy.credential import AnchorState, Purpose
from unit.authority.builders import CLUSTER, DAY, MINUTE, NOW, ca, ending
from unit.authority.requests import KEY, OTHER, SSH_REQUEST, STAMP, TOKEN_REQUEST, X509_CA, X509_REQUEST, refusal, stamped

# --- before the signing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [X509_REQUEST, SSH_REQUEST, TOKEN_REQUEST], ids=["X.509", "SSH", "JWT"])
@pytest.mark.parametrize(
    ("change", "issuer", "check"),
    [
        pytest.param(lambda r: r, lambda _: ca(Purpose.SSH_HOST), "ca of purpose", id="CA of another purpose"),
        pytest.param(lambda r: r, lambda g: replace(g, state=AnchorState.PREPARED), "ca is active", id="CA not signing yet"),
        pytest.param(lambda r: r, lambda g: replace(g, state=AnchorState.OLD), "ca is active", id="CA signing no more"),
        pytest.param(lambda r: stamped(r, serial=0), None, "serial in range", id="serial zero"),
        pytest.param(lambda r: stamped(r, serial=-1), None, "serial in range", id="serial negative"),
        pytest.param(lambda r: stamped(r, serial=2**63), None, "serial in range", id="serial too large"),
        pytest.param(lambda r: stamped(r, not_after=STAMP.not_before), None, "span", id="no span"),
        pytest.param(lambda r: stamped(r, not_after=STAMP.not_before - DAY), None, "span", id="ends before it begins"),
        pytest.param(
            lambda r: stamped(r, not_after=STAMP.not_after + timedelta(seconds=1)), None, "span", id="a second above 24 hours"
        ),
        pytest.param(lambda r: r, lambda g: ending(g, STAMP.not_after - MINUTE), "ends before its ca", id="outlives its CA"),
    ],
)
def test_request_checks(request_: Any, change: Any, issuer: Any, check: Any) -> None:
    own = ca(request_.profile.purpose)
    message = refusal(check_request, change(request_), own if issuer is None else issuer(own))
    assert f"`{check}` and nothing was signed" in message


@pytest.mark.parametrize("request_", [X509_REQUEST, SSH_REQUEST], ids=["X.509", "SSH"])
def test_key_of_the_ca_is_never_certified(request_: Any) -> None:
    own = ca(request_.profile.purpose)
    message = refusal(check_request, replace(request_, public_key=own.key.public_key), own)
    assert "`key is no ca`" in message


@pytest.mark.parametrize("request_", [X509_REQUEST, SSH_REQUEST, TOKEN_REQUEST], ids=["X.509", "SSH", "JWT"])
def test_good_request_passes_every_check(request_: Any) -> None:
    own = ca(request_.profile.purpose)
    check_request(request_, own)
    assert all(check(request_, own) for check in REQUEST_CHECKS)


# --- X.509 --------------------------------------------------------------------------------------------------------

USAGE = IDENTITY.key_usage


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def name_of(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def subject_parts(subject: Subject) -> list[tuple[x509.ObjectIdentifier, str]]:
    """O, OU and CN, as they must stand in a certificate."""
    parts = [(NameOID.ORGANIZATION_NAME, organization) for organization in subject.organizations]
    parts += [(NameOID.ORGANIZATIONAL_UNIT_NAME, subject.unit)] if subject.unit is not None else []
    return parts + ([(NameOID.COMMON_NAME, subject.common_name)] if subject.common_name is not None else [])


def x509_signed(
    *,
    request: X509Request = X509_REQUEST,
    drop: Any = (),
    add: Any = (),
    critical: Any = (),
    issuer: Any = X509_CA,
    signer: Any = None,
    digest: Any = None,
    **fields: Any,
) -> bytes:
    """A certificate as `x509.sign` makes it, but for what the arguments say."""
    setters = {
        "issuer_name": issuer.issuer.subject,
        "subject_name": name_of(*subject_parts(request.subject)),
        "public_key": KEY,
        "serial_number": STAMP.serial,
        "not_valid_before": STAMP.not_before,
        "not_valid_after": STAMP.not_after,
    } | fields
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]] = {
        x509.BasicConstraints: (x509.BasicConstraints(ca=False, path_length=None), True),
        x509.KeyUsage: (USAGE, True),
        x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(request.profile.extended_key_usage), False),
        x509.SubjectAlternativeName: (
            san(uri(request.subject.spiffe_id), *map(x509.DNSName, request.subject.dns_names)),
            False,
        ),
        x509.AuthorityKeyIdentifier: (
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.key.subject_key_identifier),
            False,
        ),
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier.from_public_key(KEY), False),
        **({x509.UnrecognizedExtension: (x509_signing.note(request.subject.note), False)} if request.subject.note else {}),
    }
    for kind in drop:
        del extensions[kind]
    for value in add:
        extensions[type(value)] = (value, extensions.get(type(value), (value, False))[1])
    for kind in critical:
        extensions[kind] = (extensions[kind][0], not extensions[kind][1])
    builder = x509.CertificateBuilder()
    for name, value in setters.items():
        builder = getattr(builder, name)(value)
    for value, is_critical in extensions.values():
        builder = builder.add_extension(value, critical=is_critical)
    key = issuer.key.private_key if signer is None else signer
    return builder.sign(key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def organization(name: str) -> tuple[x509.ObjectIdentifier, str]:
    return NameOID.ORGANIZATION_NAME, name


ORGANIZATION, COMMON_NAME = (NameOID.ORGANIZATION_NAME, CLUSTER), (NameOID.COMMON_NAME, "bot:ci:deployer")
OWN = uri(X509_REQUEST.subject.spiffe_id)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param({"serial_number": 8}, "x509 serial", id="another serial"),
        pytest.param({"not_valid_before": STAMP.not_before - MINUTE}, "x509 dates", id="begins earlier"),
        pytest.param({"not_valid_after": STAMP.not_after + MINUTE}, "x509 dates", id="ends later"),
        pytest.param({"public_key": OTHER.public_key()}, "x509 public key", id="another key"),
        pytest.param({"subject_name": name_of(COMMON_NAME)}, "x509 subject", id="no organization"),
        pytest.param({"subject_name": name_of(COMMON_NAME, ORGANIZATION)}, "x509 subject", id="another order"),
        pytest.param(
            {"subject_name": name_of((NameOID.ORGANIZATION_NAME, "system:masters"), COMMON_NAME)},
            "x509 subject",
            id="another organization",
        ),
        pytest.param(
            {"subject_name": name_of(ORGANIZATION, (NameOID.ORGANIZATION_NAME, "system:masters"), COMMON_NAME)},
            "x509 subject",
            id="a second organization",
        ),
        pytest.param({"subject_name": name_of(ORGANIZATION, (NameOID.COMMON_NAME, "root"))}, "x509 subject", id="another name"),
        pytest.param({"drop": [x509.KeyUsage]}, "x509 extensions", id="no keyUsage"),
        pytest.param({"drop": [x509.BasicConstraints]}, "x509 extensions", id="no basicConstraints"),
        pytest.param({"drop": [x509.ExtendedKeyUsage]}, "x509 extensions", id="no extendedKeyUsage: good for anything"),
        pytest.param({"drop": [x509.SubjectAlternativeName]}, "x509 extensions", id="no SPIFFE ID"),
        pytest.param({"drop": [x509.AuthorityKeyIdentifier]}, "x509 extensions", id="no AKI"),
        pytest.param({"critical": [x509.KeyUsage]}, "x509 extensions", id="keyUsage not critical"),
        pytest.param({"critical": [x509.BasicConstraints]}, "x509 extensions", id="basicConstraints not critical"),
        pytest.param({"critical": [x509.SubjectAlternativeName]}, "x509 extensions", id="subjectAltName critical"),
        pytest.param({"add": [x509.OCSPNoCheck()]}, "x509 extensions", id="an extension more"),
        pytest.param(
            {"add": [x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9999.1.13"), b"\x01")]},
            "x509 extensions",
            id="an unknown extension",
        ),
        pytest.param({"add": [x509.BasicConstraints(ca=True, path_length=0)]}, "x509 no ca", id="a CA"),
        pytest.param(
            {"add": [x509.KeyUsage(True, True, True, True, True, True, False, False, False)]},
            "x509 key usage",
            id="signs certificates",
        ),
        pytest.param(
            {"add": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])]},
            "x509 extended key usage",
            id="a server too",
        ),
        pytest.param(
            {"add": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])]},
            "x509 extended key usage",
            id="any usage",
        ),
        pytest.param({"add": [san(uri(f"spiffe://{CLUSTER}/ns/ci/bot/other"))]}, "x509 one spiffe id", id="another bot"),
        pytest.param({"add": [san(OWN, uri("spiffe://other.test/x"))]}, "x509 one spiffe id", id="a second URI"),
        pytest.param({"add": [san(OWN, x509.DNSName("example.test"))]}, "x509 one spiffe id", id="a DNS name"),
        pytest.param(
            {"add": [x509.SubjectKeyIdentifier(b"x" * 20)]}, "x509 key identifiers", id="another subject key identifier"
        ),
        pytest.param(
            {"add": [x509.AuthorityKeyIdentifier(b"x" * 20, None, None)]}, "x509 key identifiers", id="AKI of another CA"
        ),
        pytest.param({"signer": OTHER}, "x509 signature", id="signed by another key"),
        pytest.param({"issuer_name": name_of(ORGANIZATION, COMMON_NAME)}, "x509 signature", id="another issuer"),
    ],
)
def test_x509_checks(change: Any, check: Any) -> None:
    message = refusal(check_x509, x509_signed(**change), X509_REQUEST, X509_CA)
    assert f"`{check}` and it was not handed out" in message


PROFILES_OF_X509 = [profile for profile in PROFILES.values() if isinstance(profile, X509Profile)]
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def asked(profile: X509Profile = IDENTITY, **subject: Any) -> X509Request:
    """A request of another usage or for another subject."""
    subject = {"note": "{}" if profile.note else None, **subject}
    return replace(X509_REQUEST, profile=profile, subject=replace(X509_REQUEST.subject, **subject))


@pytest.mark.parametrize(
    "usages",
    [(CLIENT,), (SERVER,), (CLIENT, SERVER), (SERVER, CLIENT), (CLIENT, SERVER, ExtendedKeyUsageOID.CODE_SIGNING)],
    ids=["client", "server", "both", "both, turned round", "one more"],
)
@pytest.mark.parametrize("profile", PROFILES_OF_X509, ids=lambda profile: profile.usage)
def test_x509_extended_key_usage_is_the_one_of_the_usage(profile: X509Profile, usages: Any) -> None:
    issuer, request = ca(profile.purpose), asked(profile)
    signed = x509_signed(request=request, issuer=issuer, add=[x509.ExtendedKeyUsage(usages)])
    if usages == profile.extended_key_usage:
        assert check_x509(signed, request, issuer)
    else:
        assert "`x509 extended key usage`" in refusal(check_x509, signed, request, issuer)


@pytest.mark.parametrize("profile", PROFILES_OF_X509, ids=lambda profile: profile.usage)
def test_x509_dns_names_only_where_the_usage_has_them(profile: X509Profile) -> None:
    issuer, request = ca(profile.purpose), asked(profile, dns_names=("db.test", "db"))
    signed = x509_signed(request=request, issuer=issuer)
    if SERVER in profile.extended_key_usage:
        assert check_x509(signed, request, issuer)
    else:
        assert "`x509 dns names`" in refusal(check_x509, signed, request, issuer)


@pytest.mark.parametrize(
    ("profile", "asked_for", "carried"),
    [
        pytest.param(BOT, "{}", '{"x":1}', id="another one"),
        pytest.param(BOT, None, "{}", id="one that nobody asked for"),
        pytest.param(BOT, "n" * (MAX_NOTE + 1), "n" * (MAX_NOTE + 1), id="too long"),
        pytest.param(IDENTITY, "{}", None, id="asked for where the usage has none"),
    ],
)
def test_x509_note_is_the_one_that_was_asked_for(profile: X509Profile, asked_for: str | None, carried: str | None) -> None:
    issuer, request = ca(profile.purpose), asked(profile, note=asked_for)
    drop = (x509.UnrecognizedExtension,) if carried is None else ()
    signed = x509_signed(request=request, issuer=issuer, drop=drop, add=[x509_signing.note(carried)] if carried else [])
    assert "`x509 note`" in refusal(check_x509, signed, request, issuer)


def test_x509_note_is_no_other_extension() -> None:
    issuer, request = ca(Purpose.BOT), asked(BOT)
    signed = x509_signed(request=request, issuer=issuer, drop=(x509.UnrecognizedExtension,))
    assert "`x509 extensions`" in refusal(check_x509, signed, request, issuer)
    number = x509.UnrecognizedExtension(NOTE, b"\x02\x01\x01")
    signed = x509_signed(request=request, issuer=issuer, add=[number])
    assert "`x509 note`" in refusal(check_x509, signed, request, issuer)


@pytest.mark.parametrize("name", ["*.test", "*", "DB.test", "192.0.2.1", "db.test.", "db_1", "-db", "a" * 64])
def test_x509_dns_names_are_names(name: str) -> None:
    issuer, request = ca(Purpose.DATABASE), asked(DATABASE_SERVER, dns_names=("db.test", name))
    assert "`x509 dns names`" in refusal(check_x509, x509_signed(request=request, issuer=issuer), request, issuer)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([OWN, x509.DNSName("db.test")], id="a name less"),
        pytest.param([OWN, x509.DNSName("db.test"), x509.DNSName("db"), x509.DNSName("x")], id="a name more"),
        pytest.param([OWN, x509.DNSName("db"), x509.DNSName("db.test")], id="another order"),
        pytest.param([x509.DNSName("db.test"), x509.DNSName("db")], id="no SPIFFE ID"),
        pytest.param([OWN, x509.DNSName("db.test"), x509.RFC822Name("db")], id="an e-mail address"),
        pytest.param(
            [OWN, x509.DNSName("db.test"), x509.DNSName("db"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))], id="an address"
        ),
    ],
)
def test_x509_names_of_a_server_are_those_asked_for(names: Any) -> None:
    issuer, request = ca(Purpose.DATABASE), asked(DATABASE_SERVER, dns_names=("db.test", "db"))
    signed = x509_signed(request=request, issuer=issuer, add=[san(*names)])
    assert "`x509 one spiffe id`" in refusal(check_x509, signed, request, issuer)


@pytest.mark.parametrize(
    ("subject", "parts"),
    [
        pytest.param({"unit": "orders"}, [ORGANIZATION, COMMON_NAME], id="no unit"),
        pytest.param({}, [ORGANIZATION, (NameOID.ORGANIZATIONAL_UNIT_NAME, "orders"), COMMON_NAME], id="a unit too many"),
        pytest.param(
            {"unit": "orders"},
            [ORGANIZATION, (NameOID.ORGANIZATIONAL_UNIT_NAME, "database server"), COMMON_NAME],
            id="a server's unit",
        ),
        pytest.param({"common_name": None}, [ORGANIZATION, COMMON_NAME], id="a name too many"),
        pytest.param({}, [ORGANIZATION], id="a name too few"),
        pytest.param({"organizations": ("a", "b")}, [*map(organization, "ba"), COMMON_NAME], id="groups in another order"),
        pytest.param({"organizations": ("a", "b")}, [organization("a"), COMMON_NAME], id="a group too few"),
        pytest.param({"organizations": ()}, [organization("system:masters"), COMMON_NAME], id="a group for none"),
        pytest.param({}, [ORGANIZATION, COMMON_NAME, (NameOID.EMAIL_ADDRESS, "a@b.test")], id="something else"),
    ],
)
def test_x509_subject_is_the_one_asked_for(subject: Any, parts: Any) -> None:
    signed = x509_signed(subject_name=name_of(*parts))
    assert "`x509 subject`" in refusal(check_x509, signed, asked(**subject), X509_CA)


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param({"organizations": (), "common_name": None}, id="nobody"),
        pytest.param({"organizations": ("x" * 65,)}, id="organization too long"),
        pytest.param({"unit": "x" * 65}, id="unit too long"),
    ],
)
def test_x509_subject_names_somebody_in_parts_that_fit(subject: Any) -> None:
    request = asked(**subject)
    assert "`x509 subject`" in refusal(check_x509, x509_signed(request=request), request, X509_CA)


def test_x509_key_of_the_ca_is_never_certified() -> None:
    own = X509_CA.key.public_key
    identifier = x509.SubjectKeyIdentifier.from_public_key(own)
    wrong = x509_signed(public_key=own, add=[identifier])
    assert "`x509 public key`" in refusal(check_x509, wrong, replace(X509_REQUEST, public_key=own), X509_CA)


def test_x509_span_is_held_against_the_ceiling_and_the_ca() -> None:
    long = stamped(X509_REQUEST, not_after=STAMP.not_after + MINUTE)
    signed = x509_signed(not_valid_after=STAMP.not_after + MINUTE)
    assert "`x509 span`" in refusal(check_x509, signed, long, X509_CA)
    end = X509_CA.issuer.not_valid_after_utc
    late = replace(X509_REQUEST, stamp=Stamp(serial=7, not_before=end - MINUTE, not_after=end + MINUTE))
    signed = x509_signed(not_valid_before=end - MINUTE, not_valid_after=end + MINUTE)
    assert "`x509 span`" in refusal(check_x509, signed, late, X509_CA)


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x00", x509_signed()[:-1], x509_signed() + b"\x00"], ids=range(5))
def test_x509_garbage_is_not_handed_out(der: Any) -> None:
    assert "`readable`" in refusal(check_x509, der, X509_REQUEST, X509_CA)


def test_x509_changed_bit_is_not_handed_out() -> None:
    good = x509_signed()
    # The parser lets the count of unused bits in front of the signature be anything; it changes nothing.
    unused = len(good) - len(x509.load_der_x509_certificate(good).signature) - 1
    for place in range(0, len(good), 5):
        if place == unused:
            continue
        changed = bytearray(good)
        changed[place] ^= 1
        assert "not handed out" in refusal(check_x509, bytes(changed), X509_REQUEST, X509_CA)


def test_x509_good_one_passes_every_check() -> None:
    certificate = check_x509(x509_signed(), X509_REQUEST, X509_CA)
    assert all(check(certificate, X509_REQUEST, X509_CA) for check in X509_CHECKS)


def test_signing_asks_before_and_after(monkeypatch: Any) -> None:
    refusal(x509_signing.sign, X509_REQUEST, ending(X509_CA, NOW))
    monkeypatch.setattr(x509_checks, "X509_CHECKS", (lambda *_: False,))
    refusal(x509_signing.sign, X509_REQUEST, X509_CA)


def test_what_the_signer_makes_is_what_the_table_expects() -> None:
    assert check_x509(x509_signed(), X509_REQUEST, X509_CA)
    pem = x509_signing.sign(X509_REQUEST, X509_CA)
    assert (
        x509.load_pem_x509_certificate(pem).tbs_certificate_bytes
        == x509.load_der_x509_certificate(x509_signed()).tbs_certificate_bytes
    )
