"""ServiceAccounts of bots, their tokens (TokenRequest) and the proof of these (TokenReview)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from machinebot.errors import NotFound, Unavailable
from machinebot.kube.client import KubeClient
from machinebot.kube.owned import Owner, is_managed, our_metadata, owner_uid
from machinebot.kube.resources import SERVICE_ACCOUNTS, TOKEN_REVIEWS

TOKEN_SECONDS: Final = 600
"""Life of the tokens that bots join with: the least that Kubernetes issues, and the most that the fence lets through."""


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """A ServiceAccount as read.

    Attributes:
        uid: Which incarnation.
        owner_uid: UID of the bot that it was made for, or None.
        managed: Whether it carries our label.
        deleting: Whether it is on its way out.
    """

    uid: str
    owner_uid: str | None
    managed: bool
    deleting: bool


class ServiceAccounts:
    """Makes ServiceAccounts and asks for their tokens."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def look(self, namespace: str, name: str) -> FoundAccount | None:
        """The ServiceAccount as it is, or None where there is none."""
        body = await self._client.get(SERVICE_ACCOUNTS, namespace, name)
        if body is None:
            return None
        metadata = body["metadata"]
        return FoundAccount(
            uid=str(metadata["uid"]),
            owner_uid=owner_uid(metadata),
            managed=is_managed(metadata),
            deleting="deletionTimestamp" in metadata,
        )

    async def uid(self, namespace: str, name: str) -> str | None:
        """UID of the ServiceAccount, or None where there is none (or it is being deleted)."""
        found = await self.look(namespace, name)
        return None if found is None or found.deleting else found.uid

    async def create(self, namespace: str, name: str, owner: Owner) -> str:
        """Makes a ServiceAccount that is deleted along with its owner; returns its UID. No token is mounted anywhere.

        Raises:
            Conflict: There is one of that name.
        """
        body = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": our_metadata(namespace, name, owner),
            "automountServiceAccountToken": False,
        }
        answer = await self._client.create(SERVICE_ACCOUNTS, namespace, body)
        return str(answer["metadata"]["uid"])

    async def token(self, namespace: str, name: str, audience: str) -> str:
        """A token of the ServiceAccount, good for one audience and ten minutes.

        Raises:
            Unavailable: There is no such ServiceAccount (reason `ServiceAccountMissing`).
        """
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": TOKEN_SECONDS},
        }
        try:
            answer = await self._client.create(SERVICE_ACCOUNTS, namespace, body, name=name, subresource="token")
        except NotFound as error:
            raise missing(namespace, name) from error
        return str(answer["status"]["token"])


def missing(namespace: str, name: str) -> Unavailable:
    """The failure for a ServiceAccount that a person named and that is not there."""
    return Unavailable(
        "ServiceAccountMissing",
        f"there is no ServiceAccount {name!r} in the namespace {namespace!r}: create it, or leave serviceAccountName out and "
        "the operator makes one",
    )


class TokenReviews:
    """Asks the API server whose token it is (authentication.k8s.io/v1 TokenReview)."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        """The status of the review, as the API server gave it."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        answer = await self._client.create(TOKEN_REVIEWS, "", body)
        status: Mapping[str, Any] = answer.get("status") or {}
        return status
