"""Where the programs come from: KUBEBUILDER_ASSETS, the cache, the PATH when new enough, and else a build."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.build import build
from controlplane.processes import say_on_stderr
from controlplane.recipe import MODULES, PROGRAMS, bin_directory

QUESTION_SECONDS = 30.0
"""For `PROGRAM --version`, which answers at once; a cold disk is slow once."""

VERSION_QUESTION: Mapping[str, Sequence[str]] = {
    "kubectl": ("version", "--client", "-o", "json"),
    "helm": ("version", "--template", "{{.Version}}"),
}
"""How a program is asked for its version, where that is not `--version`."""

OLDEST: Mapping[str, tuple[int, int]] = {
    "etcd": (3, 5),
    "kube-apiserver": (1, 30),  # ValidatingAdmissionPolicy became stable
    "kube-controller-manager": (1, 30),
    "kubectl": (1, 30),
    "helm": (3, 14),
}
"""The oldest (major, minor) of a program that was not built here and is used all the same."""


@dataclass(frozen=True)
class Binaries:
    """The paths of the programs that were asked for."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> Path:
        """The path of a program; KeyError when it was not asked for."""
        return self.paths[name]

    @property
    def directories(self) -> list[Path]:
        """The directories that hold them, each once: what to put first on a PATH."""
        return list(dict.fromkeys(path.parent for path in self.paths.values()))


def find(names: Sequence[str] = PROGRAMS, environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """The named programs that are there already; those missing are left out. Builds nothing.

    Programs of one module (the three of Kubernetes) are taken from one place together or not at all: a controller manager
    newer than its API server is a combination that Kubernetes does not support.

    Raises:
        ValueError: a name is none of `PROGRAMS`.
    """
    if unknown := set(names) - set(PROGRAMS):
        raise ValueError(f"no such programs: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    found: dict[str, Path] = {}
    for module in MODULES:
        group = [name for name in module.packages if name in names]
        for place in _places(group, environment):
            if all(_usable(name, place.get(name), environment) for name in group):
                found.update({name: path for name, path in place.items() if path is not None})
                break
    return found


def ensure(
    names: Sequence[str] = PROGRAMS,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = say_on_stderr,
) -> Binaries:
    """All of the named programs: those that `find` finds, the others built now, which takes minutes and says so.

    Raises:
        ValueError: a name is none of `PROGRAMS`.
        golang.GoMissingError: something must be built and there is no Go to do it with.
        processes.ProgramError: a build failed.
    """
    found = find(names, environment)
    if missing := [name for name in names if name not in found]:
        home = build(missing, environment, say)
        found.update({name: home / name for name in missing})
    return Binaries({name: found[name] for name in names})


def _places(names: Sequence[str], environment: Mapping[str, str]) -> Iterator[dict[str, Path | None]]:
    """Where each of the names would be, one place after the other, best first; later places are only looked at if needed."""
    if assets := environment.get("KUBEBUILDER_ASSETS"):
        yield {name: Path(assets).absolute() / name for name in names}
    cached = bin_directory(environment)
    yield {name: cached / name for name in names}
    on_path = {name: shutil.which(name, path=environment.get("PATH")) for name in names}
    yield {name: Path(path) if path else None for name, path in on_path.items()}


def _usable(name: str, path: Path | None, environment: Mapping[str, str]) -> bool:
    """True for a program that is there and new enough; the cache's are, by the digest in their path."""
    if path is None or not os.access(path, os.X_OK):
        return False
    if path.parent == bin_directory(environment):
        return True
    return version(name, path) >= OLDEST[name]


def version(name: str, path: Path) -> tuple[int, int]:
    """The (major, minor) that a program tells; (0, 0) when it does not run or tells none."""
    question = [str(path), *VERSION_QUESTION.get(name, ("--version",))]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=QUESTION_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    return parse_version(answer.stdout)


def parse_version(text: str) -> tuple[int, int]:
    """(major, minor) from what the programs print: `Kubernetes v1.37.2`, `etcd Version: 3.6.16`, `v4.3.1`, kubectl's JSON."""
    if text.lstrip().startswith("{"):
        text = str(json.loads(text).get("clientVersion", {}).get("gitVersion", ""))
    numbers = re.search(r"(\d+)\.(\d+)\.\d+", text)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
