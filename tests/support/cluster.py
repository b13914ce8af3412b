"""The administrator's hands: objects made, read, changed and deleted on the API server, without a kubectl for each."""

import base64
import http.client
import json
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controlplane.cluster import ControlPlane

Json = dict[str, Any]

SECONDS = 30.0
"""For one request."""

_OURS = "/apis/machinebot.dev/v1alpha1"
_PLACES = {
    "MachineAuthority": (_OURS, "machineauthorities"),
    "MachineRole": (_OURS, "machineroles"),
    "MachineBot": (_OURS, "machinebots"),
    "MachineOutput": (_OURS, "machineoutputs"),
    "MachineJoinToken": (_OURS, "machinejointokens"),
    "MachineLock": (_OURS, "machinelocks"),
    "Namespace": ("/api/v1", "namespaces"),
    "Secret": ("/api/v1", "secrets"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
}


class RefusedError(AssertionError):
    """The API server refused."""


class Cluster:
    """One connection to the API server, as administrator; a test and what it hangs into an operator's line take turns."""

    def __init__(self, plane: ControlPlane) -> None:
        address = urlsplit(plane.url)
        self._alone = threading.Lock()
        self._connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=_tls(plane.admin_kubeconfig), timeout=SECONDS
        )

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def create(self, body: Json) -> Json:
        """Make an object."""
        metadata = body["metadata"]
        status, answer = self._send("POST", _path(body["kind"], metadata.get("namespace", "")), body)
        return _taken(status, answer)

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """The object, or None."""
        status, answer = self._send("GET", _path(kind, namespace, name))
        return None if status == http.HTTPStatus.NOT_FOUND else _taken(status, answer)

    def list(self, kind: str, namespace: str) -> list[Json]:
        """Every object of the namespace."""
        status, answer = self._send("GET", _path(kind, namespace))
        items: list[Json] = _taken(status, answer)["items"]
        return items

    def patch(self, kind: str, namespace: str, name: str, patch: Json, *, subresource: str = "") -> Json:
        """Change an object by a merge-patch (RFC 7386)."""
        path = _path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        status, answer = self._send("PATCH", path, patch, content_type="application/merge-patch+json")
        return _taken(status, answer)

    def replace(self, body: Json) -> Json:
        """Put an object in the place of the one that is there."""
        metadata = body["metadata"]
        status, answer = self._send("PUT", _path(body["kind"], metadata.get("namespace", ""), metadata["name"]), body)
        return _taken(status, answer)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; one that is not there is fine."""
        status, answer = self._send("DELETE", _path(kind, namespace, name))
        if status != http.HTTPStatus.NOT_FOUND:
            _taken(status, answer)

    def _send(self, method: str, path: str, body: Json | None = None, content_type: str = "application/json") -> tuple[int, Json]:
        content = None if body is None else json.dumps(body)
        with self._alone:
            try:
                return self._exchange(method, path, content, content_type)
            except (http.client.HTTPException, OSError):
                self._connection.close()  # it had been idle for too long, or the API server was away
                return self._exchange(method, path, content, content_type)

    def _exchange(self, method: str, path: str, content: str | None, content_type: str) -> tuple[int, Json]:
        self._connection.request(method, path, content, {"Content-Type": content_type, "Accept": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())


def _path(kind: str, namespace: str, name: str = "") -> str:
    prefix, plural = _PLACES[kind]
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{prefix}{place}/{plural}" + (f"/{name}" if name else "")


def _taken(status: int, answer: Json) -> Json:
    if status >= http.HTTPStatus.MULTIPLE_CHOICES:
        raise RefusedError(f"{status}: {answer.get('message')}")
    return answer


def _tls(kubeconfig: Path) -> ssl.SSLContext:
    content = json.loads(kubeconfig.read_bytes())
    authority = base64.b64decode(content["clusters"][0]["cluster"]["certificate-authority-data"])
    user = content["users"][0]["user"]
    context = ssl.create_default_context(cadata=authority.decode())
    with tempfile.NamedTemporaryFile() as pair:
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
