"""What a TokenReview must say of a ServiceAccount token (authentication.k8s.io/v1).

Nothing that the API server says is quoted in a message: its errors repeat claims of the token.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ConfigDict, Field, ValidationError

from machinebot.errors import Denied
from machinebot.policy.credential import ServiceAccountRef
from machinebot.resources.meta import OBJECT_NAME, Model

_USER: Final = "system:serviceaccount:"
_GROUP: Final = "system:serviceaccounts"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(OBJECT_NAME)
_MAX_NAME: Final = 253
_UID: Final = re.compile(r"[!-~]{1,128}")
"""The API server makes UIDs; a longer or unprintable one is none of its."""


POD: Final = "authentication.kubernetes.io/pod-name"
"""Where the API server tells the pod that a token is bound to (since Kubernetes 1.22)."""


class _User(Model):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    username: str = ""
    uid: str = ""
    groups: list[str] = Field(default_factory=list)
    extra: dict[str, list[str]] = Field(default_factory=dict)


class _Review(Model):
    """The status of a TokenReview. Strict: a field of another type than Kubernetes declares is not read at all."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    authenticated: bool = False
    error: str = ""
    audiences: list[str] = Field(default_factory=list)
    user: _User = Field(default_factory=_User)

    @property
    def account(self) -> tuple[str, str] | None:
        """Namespace and name of the ServiceAccount in the user name, or None where it is not one."""
        parts = self.user.username.removeprefix(_USER).split(":")
        if not self.user.username.startswith(_USER) or len(parts) != len(("namespace", "name")):
            return None
        namespace, name = parts
        if _NAMESPACE.fullmatch(namespace) is None or _NAME.fullmatch(name) is None or len(name) > _MAX_NAME:
            return None
        return namespace, name


def _authenticated(review: _Review, _audience: str) -> bool:
    return review.authenticated


def _no_error(review: _Review, _audience: str) -> bool:
    return not review.error


def _our_audience(review: _Review, audience: str) -> bool:
    # An API server that knows no audiences leaves the list empty, and has then taken a token for itself.
    return bool(audience) and audience in review.audiences


def _service_account(review: _Review, _audience: str) -> bool:
    return review.account is not None


def _groups(review: _Review, _audience: str) -> bool:
    # The API server puts every ServiceAccount into both; an authenticator that only imitates the user name does not.
    namespace = review.account[0] if review.account else ""
    return {_GROUP, f"{_GROUP}:{namespace}"} <= set(review.user.groups)


def _uid(review: _Review, _audience: str) -> bool:
    return _UID.fullmatch(review.user.uid) is not None


_Check = Callable[[_Review, str], bool]

CHECKS: Final[tuple[tuple[_Check, str, str], ...]] = (
    (
        _authenticated,
        "TokenNotAuthenticated",
        "the API server does not take the token: it may have expired, or its ServiceAccount or pod is gone; get a new one",
    ),
    (
        _no_error,
        "TokenNotAuthenticated",
        "the API server reports an error with the token: get a new one, and look into the log of the API server",
    ),
    (
        _our_audience,
        "WrongAudience",
        "the token is not for this authority: ask for one whose audience is exactly the authority's spec.clusterName",
    ),
    (
        _service_account,
        "NotAServiceAccount",
        "the token is not one of a ServiceAccount: join with a token of the bot's ServiceAccount",
    ),
    (
        _groups,
        "NotAServiceAccount",
        "the token's user lacks the groups of a ServiceAccount: join with a token that this API server has made",
    ),
    (
        _uid,
        "NotAServiceAccount",
        "the API server gives no UID for the ServiceAccount: join with a token that this API server has made",
    ),
)
"""What a review must say: check, reason, message. Order is the contract: later checks read what earlier ones have let pass."""


def verify_review(status: Mapping[str, Any], *, audience: str) -> ServiceAccountRef:
    """The ServiceAccount that a reviewed token belongs to.

    Args:
        status: `status` of the TokenReview as JSON from the API server.
        audience: The audience that the review asked for; it must be among those that the API server confirms.

    Raises:
        Denied: A check fails, or the status is none (`UnreadableReview`).
    """
    try:
        review = _Review.model_validate(status)
    except ValidationError:
        raise Denied(
            "UnreadableReview", "the API server's answer about the token does not have the form of a TokenReview's status"
        ) from None
    for check, reason, message in CHECKS:
        if not check(review, audience):
            raise Denied(reason, message)
    namespace, name = review.account or ("", "")
    return ServiceAccountRef(namespace=namespace, name=name, uid=review.user.uid)


def pod_of(status: Mapping[str, Any]) -> str:
    """Name of the pod that a reviewed token is bound to; empty where it is bound to none.

    Args:
        status: One that `verify_review` has let pass.
    """
    pods = _Review.model_validate(status).user.extra.get(POD, [])
    return pods[0] if len(pods) == 1 else ""
