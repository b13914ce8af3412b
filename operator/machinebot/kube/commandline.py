"""What a person's command asks of the API server beside what the operator does: a context's namespace, server-side apply, and
what the server says of itself and its clock.
"""

from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import yaml
from kubernetes.aio import config
from prometheus_client import CollectorRegistry

from machinebot.errors import Invalid
from machinebot.kube.client import ApiServer, Json, load_configuration
from machinebot.kube.resources import Resource
from machinebot.metrics import Metrics

FIELD_MANAGER: Final = "machinebot-cli"
"""Whose fields are those that a command has applied."""

TIMEOUT: Final = 30.0
"""Seconds for one request."""

POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its own namespace."""

_NO_RESOURCE: Final = Resource("", "", namespaced=False)
"""Stands in metrics for what is no resource."""


class CommandLineClient(ApiServer):
    """The operator's client, and what only people need."""

    async def apply(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Applies the body on the server's side: what it says is set, what an earlier one said and this one does not is taken
        away, and what others have set stays.

        Raises:
            Conflict: Somebody else has set one of the fields to something else; the message names them.
        """
        path = f"{resource.path(namespace, name)}?{urlencode({'fieldManager': FIELD_MANAGER, 'fieldValidation': 'Strict'})}"
        return await self._request("PATCH", "apply", resource, path, body, content_type="application/apply-patch+yaml")

    async def create_strictly(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Creates an object; a field that its schema does not know is an error.

        Raises:
            Conflict: The name is taken.
        """
        query = urlencode({"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"})
        return await self._request("POST", "create", resource, f"{resource.path(namespace)}?{query}", body)

    async def told(self, path: str) -> Json:
        """What the API server answers at a path that is no resource, such as `/version`."""
        return await self._request("GET", "get", _NO_RESOURCE, path)

    async def date(self) -> datetime | None:
        """The API server's clock, whole seconds; None where something before it takes the header away."""
        async with self._response(
            "GET", "get", _NO_RESOURCE, "/version", None, accept="application/json", timeout=self._timeout
        ) as response:
            text: str = response.headers.get("Date", "")
        return _date(text)


def _date(text: str) -> datetime | None:
    """The moment of a Date header (RFC 9110, section 5.6.7), or None."""
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


async def connect(kubeconfig: Path | None, context: str | None) -> CommandLineClient:
    """The API server that a person has chosen.

    Raises:
        Invalid: There is no way to one.
    """
    configuration = await load_configuration(kubeconfig, context=context)
    return CommandLineClient(configuration, Metrics(CollectorRegistry()), timeout=TIMEOUT)  # nobody scrapes a command


def chosen_namespace(kubeconfig: Path | None, context: str | None) -> str:
    """The namespace that kubectl would take without `-n`: the context's, the pod's own, or `default`.

    Raises:
        Invalid: The kubeconfig cannot be read, or has no such context.
    """
    if kubeconfig is None:
        return POD_NAMESPACE.read_text().strip() if POD_NAMESPACE.exists() else "default"
    try:
        known, current = config.list_kube_config_contexts(str(kubeconfig))
    except (config.ConfigException, OSError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
        raise Invalid("NoCluster", f"the kubeconfig cannot be read: {error}") from error
    found = next((each for each in known if each["name"] == context), None) if context else current
    if found is None:
        raise Invalid("NoCluster", f"the kubeconfig has no context {context!r}: see kubectl config get-contexts")
    return str((found.get("context") or {}).get("namespace") or "default")
