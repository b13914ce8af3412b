"""The daemon: a day on a quick clock, signals, systemd, health and metrics."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from machinebot.agent import notify
from machinebot.agent.agent import OutputState, State
from machinebot.agent.daemon import Daemon, Signals, Stop
from machinebot.agent.health import STUCK, AgentCollector, Board, HealthServer
from machinebot.agent.outputs import outputs_of
from machinebot.outputs.inspect import Content, inspect
from unit.agent.api import Clock, Rig
from unit.authority.builders import DAY, HOUR, MINUTE, NOW
from unit.authority.desk_world import secret_token

# --- a day --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kubernetes", "token"])
def test_a_day_without_a_moment_that_a_credential_is_not_good(rig: Rig, method: str) -> None:
    """26 hours of daemon time: two outages, a restart; at every moment every directory holds a whole set that is good."""
    rig.method = method
    rig.api.world.tokens["secret"] = secret_token(expires="2028-01-01T00:00:00Z")
    rig.output("ssh", identity={}, credentialTTL="2h")
    rig.output("db", database={"user": "app"})
    rig.output("jwt", jwtSVID={"audiences": ["vault"]}, credentialTTL="30m", renewBeforePercentage=60)
    parsed = {output.name: output.parsed for output in outputs_of(rig.config)}
    clock = rig.api.clock
    seen: dict[tuple[str, str], Content] = {}

    def wait(seconds: float) -> None:
        hour = (clock.time - NOW) / HOUR
        rig.api.away = 10 <= hour < 10.2 or 20 <= hour < 20.1
        for name, output in parsed.items():
            where = name, str((rig.path / name / "..data").readlink())
            if where not in seen:
                seen[where] = inspect(output, {key: data for key, data in rig.files(name).items() if key != ".machinebot.json"})
            assert seen[where].not_before <= clock.time < seen[where].not_after, where
        clock.wait(seconds)

    states: list[State] = []
    for until in (NOW + 15 * HOUR, NOW + 26 * HOUR):  # and a restart in between
        Daemon(rig.agent(), clock, wait, states.append).run(until=until)
    by_name = {name: sum(each == name for each, _ in seen) for name in parsed}
    assert 26 <= by_name["ssh"] <= 34, "at half of two hours, up to a tenth earlier"
    assert 3 <= by_name["db"] <= 4
    assert 120 <= by_name["jwt"] <= 190, "at 40 % of half an hour, up to a tenth earlier"
    assert all(state.ready for state in states)
    if method == "token":
        assert rig.api.world.ledger.stored["token-2"].generation in {2, 3}
        assert rig.api.world.ledger.locked == []
    assert len({visit.identity.instance for visit in rig.api.world.ledger.visits}) == 1
    assert len(list((rig.path / "ssh").glob(".machinebot-*"))) == 2


def test_an_idle_daemon_asks_nobody_and_writes_nothing(rig: Rig) -> None:
    rig.output("ssh")
    daemon, _ = rig.daemon()
    daemon.run(until=NOW + MINUTE)
    visits = len(rig.api.world.ledger.visits)
    before = {path: path.lstat() for path in [rig.path / "ssh", *(rig.path / "ssh").rglob("*"), *(rig.path / "state").iterdir()]}
    daemon.run(until=NOW + 20 * MINUTE)
    assert len(rig.api.world.ledger.visits) == visits
    after = {path: path.lstat() for path in before}
    assert {path: (found.st_ino, found.st_mtime_ns) for path, found in after.items()} == {
        path: (found.st_ino, found.st_mtime_ns) for path, found in before.items()
    }


# --- waiting and signals ------------------------------------------------------------------------------------------------


class Rounds:
    """An agent that notes its rounds."""

    def __init__(self, due: timedelta = HOUR) -> None:
        self.due = due
        self.rounds: list[datetime] = []
        self.requests = 0

    def round(self, now: datetime) -> datetime:
        self.rounds.append(now)
        return now + self.due

    def state(self, now: datetime) -> State:
        return State("ci", now, None, "", "", (), {}, {})

    def request(self) -> None:
        self.requests += 1


def test_a_round_comes_when_the_one_before_wanted_it() -> None:
    clock, agent = Clock(), Rounds()
    Daemon(agent, clock, clock.wait, lambda _: None).run(until=NOW + 5 * HOUR)  # type: ignore[arg-type]
    assert agent.rounds == [NOW + hour * HOUR for hour in range(5)]


def test_a_clock_that_is_set_back_makes_a_round() -> None:
    clock, agent = Clock(), Rounds()
    moves = iter([-DAY, *[HOUR] * 30])

    def wait(_seconds: float) -> None:
        clock.time += next(moves)

    Daemon(agent, clock, wait, lambda _: None).run(until=NOW)  # type: ignore[arg-type]
    Daemon(agent, clock, wait, lambda _: None).run(until=NOW + timedelta(seconds=1))  # type: ignore[arg-type]
    assert agent.rounds[:2] == [NOW, NOW - DAY]


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_the_wait_and_renews(signals: Signals, number: signal.Signals) -> None:
    agent, clock = Rounds(), Clock()
    threads = []

    def publish(_state: State) -> None:
        if len(agent.rounds) == 1:
            threads.append(threading.Timer(0.05, lambda: os.kill(os.getpid(), number)))
            threads[0].start()
        else:
            raise Stop

    daemon = Daemon(agent, clock, signals.wait, publish)  # type: ignore[arg-type]
    with signals.installed(daemon.request), pytest.raises(Stop):
        daemon.run()
    threads[0].join()
    assert (len(agent.rounds), agent.requests) == (2, 1)


def test_a_signal_during_a_round_is_not_lost(signals: Signals) -> None:
    agent, clock = Rounds(), Clock()

    def publish(_state: State) -> None:
        if len(agent.rounds) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            raise Stop

    daemon = Daemon(agent, clock, signals.wait, publish)  # type: ignore[arg-type]
    with signals.installed(daemon.request), pytest.raises(Stop):
        daemon.run()
    assert agent.requests == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_ends_at_once(signals: Signals, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    daemon = Daemon(Rounds(), Clock(), signals.wait, lambda _: os.kill(os.getpid(), number))  # type: ignore[arg-type]
    with signals.installed(daemon.request), pytest.raises(Stop):
        daemon.run()
    assert signal.getsignal(number) is before


# --- systemd ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        address = str(tmp_path / "notify") if request.param == "path" else f"@machinebot-test-{os.getpid()}"
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    listener.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found += listener.recv(4096).decode().splitlines()
    return found


def test_systemd_is_told(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(600_000_000))
    clock, agent, told = Clock(), Rounds(), []

    def wait(seconds: float) -> None:
        told.extend(heard(systemd))
        clock.wait(seconds)

    daemon = Daemon(agent, clock, wait, lambda _: None)  # type: ignore[arg-type]
    daemon.run(until=NOW + MINUTE)
    told += heard(systemd)
    assert told[:3] == ["READY=1", "WATCHDOG=1", "STATUS=0 of 0 outputs good, next look at 2027-01-01T13:00:00Z"]
    assert told.count("WATCHDOG=1") == 1 + 15, "an hour in parts of four minutes"
    told.clear()
    daemon.request()
    daemon.run(until=clock.time + MINUTE)
    assert told[0] == "RELOADING=1"
    assert told[1].startswith("MONOTONIC_USEC=")
    assert told[2] == "READY=1"
    assert agent.requests == 1


def test_systemd_that_does_not_listen_is_not_waited_for(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.001)
    for _ in range(600):  # longer than any queue
        notify.notify(notify.ALIVE)
    assert heard(systemd)


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in ("", str(tmp_path / "none"), "x" * 300):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.notify(notify.READY)


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("", "", None), ("5000000", "", 5.0), ("5000000", "1", None), ("5000000", "own", 5.0), ("0", "", None), ("x", "", None)],
)
def test_the_watchdog_is_ours(usec: str, pid: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    else:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert notify.watchdog_seconds() == seconds


# --- health and metrics -------------------------------------------------------------------------------------------------

GOOD = OutputState(
    "ssh", "identity", "/o/ssh", ready=True, not_before=NOW, not_after=NOW + DAY, renew_at=NOW + DAY / 2, reason="", message=""
)
TROUBLED = replace(GOOD, name="db", type="database", reason="RoleUnknown", message="there is no role 'x'")
NONE = OutputState(
    "jwt", "jwtSVID", "/o/jwt", ready=False, not_before=None, not_after=None, renew_at=None, reason="Locked", message="m"
)


def state(*outputs: OutputState, reason: str = "") -> State:
    return State(
        namespace="ci",
        at=NOW,
        identity_not_after=NOW + HOUR,
        identity_reason=reason,
        identity_message="why" if reason else "",
        outputs=outputs,
        joins={("github", "success"): 2},
        issues={("identity", "Expiring", "success"): 3, ("database", "Expiring", "RoleUnknown"): 1},
    )


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def port(board: Board, clock: Clock) -> Iterator[int]:
    server = HealthServer(("127.0.0.1", 0), board, clock)
    yield server.port
    server.stop()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_before_the_first_round_it_lives_and_is_not_ready(port: int) -> None:
    assert get(port, "/livez") == (200, "ok\n")
    assert get(port, "/readyz")[0] == 503
    assert get(port, "/metrics")[0] == 200


def test_one_troubled_output_does_not_make_the_agent_unready(port: int, board: Board) -> None:
    board.state = state(GOOD, TROUBLED, reason="Locked")
    status, body = get(port, "/readyz")
    found = json.loads(body)
    assert (status, found["ready"]) == (200, True)
    assert found["identity"] == {"notAfter": "2027-01-01T13:00:00Z", "reason": "Locked", "message": "why"}
    assert found["outputs"]["ssh"] == {
        "ready": True,
        "type": "identity",
        "path": "/o/ssh",
        "notAfter": "2027-01-02T12:00:00Z",
        "renewAt": "2027-01-02T00:00:00Z",
    }
    assert found["outputs"]["db"]["reason"] == "RoleUnknown"


def test_an_output_without_a_credential_does(port: int, board: Board, clock: Clock) -> None:
    board.state = state(GOOD, NONE)
    status, body = get(port, "/readyz")
    assert (status, json.loads(body)["outputs"]["jwt"]["ready"]) == (503, False)
    board.state = state(GOOD)
    assert get(port, "/readyz")[0] == 200
    clock.time = NOW + DAY
    assert get(port, "/readyz")[0] == 503, "it has ended since the last round"


def test_a_loop_that_hangs_is_dead(port: int, board: Board, clock: Clock) -> None:
    board.state = state(GOOD)
    clock.time = NOW + STUCK
    assert get(port, "/livez") == (503, "the loop hangs\n")


def test_metrics_are_those_of_the_operator(port: int, board: Board) -> None:
    board.state = state(GOOD, NONE)
    status, text = get(port, "/metrics")
    assert status == 200
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    labels = (("name", "ssh"), ("namespace", "ci"), ("type", "identity"))
    assert found["machinebot_output_expiration_timestamp_seconds", labels] == (NOW + DAY).timestamp()
    assert found["machinebot_output_not_before_timestamp_seconds", labels] == NOW.timestamp()
    assert found["machinebot_output_renewal_timestamp_seconds", labels] == (NOW + DAY / 2).timestamp()
    for name, condition, value in (("ssh", "True", 1), ("ssh", "False", 0), ("jwt", "False", 1), ("jwt", "Unknown", 0)):
        key = (("condition", condition), ("name", name), ("namespace", "ci"))
        assert found["machinebot_output_ready_status", key] == value
    assert found["machinebot_joins_total", (("method", "github"), ("result", "success"))] == 2
    assert found["machinebot_issues_total", (("reason", "Expiring"), ("result", "RoleUnknown"), ("type", "database"))] == 1
    assert found["machinebot_identity_expiration_timestamp_seconds", ()] == (NOW + HOUR).timestamp()


def test_a_registry_takes_the_collector_before_there_is_a_state(board: Board) -> None:
    registry = CollectorRegistry()
    registry.register(AgentCollector(board))
    assert list(registry.collect()) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/livez?a=b", 200), ("HEAD", "/livez", 200), ("POST", "/livez", 501)],
)
def test_what_else_is_asked(port: int, method: str, path: str, status: int) -> None:
    found = get(port, path, method)
    assert found[0] == status
    assert method != "HEAD" or found[1] == ""


def test_who_sends_nothing_keeps_nobody_waiting(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(b"GET /liv")
        assert get(port, "/livez")[0] == 200


def test_two_daemons_do_not_share_a_port(port: int, board: Board, clock: Clock) -> None:
    with pytest.raises(OSError, match="in use"):
        HealthServer(("127.0.0.1", port), board, clock)
