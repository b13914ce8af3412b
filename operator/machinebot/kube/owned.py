"""What we make in the API server carries our label, and mostly an owner that it goes with: the metadata of all such objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from machinebot.kube.client import Json
from machinebot.kube.resources import MANAGED_BY, MANAGED_BY_LABEL
from machinebot.resources.meta import API_VERSION


@dataclass(frozen=True, slots=True)
class Owner:
    """The object of ours that something in the API server belongs to; the garbage collector deletes it along with that."""

    kind: str
    name: str
    uid: str

    def reference(self) -> Json:
        """The ownerReference."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def our_metadata(
    namespace: str,
    name: str,
    owner: Owner | None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """The metadata of an object that we write, whole.

    Args:
        namespace: Where it is.
        name: Its name.
        owner: What it belongs to, or None.
        labels: Labels beside ours.
        annotations: Annotations; None leaves the field out.
    """
    metadata: Json = {"name": name, "namespace": namespace, "labels": {**(labels or {}), MANAGED_BY_LABEL: MANAGED_BY}}
    if annotations is not None:
        metadata["annotations"] = dict(annotations)
    if owner is not None:
        metadata["ownerReferences"] = [owner.reference()]
    return metadata


def owner_uid(metadata: Mapping[str, Any]) -> str | None:
    """UID of the controlling owner, or None."""
    references = metadata.get("ownerReferences") or []
    return next((str(reference["uid"]) for reference in references if reference.get("controller")), None)


def is_managed(metadata: Mapping[str, Any]) -> bool:
    """Whether the object carries our label."""
    return bool((metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY)
