"""The command line, as people use it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import machinebot
from machinebot import app as app_module
from machinebot.cli.main import app, program
from machinebot.settings import OperatorSettings

CRDS = Path(__file__).parents[3] / "crds"
SOURCE = Path(__file__).parents[3] / "operator"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code, and all that was said, without frames and line breaks."""
    clean: dict[str, str | None] = {"POD_NAMESPACE": None, "POD_NAME": None, "NO_COLOR": "1", "TERM": "dumb", **environment}
    result = CliRunner().invoke(app, list(arguments), env=clean)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, re.sub(r"[│╭╮╰╯─\s]+", " ", result.output).strip()


def test_version() -> None:
    assert run("version") == (0, machinebot.__version__)


def test_crds_are_the_checked_in_files(tmp_path: Path) -> None:
    """`make generate` was not forgotten."""
    code, said = run("crds", "--directory", str(tmp_path / "a" / "b"))
    assert code == 0
    written = {path.name: path.read_text() for path in (tmp_path / "a" / "b").iterdir()}
    assert written == {path.name: path.read_text() for path in CRDS.glob("*.yaml")}
    assert all(name in said for name in written)
    assert len(written) == 6


def test_crds_are_written_over(tmp_path: Path) -> None:
    (tmp_path / "machinebot.dev_machinebots.yaml").write_text("old")
    assert run("crds", "--directory", str(tmp_path))[0] == 0
    assert (tmp_path / "machinebot.dev_machinebots.yaml").read_text() == (CRDS / "machinebot.dev_machinebots.yaml").read_text()


@pytest.mark.parametrize("command", [[], ["--help"]], ids=["nothing", "--help"])
def test_help_names_the_commands(command: list[str]) -> None:
    _, said = run(*command)
    assert all(word in said for word in ("operator", "agent", "crds", "version", "status", "bots", "tokens", "locks", "doctor"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/local/bin/machinebot", "machinebot"),
        ("/home/me/.krew/bin/kubectl-machinebot", "kubectl machinebot"),
        ("kubectl-machinebot", "kubectl machinebot"),
        ("/lib/machinebot/__main__.py", "machinebot"),
    ],
)
def test_the_usage_is_shown_as_it_was_called(path: str, name: str) -> None:
    assert program(path) == name


@pytest.mark.parametrize("command", ["status", "inspect x", "locks ls", "doctor"])
def test_another_form_of_output_is_a_mistake_of_usage(command: str) -> None:
    code, said = run(*command.split(), "-o", "yaml")
    assert code == 2
    assert "write -o table or -o json" in said


@pytest.mark.parametrize(
    "command",
    ["bots add x", "tokens add x --bot b", "locks add --ttl 1h --expires 1h", "renew --timeout 0", "inspect", "nothing"],
)
def test_mistakes_of_usage_have_an_exit_code_of_their_own(command: str) -> None:
    assert run(*command.split())[0] == 2


@pytest.mark.parametrize(
    ("module", "command", "words"),
    [
        pytest.param("kubernetes", "status", "pip install 'machinebot[operator]'", id="the client"),
        pytest.param("aiohttp", "locks ls", "pip install 'machinebot[operator]'", id="its transport"),
    ],
)
def test_a_package_that_is_not_installed_is_named(module: str, command: str, words: str) -> None:
    """`pip install machinebot` is small: it has what the agent needs, and printing resources."""
    code = f"import sys; sys.modules['{module}'] = None; from machinebot.cli.main import app; app({command.split()!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(SOURCE)}
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"machinebot: this needs the package {module}")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


# --- the operator --------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, _logging_as_before: None) -> list[OperatorSettings]:
    """The settings that the operator was started with; nothing runs."""
    seen: list[OperatorSettings] = []

    async def run_operator(settings: OperatorSettings) -> int:
        seen.append(settings)
        return 3

    monkeypatch.setattr(app_module, "run_operator", run_operator)
    return seen


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param(["--listen", "8080:"], "--listen as 0.0.0.0:8080", id="no port"),
        pytest.param(["--listen", "localhost"], "--listen as 0.0.0.0:8080", id="no number"),
        pytest.param(["--listen", ":-1"], "--listen as 0.0.0.0:8080", id="a port below zero"),
        pytest.param(["--listen", ":65536"], "--listen as 0.0.0.0:8080", id="a port too high"),
        pytest.param(["--listen-https", "8443:"], "--listen-https as 0.0.0.0:8443", id="no HTTPS port"),
        pytest.param(["--tls-cert", "tls.crt"], "--tls-cert and --tls-key together", id="a certificate without a key"),
        pytest.param(["--tls-key", "tls.key"], "--tls-cert and --tls-key together", id="a key without a certificate"),
        pytest.param(["--url", "http://id.example.test"], "--url as https://id.example.test", id="an address without TLS"),
        pytest.param(["--url", "https://id.example.test/"], "--url as https://id.example.test", id="a slash at the end"),
        pytest.param(["--log-format", "xml"], "--log-format as json or console", id="format"),
        pytest.param(["--log-level", "loud"], "--log-level as debug, info, warning or error", id="level"),
        pytest.param(["--workers", "0"], "'--workers'", id="no workers"),
        pytest.param(["--workers", "many"], "'--workers'", id="no number of workers"),
        pytest.param(["--sweep-interval", "0"], "'--sweep-interval'", id="sweeps without a pause"),
        pytest.param(["--lease-duration", "1"], "'--lease-duration'", id="a short lease"),
        pytest.param(["--lease-duration", "3600"], "'--lease-duration'", id="a long lease"),
        pytest.param(["--unknown"], "--unknown", id="unknown"),
    ],
)
def test_wrong_flags_say_what_to_write(started: list[OperatorSettings], flags: list[str], words: str) -> None:
    code, said = run("operator", "--namespace", "system", *flags)
    assert code == 2
    assert words in said
    assert started == []


def test_the_namespace_is_needed(started: list[OperatorSettings]) -> None:
    code, said = run("operator")
    assert code == 2
    assert "--namespace" in said
    assert started == []


def test_without_flags_the_settings_have_their_defaults(started: list[OperatorSettings]) -> None:
    assert run("operator", POD_NAMESPACE="system", POD_NAME="pod-a")[0] == 3, "the exit code of the operator"
    assert started == [OperatorSettings(namespace="system", identity="pod-a")]


def test_a_replica_without_a_name_is_called_like_its_machine(started: list[OperatorSettings]) -> None:
    run("operator", "--namespace", "system")
    assert started[0].identity == os.uname().nodename


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param(["--listen", "127.0.0.1:0"], {"listen_host": "127.0.0.1", "listen_port": 0}, id="listen"),
        pytest.param(["--listen", ":9090"], {"listen_host": "0.0.0.0", "listen_port": 9090}, id="a port alone"),  # noqa: S104 - the default
        pytest.param(["--listen", "9090"], {"listen_host": "0.0.0.0", "listen_port": 9090}, id="without a colon"),  # noqa: S104 - the default
        pytest.param(["--listen", "[::]:9090"], {"listen_host": "::", "listen_port": 9090}, id="IPv6"),
        pytest.param(["--listen-https", "127.0.0.1:0"], {"https_host": "127.0.0.1", "https_port": 0}, id="HTTPS"),
        pytest.param(
            ["--tls-cert", "a", "--tls-key", "b"], {"tls_certificate": Path("a"), "tls_private_key": Path("b")}, id="files"
        ),
        pytest.param(
            ["--service", "id"], {"service_url": "https://id.system.svc", "service_host": "id.system.svc"}, id="Service"
        ),
        pytest.param(["--url", "https://id.test:8443"], {"service_host": "id.test", "service": "machinebot"}, id="address"),
        pytest.param(["--watch-namespaces", "ci,prod"], {"watch_namespaces": ("ci", "prod")}, id="namespaces"),
        pytest.param(["--watch-namespaces", " ci, ,prod ,"], {"watch_namespaces": ("ci", "prod")}, id="with blanks"),
        pytest.param(["--watch-namespaces", ""], {"watch_namespaces": ()}, id="all namespaces"),
        pytest.param(["--workers", "4", "--sweep-interval", "60"], {"workers": 4, "sweep_interval": 60}, id="work"),
        pytest.param(
            ["--log-level", "DEBUG", "--log-format", "console"], {"log_level": "DEBUG", "log_format": "console"}, id="log"
        ),
        pytest.param(["--lease-name", "other"], {"lease_name": "other"}, id="lease"),
    ],
)
def test_flags_become_settings(started: list[OperatorSettings], flags: list[str], expected: dict[str, Any]) -> None:
    assert run("operator", "--namespace", "system", *flags)[0] == 3
    assert {name: getattr(started[0], name) for name in expected} == expected


@pytest.mark.parametrize("duration", [3, 10, 15, 60])
def test_a_leader_stops_before_another_may_begin(started: list[OperatorSettings], duration: int) -> None:
    run("operator", "--namespace", "system", "--lease-duration", str(duration))
    settings = started[0]
    assert settings.lease_duration == duration
    assert settings.lease_renew_deadline < settings.lease_duration
    assert 2 * settings.lease_retry < settings.lease_renew_deadline, "two attempts at least"
