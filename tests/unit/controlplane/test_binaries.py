"""Where programs are looked for, and which are refused."""

from pathlib import Path

import pytest

from controlplane import binaries
from controlplane.recipe import KUBERNETES, bin_directory

KUBERNETES_PROGRAMS = tuple(KUBERNETES.packages)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Three places, all empty."""
    return {
        "KUBEBUILDER_ASSETS": str(tmp_path / "assets"),
        "MACHINEBOT_CACHE": str(tmp_path / "cache"),
        "PATH": str(tmp_path / "path"),
    }


def put(directory: Path, *names: str, version: str = "v1.33.0") -> Path:
    """Programs that print this version, whatever they are asked."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        program = directory / name
        program.write_text(f"#!/bin/sh\necho Kubernetes {version}\n")
        program.chmod(0o755)
    return directory


def test_nothing_is_found_where_nothing_is(environment: dict[str, str]) -> None:
    assert binaries.find(environment=environment) == {}


def test_places_in_their_order(environment: dict[str, str], tmp_path: Path) -> None:
    on_path = put(tmp_path / "path", *KUBERNETES_PROGRAMS)
    assert binaries.find(KUBERNETES_PROGRAMS, environment) == {name: on_path / name for name in KUBERNETES_PROGRAMS}
    cached = put(bin_directory(environment), *KUBERNETES_PROGRAMS, version="anything")
    assert binaries.find(KUBERNETES_PROGRAMS, environment) == {name: cached / name for name in KUBERNETES_PROGRAMS}
    assets = put(tmp_path / "assets", *KUBERNETES_PROGRAMS)
    assert binaries.find(KUBERNETES_PROGRAMS, environment) == {name: assets / name for name in KUBERNETES_PROGRAMS}


@pytest.mark.parametrize("place", ["assets", "path"])
def test_too_old_is_as_good_as_missing(environment: dict[str, str], tmp_path: Path, place: str) -> None:
    put(tmp_path / place, *KUBERNETES_PROGRAMS, version="v1.29.14")
    assert binaries.find(KUBERNETES_PROGRAMS, environment) == {}


def test_programs_of_one_module_come_from_one_place(environment: dict[str, str], tmp_path: Path) -> None:
    put(tmp_path / "assets", "kube-apiserver", "kubectl")
    cached = put(bin_directory(environment), *KUBERNETES_PROGRAMS)
    assert {path.parent for path in binaries.find(KUBERNETES_PROGRAMS, environment).values()} == {cached}


def test_a_lone_kubectl_on_the_path_is_enough_only_when_it_alone_is_wanted(environment: dict[str, str], tmp_path: Path) -> None:
    put(tmp_path / "path", "kubectl")
    assert binaries.find(KUBERNETES_PROGRAMS, environment) == {}
    assert binaries.find(["kubectl"], environment) == {"kubectl": tmp_path / "path" / "kubectl"}


def test_a_file_that_may_not_be_run_is_no_program(environment: dict[str, str]) -> None:
    (put(bin_directory(environment), "etcd") / "etcd").chmod(0o644)
    assert binaries.find(["etcd"], environment) == {}


def test_a_program_that_fails_is_not_used(environment: dict[str, str], tmp_path: Path) -> None:
    (put(tmp_path / "path", "etcd") / "etcd").write_text("#!/bin/sh\necho etcd Version: 3.6.0; exit 1\n")
    assert binaries.find(["etcd"], environment) == {}


def test_an_unknown_name_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no such programs: kubelet; there are etcd"):
        binaries.find(["kubelet"], environment)


def test_what_is_found_is_not_built(environment: dict[str, str]) -> None:
    cached = put(bin_directory(environment), "etcd", "helm")
    said: list[str] = []
    found = binaries.ensure(["etcd", "helm"], environment, said.append)
    assert found["helm"] == cached / "helm"
    assert found.directories == [cached]
    assert said == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Kubernetes v1.37.2\n", (1, 37), id="kube-apiserver"),
        pytest.param('{"clientVersion": {"gitVersion": "v1.31.4+k3s1"}}', (1, 31), id="kubectl"),
        pytest.param("etcd Version: 3.6.16\nGit SHA: Not provided\nGo Version: go1.26.8\n", (3, 6), id="etcd"),
        pytest.param("v4.3.1", (4, 3), id="helm"),
        pytest.param("{}", (0, 0), id="json-without-a-version"),
        pytest.param("Kubernetes v0.0.0-master+$Format:%H$", (0, 0), id="unstamped"),
        pytest.param("", (0, 0), id="nothing"),
    ],
)
def test_versions_as_the_programs_print_them(text: str, expected: tuple[int, int]) -> None:
    assert binaries.parse_version(text) == expected
