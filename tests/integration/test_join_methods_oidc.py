"""Each OpenID Connect platform against a real OpenID provider in another process: tokens, discovery and keys over TLS."""

import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

from controlplane.pki import Authority
from controlplane.ports import LOOPBACK
from machinebot.errors import Denied, Invalid, Unavailable
from machinebot.issuers.fetching import COOLDOWN, FRESH, Issuers
from machinebot.joins.base import Asked, HTTPSRequest, Proved, TokenProof
from machinebot.joins.registry import MachineJoinToken
from support.clock import SteppedClock
from support.issuing import CLUSTER, Json, assembled, rs256, rsa_key, signed
from support.platforms import GENERIC, SAMPLES, Sample, generic, with_rules
from workbench.openid import OpenIDProvider

METHODS = [*SAMPLES, "oidc"]
DEAD = "https://nobody.example.test"
ELSEWHERE = {"auth_time", "at_hash", "kid"}
"""What this provider adds of its own; the platforms do not."""


def sample_of(name: str) -> Sample:
    return GENERIC if name == "oidc" else SAMPLES[name]


def join_token_of(name: str) -> MachineJoinToken:
    return generic() if name == "oidc" else with_rules(name, SAMPLES[name].rule)


@dataclass(frozen=True)
class World:
    provider: OpenIDProvider
    tls: ssl.SSLContext
    connect: dict[str, tuple[str, int]]

    def token(self, name: str, *, audience: str | None = None, subject: str | None = None) -> str:
        sample = sample_of(name)
        return self.provider.token(sample.issuer, audience or sample.audience, subject or str(sample.claims["sub"]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("openid")
    authority = Authority("issuers of the tests")
    hosts = sorted({str(urlsplit(sample_of(name).issuer).hostname) for name in METHODS})
    certificate, key = authority.serving("issuers", dns_names=hosts, addresses=[]).write(directory, "serving")
    trusted = directory / "ca.crt"
    trusted.write_bytes(authority.certificate)
    users = {sample_of(name).issuer: users_of(name) for name in METHODS}
    with OpenIDProvider(directory, certificate=certificate, key=key, authorities=trusted, users=users) as provider:
        yield World(provider, ssl.create_default_context(cafile=trusted), dict.fromkeys(hosts, (LOOPBACK, provider.port)))


def users_of(name: str) -> list[Json]:
    """The sample's user, one that has nothing but a name, and one of another organization."""
    good = {key: value for key, value in sample_of(name).claims.items() if key != "nbf"}
    other = {key: "something-else" if isinstance(value, str) else value for key, value in good.items()}
    return [good, {"sub": "nobody"}, other | {"sub": "p://other/other/other", "google": {}, "oidc.circleci.com/context-ids": []}]


async def no_review(_token: str, _audience: str) -> NoReturn:
    raise AssertionError("no TokenReview in these methods")


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def outside(world: World, clock: SteppedClock) -> AsyncIterator[Issuers]:
    issuers = Issuers(review=no_review, clock=clock, ssl_context=world.tls, connect=world.connect)
    yield issuers
    await issuers.close()


async def verified(name: str, token: str, outside: Issuers, *, cluster: str = CLUSTER, later: timedelta = timedelta(0)) -> Proved:
    join_token = join_token_of(name)
    asked = Asked(cluster_name=cluster, challenge=None, now=datetime.now(UTC) + later)
    return await join_token.method.verify(join_token.settings, TokenProof.model_validate({"token": token}), asked, outside)


async def reason_of(name: str, token: str, outside: Issuers, **more: Any) -> str:
    with pytest.raises(Denied) as caught:
        await verified(name, token, outside, **more)
    return caught.value.reason


@pytest.mark.parametrize("name", METHODS)
async def test_token_of_the_platform_is_let_in(name: str, world: World, outside: Issuers) -> None:
    proved = await verified(name, world.token(name), outside)
    assert proved.subject == sample_of(name).claims["sub"]
    assert set(proved.unknown) <= ELSEWHERE


@pytest.mark.parametrize("name", METHODS)
async def test_another_user_of_the_platform_is_not(name: str, world: World, outside: Issuers) -> None:
    refused = {"NotAPipeline", "WrongOrganization", "RulesNotMatched"}
    for subject in ("nobody", "p://other/other/other"):
        assert await reason_of(name, world.token(name, subject=subject), outside) in refused


@pytest.mark.parametrize("name", METHODS)
async def test_token_for_somebody_else_is_not(name: str, world: World, outside: Issuers) -> None:
    assert await reason_of(name, world.token(name, audience="other.test"), outside) == "WrongAudience"


@pytest.mark.parametrize("name", METHODS)
async def test_token_that_has_expired_or_not_begun_is_not(name: str, world: World, outside: Issuers) -> None:
    token = world.token(name)
    assert await reason_of(name, token, outside, later=timedelta(hours=1, minutes=1)) == "TokenExpired"
    assert await reason_of(name, token, outside, later=-timedelta(minutes=1)) == "TokenNotYetValid"


@pytest.mark.parametrize("name", METHODS)
async def test_token_of_another_issuer_is_not(name: str, world: World, outside: Issuers) -> None:
    other = METHODS[METHODS.index(name) - 1]
    token = world.provider.token(sample_of(other).issuer, sample_of(name).audience, str(sample_of(other).claims["sub"]))
    assert await reason_of(name, token, outside) == "KeyUnknown"


@pytest.mark.parametrize("name", METHODS)
async def test_forged_token_is_not(name: str, world: World, outside: Issuers) -> None:
    header, payload, signature = world.token(name).split(".")
    kid = await published_kid(name, outside)
    forger, sample = rsa_key("forger"), sample_of(name)
    now = int(datetime.now(UTC).timestamp())
    claims = sample.token(iat=now, exp=now + 300)
    assert await reason_of(name, signed(claims, forger, kid=kid), outside) == "SignatureInvalid"
    assert await reason_of(name, signed(claims, forger, kid="forged"), outside) == "KeyUnknown"
    assert (
        await reason_of(name, assembled({"alg": "none", "kid": kid}, claims, lambda _data: b""), outside) == "AlgorithmNotTaken"
    )
    jku = {"alg": "RS256", "kid": kid, "jku": "https://nobody.example.test/jwks"}
    assert await reason_of(name, assembled(jku, claims, rs256(forger)), outside) == "SignatureInvalid"
    other = world.token(name, subject="nobody").split(".")
    assert await reason_of(name, f"{header}.{payload}.{other[2]}", outside) == "SignatureInvalid"
    assert await reason_of(name, f"{header}.{other[1]}.{signature}", outside) == "SignatureInvalid"


async def published_kid(name: str, outside: Issuers) -> str:
    (kid,) = (await outside.keys(sample_of(name).issuer, "any")).keys
    return kid


async def test_new_keys_of_an_issuer_are_fetched_once_it_cooled_down(world: World, clock: SteppedClock, outside: Issuers) -> None:
    assert await verified("github", world.token("github"), outside)
    world.provider.stop()
    world.provider.start()
    token = world.token("github")
    assert await reason_of("github", token, outside) == "KeyUnknown"
    clock.step(COOLDOWN)
    assert await verified("github", token, outside)


async def test_issuer_that_is_away_lets_its_tokens_be_good(world: World, clock: SteppedClock, outside: Issuers) -> None:
    token = world.token("gitlab")
    assert await verified("gitlab", token, outside)
    world.provider.stop()
    try:
        clock.step(FRESH + COOLDOWN)
        assert await verified("gitlab", token, outside)
        with pytest.raises(Unavailable, match="IssuerAway"):
            await outside.keys(GENERIC.issuer, "any")
    finally:
        world.provider.start()


async def test_certificate_of_another_name_is_not_trusted(world: World, outside: Issuers) -> None:
    issuers = Issuers(review=no_review, ssl_context=world.tls, connect={urlsplit(DEAD).netloc: (LOOPBACK, world.provider.port)})
    with pytest.raises(Unavailable, match="IssuerAway"):
        await issuers.keys(DEAD, "any")
    await issuers.close()
    assert await outside.keys(GENERIC.issuer, "any")


async def test_authority_that_nobody_trusts_is_not_trusted(world: World) -> None:
    issuers = Issuers(review=no_review, connect=world.connect)
    with pytest.raises(Unavailable, match="IssuerAway"):
        await issuers.keys(GENERIC.issuer, "any")
    await issuers.close()


async def test_path_that_is_not_the_issuer_s_is_no_issuer(outside: Issuers) -> None:
    for issuer in (GENERIC.issuer + "/", GENERIC.issuer + "/x", "https://login.example.test"):
        with pytest.raises(Unavailable):
            await outside.keys(issuer, "any")


async def test_request_of_a_method(outside: Issuers) -> None:
    request = HTTPSRequest("GET", "login.example.test", "/realms/ci/jwks", {"Accept": "application/json"})
    answer = await outside.send(request)
    assert answer.status == 200
    assert b'"keys"' in answer.body
    with pytest.raises(Invalid, match="RequestRefused"):
        await outside.send(replace(request, host="login.example.test:8443"))
