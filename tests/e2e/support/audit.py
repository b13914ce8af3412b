"""What the API server's audit log tells: who wrote which Secret, and whom it refused. Read piece by piece, so that it can be polled."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from controlplane.cluster import ControlPlane

STORED = (200, 201)

CUT_OFF = 504
"""The client went away before the answer: the API server cannot say whether it has stored the object."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write of a Secret that the API server took, or may have taken."""

    verb: str
    namespace: str
    name: str
    user: str
    sure: bool


class AuditTail:
    """The writes of Secrets, from the beginning of the log on."""

    def __init__(self, cluster: ControlPlane) -> None:
        if cluster.audit_log is None:
            raise ValueError("the control plane keeps no audit log")
        self._path = cluster.audit_log
        self._offset = 0
        self._writes: list[Write] = []

    def writes(self, namespace: str) -> list[Write]:
        """Those in a namespace, oldest first."""
        self._read()
        return [write for write in self._writes if write.namespace == namespace]

    def count(self, namespace: str, verb: str) -> int:
        """How many Secrets were written with that verb, for all that is known."""
        return len({write.name for write in self.writes(namespace) if write.verb == verb})

    def tally(self, namespace: str) -> dict[str, Counter[str]]:
        """By the name of the Secret: how often each verb succeeded for sure."""
        found: dict[str, Counter[str]] = {}
        for write in self.writes(namespace):
            found.setdefault(write.name, Counter()).update([write.verb] if write.sure else [])
        return found

    def odd(self, namespace: str, wanted: Counter[str]) -> dict[str, list[Write]]:
        """The Secrets that were not written exactly so; one write that was cut off may stand for a missing one."""
        writes, wrong = self.writes(namespace), {}
        for name, sure in self.tally(namespace).items():
            lacking, cut_off = wanted - sure, Counter(write.verb for write in writes if write.name == name and not write.sure)
            if sure - wanted or lacking - cut_off:
                wrong[name] = [write for write in writes if write.name == name]
        return wrong

    def _read(self) -> None:
        with self._path.open("rb") as log:
            log.seek(self._offset)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            if b'"resource":"secrets"' in line and (write := _write(json.loads(line))) is not None:
                self._writes.append(write)


def _write(event: dict[str, Any]) -> Write | None:
    target, code = event.get("objectRef", {}), event.get("responseStatus", {}).get("code")
    if target.get("resource") != "secrets" or code not in (*STORED, CUT_OFF) or event["verb"] in ("get", "list", "watch"):
        return None
    namespace, name, user = target.get("namespace", ""), target.get("name", ""), event["user"]["username"]
    return Write(event["verb"], namespace, name, user, sure=code in STORED)


def refused(cluster: ControlPlane, user: str) -> list[str]:
    """The requests of a user that were answered 403, as `verb path`."""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in cluster.audit_events()
        if event["user"]["username"] == user and event.get("responseStatus", {}).get("code") == 403
    ]


def requests(cluster: ControlPlane, user: str) -> Counter[tuple[str, str]]:
    """The requests of a user that succeeded, by verb and resource with subresource."""
    found: Counter[tuple[str, str]] = Counter()
    for event in cluster.audit_events():
        target = event.get("objectRef", {})
        if event["user"]["username"] == user and event.get("responseStatus", {}).get("code", 0) < 300:
            found[event["verb"], "/".join(filter(None, (target.get("resource"), target.get("subresource"))))] += 1
    return found
