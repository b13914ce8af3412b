"""What a TokenReview must say before a ServiceAccount is believed."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import Denied
from machinebot.joins.reviews import CHECKS, verify_review
from machinebot.policy.credential import ServiceAccountRef

AUDIENCE = "example.test"
GOOD: Mapping[str, Any] = {
    "authenticated": True,
    "audiences": [AUDIENCE],
    "user": {
        "username": "system:serviceaccount:ci:deployer",
        "uid": "0b8d7f10-7c1e-4a51-bd5c-0c3c2c7f6f5e",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/pod-name": ["web-1"]},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good status with one field of another value; without it where the value is `...`."""
    status = copy.deepcopy(dict(GOOD))
    *parents, last = path.split(".")
    place = status
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return status


def reason_of(status: Any, audience: str = AUDIENCE) -> str:
    with pytest.raises(Denied) as caught:
        verify_review(status, audience=audience)
    return caught.value.reason


def test_good_review_gives_the_service_account() -> None:
    account = verify_review(GOOD, audience=AUDIENCE)
    assert account == ServiceAccountRef(namespace="ci", name="deployer", uid="0b8d7f10-7c1e-4a51-bd5c-0c3c2c7f6f5e")


def test_more_audiences_and_a_dotted_name_are_good() -> None:
    status = changed("audiences", ["https://kubernetes.default.svc", AUDIENCE])
    status["user"]["username"] = "system:serviceaccount:ci:deployer.v1"
    assert verify_review(status, audience=AUDIENCE).name == "deployer.v1"


USERS = {
    "a person": "alice",
    "an empty one": "",
    "a node": "system:node:worker-1",
    "no name": "system:serviceaccount:ci",
    "an empty name": "system:serviceaccount:ci:",
    "an empty namespace": "system:serviceaccount::deployer",
    "three parts": "system:serviceaccount:ci:deployer:x",
    "prefixed by an authenticator": "oidc:system:serviceaccount:ci:deployer",
    "prefix without the end": "system:serviceaccountx:ci:deployer",
    "upper case prefix": "System:ServiceAccount:ci:deployer",
    "upper case namespace": "system:serviceaccount:CI:deployer",
    "dotted namespace": "system:serviceaccount:ci.x:deployer",
    "namespace too long": f"system:serviceaccount:{'n' * 64}:deployer",
    "name too long": f"system:serviceaccount:ci:{'n' * 254}",
    "slash": "system:serviceaccount:ci:../kube-system",
    "newline at the end": "system:serviceaccount:ci:deployer\n",
    "newline after the namespace": "system:serviceaccount:ci\n:deployer",
    "blank": "system:serviceaccount:ci: deployer",
    "wildcard": "system:serviceaccount:ci:*",
    "full-width colon": "system:serviceaccount:ci\uff1adeployer",
    "homoglyph": "system:serviceaccount:ci:d\u0435ployer",
    "nul": "system:serviceaccount:ci:deployer\x00",
}


@pytest.mark.parametrize("username", USERS.values(), ids=USERS.keys())
def test_users_that_are_no_service_accounts(username: Any) -> None:
    assert reason_of(changed("user.username", username)) == "NotAServiceAccount"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        pytest.param("authenticated", False, "TokenNotAuthenticated", id="not authenticated"),
        pytest.param("authenticated", ..., "TokenNotAuthenticated", id="authenticated missing"),
        pytest.param("authenticated", "true", "UnreadableReview", id="authenticated is text"),
        pytest.param("authenticated", 1, "UnreadableReview", id="authenticated is a number"),
        pytest.param("authenticated", None, "UnreadableReview", id="authenticated is null"),
        pytest.param("error", "token lookup failed", "TokenNotAuthenticated", id="error beside authenticated"),
        pytest.param("audiences", [], "WrongAudience", id="API server that knows no audiences"),
        pytest.param("audiences", ..., "WrongAudience", id="audiences missing"),
        pytest.param("audiences", ["other.test"], "WrongAudience", id="another audience"),
        pytest.param("audiences", ["example.test."], "WrongAudience", id="audience with a dot after it"),
        pytest.param("audiences", ["EXAMPLE.TEST"], "WrongAudience", id="audience in upper case"),
        pytest.param("audiences", "example.test", "UnreadableReview", id="audiences is text"),
        pytest.param("audiences", ["example.test", 7], "UnreadableReview", id="an audience is a number"),
        pytest.param("user", ..., "NotAServiceAccount", id="user missing"),
        pytest.param("user", [], "UnreadableReview", id="user is a list"),
        pytest.param("user", None, "UnreadableReview", id="user is null"),
        pytest.param("user.username", 7, "UnreadableReview", id="user name is a number"),
        pytest.param("user.groups", ..., "NotAServiceAccount", id="groups missing"),
        pytest.param("user.groups", [], "NotAServiceAccount", id="no groups"),
        pytest.param("user.groups", ["system:serviceaccounts"], "NotAServiceAccount", id="group of the namespace missing"),
        pytest.param("user.groups", ["system:serviceaccounts:ci"], "NotAServiceAccount", id="group of all missing"),
        pytest.param(
            "user.groups",
            ["system:serviceaccounts", "system:serviceaccounts:other"],
            "NotAServiceAccount",
            id="group of another namespace",
        ),
        pytest.param("user.groups", "system:serviceaccounts", "UnreadableReview", id="groups is text"),
        pytest.param("user.uid", "", "NotAServiceAccount", id="UID empty"),
        pytest.param("user.uid", ..., "NotAServiceAccount", id="UID missing"),
        pytest.param("user.uid", "x" * 129, "NotAServiceAccount", id="UID too long"),
        pytest.param("user.uid", "x\n", "NotAServiceAccount", id="UID with a newline"),
    ],
)
def test_reviews_that_are_refused(path: Any, value: Any, reason: Any) -> None:
    assert reason_of(changed(path, value)) == reason


@pytest.mark.parametrize("status", [{}, None, [], "authenticated", 7], ids=str)
def test_what_is_no_status_is_refused(status: Any) -> None:
    assert reason_of(status) in {"TokenNotAuthenticated", "UnreadableReview"}


def test_no_audience_is_never_confirmed() -> None:
    assert reason_of(changed("audiences", [""]), audience="") == "WrongAudience"


def test_order_says_the_first_thing_that_is_wrong() -> None:
    status = changed("audiences", [])
    status |= {"authenticated": False, "user": {}}
    assert reason_of(status) == "TokenNotAuthenticated"
    assert reason_of(status | {"authenticated": True}) == "WrongAudience"
    assert reason_of(status | {"authenticated": True, "audiences": [AUDIENCE]}) == "NotAServiceAccount"
    assert [reason for _, reason, _ in CHECKS] == [
        "TokenNotAuthenticated",
        "TokenNotAuthenticated",
        "WrongAudience",
        "NotAServiceAccount",
        "NotAServiceAccount",
        "NotAServiceAccount",
    ]


@pytest.mark.parametrize("path", ["error", "user.username", "user.uid", "user.groups", "audiences"])
def test_no_message_repeats_what_the_api_server_said(path: Any) -> None:
    secret = "eyJhbGciOiJSUzI1NiJ9 secret"
    for value in (secret, [secret], {secret: secret}):
        with pytest.raises(Denied) as caught:
            verify_review(changed(path, value), audience=AUDIENCE)
        assert secret not in f"{caught.value!r} {caught.value}"
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    status=st.fixed_dictionaries(
        {},
        optional={
            "authenticated": JSON,
            "error": JSON,
            "audiences": JSON,
            "user": JSON | st.fixed_dictionaries({}, optional={"username": JSON, "uid": JSON, "groups": JSON}),
        },
    )
)
def test_anything_else_is_denied_and_nothing_else_is_raised(status: Any) -> None:
    assert reason_of(status)
