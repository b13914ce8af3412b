"""JWT-SVIDs as verifiers take them: they find the keys by OpenID Connect Discovery over real HTTPS, and check with them.

What verifies is joserfc, not the library that signs.
"""

import base64
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError, DecodeError, ExpiredTokenError, InvalidClaimError, JoseError
from joserfc.jwk import KeySet
from spiffe import JwtBundle, JwtSvid, TrustDomain

from machinebot.policy.credential import AnchorState, Purpose
from support.inprocess import RunningOperator
from support.stage import Stage, Tenant
from support.verifier import HOST, fetch, public_of, trusting
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

AUDIENCE = "vault"
ALLOW: dict[str, Any] = {"logins": ["{{ internal.logins }}"], "jwtAudiences": [AUDIENCE], "spiffePaths": ["/ns/*"]}
ALGORITHMS = ["ES256", "ES384", "RS256"]


@pytest.fixture
def running(stage: Stage) -> Iterator[RunningOperator]:
    """An operator of the test's own, since the address of its HTTPS stands in the tokens."""
    with stage.operator() as operator:
        operator.wait_leading()
        with stage.clearing():
            yield operator


@dataclass(frozen=True)
class Verifier:
    """Somebody who was told an issuer and an audience, and trusts the CA of identities for HTTPS. Nothing else."""

    issuer: str
    tls: ssl.SSLContext
    audience: str = AUDIENCE

    def get(self, url: str) -> Any:
        """A document below the issuer."""
        start, port = f"https://{HOST}:", int(self.issuer.split(":")[2].split("/")[0])
        assert url.startswith(f"{start}{port}/")
        answer = fetch(port, url.removeprefix(f"{start}{port}"), self.tls)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def keys(self) -> KeySet:
        """The keys, found as OpenID Connect Discovery says."""
        found = self.get(f"{self.issuer}/.well-known/openid-configuration")
        assert found["issuer"] == self.issuer
        return KeySet.import_key_set(self.get(found["jwks_uri"]))

    def claims(self, token: bytes, running: RunningOperator, keys: KeySet | None = None) -> dict[str, Any]:
        """The claims, verified.

        Raises:
            JoseError: It is not to be trusted.
            ValueError: The same.
        """
        decoded = jwt.decode(token, keys or self.keys(), algorithms=ALGORITHMS)
        rules = jwt.JWTClaimsRegistry(
            now=int(running.clock.now().timestamp()),
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        rules.validate(decoded.claims)
        return decoded.claims


def new_authority(stage: Stage, running: RunningOperator, **spec: Any) -> tuple[str, str]:
    """An authority whose tokens name this operator's HTTPS: its name and issuer."""
    # Only its own address is known before it is made.
    name = f"jwt-{running.https_port}-{stage.count()[1]}"
    issuer = f"https://{HOST}:{running.https_port}/authorities/{name}"
    stage.authority(name, issuer=issuer, **spec)
    stage.authority_ready(name)
    tls = trusting(public_of(stage.authority_ready("default"), "identity"))
    path = f"/authorities/{name}/jwks"
    eventually("its keys are served", lambda: fetch(running.https_port, path, tls).status == HTTPStatus.OK)
    return name, issuer


def verifier(stage: Stage, issuer: str, *, any_time: bool = False) -> Verifier:
    ca = public_of(stage.authority_ready("default"), "identity")
    return Verifier(issuer, trusting(ca, any_time=any_time))


def token_of(tenant: Tenant, role: str) -> bytes:
    """The token of a new output."""
    tenant.bot(roles=(role,))
    tenant.output(jwtSVID={"audiences": [AUDIENCE]})
    tenant.ready()
    return tenant.secret().data["jwt_svid"]


def forged(token: bytes, header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> bytes:
    """The token with some of it changed, and the signature as it was."""
    parts = token.split(b".")
    for index, changes in ((0, header), (1, claims)):
        if changes is not None:
            read = json.loads(base64.urlsafe_b64decode(parts[index] + b"=="))
            parts[index] = base64.urlsafe_b64encode(json.dumps(read | changes).encode()).rstrip(b"=")
    return b".".join(parts)


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-4096"])
def test_a_verifier_that_knows_only_issuer_and_audience_takes_the_token(
    stage: Stage, running: RunningOperator, algorithm: str
) -> None:
    name, issuer = new_authority(stage, running, embedded={"keyAlgorithm": algorithm})
    role = stage.role(allow=ALLOW)
    with stage.tenant(name) as tenant:
        token = token_of(tenant, role)
        somebody = verifier(stage, issuer)
        claims = somebody.claims(token, running)
        assert claims["sub"] == f"spiffe://{CLUSTER_NAME}/ns/{tenant.namespace}/bot/deployer"
        assert (claims["iss"], claims["aud"]) == (issuer, [AUDIENCE])
        assert claims["exp"] - claims["nbf"] == timedelta(hours=24).total_seconds()
        keys = json.dumps(somebody.get(f"{issuer}/jwks")).encode()
        bundle = JwtBundle.parse(TrustDomain(CLUSTER_NAME), keys)
        assert str(JwtSvid.parse_and_validate(token.decode(), bundle, {AUDIENCE}).spiffe_id) == claims["sub"]


def test_the_discovery_document_is_what_clients_take(stage: Stage, running: RunningOperator) -> None:
    _, issuer = new_authority(stage, running)
    found = verifier(stage, issuer).get(f"{issuer}/.well-known/openid-configuration")
    assert found == {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


def test_what_is_not_right_is_refused(stage: Stage, running: RunningOperator) -> None:
    name, issuer = new_authority(stage, running)
    _, other_issuer = new_authority(stage, running)
    role = stage.role(allow=ALLOW)
    with stage.tenant(name) as tenant:
        token = token_of(tenant, role)
        somebody = verifier(stage, issuer)
        assert somebody.claims(token, running)
        with pytest.raises(InvalidClaimError, match="aud"):
            Verifier(issuer, somebody.tls, "bank").claims(token, running)
        with pytest.raises(BadSignatureError):
            somebody.claims(forged(token, claims={"sub": f"spiffe://{CLUSTER_NAME}/ns/ci/bot/root"}), running)
        with pytest.raises((JoseError, ValueError)):
            somebody.claims(forged(token, header={"alg": "none"}), running)
        with pytest.raises((JoseError, ValueError)):
            somebody.claims(forged(token, header={"alg": "none"}).rsplit(b".", 1)[0] + b".", running)
        with pytest.raises((JoseError, ValueError)):
            somebody.claims(forged(token, header={"alg": "HS256"}), running)
        other = Verifier(other_issuer, somebody.tls).keys()
        with pytest.raises((JoseError, ValueError)):
            somebody.claims(token, running, other)
        kid = other.keys[0].kid
        with pytest.raises((BadSignatureError, DecodeError)):
            somebody.claims(forged(token, header={"kid": kid}), running, other)
        keys = KeySet.import_key_set(somebody.get(f"{issuer}/jwks"))  # over TLS by the true time
        running.clock.step(timedelta(hours=25))
        with pytest.raises(ExpiredTokenError):
            somebody.claims(token, running, keys)


def test_who_does_not_trust_the_ca_gets_nothing(stage: Stage, running: RunningOperator) -> None:
    name, issuer = new_authority(stage, running)
    wrong = trusting(public_of(stage.authority_ready(name), "identity"))
    with pytest.raises(ssl.SSLCertVerificationError):
        Verifier(issuer, wrong).keys()


def test_over_a_rotation_every_token_verifies_as_long_as_it_lives(stage: Stage, running: RunningOperator) -> None:
    name, issuer = new_authority(stage, running, embedded={"rotation": {"every": "50h", "overlap": "25h"}})
    role = stage.role(allow=ALLOW)
    somebody = verifier(stage, issuer, any_time=True)
    with stage.tenant(name) as tenant:
        tokens = [token_of(tenant, role)]
        signers: list[str] = []
        for _ in range(14):
            running.step(timedelta(hours=6))
            running.wait_quiet()
            running.settle()
            latest = tenant.secret().data["jwt_svid"]
            tokens += [latest] if latest != tokens[-1] else []
            published = published_by(stage, name)
            # Served by the keeper's own watch, a moment later.
            keys = eventually("the keys are served", lambda known=published: same(somebody.keys(), known))
            for token in tokens:
                kid, end = header(token)["kid"], unverified(token)["exp"]
                if end > running.clock.now().timestamp():
                    assert somebody.claims(token, running, keys)["exp"] == end
                else:
                    with pytest.raises((JoseError, ValueError)):
                        somebody.claims(token, running, keys)
                if kid not in signers:
                    signers.append(kid)
        assert len(signers) >= 2, "the CA has rotated"
        assert len(tokens) >= 6


def published_by(stage: Stage, name: str) -> set[str]:
    """The generations of the CA of workloads, by its status."""
    status = stage.authority_ready(name)["status"]
    states = {state.value for state in AnchorState}
    return {each["id"] for each in status["authorities"] if each["purpose"] == Purpose.WORKLOAD and each["state"] in states}


def same(keys: KeySet, ids: set[str]) -> KeySet | None:
    return keys if {key.kid for key in keys.keys} == ids else None


def header(token: bytes) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.split(b".")[0] + b"==")))


def unverified(token: bytes) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.split(b".")[1] + b"==")))
