"""Who wrote what: the API server's audit log, read from a mark on."""

import json
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from controlplane.cluster import ControlPlane

ASKED_ONLY = frozenset({"serviceaccounts/token", "tokenreviews", "subjectaccessreviews"})
"""What is created only to be answered: nothing of it is stored."""


@dataclass(frozen=True)
class Write:
    """One request that wanted to change something."""

    verb: str
    resource: str
    namespace: str
    name: str
    user: str
    code: int

    @override
    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


class Audit:
    """The audit log of a control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        if plane.audit_log is None:
            raise ValueError("the control plane writes no audit log")
        self._path = plane.audit_log

    def mark(self) -> int:
        """Where the log ends now. Every request that was answered stands before it."""
        return self._path.stat().st_size if self._path.exists() else 0

    def since(self, mark: int, *, user: str, namespace: str) -> list[Write]:
        """What the user wrote in the namespace after the mark, refused writes included, oldest first."""
        with self._path.open("rb") as log:
            log.seek(max(0, mark - 1))
            if mark:
                log.readline()  # the end of the line before, or of one that was being written at the mark
            lines = log.read().splitlines(keepends=True)
        found = [_write(json.loads(line)) for line in lines if line.endswith(b"\n")]
        return [
            write for write in found if write.user == user and write.namespace == namespace and write.resource not in ASKED_ONLY
        ]


def _write(event: dict[str, Any]) -> Write:
    target = event.get("objectRef") or {}
    resource = target.get("resource", "")
    if target.get("subresource"):
        resource += f"/{target['subresource']}"
    return Write(
        verb=event["verb"],
        resource=resource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        user=event["user"]["username"],
        code=event.get("responseStatus", {}).get("code", 0),
    )
