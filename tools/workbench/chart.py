"""The chart, by the real helm: rendered, or installed on a control plane, upgraded and removed."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from controlplane.binaries import ensure
from controlplane.cluster import ControlPlane

CHART: Final = Path(__file__).parents[2] / "charts" / "machinebot"
"""The chart of this checkout."""

NAMESPACE: Final = "machinebot-system"
"""Where the operator lives unless told otherwise."""

RELEASE: Final = "machinebot"
"""Name of the release unless told otherwise; the chart names its objects after it."""

CLUSTER_NAME: Final = "example.test"
"""The one value that the chart has no default for, as the examples have it."""

HELM_SECONDS: Final = 120.0
"""For one helm; an install takes a second, since nothing waits for pods."""

Values = Mapping[str, Any]
"""Values of the chart, nested as in values.yaml."""


class HelmError(RuntimeError):
    """A helm that failed; the text is what it wrote to standard error."""


@dataclass(frozen=True, slots=True)
class Release:
    """The chart, installed. Upgrades and removes itself.

    Attributes:
        cluster: Where it is installed.
        name: Name of the release, also of its Deployment and ServiceAccount.
        namespace: The operator's own namespace.
    """

    cluster: ControlPlane
    name: str = RELEASE
    namespace: str = NAMESPACE

    @property
    def operator_user(self) -> str:
        """The operator as the API server knows it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    def upgrade(self, values: Values | None = None, *, chart: Path = CHART) -> None:
        """Upgrade it to the chart as it is now; `values` replace all that were given before.

        Raises:
            HelmError: helm or the API server refused.
        """
        arguments = ["upgrade", self.name, str(chart), f"--namespace={self.namespace}", *_values(values)]
        run_helm(arguments, environment=self.cluster.env)

    def uninstall(self) -> str:
        """Remove it and return what helm said about what it keeps. Pods of the Deployment go some moments later."""
        return run_helm(["uninstall", self.name, f"--namespace={self.namespace}"], environment=self.cluster.env)

    def manifest(self) -> list[dict[str, Any]]:
        """The objects of the release as helm sent them, without the CRDs."""
        text = run_helm(["get", "manifest", self.name, f"--namespace={self.namespace}"], environment=self.cluster.env)
        return _objects(text)


def install_chart(
    cluster: ControlPlane,
    values: Values | None = None,
    *,
    namespace: str = NAMESPACE,
    name: str = RELEASE,
    chart: Path = CHART,
) -> Release:
    """Install the chart, its CRDs and its namespace; return when the API server has taken all of it.

    There is no kubelet, so that no pod of its Deployment ever runs: see `workbench.operator`. Policies take a moment to
    become active: see `wait_for_policies`.

    Args:
        cluster: Where to install it.
        values: On top of the chart's defaults; `authority.clusterName` is `example.test` unless it stands there.
        namespace: The operator's own namespace; made if missing.
        name: Name of the release; with "machinebot" in it, it is also the name of the Deployment and the ServiceAccount.
        chart: Directory of the chart.

    Raises:
        HelmError: helm or the API server refused.
    """
    arguments = ["install", name, str(chart), f"--namespace={namespace}", "--create-namespace", *_values(values)]
    run_helm(arguments, environment=cluster.env)
    return Release(cluster, name, namespace)


def template_chart(
    values: Values | None = None, *, namespace: str = NAMESPACE, name: str = RELEASE, flags: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The objects that the chart makes, without a cluster and without its CRDs (`--include-crds` adds them).

    Raises:
        HelmError: the values or the templates are wrong.
    """
    return _objects(run_helm(["template", name, str(CHART), f"--namespace={namespace}", *flags, *_values(values)]))


def run_helm(arguments: Iterable[str], *, environment: Mapping[str, str] | None = None) -> str:
    """Run helm and return its standard output.

    Raises:
        HelmError: it failed, or took longer than `HELM_SECONDS`.
    """
    command = [str(ensure(["helm"])["helm"]), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=dict(os.environ if environment is None else environment),
            timeout=HELM_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise HelmError(f"helm {command[1]}: {error.stderr.strip()}") from None
    except subprocess.TimeoutExpired:
        raise HelmError(f"helm {command[1]}: not done after {HELM_SECONDS:.0f} s") from None
    return done.stdout


def _values(values: Values | None) -> list[str]:
    given = {} if values is None else dict(values)
    given["authority"] = {"clusterName": CLUSTER_NAME, **given.get("authority", {})}
    return [f"--set-json={key}={json.dumps(value)}" for key, value in given.items()]


def _objects(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]
