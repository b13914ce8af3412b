"""The chart by the real helm on a real API server: its values, what it makes, what its operator may do, upgrade and removal."""

import json
import re
import shutil
import socket
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cluster import ControlPlane, KubectlError, start_control_plane
from controlplane.processes import ProgramError
from support.waiting import eventually
from workbench.chart import CHART, HelmError, Release, install_chart, run_helm, template_chart
from workbench.deployment import expand, resolve, with_flag
from workbench.operator import OperatorProcess, parse_metrics

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
NAMESPACE = "machinebot-system"
OURS = "machinebot.dev"

Rule = tuple[str, str, str]
"""(verb, group, resource with subresource)."""


def rows(verbs: str, group: str, resources: str) -> set[Rule]:
    return {(verb, group, resource) for verb in verbs.split() for resource in resources.split()}


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """The chart, installed once for the tests that leave it as it is."""
    with start_control_plane() as cluster:
        for namespace in ("ci", "team-a", "team-b"):
            cluster.kubectl("create", "namespace", namespace)
        yield install_chart(cluster)


@pytest.fixture(scope="module")
def empty_cluster() -> Iterator[ControlPlane]:
    with start_control_plane() as cluster:
        for namespace in ("ci", "team-a", "team-b"):
            cluster.kubectl("create", "namespace", namespace)
        yield cluster


@pytest.fixture
def fresh_release(empty_cluster: ControlPlane) -> Iterator[Release]:
    """The chart, installed from nothing, even without its CRDs, for a test that changes it."""
    installed = install_chart(empty_cluster)
    yield installed
    installed.uninstall()
    delete_crds(empty_cluster)


def delete_crds(cluster: ControlPlane) -> None:
    """Delete them once each can be listed: a CRD deleted while its storage is still being set up stays Terminating for minutes."""
    for name in crd_names():
        cluster.kubectl("get", name, "--all-namespaces")
    cluster.kubectl("delete", "crd", *crd_names())


def crd_names() -> list[str]:
    return [yaml.safe_load(path.read_text())["metadata"]["name"] for path in sorted((ROOT / "crds").glob("*.yaml"))]


def get(cluster: ControlPlane, *arguments: str) -> Any:
    return json.loads(cluster.kubectl("get", *arguments, "--output=json"))


def find(objects: Iterable[Mapping[str, Any]], kind: str, name: str, namespace: str | None = None) -> Any:
    found = [
        entry
        for entry in objects
        if (entry["kind"], entry["metadata"]["name"], entry["metadata"].get("namespace")) == (kind, name, namespace)
    ]
    assert len(found) == 1, f"{kind} {name}: {len(found)} found"
    return found[0]


def pod_spec(objects: Iterable[Mapping[str, Any]]) -> Any:
    return find(objects, "Deployment", "machinebot", NAMESPACE)["spec"]["template"]["spec"]


# --- values -------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "names": {"nameOverride": "mb", "fullnameOverride": "identity"},
    "image": {"image": {"repository": "example.test/machinebot", "digest": "sha256:" + 64 * "a", "pullPolicy": "Always"}},
    "pulling": {"imagePullSecrets": [{"name": "registry"}]},
    "one replica": {"replicas": 1, "podDisruptionBudget": {"create": False}},
    "watched namespaces": {"watchNamespaces": ["ci", "team-a"]},
    "its own namespace watched": {"watchNamespaces": [NAMESPACE, "ci"]},
    "operator": {
        "operator": {"workers": 4, "sweepInterval": 60, "leaseDuration": 15, "logFormat": "console", "logLevel": "debug"}
    },
    "fence": {"fence": {"audiences": ["example.test", "other.test"], "refusedNamespaces": []}},
    "authority": {
        "authority": {
            "maxTTL": "12h",
            "namespaces": ["ci", "team-*"],
            "keyAlgorithm": "Ed25519",
            "rotation": {"every": "720h", "overlap": "26h"},
            "issuer": "https://id.example.test",
            "trustBundle": {"namespaces": ["ci", "team-*"]},
            "name": "main",
        }
    },
    "no authority": {"authority": {"create": False, "clusterName": ""}, "fence": {"audiences": ["example.test"]}},
    "nobody's role": {"role": {"access": {"namespaces": []}}},
    "a role of their own": {
        "role": {
            "access": {
                "namespaces": ["team-*"],
                "allow": {"logins": ["deploy"], "hostPrincipals": ["*.example.test"]},
                "deny": {"logins": ["root", "admin*"]},
                "options": {"maxSessionTTL": "1h", "portForwarding": False},
            }
        }
    },
    "no role": {"role": {"access": {"create": False}}},
    "account": {"serviceAccount": {"name": "identity", "annotations": {"example.test/a": "b"}}},
    "joins": {"joins": {"addressRate": 5, "addressBurst": 10, "tokenRate": 500, "tokenBurst": 1000}},
    "service": {"service": {"port": 80, "annotations": {"example.test/scrape": "true"}, "labels": {"a": "b"}}},
    "a company's CA and proxy": {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}, {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "volumes": [{"name": "ca", "configMap": {"name": "company-ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
    },
    "pods": {
        "podAnnotations": {"example.test/a": "b"},
        "podLabels": {"team": "a"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "resources": {"limits": {"memory": "1Gi"}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
    },
}


def test_lint_finds_nothing() -> None:
    run_helm(["lint", "--strict", str(CHART), "--set=authority.clusterName=example.test"])


def test_the_api_server_takes_what_any_values_make(release: Release) -> None:
    for title, values in VARIANTS.items():
        objects = template_chart(values, namespace="team-b")
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        command = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-")
        taken = release.cluster.kubectl(*command, input=content).splitlines()
        assert len(taken) == len(objects), title


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"colour": "red"}, "additional properties 'colour' not allowed", id="unknown value"),
        pytest.param({"image": {"name": "x"}}, "additional properties 'name' not allowed", id="unknown nested value"),
        pytest.param({"role": {"access": {"allow": {"login": []}}}}, "'login' not allowed", id="unknown field of a role"),
        pytest.param({"authority": {"clusterName": ""}}, "authority.clusterName must be set", id="no cluster name"),
        pytest.param({"authority": {"clusterName": "Example Test"}}, "/authority/clusterName", id="no DNS name"),
        pytest.param({"authority": {"clusterName": "", "create": False}}, "authority.clusterName must be set", id="no audience"),
        pytest.param({"authority": {"keyAlgorithm": "DSA"}}, "/authority/keyAlgorithm", id="unknown algorithm"),
        pytest.param({"authority": {"maxTTL": "1d"}}, "/authority/maxTTL", id="no duration"),
        pytest.param({"fence": {"audiences": ["https://kubernetes.default.svc"]}}, "/fence/audiences/0", id="API server's"),
        pytest.param({"fence": {"audiences": ["kubernetes.default.svc"]}}, "/fence/audiences/0", id="API server's host"),
        pytest.param({"extraEnv": {"A": "b"}}, "/extraEnv", id="environment that is no list"),
        pytest.param({"replicas": 0}, "/replicas", id="no replica"),
        pytest.param({"watchNamespaces": ["team-*"]}, "/watchNamespaces/0", id="glob for a namespace"),
        pytest.param({"operator": {"leaseDuration": 1}}, "/operator/leaseDuration", id="lease too short"),
        pytest.param({"joins": {"tokenRate": 0}}, "/joins/tokenRate", id="nobody could join"),
        pytest.param({"joins": {"addressRate": "1/s"}}, "/joins/addressRate", id="rate with a unit"),
    ],
)
def test_wrong_values_are_refused_with_their_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError, match=re.escape(message)):
        template_chart(values)


def test_every_value_is_described_and_every_description_has_a_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(defaults: Mapping[str, Any], described: Mapping[str, Any], path: str) -> None:
        assert described["additionalProperties"] is False, path
        assert set(defaults) == set(described["properties"]) - {"global"}, path
        for name, entry in described["properties"].items():
            assert entry["description"].endswith("."), f"{path}.{name}"
            if "properties" in entry and defaults[name]:
                free = path.startswith(".role.access")  # allow and deny have fields without a default
                compare({**dict.fromkeys(entry["properties"] if free else ()), **defaults[name]}, entry, f"{path}.{name}")

    compare(values, schema, "")


# --- the pods -----------------------------------------------------------------------------------------------------


def test_pods_keep_to_the_restricted_standard(release: Release) -> None:
    """The API server's own Pod Security admission judges a pod of the template."""
    cluster = release.cluster
    cluster.kubectl("label", "namespace", "team-b", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    cluster.kubectl("create", "serviceaccount", "machinebot", "--namespace=team-b")
    template = get(cluster, "deployment", "machinebot", f"--namespace={NAMESPACE}")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "machinebot", "namespace": "team-b"}, "spec": template["spec"]}
    cluster.kubectl("create", "--dry-run=server", "--filename=-", input=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"] = {}
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        cluster.kubectl("create", "--dry-run=server", "--filename=-", input=json.dumps(pod))


def test_pods_spread_survive_drains_and_write_nothing() -> None:
    objects = template_chart()
    deployment = find(objects, "Deployment", "machinebot", NAMESPACE)["spec"]
    spec = pod_spec(objects)
    container = spec["containers"][0]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == deployment["selector"]["matchLabels"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert set(container["resources"]) == {"requests", "limits"}
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert find(objects, "PodDisruptionBudget", "machinebot", NAMESPACE)["spec"]["maxUnavailable"] == 1
    service = find(objects, "Service", "machinebot", NAMESPACE)["spec"]
    assert service["selector"] == deployment["selector"]["matchLabels"]
    assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_the_image_is_the_charts_version_unless_told_otherwise() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + 64 * "a"
    given = {
        f"machinebot:{version}": {},
        "example.test/m:1": {"image": {"repository": "example.test/m", "tag": "1"}},
        f"machinebot@{digest}": {"image": {"tag": "1", "digest": digest}},
    }
    for image, values in given.items():
        assert pod_spec(template_chart(values))["containers"][0]["image"] == image
    sources = (ROOT / "operator" / "machinebot" / "__init__.py").read_text()
    assert f'__version__ = "{version}"' in sources


# --- what is installed --------------------------------------------------------------------------------------------


def test_install_makes_authority_role_and_policies(release: Release) -> None:
    cluster = release.cluster
    authority = get(cluster, "machineauthority", "default")
    assert authority["spec"]["clusterName"] == "example.test"
    role = get(cluster, "machinerole", "access")
    assert role["spec"] == {"namespaces": ["*"], "allow": {"logins": ["{{ internal.logins }}"]}, "deny": {"logins": ["root"]}}
    policies = {entry["metadata"]["name"]: entry for entry in get(cluster, "validatingadmissionpolicies")["items"]}
    bindings = {entry["spec"]["policyName"]: entry for entry in get(cluster, "validatingadmissionpolicybindings")["items"]}
    assert set(policies) == set(bindings)
    assert {policy["spec"]["failurePolicy"] for policy in policies.values()} == {"Fail"}
    assert {tuple(binding["spec"]["validationActions"]) for binding in bindings.values()} == {("Deny",)}


def test_the_type_checker_has_nothing_to_say_about_the_policies(release: Release) -> None:
    def checked() -> dict[str, Any]:
        items = get(release.cluster, "validatingadmissionpolicies")["items"]
        statuses = {entry["metadata"]["name"]: entry.get("status", {}) for entry in items}
        return {name: status["typeChecking"] for name, status in statuses.items() if "typeChecking" in status}

    eventually("all policies are type-checked", lambda: len(checked()) == 9)
    assert {name: check for name, check in checked().items() if check} == {}


def test_the_policies_look_at_every_role_that_a_bot_may_have() -> None:
    crd = yaml.safe_load((ROOT / "crds" / "machinebot.dev_machinebots.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    most = schema["properties"]["spec"]["properties"]["roles"]["maxItems"]
    policies = [entry for entry in template_chart() if entry["kind"] == "ValidatingAdmissionPolicy"]
    expressions = [rule["expression"] for policy in policies for rule in policy["spec"]["validations"]]
    looked_at = {int(found[1]) for text in expressions if (found := re.search(r"name\(object\.spec\.roles\[(\d+)\]\)", text))}
    assert looked_at == set(range(most))
    assert f"size(object.spec.roles) <= {most}" in expressions


def test_the_notes_can_be_followed(release: Release) -> None:
    cluster = release.cluster
    notes = run_helm(["get", "notes", release.name, f"--namespace={release.namespace}"], environment=cluster.env)
    blocks = re.findall(r"apply -f - <<EOF\n(.*?)\n +EOF", notes, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        command = ("apply", "--dry-run=server", "--validate=strict", "--namespace=ci", "--filename=-")
        cluster.kubectl(*command, input=textwrap.dedent(block))


def test_the_crds_are_those_of_the_repository() -> None:
    chart = {path.name: path.read_bytes() for path in sorted((CHART / "crds").iterdir())}
    assert chart == {path.name: path.read_bytes() for path in sorted((ROOT / "crds").iterdir())}
    assert chart


# --- upgrade and removal ------------------------------------------------------------------------------------------


def test_upgrade_takes_new_values_to_the_objects_that_are_there(fresh_release: Release) -> None:
    cluster = fresh_release.cluster
    before = get(cluster, "machineauthority", "default")
    fresh_release.upgrade({"replicas": 3, "authority": {"maxTTL": "8h"}, "role": {"access": {"namespaces": ["ci"]}}})
    after = get(cluster, "machineauthority", "default")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["maxTTL"] == "8h"
    assert get(cluster, "machinerole", "access")["spec"]["namespaces"] == ["ci"]
    assert get(cluster, "deployment", "machinebot", f"--namespace={NAMESPACE}")["spec"]["replicas"] == 3
    with pytest.raises(HelmError, match="clusterName cannot be changed"):
        fresh_release.upgrade({"authority": {"clusterName": "other.test"}})


def test_upgrade_of_the_crds_is_one_command(fresh_release: Release, tmp_path: Path) -> None:
    """helm upgrade leaves CRDs as they are; what docs/install.md says instead changes them."""
    cluster = fresh_release.cluster
    chart = tmp_path / "machinebot"
    shutil.copytree(CHART, chart)
    path = chart / "crds" / "machinebot.dev_machinebots.yaml"
    crd = yaml.safe_load(path.read_text())
    crd["spec"]["names"]["shortNames"] = ["mbot", "newer"]
    path.write_text(yaml.safe_dump(crd))

    def short_names() -> list[str]:
        names: list[str] = get(cluster, "crd", "machinebots.machinebot.dev")["spec"]["names"]["shortNames"]
        return names

    fresh_release.upgrade(chart=chart)
    assert short_names() == ["mbot"]
    crds = run_helm(["show", "crds", str(chart)], environment=cluster.env)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", input=crds)
    assert short_names() == ["mbot", "newer"]


def test_uninstall_keeps_what_people_made_and_a_new_install_finds_it(fresh_release: Release) -> None:
    cluster = fresh_release.cluster
    bot = {"apiVersion": "machinebot.dev/v1alpha1", "kind": "MachineBot", "metadata": {"name": "deployer", "namespace": "ci"}}
    cluster.kubectl("create", "--filename=-", input=json.dumps({**bot, "spec": {"roles": ["access"]}}))
    kept = get(cluster, "machineauthority", "default")["metadata"]["uid"]
    assert "[MachineAuthority] default" in fresh_release.uninstall()
    assert get(cluster, "machinebot", "deployer", "--namespace=ci")["spec"]["roles"] == ["access"]
    assert get(cluster, "machineauthority", "default")["metadata"]["uid"] == kept
    assert len(get(cluster, "crd", *crd_names())["items"]) == len(crd_names())
    for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings", "machineroles"):
        assert get(cluster, kind)["items"] == []
    install_chart(cluster)
    assert get(cluster, "machineauthority", "default")["metadata"]["uid"] == kept


# --- rights -------------------------------------------------------------------------------------------------------

CLUSTER_RIGHTS = (
    rows("get list watch", OURS, "machineauthorities machineroles machinelocks")
    | rows("patch update", OURS, "machineauthorities/status machineroles/status")
    | rows("create", OURS, "machinelocks")
    | rows("patch", OURS, "machinelocks/status")
    | rows("create", "authentication.k8s.io", "tokenreviews")
)
OWN_RIGHTS = rows("get list watch create update delete", "", "secrets") | (
    rows("create patch", "", "events") | rows("create patch", "events.k8s.io", "events")
)
TENANT_RIGHTS = OWN_RIGHTS | (
    rows("get list watch", OURS, "machinebots machineoutputs machinejointokens")
    | rows("patch update", OURS, "machinebots/status machineoutputs/status")
    | rows("patch", OURS, "machinejointokens/status")
    | rows("get list watch create", "", "serviceaccounts")
    | rows("create", "", "serviceaccounts/token")
    | rows("patch", "apps", "deployments statefulsets daemonsets")
    | rows("get list watch create update delete", "", "configmaps")
)
EVERYWHERE_RIGHTS = rows("list watch", "", "namespaces")
"""Only where all namespaces are served."""
LEASE_RIGHTS = rows("create get update", "coordination.k8s.io", "leases")
NEVER = (
    rows("create delete deletecollection", OURS, "machineauthorities machineroles machinebots machineoutputs machinejointokens")
    | rows("update patch", OURS, "machineauthorities machineroles machinebots machineoutputs machinejointokens")
    | rows("update patch delete deletecollection", OURS, "machinelocks")
    | rows("update", OURS, "machinejointokens/status machinelocks/status")
    | rows("impersonate", OURS, "machineroles")
    | rows("patch deletecollection", "", "secrets")
    | rows("update patch delete deletecollection impersonate", "", "serviceaccounts")
    | rows("get list watch create update delete", "", "pods nodes")
    | rows("get create update patch delete", "", "namespaces")
    | rows("patch deletecollection", "", "configmaps")
    | rows("create", "", "pods/exec")
    | rows("list delete", "", "events")
    | rows("list delete", "coordination.k8s.io", "leases")
    | rows("create update patch bind escalate", "rbac.authorization.k8s.io", "clusterroles clusterrolebindings roles")
    | rows("get list create update delete", "admissionregistration.k8s.io", "validatingadmissionpolicies")
    | rows("get list update patch", "apiextensions.k8s.io", "customresourcedefinitions")
    | rows("get list watch create update delete deletecollection", "apps", "deployments statefulsets daemonsets")
    | rows("update patch", "apps", "deployments/scale deployments/status")
    | rows("impersonate", "", "users groups")
    | rows("approve", "certificates.k8s.io", "signers")
)
"""What no operator may do, anywhere."""


def granted(cluster: ControlPlane, user: str, asked: Iterable[Rule], namespace: str, name: str = "") -> set[Rule]:
    """Those that the API server's authorizer allows: `kubectl auth can-i` for a whole table at once."""
    table = sorted(asked)
    reviews = [review(user, rule, namespace, name) for rule in table]
    content = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
    answers = cluster.kubectl("create", "--filename=-", "--output=jsonpath={.status.allowed}{'\\n'}", input=content).split()
    return {rule for rule, answer in zip(table, answers, strict=True) if answer == "true"}


def review(user: str, rule: Rule, namespace: str, name: str) -> dict[str, Any]:
    verb, group, path = rule
    resource, _, subresource = path.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace}
    groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"]
    spec = {"user": user, "groups": groups, "resourceAttributes": {**attributes, "name": name}}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def test_the_operator_may_do_this_everywhere_and_no_more(release: Release) -> None:
    cluster, user = release.cluster, release.operator_user
    everywhere = CLUSTER_RIGHTS | TENANT_RIGHTS | EVERYWHERE_RIGHTS
    for namespace in ("", "ci", "kube-system", NAMESPACE):
        assert granted(cluster, user, everywhere | NEVER, namespace) == everywhere
    assert granted(cluster, user, LEASE_RIGHTS, NAMESPACE, "machinebot") == LEASE_RIGHTS
    assert granted(cluster, user, LEASE_RIGHTS, NAMESPACE, "kube-scheduler") == rows("create", "coordination.k8s.io", "leases")
    assert granted(cluster, user, LEASE_RIGHTS, "kube-system", "machinebot") == set()


def test_with_watched_namespaces_it_may_do_nothing_in_others(fresh_release: Release) -> None:
    cluster, user = fresh_release.cluster, fresh_release.operator_user
    fresh_release.upgrade({"watchNamespaces": ["ci", "team-a"]})
    everything = CLUSTER_RIGHTS | TENANT_RIGHTS | EVERYWHERE_RIGHTS | NEVER
    events = rows("create patch", "", "events") | rows("create patch", "events.k8s.io", "events")
    expected = {
        "": CLUSTER_RIGHTS,
        "ci": CLUSTER_RIGHTS | TENANT_RIGHTS,
        "team-a": CLUSTER_RIGHTS | TENANT_RIGHTS,
        "team-b": CLUSTER_RIGHTS,
        "kube-system": CLUSTER_RIGHTS,
        "default": CLUSTER_RIGHTS | events,
        NAMESPACE: CLUSTER_RIGHTS | OWN_RIGHTS,
    }
    found = {namespace: granted(cluster, user, everything, namespace) for namespace in expected}
    assert found == expected


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["ci"]}], ids=["everywhere", "watched namespaces"])
def test_no_rule_of_the_operator_is_missing_from_the_tables_above(values: dict[str, Any]) -> None:
    roles = [entry for entry in template_chart(values) if entry["kind"] in ("ClusterRole", "Role")]
    stated = {
        (verb, group, resource)
        for role in roles
        if not role["metadata"]["name"].endswith(("-view", "-edit"))
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    everywhere = set() if "watchNamespaces" in values else EVERYWHERE_RIGHTS
    assert stated == CLUSTER_RIGHTS | TENANT_RIGHTS | LEASE_RIGHTS | everywhere


def has_exactly(cluster: ControlPlane, user: str, expected: set[Rule]) -> bool:
    return granted(cluster, user, expected, "team-a") == expected


def test_bots_outputs_and_join_tokens_belong_to_view_and_edit_and_nothing_else_does(release: Release) -> None:
    cluster = release.cluster
    ours = "machinebots machineoutputs machinejointokens"
    read = rows("get list watch", OURS, ours)
    write = read | rows("create update patch delete deletecollection", OURS, ours)
    everything = {
        (verb, OURS, resource + part)
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate"]
        for resource in (*ours.split(), "machineroles", "machineauthorities", "machinelocks")
        for part in ("", "/status")
    }
    for role, expected in {"view": read, "edit": write, "admin": write}.items():
        cluster.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "--namespace=team-a")
        eventually(f"{role} is aggregated", partial(has_exactly, cluster, role, expected))
        assert granted(cluster, role, everything, "team-a") == expected
        cluster.kubectl("delete", "rolebinding", role, "--namespace=team-a")


# --- the Deployment as a process ----------------------------------------------------------------------------------

STAND_IN = """
import http.server, json, os, sys
arguments = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[2:])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        texts = {"/environment": json.dumps(dict(os.environ)), "/arguments": json.dumps([sys.argv[1], arguments])}
        self.wfile.write(texts.get(self.path, 'a_total{c="2",b="1"} 3.0\\nd 4.0\\n').encode())
host, _, port = arguments["listen"].rpartition(":")
http.server.ThreadingHTTPServer((host, int(port)), Answer).serve_forever()
"""
"""Serves the operator's port and tells what it was given."""


@pytest.fixture
def stand_in(release: Release, tmp_path: Path) -> Iterator[OperatorProcess]:
    program = (sys.executable, "-c", STAND_IN)
    flags = {"--sweep-interval": "2"}
    with OperatorProcess.from_release(release, tmp_path, pod_name="machinebot-7", flags=flags, program=program) as process:
        process.wait_ready()
        yield process


def test_the_process_is_started_as_the_kubelet_would(release: Release, stand_in: OperatorProcess) -> None:
    command, arguments = json.loads(stand_in.get("/arguments")[1])
    assert command == "operator"
    assert arguments == {
        "namespace": NAMESPACE,
        "identity": "machinebot-7",
        "listen": stand_in.url.removeprefix("http://"),
        "listen-https": f"127.0.0.1:{stand_in.https_port}",
        "service": "machinebot",
        "url": f"https://machinebot.{NAMESPACE}.svc",
        "workers": "16",
        "sweep-interval": "2",
        "lease-name": "machinebot",
        "lease-duration": "10",
        "join-address-rate": "20",
        "join-address-burst": "100",
        "join-token-rate": "50",
        "join-token-burst": "200",
        "log-format": "json",
        "log-level": "info",
    }
    environment = json.loads(stand_in.get("/environment")[1])
    assert (environment["POD_NAMESPACE"], environment["POD_NAME"]) == (NAMESPACE, "machinebot-7")
    assert not [name for name in environment if "PROXY" in name.upper()]
    whoami = release.cluster.kubectl("auth", "whoami", "--output=json", f"--kubeconfig={environment['KUBECONFIG']}")
    assert json.loads(whoami)["status"]["userInfo"]["username"] == release.operator_user


def test_the_process_ends_and_comes_back_on_the_same_port(stand_in: OperatorProcess) -> None:
    first, url = stand_in.pid, stand_in.url
    stand_in.kill9()
    assert not stand_in.running
    with pytest.raises(ProgramError, match="exit code -9"):
        stand_in.stop()
    stand_in.start()
    stand_in.wait_ready()
    assert stand_in.pid != first
    assert stand_in.url == url
    assert stand_in.metrics() == {'a_total{b="1",c="2"}': 3.0, "d": 4.0}
    assert stand_in.stop() == -15


def test_a_paused_process_is_silent_and_goes_on(stand_in: OperatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.operator.REQUEST_SECONDS", 0.2)
    stand_in.pause()
    with pytest.raises(OSError, match="timed out"):
        stand_in.get("/readyz")
    stand_in.resume()
    stand_in.wait_ready()


def test_a_process_that_dies_is_told_with_its_log(release: Release, tmp_path: Path) -> None:
    program = (sys.executable, "-c", "raise SystemExit('no such luck')")
    with OperatorProcess.from_release(release, tmp_path, program=program) as process:
        with pytest.raises(ProgramError, match=r"(?s)exit code 1.*no such luck"):
            process.wait_ready()
        host, _, port = process.url.removeprefix("http://").rpartition(":")
    with socket.socket() as free:
        free.bind((host, int(port)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("$(A)/$(B)", "1/2", id="known"),
        pytest.param("$(C)", "$(C)", id="unknown stays"),
        pytest.param("$$(A)", "$(A)", id="escaped"),
        pytest.param("$$$(A)", "$1", id="escaped dollar, then known"),
        pytest.param("$A ${A} $(A", "$A ${A} $(A", id="no reference"),
    ],
)
def test_references_are_expanded_as_the_kubelet_does_it(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


def test_fields_that_need_a_kubelet_are_refused() -> None:
    deployment = find(template_chart(), "Deployment", "machinebot", NAMESPACE)
    for source in ({"fieldRef": {"fieldPath": "spec.nodeName"}}, {"secretKeyRef": {"name": "a", "key": "b"}}):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        container["env"] = [{"name": "A", "valueFrom": source}]
        with pytest.raises(ValueError, match=r"spec\.nodeName|secretKeyRef"):
            resolve(deployment, pod_name="a")


def test_flags_are_replaced_in_both_forms() -> None:
    assert with_flag(["a", "--b=1", "--c", "2", "--bb=3"], "--b", "9") == ("a", "--c", "2", "--bb=3", "--b=9")
    assert with_flag(["a", "--c", "2", "d"], "--c", "9") == ("a", "d", "--c=9")
    assert parse_metrics('a{b="x"} 1\n') == {'a{b="x"}': 1.0}


# --- the image and the pages --------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined and comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(instruction, arguments) for instruction, arguments in lines]


def test_the_image_runs_the_operator_as_an_ordinary_user() -> None:
    instructions = dockerfile()
    stages = [place for place, (instruction, _) in enumerate(instructions) if instruction == "FROM"]
    final = dict(instructions[stages[-1] :])
    assert final["USER"] == "65532:65532"
    assert json.loads(final["ENTRYPOINT"]) == ["machinebot"]
    assert json.loads(final["CMD"]) == ["operator"]
    assert pod_spec(template_chart())["securityContext"]["runAsUser"] == 65532
    assert not [arguments for instruction, arguments in instructions[stages[-1] :] if instruction in ("RUN", "ADD")]


def test_the_image_is_made_of_pinned_things() -> None:
    instructions = dockerfile()
    bases = [arguments.split()[0] for instruction, arguments in instructions if instruction == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)
    fetching = [arguments for instruction, arguments in instructions if instruction == "RUN" and "pip " in arguments]
    assert all("--require-hashes" in line or "--no-index" in line for line in fetching)
    copied = {word for instruction, arguments in instructions if instruction == "COPY" for word in arguments.split()[:-1]}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {word for word in copied if not word.startswith(("/", "--"))} == let_in


@pytest.mark.parametrize("page", ["install.md", "security.md"])
def test_the_examples_in_the_pages_are_right(release: Release, page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    documents = [document for block in blocks for document in yaml.safe_load_all(block)]
    assert documents
    for document in documents:
        if document.get("apiVersion", "").split("/")[0] in (OURS, "rbac.authorization.k8s.io"):
            command = ("apply", "--dry-run=server", "--validate=strict", "--namespace=ci", "--filename=-")
            release.cluster.kubectl(*command, input=json.dumps(document))
        elif "apiVersion" not in document and set(document) <= set(yaml.safe_load((CHART / "values.yaml").read_text())):
            template_chart(document)
