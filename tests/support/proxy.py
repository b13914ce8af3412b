"""A TCP proxy on loopback whose connections can fall silent: no data, no end, as behind a balancer that forgot them."""

import asyncio
import json
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from controlplane.cluster import ControlPlane
from support.hangup import hang_up

LOOPBACK = "127.0.0.1"
CHUNK = 64 * 1024


class Proxy:
    """Stands between a client and an API server. As a context manager it runs for the length of the block."""

    def __init__(self, plane: ControlPlane) -> None:
        self._target = urlsplit(plane.url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._flows: dict[asyncio.Event, set[asyncio.Task[None]]] = {}
        self.port = 0
        """Where it listens."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def kubeconfig(self, original: Path, copy: Path) -> Path:
        """Write a kubeconfig that leads through here."""
        content = json.loads(original.read_bytes())
        content["clusters"][0]["cluster"]["server"] = f"https://{LOOPBACK}:{self.port}"
        copy.write_text(json.dumps(content))
        return copy

    @property
    def open(self) -> int:
        """How many connections carry data."""
        return sum(flowing.is_set() for flowing in list(self._flows))

    def silence(self) -> int:
        """From now on the connections that are open carry nothing more, and stay open. New ones work. Returns how many."""
        return int(self._call(self._silence()))

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _silence(self) -> int:
        flowing = [event for event in self._flows if event.is_set()]
        for event in flowing:
            event.clear()
        return len(flowing)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [task for several in self._flows.values() for task in several]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flowing = asyncio.Event()
        flowing.set()
        try:
            other_reader, other_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.close()
            return
        self._flows[flowing] = {
            asyncio.ensure_future(_pump(reader, other_writer, flowing)),
            asyncio.ensure_future(_pump(other_reader, writer, flowing)),
        }
        try:
            await asyncio.gather(*self._flows[flowing], return_exceptions=True)
        finally:
            del self._flows[flowing]
            for each in (writer, other_writer):
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
    try:
        while data := await reader.read(CHUNK):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        if flowing.is_set():
            writer.close()
