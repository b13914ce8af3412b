"""One CA for each purpose: no credential passes for one of another kind, and no key of a CA is ever certified."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509 as crypto_x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from machinebot.authority import ssh, tokens, x509
from machinebot.authority.generations import Generation
from machinebot.authority.profiles import (
    FOR_BOTS,
    PROFILES,
    SSHProfile,
    SSHRequest,
    Stamp,
    Subject,
    TokenProfile,
    TokenRequest,
    X509Profile,
    X509Request,
)
from machinebot.authority.rotation import advance
from machinebot.errors import Denied, Invalid
from machinebot.policy.credential import Form, Purpose, Usage
from unit.authority.builders import (
    CLUSTER,
    DAY,
    HOUR,
    ISSUER,
    MINUTE,
    NOW,
    REF,
    ROTATION,
    WISHES,
    World,
    all_generations,
    allowing,
    ca,
    der,
    issued_for,
    joined,
    request,
    spec,
    ssh_of,
    subject_key,
    x509_of,
)

STAMP = Stamp(serial=2**63 - 1, not_before=NOW - MINUTE, not_after=NOW - MINUTE + DAY)
BOTS_MAY = sorted(FOR_BOTS)


def sign(usage: Usage, issuer: Generation, stamp: Stamp = STAMP) -> bytes:
    """The credential of a usage by any CA, with a request made by hand."""
    key = subject_key().public_key()
    match PROFILES[usage]:
        case SSHProfile() as profile:
            return ssh.sign(SSHRequest(profile, stamp, key, key_id=REF.user, principals=("web",)), issuer)
        case X509Profile() as profile:
            subject = Subject(
                organizations=(CLUSTER,),
                common_name=REF.user,
                spiffe_id=REF.spiffe_id(CLUSTER),
                note="{}" if profile.note else None,
            )
            return x509.sign(X509Request(profile, stamp, key, subject), issuer)
        case TokenProfile() as profile:
            return tokens.sign(TokenRequest(profile, stamp, ISSUER, REF.spiffe_id(CLUSTER), ("vault",)), issuer)


@lru_cache
def signed(usage: Usage) -> bytes:
    return sign(usage, ca(usage.purpose))


# --- one CA for each purpose --------------------------------------------------------------------------------------


def is_good_certificate(pem: bytes, issuer: Generation) -> bool:
    if issuer.certificate is None:
        return False
    try:
        crypto_x509.load_pem_x509_certificate(pem).verify_directly_issued_by(issuer.issuer)
    except (ValueError, InvalidSignature):
        return False
    return True


def is_good_ssh(line: bytes, issuer: Generation) -> bool:
    certificate = load_ssh_public_identity(line)
    assert isinstance(certificate, SSHCertificate)
    return certificate.signature_key() == issuer.key.public_key


def is_good_token(token: bytes, issuer: Generation) -> bool:
    try:
        jwt.decode(
            token,
            issuer.key.public_key,
            ["ES256"],
            audience="vault",
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError:
        return False
    return True


VERIFIERS: dict[Form, Callable[[bytes, Generation], bool]] = {
    Form.X509: is_good_certificate,
    Form.SSH: is_good_ssh,
    Form.JWT: is_good_token,
}


@pytest.mark.parametrize("under", list(Purpose), ids=lambda purpose: f"under {purpose.value}")
@pytest.mark.parametrize("usage", list(Usage), ids=str)
def test_nothing_is_good_under_the_ca_of_another_purpose(usage: Usage, under: Purpose) -> None:
    assert VERIFIERS[usage.form](signed(usage), ca(under)) == (usage.purpose is under)


@pytest.mark.parametrize("usage", [usage for usage in Usage if usage.form is Form.X509], ids=str)
def test_openssl_takes_it_under_its_own_ca_alone(usage: Usage, tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_bytes(signed(usage))
    good = []
    for purpose in Purpose:
        if purpose.is_ssh:
            continue
        (tmp_path / "ca.pem").write_bytes(ca(purpose).anchor.public)
        command = ["openssl", "verify", "-x509_strict", "-attime", str(int(NOW.timestamp()))]
        files = ["-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem")]
        done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=30, check=False)
        good += [purpose] if done.returncode == 0 else []
    assert good == [usage.purpose]


@pytest.mark.parametrize("under", list(Purpose), ids=lambda purpose: f"by {purpose.value}")
@pytest.mark.parametrize("usage", list(Usage), ids=str)
def test_no_ca_signs_for_another_purpose(usage: Usage, under: Purpose) -> None:
    if usage.purpose is under:
        assert sign(usage, ca(under))
        return
    with pytest.raises(Denied) as caught:
        sign(usage, ca(under))
    assert "`ca of purpose` and nothing was signed" in caught.value.message


def test_every_ca_has_a_key_of_its_own() -> None:
    assert len({ca(purpose).key.spki for purpose in Purpose}) == len(Purpose)
    assert len({ca(purpose).id for purpose in Purpose}) == len(Purpose)


def test_two_usages_of_one_ca_are_told_apart_by_what_they_are_good_for() -> None:
    """The CA for databases signs clients and servers: a client must not pass for a server, nor a server for a client."""
    by_ca: dict[Purpose, list[Any]] = {}
    for usage, profile in PROFILES.items():
        if isinstance(profile, X509Profile):
            by_ca.setdefault(usage.purpose, []).append(profile.extended_key_usage)
    for extended in by_ca.values():
        assert len(set(extended)) == len(extended)


# --- nothing above 24 hours ---------------------------------------------------------------------------------------


def span_of(usage: Usage, issued: Any) -> float:
    """Seconds from begin to end, as the credential itself says."""
    if usage.form is Form.SSH:
        certificate = ssh_of(issued)
        return certificate.valid_before - certificate.valid_after
    if usage.form is Form.JWT:
        claims = jwt.decode_complete(issued.token, options={"verify_signature": False})["payload"]
        assert claims["iat"] == claims["nbf"]
        return float(claims["exp"] - claims["nbf"])
    certificate = x509_of(issued)
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds()


@pytest.mark.parametrize("usage", BOTS_MAY, ids=str)
def test_nothing_lives_above_24_hours(usage: Usage) -> None:
    issued = issued_for([usage], lifetime=9000 * HOUR)
    assert span_of(usage, issued) == DAY.total_seconds()
    assert issued.lifetime.reduced_by == "the 24h maximum for machine credentials"


@pytest.mark.parametrize("usage", BOTS_MAY, ids=str)
def test_no_role_that_was_stored_with_more_gives_more(usage: Usage) -> None:
    generous = allowing(options={"maxSessionTTL": "9000h"})
    assert span_of(usage, issued_for([usage], lifetime=9000 * HOUR, roles=[generous])) == DAY.total_seconds()


@pytest.mark.parametrize("usage", BOTS_MAY, ids=str)
def test_nothing_outlives_its_ca(usage: Usage) -> None:
    end = NOW + 2 * HOUR
    ending = replace(ca(usage.purpose), not_after=end)
    issued = issued_for([usage], {usage.purpose: ending})
    assert span_of(usage, issued) == (2 * HOUR + MINUTE).total_seconds()
    assert issued.lifetime.reduced_by == "the remaining life of the CA"


@pytest.mark.parametrize("usage", list(Usage), ids=str)
def test_the_signers_refuse_a_second_above_24_hours_themselves(usage: Usage) -> None:
    longer = replace(STAMP, not_after=STAMP.not_after + MINUTE / 60)
    with pytest.raises(Denied) as caught:
        sign(usage, ca(usage.purpose), longer)
    assert "`span` and nothing was signed" in caught.value.message


# --- keys ---------------------------------------------------------------------------------------------------------


def world() -> World:
    return World(known_roles={"access": allowing()})


async def refused(usage: Usage, kind: type[Exception], authority: Any = None, **wanted: Any) -> Any:
    authority = authority or world().authority()
    identity = await joined(authority)
    with pytest.raises(kind) as caught:
        await authority.issue(identity, replace(request(frozenset({usage}), names=WISHES[usage]), **wanted), now=NOW)
    return caught.value


@pytest.mark.parametrize("purpose", list(Purpose), ids=lambda purpose: f"key of {purpose.value}")
@pytest.mark.parametrize("usage", BOTS_MAY, ids=str)
async def test_the_key_of_a_ca_is_never_certified(usage: Usage, purpose: Purpose) -> None:
    error = await refused(usage, Denied, public_key=der(ca(purpose).key.public_key))
    assert error.reason == "PublicKeyOfCA"


@pytest.mark.parametrize("usage", BOTS_MAY, ids=str)
async def test_the_key_of_a_ca_that_signs_no_more_or_not_yet_is_never_certified(usage: Usage) -> None:
    def advanced(current: Any, now: Any) -> Any:
        purpose = usage.purpose
        return advance(current, now, purpose=purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION)

    published = advanced((ca(usage.purpose),), NOW + 2134 * HOUR)
    taken_over = advanced(published, NOW + 2160 * HOUR)
    for several in (published, taken_over):
        authority = world().authority()
        authority.update(spec(), all_generations() | {usage.purpose: several}, ISSUER)
        assert len(several) == 2
        for generation in several:
            error = await refused(usage, Denied, authority, public_key=generation.key.spki)
            assert error.reason == "PublicKeyOfCA"


@pytest.mark.parametrize("usage", [usage for usage in BOTS_MAY if usage.form is not Form.JWT], ids=str)
async def test_a_certificate_needs_a_key(usage: Usage) -> None:
    error = await refused(usage, Invalid, public_key=None)
    assert error.reason == "NoPublicKey"
    both = frozenset({usage, Usage.WORKLOAD_TOKEN})
    authority = world().authority()
    wanted = replace(request(both, names=WISHES[usage] | WISHES[Usage.WORKLOAD_TOKEN]), public_key=None)  # type: ignore[operator]
    with pytest.raises(Invalid) as caught:
        await authority.issue(await joined(authority), wanted, now=NOW)
    assert caught.value.reason == "NoPublicKey"


async def test_a_token_alone_needs_no_key_and_a_key_beside_it_is_checked_all_the_same() -> None:
    authority = world().authority()
    identity = await joined(authority)
    wanted = request(frozenset({Usage.WORKLOAD_TOKEN}), names=WISHES[Usage.WORKLOAD_TOKEN])
    assert (await authority.issue(identity, replace(wanted, public_key=None), now=NOW)).token
    error = await refused(Usage.WORKLOAD_TOKEN, Invalid, public_key=b"")
    assert error.reason == "InvalidPublicKey"


@pytest.mark.parametrize("usage", BOTS_MAY, ids=str)
async def test_no_private_key_is_in_what_is_issued(usage: Usage) -> None:
    authority = world().authority()
    issued = await authority.issue(await joined(authority), request(frozenset({usage}), names=WISHES[usage]), now=NOW)
    assert "PRIVATE" not in repr(issued)
