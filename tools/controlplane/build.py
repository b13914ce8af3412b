"""Builds the programs from the pinned Go modules into the cache: one build at a time, each program whole or not there."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from controlplane import golang
from controlplane.processes import HEARTBEAT_SECONDS, clock, run_with_heartbeat
from controlplane.recipe import BUILD_FLAGS, GO_MODULES, MODULES, Module, bin_directory, cache_directory, go_version_needed

LOCK_POLL_SECONDS = 0.5
"""Between two tries for the lock: a build takes minutes."""


def build(names: Collection[str], environment: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """Build those of the named programs that the cache lacks; returns the directory that then has them all.

    Two calls at once take turns, the second finding the work done. A killed build leaves no half program behind.

    Raises:
        golang.GoMissingError: there is no Go to build with.
        processes.ProgramError: a build failed; the text holds the end of what Go said.
    """
    cache, home = cache_directory(environment), bin_directory(environment)
    home.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(cache / "build.lock", say):
        missing = {name for name in names if not (home / name).exists()}
        wanted = [(module, name) for module in MODULES for name in module.packages if name in missing]
        if not wanted:
            return home
        go = golang.find_or_fetch(go_version_needed(), cache, environment, say)
        say(f"building {', '.join(name for _, name in wanted)} with {go}; this happens once and takes minutes")
        started = time.monotonic()
        with _staging(home.parent) as staging:
            for position, (module, name) in enumerate(wanted, start=1):
                say(f"{name} {module.version()}: building ({position} of {len(wanted)})")
                command = go_build(go, module, name, staging / name)
                took = run_with_heartbeat(
                    command,
                    what=name,
                    log=staging / f"{name}.log",
                    environment={**go_environment(environment, cache, go), "GOTMPDIR": str(staging)},
                    directory=GO_MODULES / module.folder,
                    say=say,
                )
                (staging / name).rename(home / name)
                say(f"{name} {module.version()}: built in {clock(took)}")
        say(f"all built in {clock(time.monotonic() - started)}: {home}")
    return home


def go_build(go: Path, module: Module, name: str, target: Path) -> list[str]:
    """The command that builds one program of a module, to be run in the module's folder."""
    return [str(go), "build", *BUILD_FLAGS, f"-ldflags={module.linker_flags()}", "-o", str(target), module.packages[name]]


def go_environment(environment: Mapping[str, str], cache: Path, go: Path) -> dict[str, str]:
    """The environment of `go build`: for this very platform, from this very toolchain, with caches of our own.

    A GOCACHE or GOMODCACHE that the person set is respected; everything about proxies is theirs too.
    """
    kept = {name: value for name, value in environment.items() if name not in {"GOOS", "GOARCH", "GOROOT"}}
    return {
        "GOCACHE": str(cache / "go-build"),
        "GOMODCACHE": str(cache / "go-mod"),
        **kept,
        "PATH": f"{go.parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "CGO_ENABLED": "0",  # no C compiler needed, and the programs run on any libc
        "GOTOOLCHAIN": "local",  # Go must not fetch another Go
        "GOWORK": "off",  # a go.work further up is not ours
    }


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """For Go's scratch files and the result (renaming is atomic on one disk); what killed builds left is swept first."""
    for left_behind in parent.glob(".staging-*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=parent, ignore_cleanup_errors=True) as staging:
        yield Path(staging)


@contextlib.contextmanager
def _one_at_a_time(lock: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the cache's lock; the kernel frees it when we die, however that happens."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        started = last_said = time.monotonic()
        while not _try_lock(file.fileno()):
            if last_said == started or time.monotonic() - last_said > HEARTBEAT_SECONDS:
                last_said = time.monotonic()
                say(f"waiting for another build to finish, {clock(last_said - started)}")
            time.sleep(LOCK_POLL_SECONDS)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
