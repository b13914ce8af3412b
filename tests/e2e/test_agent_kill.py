"""The agent killed again and again while it renews: every directory holds one whole set after each kill, and nobody is locked."""

import functools
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from machinebot.joins.methods.token import secret_hash
from support.agents import AgentFiles
from support.inprocess import RunningOperator
from support.joining import client_of, join_token
from support.stage import Stage, Tenant
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

SEED = 11
KILLS = 30
MOST_KILLS = 120
"""A busy machine takes more of them until enough have met a renewal."""

SECRET = "e" * 64
OUTPUTS = {"ssh": {"identity": {}}, "app": {"application": {}}, "jwt": {"jwtSVID": {"audiences": ["vault"]}}}


@pytest.fixture
def agent(stage: Stage, running: RunningOperator, tenant: Tenant, tmp_path: Path) -> AgentFiles:
    eventually("it is ready", lambda: running.get("/readyz")[0] == 200)
    client = client_of(stage, running.https_port)
    bot = tenant.bot(roles=(stage.role(allow={"logins": ["deploy"], "jwtAudiences": ["vault"], "spiffePaths": ["*"]}),))
    name = join_token(tenant, bot=bot, expires="2099-01-01T00:00:00Z", token={"secretHash": secret_hash(SECRET)})
    body = {"namespace": tenant.namespace, "joinToken": name, "publicKey": client.public_key}
    eventually("the join token is seen", lambda: client.post("/v1/challenge", body).status == 200)
    onboarding = {"namespace": tenant.namespace, "joinToken": name, "method": "token"}
    environment = {"MACHINEBOT_JOIN_SECRET": SECRET}
    return AgentFiles(tmp_path, running.https_port, client.authority, onboarding, OUTPUTS, environment=environment)


@contextmanager
def renewing(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Everything is wanted anew, again and again."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.02):
            process.send_signal(signal.SIGUSR1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_thirty_kills_while_everything_is_renewed(agent: AgentFiles, tenant: Tenant) -> None:
    dice = random.Random(SEED)  # noqa: S311 - moments, not secrets
    serials: dict[str, set[int]] = {name: set() for name in OUTPUTS}
    for number in range(MOST_KILLS):
        if number >= KILLS and all(len(found) > KILLS // 3 for found in serials.values()) and generation(tenant) > KILLS // 2:
            break
        with agent.daemon() as process:
            # Some in the middle of the start, before or after the first request; most while it renews.
            if dice.random() < 0.7:
                eventually("it listens", functools.partial(listens, process), interval=0.005)
                with renewing(process):
                    time.sleep(dice.uniform(0, 0.4))
                    process.kill()
            else:
                time.sleep(dice.uniform(0.2, 1.2))
                process.kill()
        for name in OUTPUTS:
            if (agent.home / name / "..data").exists():
                serials[name].add(agent.whole(name).serial)
    with agent.daemon() as process:
        eventually("all is whole", lambda: all(agent.whole(name).serial for name in OUTPUTS))
        instance = tenant.get("MachineJoinToken", "runners")["status"]["instance"]
        eventually("it listens", functools.partial(listens, process))

        def renewed() -> bool:
            """The first renewal may be the one whose answer the last kill has lost: the same identity once more."""
            process.send_signal(signal.SIGUSR1)
            return generation(tenant) > instance["generation"]

        eventually("the identity is renewed still", renewed, interval=0.5)
        # While it lives: its own end may leave a set half-made, as any kill does, which the next start removes.
        eventually("what the kills have left is removed", lambda: all(sets(agent, name) <= 2 for name in OUTPUTS))
    assert tenant.get("MachineJoinToken", "runners")["status"]["instance"]["id"] == instance["id"]
    assert instance["generation"] > KILLS // 2, "the kills came too early to disturb anything"
    assert all(len(found) > KILLS // 3 for found in serials.values()), serials
    assert not [line for line in agent.log() if line.get("reason") in {"GenerationMismatch", "Locked", "SecretUsed", "Crashed"}]


def sets(agent: AgentFiles, name: str) -> int:
    """How many sets of files a directory has: the one in use, the one before it, and what was not tidied up."""
    return len(list((agent.home / name).glob(".machinebot-*")))


def generation(tenant: Tenant) -> int:
    """How many identities the instance has had."""
    instance = tenant.get("MachineJoinToken", "runners")["status"].get("instance")
    return 0 if instance is None else int(instance["generation"])


def listens(process: subprocess.Popen[bytes]) -> bool:
    """Whether it takes SIGUSR1, which would end it before."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(re.findall(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)[0], 16) & 1 << (signal.SIGUSR1 - 1))
