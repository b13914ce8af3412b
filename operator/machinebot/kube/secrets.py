"""Secrets as they are stored: read, create, replace, delete. What stands in them is decided elsewhere."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from machinebot.errors import Invalid
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.owned import Owner, is_managed, our_metadata, owner_uid
from machinebot.kube.resources import SECRETS
from machinebot.resources.output import SecretType

OPAQUE: Final = "Opaque"
"""The type of a Secret whose keys the API server does not look at."""

OWN_TYPES: Final = frozenset(get_args(SecretType))
"""The types of Secrets that we write (design rule 5). One of ours with another type was made by somebody else."""

MAX_SECRET: Final = 1024 * 1024
"""Largest Secret that Kubernetes stores, bytes."""


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A Secret as read. Its text form does not show the data."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    owner_uid: str | None
    managed: bool
    deleting: bool
    type: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    data: Mapping[str, bytes] = field(repr=False)


class SecretStore:
    """Reads and writes Secrets."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def read(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret, or None where there is none."""
        body = await self._client.get(SECRETS, namespace, name)
        return None if body is None else _stored(body)

    async def labelled(self, namespace: str, selector: str) -> list[StoredSecret]:
        """Every Secret of the namespace with those labels."""
        return [_stored(body) async for page in self._client.pages(SECRETS, namespace, selector=selector) for body in page.items]

    async def create(
        self,
        namespace: str,
        name: str,
        data: Mapping[str, bytes],
        *,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        owner: Owner | None,
        kind: str = OPAQUE,
    ) -> StoredSecret:
        """Makes the Secret, whole; `kind` is its type.

        Raises:
            Conflict: There is one of that name.
        """
        body = _body(namespace, name, data, labels=labels, annotations=annotations, owner=owner, kind=kind)
        return _stored(await self._client.create(SECRETS, namespace, body))

    async def replace(
        self,
        old: StoredSecret,
        data: Mapping[str, bytes],
        *,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        owner: Owner | None,
        kind: str = OPAQUE,
    ) -> StoredSecret:
        """Replaces the Secret, whole, if it still is as it was read. Labels and annotations of others are kept.

        The API server refuses another `kind`: the type of a Secret cannot be changed.

        Raises:
            Conflict: It is not.
        """
        merged_labels = {**old.labels, **labels}
        merged_annotations = {**old.annotations, **annotations}
        body = _body(old.namespace, old.name, data, labels=merged_labels, annotations=merged_annotations, owner=owner, kind=kind)
        body["metadata"] |= {"resourceVersion": old.resource_version, "uid": old.uid}
        return _stored(await self._client.replace(SECRETS, old.namespace, old.name, body))

    async def delete(self, secret: StoredSecret) -> None:
        """Deletes exactly the Secret that was read."""
        await self._client.delete(
            SECRETS, secret.namespace, secret.name, uid=secret.uid, resource_version=secret.resource_version
        )


def _body(
    namespace: str,
    name: str,
    data: Mapping[str, bytes],
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    owner: Owner | None,
    kind: str,
) -> Json:
    if sum(map(len, data.values())) > MAX_SECRET:
        raise Invalid("SecretTooLarge", "the content is above the 1 MiB that a Secret holds")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": our_metadata(namespace, name, owner, labels=labels, annotations=annotations),
        "type": kind,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def _stored(body: Json) -> StoredSecret:
    metadata = body["metadata"]
    try:
        data = {key: base64.b64decode(value, validate=True) for key, value in (body.get("data") or {}).items()}
    except binascii.Error as error:  # pragma: no cover - the API server checks it
        raise Invalid("SecretDamaged", "the Secret holds what is no base64") from error
    return StoredSecret(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        owner_uid=owner_uid(metadata),
        managed=is_managed(metadata),
        deleting="deletionTimestamp" in metadata,
        type=body.get("type", OPAQUE),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        data=data,
    )
