"""A server on the loopback that answers as a test says, and the product's client on it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import CollectorRegistry

from machinebot.kube.client import ApiServer
from machinebot.metrics import Metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """What the server is to answer, and what it was asked."""

    url: str = ""
    handler: Handler | None = None
    seen: list[Seen] = field(default_factory=list)

    def answer(
        self, status: int = 200, body: Any = None, *, raw: bytes | None = None, headers: dict[str, str] | None = None
    ) -> None:
        """The same answer to everything."""

        async def handler(_request: web.Request) -> web.Response:
            if raw is not None:
                return web.Response(status=status, body=raw, headers=headers)
            return web.json_response(body, status=status, headers=headers)

        self.handler = handler

    def answers(self, *bodies: Any) -> None:
        """One answer after the other."""
        waiting = iter(bodies)

        async def handler(_request: web.Request) -> web.Response:
            return web.json_response(next(waiting))

        self.handler = handler

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        assert self.handler is not None
        return await self.handler(request)


@dataclass
class Clients:
    """Makes clients, and closes them afterwards."""

    made: list[ApiServer] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def client(self, url: str, *, token: str | None = None, timeout: float = 30) -> ApiServer:
        configuration = Configuration()
        configuration.host = url
        configuration.client_session_kwargs = {"trust_env": False}
        if token is not None:
            configuration.api_key = {"BearerToken": f"Bearer {token}"}
        self.registry = CollectorRegistry()
        self.made.append(ApiServer(configuration, Metrics(self.registry), timeout=timeout))
        return self.made[-1]

    def requests(self, verb: str, resource: str, code: int) -> float:
        """How many requests the metrics tell of."""
        labels = {"verb": verb, "resource": resource, "code": str(code)}
        return self.registry.get_sample_value("machinebot_api_requests_total", labels) or 0
