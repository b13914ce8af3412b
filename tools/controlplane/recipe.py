"""What is built: the pinned Go tools modules, their programs and flags, and where the results live. Runs nothing."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

GO_MODULES = Path(__file__).parent / "go"
"""The folder that holds one Go module (go.mod, go.sum) for each `Module` below."""

BUILD_FLAGS = ("-trimpath", "-mod=readonly", "-modcacherw", "-buildvcs=false")
"""Same source, same bytes; go.sum decides; and the module cache stays removable with a plain `rm -r`."""

DIGEST_LENGTH = 16
"""Hex digits of SHA-256 in a cache folder's name: 64 bits are plenty against accident, and paths stay short."""


class RecipeError(RuntimeError):
    """A checked-in go.mod does not say what it must."""


@dataclass(frozen=True)
class Module:
    """One Go tools module: programs that share a version, are built together and are used together."""

    folder: str
    """The folder below `GO_MODULES`."""
    source: str
    """The module path whose required version is the version of the programs."""
    packages: Mapping[str, str]
    """The main package of each program."""
    stamps: tuple[str, ...]
    """`variable=value` for the linker; {version}, {major} and {minor} are filled in from go.mod."""

    def go_mod(self, root: Path = GO_MODULES) -> str:
        """The text of the module's go.mod."""
        return (root / self.folder / "go.mod").read_text()

    def version(self, root: Path = GO_MODULES) -> str:
        """The version that go.mod pins, like `v1.37.2`.

        Raises:
            RecipeError: go.mod does not require `source`.
        """
        pinned = re.search(rf"^(?:require)?\s+{re.escape(self.source)} (v\S+)", self.go_mod(root), re.MULTILINE)
        if pinned is None:
            raise RecipeError(f"{root / self.folder / 'go.mod'} does not require {self.source}")
        return pinned[1]

    def linker_flags(self, root: Path = GO_MODULES) -> str:
        """The one value of `-ldflags`: no symbol tables, and the version that a release would carry."""
        version = self.version(root)
        major, minor, _ = version.removeprefix("v").split(".", 2)
        stamps = (stamp.format(version=version, major=major, minor=minor) for stamp in self.stamps)
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in stamps)])


KUBERNETES = Module(
    folder="kubernetes",
    source="k8s.io/kubernetes",
    packages={
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    # Without these /version says v0.0.0, which charts' kubeVersion and clients' skew checks refuse.
    stamps=tuple(
        f"{package}.{variable}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable in ("gitVersion={version}", "gitMajor={major}", "gitMinor={minor}", "gitTreeState=clean")
    ),
)
ETCD = Module(
    folder="etcd",
    source="go.etcd.io/etcd/server/v3",
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    stamps=(),
)
HELM = Module(
    folder="helm",
    source="helm.sh/helm/v4",
    packages={"helm": "helm.sh/helm/v4/cmd/helm"},
    stamps=("helm.sh/helm/v4/internal/version.version={version}",),
)
MODULES = (ETCD, KUBERNETES, HELM)
PROGRAMS = tuple(program for module in MODULES for program in module.packages)


def go_version_needed(root: Path = GO_MODULES) -> tuple[int, ...]:
    """The oldest Go that can build every module, like (1, 26, 0).

    Raises:
        RecipeError: a go.mod has no `go` line.
    """
    return max(_go_line(module, root) for module in MODULES)


def _go_line(module: Module, root: Path) -> tuple[int, ...]:
    line = re.search(r"^go (\d+(?:\.\d+)*)$", module.go_mod(root), re.MULTILINE)
    if line is None:
        raise RecipeError(f"{root / module.folder / 'go.mod'} has no `go` line")
    return tuple(int(part) for part in line[1].split("."))


def digest(root: Path = GO_MODULES) -> str:
    """Names the outcome of a build: any change of a go.mod, a go.sum, a flag or the platform gives another digest."""
    whole = hashlib.sha256()
    for part in _digest_parts(root):
        whole.update(hashlib.sha256(part).digest())  # each part at a fixed width, so that no two lists of parts look alike
    return whole.hexdigest()[:DIGEST_LENGTH]


def _digest_parts(root: Path) -> Iterator[bytes]:
    system = os.uname()
    yield f"{system.sysname}/{system.machine}".encode()
    yield " ".join(BUILD_FLAGS).encode()
    for module in MODULES:
        yield module.linker_flags(root).encode()
        yield repr(sorted(module.packages.items())).encode()
        yield (root / module.folder / "go.mod").read_bytes()
        yield (root / module.folder / "go.sum").read_bytes()


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where everything made here is kept: `$MACHINEBOT_CACHE/controlplane`, by default below `~/.cache/machinebot`."""
    if own := environment.get("MACHINEBOT_CACHE"):
        return Path(own).absolute() / "controlplane"
    shared = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser().absolute() / "machinebot" / "controlplane"


def bin_directory(environment: Mapping[str, str], root: Path = GO_MODULES) -> Path:
    """Where the programs of this very recipe stand once they are built."""
    return cache_directory(environment) / digest(root) / "bin"
