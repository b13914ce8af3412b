"""The product's own join API over real HTTPS, in a thread, on a small world in memory; its time and the agent's stand still."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from machinebot.agent.agent import Agent, State
from machinebot.agent.config import AgentConfig, parse_config
from machinebot.agent.daemon import Daemon
from machinebot.agent.outputs import outputs_of
from machinebot.agent.run import assemble
from machinebot.agent.storage import Storage
from machinebot.authority.generations import new_generation
from machinebot.client import transport
from machinebot.metrics import Metrics
from machinebot.policy.credential import Purpose, TrustBundle
from machinebot.web import https
from machinebot.web.certificates import SignedCertificate
from machinebot.web.https import HttpsServer
from machinebot.web.joins import JoinRates, JoinRoutes
from machinebot.web.limits import Rate
from machinebot.web.trust import TrustRoutes
from support.hangup import hang_up
from support.verifier import NO_CHECK_TIME
from unit.authority.builders import CLUSTER, ISSUER, NOW, ROTATION, all_generations, allowing, spec
from unit.authority.desk_world import SECRET, DeskWorld

MANY = Rate(100_000, 100_000)


@dataclass
class Clock:
    """Stands still; waiting moves it."""

    time: datetime = NOW

    def now(self) -> datetime:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class Api:
    """The server, and what it stands on.

    Attributes:
        world: Bots, roles, join tokens and locks.
        clock: Its time.
        away: Whether it says that it is not ready.
        port: Where it serves.
    """

    world: DeskWorld = field(default_factory=lambda: DeskWorld(known_roles={"access": allowing()}))
    clock: Clock = field(default_factory=Clock)
    away: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ca(self) -> bytes:
        return b"".join(each.anchor.public for each in self.world.signer.generations(Purpose.IDENTITY))

    def get(self, _name: str) -> TrustBundle:
        return self.world.signer.trust

    @contextlib.contextmanager
    def running(self) -> Iterator["Api"]:
        loop = asyncio.new_event_loop()
        ended = asyncio.Event()
        begun = threading.Event()

        async def main() -> None:
            server = self._server()
            self.port = await server.start("127.0.0.1", 0)
            running = asyncio.create_task(server.run())
            begun.set()
            await ended.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop()
            await hang_up()

        thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
        thread.start()
        assert begun.wait(20)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.close()

    def _server(self) -> HttpsServer:
        signer = self.world.signer
        source = SignedCertificate(
            lambda: (CLUSTER, signer.issuer(Purpose.IDENTITY, self.clock.now())), ("localhost",), self.clock
        )
        joins = JoinRoutes(
            desk=self.world.desk,
            trust=self,
            ready=lambda: not self.away,
            rates=JoinRates(address=MANY, token=MANY),
            clock=self.clock,
            metrics=Metrics(CollectorRegistry()),
        )
        return HttpsServer(
            source,
            (joins.add_to, TrustRoutes(self).add_to),
            lambda: b"".join(each.anchor.public for each in signer.generations(Purpose.BOT)),
        )


def any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS takes certificates whatever OpenSSL's clock says, on both sides: the clocks here stand in 2027, and run quickly."""
    client, server = transport.context, https._context

    def patched(made: ssl.SSLContext) -> ssl.SSLContext:
        made.verify_flags = ssl.VerifyFlags(made.verify_flags | NO_CHECK_TIME)
        return made

    for module in ("machinebot.client.transport", "machinebot.client.api"):
        monkeypatch.setattr(f"{module}.context", lambda *how, **more: patched(client(*how, **more)))
    monkeypatch.setattr(https, "_context", lambda *how, **more: patched(server(*how, **more)))


@dataclass
class Rig:
    """An agent on a directory of the test's own."""

    api: Api
    path: Path
    stack: contextlib.ExitStack
    method: str = "kubernetes"
    outputs: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    storage: Storage | None = None
    host: str = "web-1"

    def __post_init__(self) -> None:
        (self.path / "given-ca.pem").write_bytes(self.api.ca)
        (self.path / "given-token").write_text("good\n")
        (self.path / "given-secret").write_text(f"{SECRET}\n")

    def output(self, name: str, **fields: Any) -> dict[str, Any]:
        fields = fields or {"identity": {}}
        made = {"name": name, "directory": {"path": str(self.path / name)}, **fields}
        self.outputs.append(made)
        return made

    @property
    def written(self) -> dict[str, Any]:
        onboarding: dict[str, Any] = {
            "kubernetes": {"joinToken": "runners", "kubernetes": {"tokenPath": str(self.path / "given-token")}},
            "token": {"joinToken": "secret", "token": {"secretFile": str(self.path / "given-secret")}},
        }[self.method]
        return {
            "server": self.api.url,
            "ca": {"file": str(self.path / "given-ca.pem")},
            "onboarding": {"namespace": "ci", "method": self.method, **onboarding},
            "storage": {"directory": str(self.path / "state")},
            "outputs": self.outputs,
            **self.more,
        }

    @property
    def config(self) -> AgentConfig:
        return parse_config(yaml.safe_dump(self.written).encode())

    def agent(self) -> Agent:
        """A new process, as far as an agent sees: what another one held is let go of."""
        self.stack.close()
        config = self.config
        return assemble(config, outputs_of(config), self.stack, storage=self.storage, host=self.host)

    def daemon(self, agent: Agent | None = None) -> tuple[Daemon, list[State]]:
        states: list[State] = []
        return Daemon(agent or self.agent(), self.api.clock, self.api.clock.wait, states.append), states

    def files(self, name: str) -> dict[str, bytes]:
        """The whole set of an output, as a reader sees it."""
        found = self.path / name / "..data"
        return {file.name: file.read_bytes() for file in found.iterdir()}


def rotated(rig: Rig, purposes: tuple[Purpose, ...], now: datetime) -> None:
    """A new generation of these CAs is prepared."""
    signer = rig.api.world.signer
    made = dict(all_generations())
    for purpose in purposes:
        heir = new_generation(purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION, now=now)
        made[purpose] = (*made[purpose], heir)
    signer.update(spec(), made, ISSUER)
