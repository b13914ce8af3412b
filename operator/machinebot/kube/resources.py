"""Paths of the API: which resources the operator uses and where they are."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from machinebot.resources import authority, bot, join_token, lock, output, role
from machinebot.resources.meta import GROUP, VERSION, Kind


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API.

    Attributes:
        prefix: `/api/v1` or `/apis/<group>/<version>`.
        plural: Path segment.
        namespaced: Whether objects live in a namespace.
    """

    prefix: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of a collection, an object or a subresource; every part is escaped."""
        parts = [self.prefix]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def _ours(kind: Kind) -> Resource:
    return Resource(f"/apis/{GROUP}/{VERSION}", kind.plural, kind.namespaced)


AUTHORITIES: Final = _ours(authority.KIND)
ROLES: Final = _ours(role.KIND)
BOTS: Final = _ours(bot.KIND)
OUTPUTS: Final = _ours(output.KIND)
JOIN_TOKENS: Final = _ours(join_token.KIND)
LOCKS: Final = _ours(lock.KIND)
SECRETS: Final = Resource("/api/v1", "secrets", namespaced=True)
SERVICE_ACCOUNTS: Final = Resource("/api/v1", "serviceaccounts", namespaced=True)
TOKEN_REVIEWS: Final = Resource("/apis/authentication.k8s.io/v1", "tokenreviews", namespaced=False)
LEASES: Final = Resource("/apis/coordination.k8s.io/v1", "leases", namespaced=True)
EVENTS: Final = Resource("/apis/events.k8s.io/v1", "events", namespaced=True)
DEPLOYMENTS: Final = Resource("/apis/apps/v1", "deployments", namespaced=True)
STATEFUL_SETS: Final = Resource("/apis/apps/v1", "statefulsets", namespaced=True)
DAEMON_SETS: Final = Resource("/apis/apps/v1", "daemonsets", namespaced=True)
CONFIG_MAPS: Final = Resource("/api/v1", "configmaps", namespaced=True)
NAMESPACES: Final = Resource("/api/v1", "namespaces", namespaced=False)

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "machinebot"
"""Label and value on everything that the operator makes; its fence in the API server looks for it, and so do our watches."""

SELECTOR: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY}"

AUTHORITY_LABEL: Final = "machinebot.dev/authority"
"""On CA Secrets: name of the MachineAuthority."""
