"""Requests to the API server: eight verbs over raw JSON, with a time-out, a metric and our own errors.

The official client's asyncio half brings configuration, credentials and transport; its generated model classes are left
alone, since our own models read what matters (and cost a tenth).
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import aiohttp
import yaml
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from pydantic_core import from_json, to_json
from yarl import URL

from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, NotFound, Unavailable
from machinebot.kube.resources import Resource
from machinebot.metrics import Metrics
from machinebot.outputs.base import ClusterFacts

Json = dict[str, Any]

METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1,application/json"
"""Accept header for lists and watches that carry metadata alone: the content of Secrets stays where it is."""

IN_CLUSTER: Final = "https://kubernetes.default.svc"
"""The API server, as every pod of a cluster reaches it."""

PAGE_SIZE: Final = 500
"""Objects in one page of a list: about 1 MB of our kinds."""

WATCH_SECONDS: Final = 290
"""How long the API server lets a watch run before it is asked anew; below the five minutes that balancers cut at."""

WATCH_SILENCE_SECONDS: Final = 75
"""A watch without even a bookmark (each 60 s) for so long is dead."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    items: list[Json]
    resource_version: str


class KubeClient(Protocol):
    """What the rest of the operator asks of the API server. Every method raises our own errors only.

    Raises:
        Unavailable: No answer, an overloaded or broken server (`retry_after` where it said).
        Conflict: 409: changed since it was read, or the name is taken.
        Denied: 403.
        Invalid: 400, 413 or 422.
        NotFound: 404, but for `get` (None) and `delete` (done).
    """

    async def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """The object, or None."""
        ...

    async def create(self, resource: Resource, namespace: str, body: Json, *, name: str = "", subresource: str = "") -> Json:
        """Creates an object, or posts to a subresource (TokenRequest)."""
        ...

    async def replace(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Replaces an object; `metadata.resourceVersion` says which one it was decided on."""
        ...

    async def patch(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Merges into an object (RFC 7386), whichever version it has: only for what may be done twice."""
        ...

    async def patch_status(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Merges into the status; `metadata.resourceVersion` says which one it was decided on."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        """Deletes exactly this incarnation of an object, as it was read."""
        ...

    def pages(
        self, resource: Resource, namespace: str, *, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Page]:
        """All objects, page by page."""
        ...

    def watch(
        self, resource: Resource, namespace: str, *, resource_version: str, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Json]:
        """Watch events from a resourceVersion on, bookmarks included, until the server or silence ends it."""
        ...


async def load_configuration(kubeconfig: Path | None, *, context: str | None = None) -> Configuration:
    """Where the API server is and how to log in: a kubeconfig where given, else the pod's ServiceAccount.

    Args:
        kubeconfig: The file, or several with the separator that KUBECONFIG has.
        context: Which of its contexts; its current one by default.

    Raises:
        Invalid: Neither is there, or the kubeconfig has no such context.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = 64
    # Else aiohttp reads ~/.netrc and the proxy variables anew for every request, in a thread.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        if kubeconfig is not None:
            await config.load_kube_config(
                config_file=str(kubeconfig), context=context, client_configuration=configuration, persist_config=False
            )
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError, TypeError, AttributeError, yaml.YAMLError) as error:  # or a file of another shape
        raise Invalid(
            "NoCluster", f"no way to the API server ({error}): run in a pod with a ServiceAccount, or set KUBECONFIG"
        ) from error
    return configuration


def cluster_facts(configuration: Configuration, *, in_cluster: bool) -> ClusterFacts:
    """How clients reach the cluster that the operator runs in.

    Args:
        configuration: From `load_configuration`.
        in_cluster: Whether it is the pod's: then clients are told the name that every cluster has for itself.

    Raises:
        Invalid: The CA file cannot be read.
    """
    path = configuration.ssl_ca_cert
    try:
        authority = Path(path).read_bytes() if path else b""
    except OSError as error:
        raise Invalid("NoCluster", f"the CA file of the API server cannot be read: {error}") from error
    return ClusterFacts(server=IN_CLUSTER if in_cluster else configuration.host.rstrip("/"), certificate_authority=authority)


class _Transport(RESTClientObject):  # type: ignore[misc]  # its types are not followed
    """The official client's TLS, pool and proxy. Its own way of making a request costs as much again as sending it."""

    def session(self) -> aiohttp.ClientSession:
        """The pool of connections; made at first use, since it belongs to the running loop."""
        known: aiohttp.ClientSession | None = getattr(self, "pool_manager", None)
        if known is None:
            known = self.pool_manager = self._create_pool_manager()
        return known


class ApiServer:
    """`KubeClient` over the official client's transport."""

    def __init__(self, configuration: Configuration, metrics: Metrics, *, timeout: float) -> None:
        self._configuration = configuration
        self._transport = _Transport(configuration)
        self._metrics = metrics
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=5)
        self._stream_timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SILENCE_SECONDS)

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """See `KubeClient`."""
        try:
            return await self._request("GET", "get", resource, resource.path(namespace, name))
        except NotFound:
            return None

    async def create(self, resource: Resource, namespace: str, body: Json, *, name: str = "", subresource: str = "") -> Json:
        """See `KubeClient`."""
        return await self._request("POST", "create", resource, resource.path(namespace, name, subresource), body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """See `KubeClient`."""
        return await self._request("PUT", "update", resource, resource.path(namespace, name), body)

    async def patch(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """See `KubeClient`."""
        return await self._merge(resource, resource.path(namespace, name), body)

    async def patch_status(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """See `KubeClient`."""
        return await self._merge(resource, resource.path(namespace, name, "status"), body)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        """See `KubeClient`."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid, "resourceVersion": resource_version}}
        try:
            await self._request("DELETE", "delete", resource, resource.path(namespace, name), body)
        except NotFound:
            return

    async def pages(
        self, resource: Resource, namespace: str, *, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Page]:
        """See `KubeClient`."""
        query = {"limit": str(PAGE_SIZE)}
        if selector:
            query["labelSelector"] = selector
        accept = METADATA_ONLY.format(list="List") if metadata_only else "application/json"
        while True:
            path = f"{resource.path(namespace)}?{urlencode(query)}"
            answer = await self._request("GET", "list", resource, path, accept=accept)
            metadata = answer.get("metadata") or {}
            yield Page(items=answer.get("items") or [], resource_version=metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def watch(
        self, resource: Resource, namespace: str, *, resource_version: str, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Json]:
        """See `KubeClient`."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": resource_version,
        }
        if selector:
            query["labelSelector"] = selector
        accept = METADATA_ONLY.format(list="") if metadata_only else "application/json"
        path = f"{resource.path(namespace)}?{urlencode(query)}"
        async with self._response("GET", "watch", resource, path, None, accept=accept, timeout=self._stream_timeout) as response:
            if response.status != 200:  # noqa: PLR2004 - HTTP OK
                raise _error(response, await response.read())
            try:
                async for line in response.content:
                    yield _object(line)
            except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError) as error:  # the second: an endless line
                raise Unavailable("WatchEnded", f"the watch of {resource.plural} broke off: {type(error).__name__}") from error

    async def _merge(self, resource: Resource, path: str, body: Json) -> Json:
        return await self._request("PATCH", "patch", resource, path, body, content_type="application/merge-patch+json")

    async def _request(
        self,
        method: str,
        verb: str,
        resource: Resource,
        path: str,
        body: Json | None = None,
        *,
        accept: str = "application/json",
        content_type: str = "application/json",
    ) -> Json:
        async with self._response(
            method, verb, resource, path, body, accept=accept, content_type=content_type, timeout=self._timeout
        ) as response:
            try:
                data = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _no_answer(error) from error
            if response.status >= 300:  # noqa: PLR2004 - not a success
                raise _error(response, data)
            return _object(data)

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        verb: str,
        resource: Resource,
        path: str,
        body: Json | None,
        *,
        accept: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the transport's own
        content_type: str = "application/json",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "machinebot"}
        begun = time.monotonic()
        code = 0
        try:
            token = await self._configuration.get_api_key_with_prefix("BearerToken")
            if token:
                headers["Authorization"] = token
            response = await self._transport.session().request(
                method,
                URL(self._configuration.host + path, encoded=True),
                headers=headers,
                data=None if body is None else to_json(body),
                timeout=timeout,
                proxy=self._configuration.proxy,
                server_hostname=self._configuration.tls_server_name,
            )
            code = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(error) from error
        finally:
            self._metrics.api_requests.labels(verb, resource.plural, code).inc()
            self._metrics.api_seconds.labels(verb).observe(time.monotonic() - begun)
        async with response:
            yield response


def _no_answer(error: Exception) -> Unavailable:
    return Unavailable("ApiServerAway", f"the API server does not answer: {type(error).__name__}")


def _object(data: bytes) -> Json:
    """A JSON object.

    Raises:
        Unavailable: It is something else: a proxy has answered, or the stream broke within a line.
    """
    try:
        answer: Any = from_json(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable("ApiServerAway", "what answered is no API server: it sent no JSON object")
    return answer


def _error(response: aiohttp.ClientResponse, data: bytes) -> MachinebotError:
    """The error for an answer that is no success, from the `metav1.Status` in it."""
    try:
        status: Mapping[str, Any] = _object(data)
    except Unavailable:
        status = {}
    text = str(status.get("message") or response.reason or response.status)[:1024]
    message = text.encode(errors="replace").decode()  # a reason phrase may hold bytes that are no UTF-8
    match response.status:
        case 404:
            return NotFound("NotFound", message)
        case 409 | 410:
            return Conflict(str(status.get("reason") or "Conflict"), message)
        case 403:
            return Denied("NamespaceTerminating" if "NamespaceTerminating" in _causes(status) else "Forbidden", message)
        case 400 | 413 | 422:
            return Invalid("RefusedByApiServer", message)
        case _:
            return Unavailable("ApiServerAway", message, retry_after=_retry_after(response))


def _causes(status: Mapping[str, Any]) -> list[object]:
    """The reasons of the causes in a `metav1.Status`; none where it is something else."""
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return [cause.get("reason") for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 300.0) if text.isdecimal() else None
