"""What a build is named after, and what it is told."""

import shutil
from pathlib import Path

import pytest

from controlplane import recipe
from controlplane.recipe import ETCD, GO_MODULES, HELM, KUBERNETES, MODULES, RecipeError


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A copy of the Go modules that a test may change."""
    return Path(shutil.copytree(GO_MODULES, tmp_path / "go"))


def test_the_digest_is_the_same_for_the_same_files(modules: Path) -> None:
    assert recipe.digest(modules) == recipe.digest(GO_MODULES)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.folder)
@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_the_digest_changes_with_every_file(modules: Path, module: recipe.Module, file: str) -> None:
    before = recipe.digest(modules)
    with (modules / module.folder / file).open("a") as changed:
        changed.write("// changed\n")
    assert recipe.digest(modules) != before


def test_the_digest_changes_with_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe.digest()
    monkeypatch.setattr(recipe, "BUILD_FLAGS", (*recipe.BUILD_FLAGS, "-race"))
    assert recipe.digest() != before


def test_a_staging_module_has_the_version_of_kubernetes() -> None:
    expected = KUBERNETES.version().replace("v1.", "v0.")
    replaced = [line.split() for line in KUBERNETES.go_mod().splitlines() if " => " in line]
    assert len(replaced) == 33
    assert {(left, right, version) for left, _, right, version in replaced} == {(left, left, expected) for left, *_ in replaced}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.folder)
def test_every_program_is_a_pinned_tool(module: recipe.Module) -> None:
    assert module.version().startswith("v")
    words = module.go_mod().replace("tool ", "").split()
    assert set(module.packages.values()) <= set(words)


def test_kubernetes_is_stamped_with_its_release() -> None:
    flags = KUBERNETES.linker_flags()
    major, minor, _ = KUBERNETES.version().removeprefix("v").split(".")
    assert f"-X k8s.io/component-base/version.gitVersion={KUBERNETES.version()}" in flags
    assert f"-X k8s.io/component-base/version.gitMajor={major}" in flags
    assert f"-X k8s.io/client-go/pkg/version.gitMinor={minor}" in flags


def test_etcd_needs_no_stamp_and_helm_has_its_own() -> None:
    assert ETCD.linker_flags() == "-s -w"
    assert HELM.linker_flags().endswith(f"version.version={HELM.version()}")


def test_a_go_mod_without_the_pin_is_refused(modules: Path) -> None:
    (modules / "etcd" / "go.mod").write_text("module x\n")
    with pytest.raises(RecipeError, match=r"does not require go\.etcd\.io/etcd/server/v3"):
        ETCD.version(modules)
    with pytest.raises(RecipeError, match="no `go` line"):
        recipe.go_version_needed(modules)


def test_the_newest_go_line_decides(modules: Path) -> None:
    text = HELM.go_mod(modules)
    (modules / "helm" / "go.mod").write_text(text.replace("\ngo 1.26.0\n", "\ngo 1.99.1\n"))
    assert recipe.go_version_needed(modules) == (1, 99, 1)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({"MACHINEBOT_CACHE": "/m"}, "/m/controlplane", id="own"),
        pytest.param({"MACHINEBOT_CACHE": "/m", "XDG_CACHE_HOME": "/x"}, "/m/controlplane", id="own-wins"),
        pytest.param({"XDG_CACHE_HOME": "/x"}, "/x/machinebot/controlplane", id="xdg"),
        pytest.param({"XDG_CACHE_HOME": ""}, "~/.cache/machinebot/controlplane", id="empty-is-unset"),
        pytest.param({}, "~/.cache/machinebot/controlplane", id="home"),
    ],
)
def test_the_cache_directory(environment: dict[str, str], expected: str) -> None:
    assert recipe.cache_directory(environment) == Path(expected).expanduser()
