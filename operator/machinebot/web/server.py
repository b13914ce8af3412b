"""The HTTP server of every replica: `/healthz`, `/readyz`, `/metrics`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)

MAX_REQUEST: Final = 16 * 1024
"""Largest request body, bytes: nothing here takes one."""

Probe = Callable[[], str | None]
"""Says what is wrong, or None."""


class Server:
    """Serves health and metrics.

    Args:
        registry: Where the metrics are.
        healthy: For `/healthz`: what is wrong so that a restart would help.
        ready: For `/readyz`: what is wrong so that nobody should be sent here.
    """

    def __init__(self, registry: CollectorRegistry, *, healthy: Probe, ready: Probe) -> None:
        self._registry = registry
        app = web.Application(client_max_size=MAX_REQUEST)
        app.router.add_get("/healthz", _answer(healthy))
        app.router.add_get("/readyz", _answer(ready))
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2)

    async def start(self, host: str, port: int) -> int:
        """Begins to serve; returns the port.

        Raises:
            OSError: The address cannot be used.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound = int(self._runner.addresses[0][1])
        log.info("serving", extra={"host": host, "port": bound})
        return bound

    async def stop(self) -> None:
        """Ends serving."""
        await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        # 70,000 samples at 10,000 outputs: in a thread, so that the work goes on meanwhile.
        text = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(probe: Probe) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        trouble = probe()
        return web.Response(text=f"{trouble or 'ok'}\n", status=200 if trouble is None else 503)

    return answer
