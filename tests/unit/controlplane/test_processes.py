"""Children that end when they should: stopped, died, never ready."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from controlplane import _child
from controlplane.ports import ReservedPort
from controlplane.processes import Part, ProgramError, clock, run_with_heartbeat, tail, wait_until

STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def part(tmp_path: Path, script: str) -> Part:
    return Part("part", [sys.executable, "-c", script], tmp_path / "part.log", dict(os.environ))


def test_a_part_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    dying = part(tmp_path, "print('no disk left'); raise SystemExit(4)")
    dying.start()
    with pytest.raises(ProgramError, match=r"part died with exit code 4[\s\S]*no disk left"):
        wait_until("never", lambda: False, seconds=30, parts=[dying])


def test_waiting_ends_at_the_deadline_and_names_the_reason(tmp_path: Path) -> None:
    def refuse() -> bool:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(ProgramError, match=r"waited 0 s for the moon in vain \(nobody there\)"):
        wait_until("the moon", refuse, seconds=0.1, parts=[])
    with pytest.raises(ProgramError, match=r"it was not so"):
        wait_until("the moon", lambda: False, seconds=0.1, parts=[part(tmp_path, "")])


def test_a_part_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = part(tmp_path, STUBBORN)
    stubborn.start()
    wait_until("its first word", lambda: stubborn.log.read_text() == "up\n", seconds=30, parts=[stubborn])
    stubborn.stop(grace_seconds=0.1)
    assert not stubborn.running
    stubborn.stop()


def test_a_paused_part_is_stopped_all_the_same(tmp_path: Path) -> None:
    paused = part(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    paused.start()
    wait_until("its first word", lambda: paused.log.read_text() == "up\n", seconds=30, parts=[paused])
    pid = paused.pid
    paused.send(signal.SIGSTOP)
    paused.stop(grace_seconds=30)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_part_is_not_started_twice(tmp_path: Path) -> None:
    running = part(tmp_path, "import time; time.sleep(60)")
    running.start()
    with pytest.raises(ProgramError, match="part runs already"):
        running.start()
    running.stop()
    with pytest.raises(ProgramError, match="part does not run"):
        _ = running.pid


def test_a_long_program_shows_that_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.processes.HEARTBEAT_SECONDS", 0.01)
    said: list[str] = []
    command = [sys.executable, "-c", "import time; time.sleep(0.2)"]
    environment = dict(os.environ)
    run_with_heartbeat(command, what="work", log=tmp_path / "log", environment=environment, directory=tmp_path, say=said.append)
    assert re.fullmatch(r"work: still working, 0:0\d", said[0])


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no program /nowhere/etcd"):
        Part("etcd", ["/nowhere/etcd"], tmp_path / "log", {}).start()


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, "0:00"), (59.9, "0:59"), (247, "4:07"), (3600, "60:00")])
def test_the_clock(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == "    (it logged nothing)"
    log.write_text("one\ntwo\nthree\n")
    assert tail(log, lines=2) == "    two\n    three"


def test_reserved_ports_differ_and_are_given_back() -> None:
    ports = [ReservedPort() for _ in range(20)]
    assert len({port.number for port in ports}) == 20
    for port in ports:
        port.release()


def test_a_part_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    running = part(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    starter = threading.Thread(target=running.start)
    starter.start()
    starter.join()
    wait_until("its first word", lambda: running.log.read_text() == "up\n", seconds=30, parts=[running])
    running.check()
    running.stop()


def test_a_child_whose_parent_is_gone_never_starts(tmp_path: Path) -> None:
    """The shim is told of a parent that is not its own, as if that had died before it looked."""
    touched = tmp_path / "touched"
    done = subprocess.run([sys.executable, _child.__file__, "1", "/usr/bin/touch", touched], check=False)
    assert done.returncode == _child.PARENT_GONE
    assert not touched.exists()
