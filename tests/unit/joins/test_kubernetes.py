"""The method `kubernetes`: tokens of pods of the own cluster by review, those of another cluster by its keys."""

import base64
import copy
from collections.abc import Mapping
from typing import Any

import pytest

from machinebot.errors import Denied, Invalid, Unavailable
from machinebot.joins.base import Proved, TokenProof
from machinebot.joins.jwts import MAX_TOKEN
from machinebot.joins.methods.kubernetes import METHOD, KubernetesSettings
from support.issuing import ASKED, CLUSTER, SECONDS, Json, KnownKeys, jwks, keys_of, public_jwk, rsa_key, signed

KEY = rsa_key("kubernetes")
ISSUER = "https://k8s.example.test"
ACCOUNT = "ci:deployer"
CLAIMS: Json = {
    "iss": ISSUER,
    "aud": [CLUSTER],
    "sub": "system:serviceaccount:ci:deployer",
    "iat": SECONDS,
    "nbf": SECONDS,
    "exp": SECONDS + 600,
    "kubernetes.io": {
        "namespace": "ci",
        "pod": {"name": "web-1", "uid": "p"},
        "serviceaccount": {"name": "deployer", "uid": "s"},
        "node": {"name": "n1", "uid": "n"},
    },
}
REVIEW: Json = {
    "authenticated": True,
    "audiences": [CLUSTER],
    "user": {
        "username": "system:serviceaccount:ci:deployer",
        "uid": "0b8d7f10",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/pod-name": ["web-1"]},
    },
}


def changed(document: Mapping[str, Any], path: str, value: Any) -> Json:
    """The document with one field of another value; without it where the value is `...`. A slash parts the keys."""
    copied = copy.deepcopy(dict(document))
    *parents, last = path.split("/")
    place = copied
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copied


class Reviewed:
    """`Outside` that is an API server, which reviews tokens, and nothing else."""

    def __init__(self, status: Mapping[str, Any] | Exception) -> None:
        self._status = status
        self.asked: list[tuple[str, str]] = []

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        self.asked.append((token, audience))
        if isinstance(self._status, Exception):
            raise self._status
        return self._status


def settings(kind: str = "static_jwks", *rules: Json, **fields: Any) -> KubernetesSettings:
    given: Json = {"type": kind, "allow": list(rules) or [{"serviceAccount": ACCOUNT}]}
    if kind == "static_jwks":
        given["staticJWKS"] = {"jwks": jwks(public_jwk(KEY))}
    elif kind == "oidc":
        given["oidc"] = {"issuer": ISSUER}
    return KubernetesSettings.model_validate({**given, **fields})


async def proved(wanted: KubernetesSettings, token: str, outside: Any = None) -> Proved:
    proof = TokenProof.model_validate({"token": token})
    return await METHOD.verify(wanted, proof, ASKED, outside or KnownKeys({ISSUER: keys_of(KEY)}))


async def reason_of(wanted: KubernetesSettings, token: str, outside: Any = None) -> str:
    with pytest.raises(Denied) as caught:
        await proved(wanted, token, outside)
    assert not token or token not in str(caught.value)
    return caught.value.reason


# --- of the own cluster -------------------------------------------------------------------------------------------------


async def test_pod_of_the_own_cluster_is_asked_for_by_review() -> None:
    outside = Reviewed(REVIEW)
    found = await proved(settings("in_cluster"), "opaque", outside)
    assert outside.asked == [("opaque", CLUSTER)]
    assert found.subject == "system:serviceaccount:ci:deployer"
    assert found.attributes == {"serviceAccount": ACCOUNT, "pod": "web-1"}


async def test_type_is_in_cluster_unless_it_is_said() -> None:
    wanted = KubernetesSettings.model_validate({"allow": [{"serviceAccount": ACCOUNT}]})
    assert (await proved(wanted, "opaque", Reviewed(REVIEW))).attributes["pod"] == "web-1"


NO_POD = changed(REVIEW, "user/extra", {})

REVIEWS = {
    "not authenticated": (changed(REVIEW, "authenticated", False), "TokenNotAuthenticated"),
    "an error": (changed(REVIEW, "error", "expired"), "TokenNotAuthenticated"),
    "another audience": (changed(REVIEW, "audiences", ["other.test"]), "WrongAudience"),
    "no audiences": (changed(REVIEW, "audiences", []), "WrongAudience"),
    "a person": (changed(REVIEW, "user/username", "alice"), "NotAServiceAccount"),
    "no status": ({"authenticated": "yes"}, "UnreadableReview"),
    "no pod": (NO_POD, "TokenNotBound"),
    "two pods": (
        changed(REVIEW, "user/extra", {"authentication.kubernetes.io/pod-name": ["web-1", "web-2"]}),
        "TokenNotBound",
    ),
    "another ServiceAccount": (
        changed(REVIEW, "user/username", "system:serviceaccount:ci:other"),
        "RulesNotMatched",
    ),
}


@pytest.mark.parametrize(("status", "reason"), REVIEWS.values(), ids=REVIEWS)
async def test_reviews_that_let_nobody_in(status: Json, reason: str) -> None:
    assert await reason_of(settings("in_cluster"), "opaque", Reviewed(status)) == reason


async def test_rule_that_the_schema_would_refuse_lets_no_unbound_token_of_the_own_cluster_in() -> None:
    wanted = settings("in_cluster", {"serviceAccount": ACCOUNT, "unbound": True})
    assert await reason_of(wanted, "opaque", Reviewed(NO_POD)) == "TokenNotBound"


@pytest.mark.parametrize("token", ["", "x" * (MAX_TOKEN + 1)], ids=["empty", "too long"])
async def test_no_review_is_asked_for_what_is_no_token(token: str) -> None:
    outside = Reviewed(REVIEW)
    assert await reason_of(settings("in_cluster"), token, outside) == "TokenUnreadable"
    assert outside.asked == []


async def test_api_server_that_is_away_is_no_refusal() -> None:
    with pytest.raises(Unavailable):
        await proved(settings("in_cluster"), "opaque", Reviewed(Unavailable("ServerAway", "away")))


# --- of another cluster -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["static_jwks", "oidc"])
async def test_pod_of_another_cluster_is_let_in_by_the_keys_of_that_cluster(kind: str) -> None:
    found = await proved(settings(kind), signed(CLAIMS, KEY))
    assert found.subject == "system:serviceaccount:ci:deployer"
    assert found.attributes == {"serviceAccount": ACCOUNT, "pod": "web-1"}


async def test_one_rule_of_several_is_enough() -> None:
    rules = ({"serviceAccount": "ci:other"}, {"serviceAccount": ACCOUNT})
    assert await proved(settings("static_jwks", *rules), signed(CLAIMS, KEY))


async def test_given_keys_are_of_whatever_issuer_and_fetched_ones_are_not() -> None:
    token = signed({**CLAIMS, "iss": "https://elsewhere.test"}, KEY)
    assert await proved(settings("static_jwks"), token)
    assert await reason_of(settings("oidc"), token) == "WrongIssuer"


CHANGED = {
    "for another audience": ("aud", ["other.test"], "WrongAudience"),
    "without an audience": ("aud", ..., "WrongAudience"),
    "expired": ("exp", SECONDS - 60, "TokenExpired"),
    "without an end": ("exp", ..., "TokenUnreadable"),
    "from the future": ("nbf", SECONDS + 60, "TokenNotYetValid"),
    "of 30 minutes and a second": ("exp", SECONDS + 1801, "TokenTooLongLived"),
    "of a year": ("exp", SECONDS + 31_536_000, "TokenTooLongLived"),
    "of another platform": ("kubernetes.io", ..., "NotAServiceAccount"),
    "with claims that are none": ("kubernetes.io", "ci", "NotAServiceAccount"),
    "without a namespace": ("kubernetes.io/namespace", ..., "NotAServiceAccount"),
    "with a namespace that is a list": ("kubernetes.io/namespace", ["ci"], "NotAServiceAccount"),
    "without a ServiceAccount": ("kubernetes.io/serviceaccount", ..., "NotAServiceAccount"),
    "with a ServiceAccount as text": ("kubernetes.io/serviceaccount", "deployer", "NotAServiceAccount"),
    "with a name that is a number": ("kubernetes.io/serviceaccount/name", 7, "NotAServiceAccount"),
    "with an empty name": ("kubernetes.io/serviceaccount/name", "", "NotAServiceAccount"),
    "without a subject": ("sub", ..., "NotAServiceAccount"),
    "whose subject is another account": ("sub", "system:serviceaccount:ci:other", "NotAServiceAccount"),
    "whose subject is of another namespace": ("sub", "system:serviceaccount:prod:deployer", "NotAServiceAccount"),
    "whose claims name another account": ("kubernetes.io/serviceaccount/name", "other", "NotAServiceAccount"),
    "whose claims name another namespace": ("kubernetes.io/namespace", "prod", "NotAServiceAccount"),
    "bound to no pod": ("kubernetes.io/pod", ..., "TokenNotBound"),
    "bound to a pod without a name": ("kubernetes.io/pod", {"uid": "p"}, "TokenNotBound"),
    "bound to a pod as text": ("kubernetes.io/pod", "web-1", "TokenNotBound"),
}


@pytest.mark.parametrize("kind", ["static_jwks", "oidc"])
@pytest.mark.parametrize(("path", "value", "reason"), CHANGED.values(), ids=CHANGED)
async def test_tokens_of_another_cluster_that_let_nobody_in(kind: str, path: str, value: Any, reason: str) -> None:
    assert await reason_of(settings(kind), signed(changed(CLAIMS, path, value), KEY)) == reason


async def test_thirty_minutes_are_let_in() -> None:
    assert await proved(settings(), signed({**CLAIMS, "exp": SECONDS + 1800}, KEY))


async def test_account_without_a_rule_is_refused_bound_or_not() -> None:
    wanted = settings("static_jwks", {"serviceAccount": "ci:other", "unbound": True})
    assert await reason_of(wanted, signed(CLAIMS, KEY)) == "RulesNotMatched"
    assert await reason_of(wanted, signed(changed(CLAIMS, "kubernetes.io/pod", ...), KEY)) == "RulesNotMatched"


async def test_key_of_somebody_else_lets_nobody_in() -> None:
    token = signed(CLAIMS, rsa_key("somebody else"))
    for kind in ("static_jwks", "oidc"):
        assert await reason_of(settings(kind), token) == "SignatureInvalid"


async def test_issuer_that_is_away_is_no_refusal() -> None:
    with pytest.raises(Unavailable):
        await proved(settings("oidc"), signed(CLAIMS, KEY), KnownKeys({}))


async def test_given_keys_are_asked_for_nowhere() -> None:
    assert await proved(settings("static_jwks"), signed(CLAIMS, KEY), KnownKeys({}))


# --- bound to no pod ----------------------------------------------------------------------------------------------------

UNBOUND = changed(CLAIMS, "kubernetes.io/pod", ...)


@pytest.mark.parametrize("kind", ["static_jwks", "oidc"])
async def test_operator_of_another_cluster_joins_where_the_rule_says_so(kind: str) -> None:
    wanted = settings(kind, {"serviceAccount": ACCOUNT, "unbound": True})
    found = await proved(wanted, signed(UNBOUND, KEY))
    assert found.attributes == {"serviceAccount": ACCOUNT}
    assert (await proved(wanted, signed(CLAIMS, KEY))).attributes == {"serviceAccount": ACCOUNT, "pod": "web-1"}


async def test_unbound_is_of_its_own_rule() -> None:
    wanted = settings("static_jwks", {"serviceAccount": ACCOUNT}, {"serviceAccount": "ci:other", "unbound": True})
    assert await reason_of(wanted, signed(UNBOUND, KEY)) == "TokenNotBound"


async def test_unbound_tokens_live_no_longer_than_others() -> None:
    wanted = settings("static_jwks", {"serviceAccount": ACCOUNT, "unbound": True})
    assert await reason_of(wanted, signed({**UNBOUND, "exp": SECONDS + 1801}, KEY)) == "TokenTooLongLived"


def test_what_joins_without_a_pod_is_warned_of() -> None:
    wanted = settings("static_jwks", {"serviceAccount": ACCOUNT}, {"serviceAccount": "ci:other", "unbound": True})
    (warning,) = METHOD.warnings(wanted)
    assert "ci:other" in warning
    assert METHOD.warnings(settings()) == ()


# --- settings that cannot work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["static_jwks", "oidc"])
async def test_type_without_its_keys_is_told(kind: str) -> None:
    wanted = settings(kind, staticJWKS=None, oidc=None)
    with pytest.raises(Invalid) as caught:
        await proved(wanted, signed(CLAIMS, KEY))
    assert caught.value.reason == "InvalidSpec"


async def test_given_keys_that_are_none_are_told() -> None:
    wanted = settings(staticJWKS={"jwks": base64.b64encode(b"keys").decode()})
    with pytest.raises(Invalid):
        await proved(wanted, signed(CLAIMS, KEY))


def test_audience_is_the_cluster_name() -> None:
    assert METHOD.audience(settings(), CLUSTER) == CLUSTER
