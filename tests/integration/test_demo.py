"""`make demo` and `make demo-agent`: by itself as in CI, with a person who looks around and presses Ctrl-C, and when a step fails."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import demo.__main__ as program
from demo import agents, story
from demo.story import SUGGESTIONS
from support.waiting import eventually

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


@contextmanager
def started(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as the Makefile starts it, with its temporary files below `tmp_path`."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "KUBECONFIG")}
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": "tools", "TMPDIR": str(tmp_path), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A line as a person types it into a shell; kubectl keeps what it learns of servers in the home."""
    environment = {**os.environ, "HOME": str(home)}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, env=environment)


def done_in_time(command: str, home: Path) -> None:
    """It succeeds: one that looks a second later may be too early on a busy machine, and is typed again."""

    def typed() -> bool:
        done = run(command, home)
        assert done.returncode == 0, (command, done.stderr)
        return True

    eventually(command, typed)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of who tries what the demo suggests."""
    return tmp_path_factory.mktemp("home")


def test_it_runs_to_its_end_by_itself_in_ci(tmp_path: Path):
    with started(tmp_path, CI="true") as process:
        text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    steps = re.findall(r"^\[(\d+)/(\d+)\] (.+)$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == list(range(1, story.STEPS + 1))
    assert {int(total) for _, total, _ in steps} == {story.STEPS}
    before, after = (re.findall(rf"^ *serial {when}: +(\d+)$", text, re.MULTILINE) for when in ("before", "after"))
    assert len(before) == len(after) == 1
    assert before != after
    accepted = re.findall(r"Accepted publickey for \S+: .* ID bot:ci:deployer \(serial (\d+)\)", text)
    assert accepted == before + after
    assert "role deploy (maxSessionTTL 8h)" in text
    assert "<none>   <none>\n      <none>" not in text  # the table of Events has its columns
    assert "BEGIN" not in text  # no key on the screen
    assert not list(tmp_path.iterdir())  # nothing stays behind


def test_it_stays_until_ctrl_c_and_what_it_suggests_can_be_done(tmp_path: Path, home: Path):
    lines: list[str] = []
    with started(tmp_path) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        eventually("the last suggestion", lambda: any("/metrics" in line for line in lines), seconds=240)
        shown = [line.strip() for line in lines]
        exports = next(line for line in shown if line.startswith("export KUBECONFIG="))
        own = [line for line in shown[shown.index(exports) :] if line.startswith(("ssh ", "curl "))]
        for _, command in SUGGESTIONS:
            assert command in shown
        for command in [*(command for _, command in SUGGESTIONS[:-1]), *own]:
            done_in_time(f"{exports}; {command}", home)
        refused = run(f"{exports}; {SUGGESTIONS[-1][1]}", home)
        assert "24h" in refused.stderr
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        reader.join(timeout=60)
    assert "nothing stays behind" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_a_step_that_fails_ends_it_with_the_operators_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "wrong.yaml").write_text(
        "apiVersion: machinebot.dev/v1alpha1\nkind: MachineBot\nmetadata: {name: x}\nspec: {roles: []}\n"
    )
    monkeypatch.setattr(story, "EXAMPLES", tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert program.main([]) == 1
    assert "The demo failed: kubectl apply" in err.getvalue()
    assert "spec.roles" in err.getvalue()
    assert re.search(r'"message": ?"leading"', err.getvalue())
    assert f"[4/{story.STEPS}]" in out.getvalue()
    assert f"[5/{story.STEPS}]" not in out.getvalue()


# --- the agent ------------------------------------------------------------------------------------------------------


def test_the_agent_joins_by_a_secret_and_as_a_pod_and_logs_in(tmp_path: Path):
    with started(tmp_path, "--agent", CI="true") as process:
        text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    steps = re.findall(r"^\[(\d+)/(\d+)\] (.+)$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == list(range(1, agents.AGENT_STEPS + 1))
    assert {int(total) for _, total, _ in steps} == {agents.AGENT_STEPS}
    serials = re.findall(r"^ *Serial: (\d+)$", text, re.MULTILINE)
    accepted = re.findall(r"Accepted publickey for \S+: .* ID bot:ci:deployer \(serial (\d+)\)", text)
    assert accepted == serials
    assert len(set(serials)) == 2
    instances = re.findall(r"INFO    joined  bot=ci/deployer instance=(\S+) generation=1", text)
    assert len(set(instances)) == 2
    assert re.search(rf'reason=SecretUsed detail="the secret was used already, by the instance {instances[0]}', text)
    secret_hash = re.search(r'"secretHash":"sha256:([0-9a-f]{64})"', text)
    assert secret_hash is not None
    assert set(re.findall(r"\b[0-9a-f]{64}\b", text)) == {secret_hash[1]}  # the secret itself is not on the screen
    assert "BEGIN" not in text
    assert "eyJ" not in text  # no token either
    assert not list(tmp_path.iterdir())


def test_the_agents_story_stays_until_ctrl_c_and_what_it_suggests_can_be_done(tmp_path: Path, home: Path):
    lines: list[str] = []
    with started(tmp_path, "--agent") as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        eventually("the last suggestion", lambda: any("/metrics" in line for line in lines), seconds=240)
        shown = [line.strip() for line in lines]
        exports = next(line for line in shown if line.startswith("export KUBECONFIG="))
        following = shown[shown.index(exports) + 1 :]
        suggested = [line for line in following if line.startswith(("ssh ", "curl ", "machinebot ", "kubectl "))]
        *good, refused = [line for line in suggested if "/metrics" not in line and not line.startswith("ssh ")]
        for command in [*(line for line in suggested if line.startswith("ssh ")), *good]:
            done_in_time(f"{exports}; {command}", home)
        done = run(f"{exports}; {refused}", home)
        assert done.returncode == 1
        assert "Locked" in done.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        reader.join(timeout=60)
    assert "nothing stays behind" in lines[-1]
    assert not list(tmp_path.iterdir())
