"""ConfigMaps as they are stored: read, create, replace, delete. What stands in them is decided elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from machinebot.kube.client import Json, KubeClient
from machinebot.kube.owned import Owner, is_managed, our_metadata, owner_uid
from machinebot.kube.resources import CONFIG_MAPS


@dataclass(frozen=True, slots=True)
class Content:
    """What a ConfigMap of ours is to hold.

    Attributes:
        data: Text by key.
        labels: Labels beside the one that says that it is ours.
        annotations: Annotations.
        owner: Whom it belongs to.
    """

    data: Mapping[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: Owner


@dataclass(frozen=True, slots=True)
class StoredConfigMap:
    """A ConfigMap as read."""

    body: Json

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Its metadata."""
        metadata: Mapping[str, Any] = self.body["metadata"]
        return metadata

    @property
    def managed(self) -> bool:
        """Whether it carries our label."""
        return is_managed(self.metadata)

    @property
    def immutable(self) -> bool:
        """Whether the API server lets nobody change its data."""
        return bool(self.body.get("immutable"))

    def holds(self, content: Content) -> bool:
        """Whether it is as it should be. Labels and annotations of others, and owners that control nothing, are theirs."""
        if (self.body.get("data") or {}) != content.data or self.body.get("binaryData") or self.immutable:
            return False
        labels, annotations = self.metadata.get("labels") or {}, self.metadata.get("annotations") or {}
        return (
            owner_uid(self.metadata) == content.owner.uid
            and content.labels.items() <= labels.items()
            and content.annotations.items() <= annotations.items()
        )


class ConfigMapStore:
    """Reads and writes ConfigMaps."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def read(self, namespace: str, name: str) -> StoredConfigMap | None:
        """The ConfigMap, or None where there is none."""
        body = await self._client.get(CONFIG_MAPS, namespace, name)
        return None if body is None else StoredConfigMap(body)

    async def create(self, namespace: str, name: str, content: Content) -> StoredConfigMap:
        """Makes the ConfigMap, whole.

        Raises:
            Conflict: There is one of that name.
            NotFound: There is no such namespace.
        """
        return StoredConfigMap(await self._client.create(CONFIG_MAPS, namespace, _body(namespace, name, content, {}, {})))

    async def replace(self, old: StoredConfigMap, content: Content) -> StoredConfigMap:
        """Replaces the ConfigMap if it still is as it was read. Labels and annotations of others are kept.

        Raises:
            Conflict: It is not.
        """
        namespace, name = old.metadata["namespace"], old.metadata["name"]
        labels, annotations = old.metadata.get("labels") or {}, old.metadata.get("annotations") or {}
        body = _body(namespace, name, content, labels, annotations)
        body["metadata"] |= {"resourceVersion": old.metadata["resourceVersion"], "uid": old.metadata["uid"]}
        return StoredConfigMap(await self._client.replace(CONFIG_MAPS, namespace, name, body))

    async def delete(self, namespace: str, name: str, *, uid: str, version: str) -> None:
        """Deletes exactly the ConfigMap that was seen.

        Raises:
            Conflict: It changed since.
        """
        await self._client.delete(CONFIG_MAPS, namespace, name, uid=uid, resource_version=version)


def _body(namespace: str, name: str, content: Content, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": our_metadata(
            namespace,
            name,
            content.owner,
            labels={**labels, **content.labels},
            annotations={**annotations, **content.annotations},
        ),
        "data": dict(content.data),
    }
