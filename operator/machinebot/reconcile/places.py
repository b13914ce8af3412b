"""Where trust bundles can be and where they are: namespaces and the metadata of our ConfigMaps, as seen last."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from machinebot.kube.owned import is_managed, owner_uid
from machinebot.reconcile.versions import is_newer

NAME: Final = "machinebot-trust"
"""Name of the ConfigMap of the authority `default`; those of others have their names behind it. The fence in the API server
lets the operator write ConfigMaps of such names only."""

DEFAULT: Final = "default"
"""The authority that the chart makes, and that bots name where they name none."""

DIGEST: Final = "machinebot.dev/digest"
"""Annotation on the ConfigMap: SHA-256 of its data, hex."""


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """Metadata of one of our ConfigMaps.

    Attributes:
        uid: Which incarnation.
        version: resourceVersion.
        owner_uid: UID of its controlling owner, or None.
        digest: What it says of its data, or None.
        verified: Whether it was read in this version, or written by us, and is what it says.
    """

    uid: str
    version: str
    owner_uid: str | None
    digest: str | None
    verified: bool = False


class Places:
    """Namespaces, and the ConfigMaps in them. All of its methods return at once."""

    def __init__(self) -> None:
        self._namespaces: dict[str, str | None] = {}
        self._bundles: dict[tuple[str, str], BundleEntry] = {}

    def assume(self, namespaces: Iterable[str]) -> None:
        """Takes namespaces for existing: where only some are served, the operator has no right to look at any."""
        self._namespaces |= dict.fromkeys(namespaces)

    def namespaces(self) -> list[str]:
        """Every namespace that is there and not about to go."""
        return list(self._namespaces)

    def has_namespace(self, name: str) -> bool:
        """Whether the namespace is there and not about to go."""
        return name in self._namespaces

    def bundle(self, namespace: str, name: str) -> BundleEntry | None:
        """Metadata of our ConfigMap, or None."""
        return self._bundles.get((namespace, name))

    def bundles(self) -> list[tuple[str, str]]:
        """Where our ConfigMaps are."""
        return list(self._bundles)

    def observe_namespace(self, metadata: Mapping[str, Any], *, gone: bool) -> bool:
        """Takes in a namespace; returns whether it has come or goes."""
        name, uid = metadata["name"], metadata["uid"]
        if gone or "deletionTimestamp" in metadata:
            known = self._namespaces.get(name)
            if known != uid:
                return False
            del self._namespaces[name]
            return True
        if self._namespaces.get(name) == uid:
            return False
        self._namespaces[name] = uid
        return True

    def observe_bundle(self, metadata: Mapping[str, Any], *, gone: bool) -> bool:
        """Takes in a ConfigMap; returns whether it is one of ours and changed."""
        place = (metadata["namespace"], metadata["name"])
        old = self._bundles.get(place)
        if gone or not is_managed(metadata):
            if old is None or old.uid != metadata["uid"]:
                return False
            del self._bundles[place]
            return True
        if old is not None and not is_newer(metadata["resourceVersion"], old.version):
            return False
        self._bundles[place] = entry(metadata)
        return True

    def remember_bundle(self, namespace: str, name: str, metadata: Mapping[str, Any] | None) -> None:
        """Takes in what was read or written; None where there is none of ours. What a watch has shown since stands."""
        known = self._bundles.get((namespace, name))
        if metadata is None:
            self._bundles.pop((namespace, name), None)
        elif known is None or known.uid != metadata["uid"] or not is_newer(known.version, metadata["resourceVersion"]):
            self._bundles[namespace, name] = replace(entry(metadata), verified=True)

    def forget_namespace(self, name: str) -> bool:
        """A full list did not show it; returns whether that is news."""
        return self._namespaces.pop(name, "") != ""


def entry(metadata: Mapping[str, Any]) -> BundleEntry:
    """What is kept of a ConfigMap."""
    return BundleEntry(
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        owner_uid=owner_uid(metadata),
        digest=(metadata.get("annotations") or {}).get(DIGEST),
    )


def config_map_name(authority: str) -> str:
    """Name of an authority's ConfigMap."""
    return NAME if authority == DEFAULT else f"{NAME}-{authority}"


def authority_of(config_map: str) -> str | None:
    """The authority whose ConfigMap has that name, or None where it is nobody's."""
    authority = DEFAULT if config_map == NAME else config_map.removeprefix(f"{NAME}-")
    return authority if config_map_name(authority) == config_map else None
