"""The command: once, for ever, or not at all; and what it does not load."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from machinebot.agent.outputs import outputs_of
from machinebot.agent.run import PATIENCE, run_once
from machinebot.client.pins import pins_of
from machinebot.errors import Conflict
from machinebot.policy.credential import Purpose
from unit.agent.api import Rig, rotated
from unit.authority.builders import NOW
from unit.authority.desk_world import SECRET

ROOT = Path(__file__).parents[3]


def once(rig: Rig) -> int:
    config = rig.config
    return run_once(config, outputs_of(config), clock=rig.api.clock, sleep=rig.api.clock.wait)


def test_a_oneshot_writes_every_output_and_says_so(rig: Rig) -> None:
    rig.more["storage"] = None
    rig.output("ssh")
    rig.output("jwt", jwtSVID={"audiences": ["vault"]})
    assert once(rig) == 0
    first = rig.files("ssh")
    assert once(rig) == 0
    assert rig.files("ssh") != first, "every run writes"
    assert rig.api.clock.time == NOW, "and waits for nothing"


def test_a_oneshot_with_pins_warns_of_the_ca_that_takes_over_next(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.more |= {"storage": None, "ca": {"pins": list(pins_of(rig.api.ca))}}
    rig.output("ssh")
    assert once(rig) == 0
    assert not caplog.records
    rotated(rig, (Purpose.IDENTITY,), NOW + timedelta(minutes=1))
    assert once(rig) == 0
    (warning,) = caplog.records
    (pin,) = warning.__dict__["pins"]
    rig.more["ca"] = {"pins": [*pins_of(rig.api.ca), pin]}
    caplog.clear()
    assert once(rig) == 0
    assert not caplog.records


def test_a_oneshot_by_secret_needs_no_storage_and_works_once(rig: Rig) -> None:
    rig.method, rig.more["storage"] = "token", None
    rig.output("ssh")
    assert once(rig) == 0
    assert once(rig) == 1


def test_a_oneshot_by_secret_with_storage_is_renewed(rig: Rig) -> None:
    rig.method = "token"
    rig.output("ssh")
    assert [once(rig) for _ in range(3)] == [0, 0, 0]
    assert rig.api.world.ledger.stored["token-2"].generation == 3


def test_one_failed_output_fails_the_run_and_the_others_are_written(rig: Rig) -> None:
    rig.output("good")
    rig.output("bad", identity={}, roles=["unknown"])
    assert once(rig) == 1
    assert rig.files("good")
    assert rig.api.clock.time == NOW, "a refusal is not tried again"


def test_a_server_that_is_away_is_waited_for_and_not_for_long(rig: Rig) -> None:
    rig.output("ssh")
    rig.api.away = True
    assert once(rig) == 1
    assert NOW < rig.api.clock.time <= NOW + PATIENCE


def test_a_server_that_comes_back_in_time_is_no_failure(rig: Rig) -> None:
    rig.output("ssh")
    rig.api.away = True
    config = rig.config

    def sleep(seconds: float) -> None:
        rig.api.clock.wait(seconds)
        rig.api.away = False

    assert run_once(config, outputs_of(config), clock=rig.api.clock, sleep=sleep) == 0


def test_two_agents_do_not_share_an_identity(rig: Rig) -> None:
    rig.output("ssh")
    rig.agent()
    with pytest.raises(Conflict, match="StorageBusy"):
        once(rig)


# --- the command --------------------------------------------------------------------------------------------------------


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "machinebot", "agent", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), **environment},
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "bot.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "server": "https://127.0.0.1:1",
                "onboarding": {"namespace": "ci", "joinToken": "t", "method": "token"},
                "storage": {"directory": str(tmp_path / "state")},
                "outputs": [{"name": "ssh", "identity": {}, "directory": {"path": str(tmp_path / "ssh")}}],
            }
        )
    )
    return path


def test_validate_reads_and_does_nothing(config: Path) -> None:
    done = command("--config", config, "--validate")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{config}: 1 output, all right\n", "")
    assert [path.name for path in config.parent.iterdir()] == ["bot.yaml"]


def test_a_mistake_is_one_line(config: Path) -> None:
    config.write_text("sever: x\n")
    done = command("--config", config, "--validate")
    assert done.returncode == 1
    assert done.stderr.startswith("machinebot: ")
    assert done.stderr.count("\n") == 1


def test_a_daemon_goes_on_where_nobody_answers_and_ends_at_sigterm(config: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), "MACHINEBOT_JOIN_SECRET": SECRET}
    with subprocess.Popen(
        [sys.executable, "-m", "machinebot", "agent", "--config", config],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=30) == 0
    assert "JoinAPIUnreachable" in first
    assert "ended by a signal" in rest
    assert SECRET not in first + rest


FORBIDDEN = ("kopf", "kubernetes", "aiohttp", "uvloop", "asn1crypto", "asyncio", "botocore", "prometheus_client", "rich")


def test_it_loads_nothing_that_it_does_not_need() -> None:
    modules = "machinebot.cli.main, machinebot.cli.agent, machinebot.agent.run, machinebot.agent.outputs, machinebot.logs"
    script = f"import sys, {modules}\nprint(*sorted(set(sys.modules) & {set(FORBIDDEN)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "operator")}
    )
    assert done.stdout.split() == []
