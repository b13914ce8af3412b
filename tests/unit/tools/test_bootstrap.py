"""The set-up: what it looks for, when it does nothing, and what it tells people to do."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import bootstrap
from bootstrap import SetupError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would be run; none is."""
    ran: list[list[str]] = []

    def run(command: Iterable[str | Path], *, what: str) -> None:
        assert what
        ran.append([str(word) for word in command])

    monkeypatch.setattr(bootstrap, "run", run)
    return ran


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(bootstrap, "SBIN", str(folder))
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def silent(_line: str) -> None:
    """Says nothing."""


def test_it_needs_nothing_but_the_standard_library():
    tree = ast.parse(Path(bootstrap.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("version", [(3, 11), (3, 14), (4, 0)])
def test_a_new_python_is_taken(version: tuple[int, ...]):
    bootstrap.check_python(version)


@pytest.mark.parametrize("version", [(3, 10), (3, 9), (2, 7)])
def test_an_old_python_is_refused_with_the_way_out(version: tuple[int, ...]):
    with pytest.raises(SetupError, match=r"3\.11 or newer is needed: make setup PYTHON="):
        bootstrap.check_python(version)


def test_the_oldest_python_is_the_one_of_pyproject():
    assert f'requires-python = ">={".".join(map(str, bootstrap.OLDEST))}"' in (ROOT / "pyproject.toml").read_text()


PACKAGES = [
    "default-jre-headless",
    "mariadb-client-core",
    "mariadb-server-core",
    "nginx-light",
    "openssh-client",
    "openssh-server",
    "openssl",
    "postgresql",
    "postgresql-client",
]


def test_packages_of_missing_programs_are_named_once(programs: Path):
    assert bootstrap.missing_packages(os.environ["PATH"], bootstrap.TEST_PACKAGES) == PACKAGES
    put(programs, *(bootstrap.TEST_PACKAGES.keys() - {"ssh-keygen"}))
    assert bootstrap.missing_packages(os.environ["PATH"], bootstrap.TEST_PACKAGES) == [
        "openssh-client"
    ]  # ssh-keygen is still missing
    put(programs, "ssh-keygen")
    assert bootstrap.missing_packages(os.environ["PATH"], bootstrap.TEST_PACKAGES) == []


@pytest.mark.usefixtures("programs")
def test_the_demo_needs_no_database():
    assert bootstrap.missing_packages(os.environ["PATH"], bootstrap.PACKAGES) == ["openssh-client", "openssh-server", "openssl"]
    assert bootstrap.PACKAGES.items() <= bootstrap.TEST_PACKAGES.items()


def test_programs_that_are_there_are_left_alone(programs: Path, commands: list[list[str]]):
    put(programs, *bootstrap.TEST_PACKAGES)
    bootstrap.install_programs(silent, bootstrap.TEST_PACKAGES)
    assert commands == []


def test_as_root_missing_programs_are_installed(programs: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    put(programs, "apt-get", *(bootstrap.TEST_PACKAGES.keys() - {"sshd"}))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    bootstrap.install_programs(silent, bootstrap.TEST_PACKAGES)
    assert [command[-1] for command in commands] == ["update", "openssh-server"]
    assert all(command[0] == "env" for command in commands)


def test_with_sudo_it_is_used(programs: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    put(programs, "apt-get", "sudo")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    bootstrap.install_programs(silent, bootstrap.TEST_PACKAGES)
    assert {command[0] for command in commands} == {"sudo"}


@pytest.mark.parametrize(
    ("there", "message"),
    [((), f"install what Debian calls {' '.join(PACKAGES)};"), (("apt-get",), "run as root: apt-get update")],
    ids=["no apt-get", "no sudo"],
)
def test_where_nothing_can_be_installed_it_says_what_to_do(
    programs: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], message: str
):
    put(programs, *there)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match=message):
        bootstrap.install_programs(silent, bootstrap.TEST_PACKAGES)
    assert commands == []


def test_the_environment_of_this_python_is_kept(tmp_path: Path, commands: list[list[str]]):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    bootstrap.make_environment(tmp_path, silent)
    assert commands == []


@pytest.mark.parametrize("python", [None, "#!/bin/sh\necho 3.9.1\n", "#!/bin/sh\nexit 1\n"], ids=["none", "another", "broken"])
def test_another_environment_is_made_anew(tmp_path: Path, commands: list[list[str]], python: str | None):
    if python is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").write_text(python)
        (tmp_path / "bin" / "python").chmod(0o755)
    bootstrap.make_environment(tmp_path, silent)
    assert commands == [[sys.executable, "-m", "venv", "--clear", str(tmp_path)]]


def test_where_venv_is_missing_its_package_is_installed_first(
    tmp_path: Path, programs: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    put(programs, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bootstrap, "can_make_environments", lambda: False)
    bootstrap.make_environment(tmp_path, silent)
    assert [command[-1] for command in commands] == ["update", "python3-venv", str(tmp_path)]


def environment(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    return tmp_path


def test_packages_are_installed_with_hashes_and_then_nothing_is_done(tmp_path: Path, commands: list[list[str]]):
    place = environment(tmp_path)
    bootstrap.install_packages(place, silent)
    packages, project = commands
    assert "--require-hashes" in packages
    assert packages[-1] == str(ROOT / "constraints.txt")
    assert {"--no-deps", "--no-build-isolation", "--editable"} <= set(project)
    bootstrap.install_packages(place, silent)
    assert len(commands) == 2


def test_a_failed_installation_is_done_again(tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    place = environment(tmp_path)
    bootstrap.install_packages(place, silent)
    (place / bootstrap.STAMP).write_text("of other files")

    def fail(_command: Iterable[str | Path], *, what: str) -> None:
        raise SetupError(what)

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "run", fail)
        with pytest.raises(SetupError):
            bootstrap.install_packages(place, silent)
    assert not (place / bootstrap.STAMP).exists()
    bootstrap.install_packages(place, silent)
    assert len(commands) == 4


def test_an_environment_without_pip_gets_it(tmp_path: Path, commands: list[list[str]]):
    place = environment(tmp_path)
    (place / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    bootstrap.install_packages(place, silent)
    assert commands[0][-2:] == ["-m", "ensurepip"]


@pytest.mark.parametrize("name", bootstrap.INPUTS)
def test_the_digest_follows_every_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for each in bootstrap.INPUTS:
        (tmp_path / each).write_text("content")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    before = bootstrap.digest(tmp_path)
    assert bootstrap.digest(tmp_path) == before
    (tmp_path / name).write_text("other content")
    assert bootstrap.digest(tmp_path) != before


def test_a_failure_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def fail(_version: tuple[int, ...]) -> None:
        raise SetupError("do this")

    monkeypatch.setattr(bootstrap, "check_python", fail)
    assert bootstrap.main() == 1
    assert capsys.readouterr().err == "setup: do this\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], "it failed with exit code 3"),
        (["/no/such/program"], "it: there is no /no"),
    ],
    ids=["exit code", "missing"],
)
def test_a_command_that_fails_is_named(command: list[str], message: str):
    with pytest.raises(SetupError, match=message):
        bootstrap.run(command, what="it")


def test_every_pinned_package_has_a_hash():
    text = (ROOT / "constraints.txt").read_text()
    assert bootstrap.count_pinned(text) > 50
    assert text.count("==") >= bootstrap.count_pinned(text)
    blocks = [block for block in text.split("\n") if "==" in block and not block.startswith((" ", "#"))]
    assert all(block.endswith("\\") for block in blocks)


def test_the_ci_script_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"


def test_make_alone_lists_every_target():
    text = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True).stdout
    listed = {line.split()[1] for line in text.splitlines()}
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert listed == set(phony.split()[1:]) - {"crds-check"}
