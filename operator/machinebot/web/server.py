"""The HTTP server of every replica: `/healthz`, `/readyz`, `/metrics`."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from machinebot.web.answers import Handler
from machinebot.web.connections import Connections
from machinebot.web.places import Bounds
from machinebot.web.scrapes import Scrapes

log = logging.getLogger(__name__)

BOUNDS: Final = Bounds(served=32, each=8, waiting=32, patience=1.0, wait=4.0, stay=15.0)
"""Connections. The kubelet and each Prometheus need one or two, for milliseconds. Of a probe the kubelet waits 5 seconds for the
answer: no address takes its place, and where several have taken them all, it has one after a second. Prometheus gives up after 10
seconds."""

MAX_REQUEST: Final = 16 * 1024
"""Largest request body, bytes: nothing here takes one."""

PIECE: Final = 64 * 1024
"""Bytes of an answer that are written at a time: of one that is read slowly, no more is kept for each reader."""

Probe = Callable[[], str | None]
"""Says what is wrong, or None."""


class Server:
    """Serves health and metrics.

    Args:
        registry: Where the metrics are.
        healthy: For `/healthz`: what is wrong so that a restart would help.
        ready: For `/readyz`: what is wrong so that nobody should be sent here.
        bounds: How many connections, and for how long.
    """

    def __init__(self, registry: CollectorRegistry, *, healthy: Probe, ready: Probe, bounds: Bounds = BOUNDS) -> None:
        self._scrapes = Scrapes(registry)
        self._app = web.Application(middlewares=(_alone,), client_max_size=MAX_REQUEST)
        self._app.router.add_get("/healthz", _answer(healthy))
        self._app.router.add_get("/readyz", _answer(ready))
        self._app.router.add_get("/metrics", self._metrics)
        # A request that we work on keeps no place here: one of a probe is answered at once, and a scrape can be asked for again.
        self._connections = Connections(bounds)
        self._running: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Begins to serve; returns the port.

        Raises:
            OSError: The address cannot be used.
        """
        bound = await self._connections.start(self._app, host, port)
        self._running = asyncio.create_task(self._connections.run(), name="http connections")
        self._running.add_done_callback(_tell)
        log.info("serving", extra={"host": host, "port": bound})
        return bound

    async def stop(self) -> None:
        """Ends serving."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._connections.stop()
        await self._scrapes.close()

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        text = memoryview(await self._scrapes.get())
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_LATEST})
        response.content_length = len(text)
        response.force_close()
        # Whoever has gone away is no trouble of ours.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            if request.method == "GET":
                for begin in range(0, len(text), PIECE):
                    await response.write(text[begin : begin + PIECE])
        return response


def _tell(running: asyncio.Task[None]) -> None:
    """Nobody awaits it, and the kubelet starts a process again whose probes are not answered: the log says why."""
    if not running.cancelled() and (error := running.exception()) is not None:
        log.error("serving has ended", exc_info=error)


@web.middleware
async def _alone(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One request a connection: none is open without being used."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.force_close()
        raise
    response.force_close()
    return response


def _answer(probe: Probe) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        trouble = probe()
        return web.Response(text=f"{trouble or 'ok'}\n", status=200 if trouble is None else 503)

    return answer
