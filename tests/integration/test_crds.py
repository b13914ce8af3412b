"""The CRDs on a real API server: it takes them, takes what is right unchanged, and refuses what is wrong with a useful sentence."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cluster import ControlPlane, KubectlError, start_control_plane
from machinebot.joins.methods import github
from machinebot.policy.names import NameKind
from machinebot.resources.authority import CAStatus, MachineAuthorityStatus
from machinebot.resources.bot import MAX_ATTRIBUTES, MAX_INSTANCES, BotInstance, MachineBotStatus, ServiceAccountStatus
from machinebot.resources.join_token import MachineJoinTokenStatus, RenewableInstance
from machinebot.resources.meta import CATEGORY, Condition, Status
from machinebot.resources.output import Granted, GrantedName, MachineOutputStatus, SecretStatus
from support.waiting import eventually

pytestmark = pytest.mark.cluster

CRDS = Path(__file__).parents[2] / "crds"
DATA = Path(__file__).parent / "data" / "crds"
GOOD = sorted((DATA / "good").glob("*.yaml"))
BAD = sorted((DATA / "bad").glob("*.yaml"))

PLURALS = ("machineauthorities", "machinebots", "machinejointokens", "machinelocks", "machineoutputs", "machineroles")

KINDS = ("authority", "bot", "join-token", "lock", "output", "role")
"""As the examples are called, in the order of `PLURALS`."""

NOW = "2026-01-01T00:00:00Z"
CONDITION = Condition(
    type="Ready", status="True", reason="Issued", message="good", last_transition_time=NOW, observed_generation=1
)


KEY = "k" * 253
"""The longest key of a Secret."""

DNS_NAME = ".".join(["d" * 63] * 3 + ["d" * 57])
"""With four characters in front the longest DNS name."""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def expectations(path: Path) -> list[str]:
    prefix = "# expect: "
    return [line.removeprefix(prefix) for line in path.read_text().splitlines() if line.startswith(prefix)]


def published_schemas(api: ControlPlane) -> dict[str, Any]:
    """The schemas that kubectl explain reads, by kind; empty as long as the API server has not published them."""
    try:
        answer = json.loads(api.kubectl("get", "--raw", "/openapi/v3/apis/machinebot.dev/v1alpha1"))
    except KubectlError:
        return {}
    prefix = "dev.machinebot.v1alpha1."
    schemas: dict[str, Any] = answer["components"]["schemas"]
    return {
        name.removeprefix(prefix): schema
        for name, schema in schemas.items()
        if name.startswith(prefix) and not name.endswith("List")
    }


@pytest.fixture(scope="module")
def api() -> Iterator[ControlPlane]:
    with start_control_plane(controller_manager=False) as running:
        running.kubectl("apply", "--server-side", f"--filename={CRDS}")
        running.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        eventually("the schemas of our kinds are published", lambda: len(published_schemas(running)) == len(PLURALS))
        yield running


@pytest.fixture
def create(api: ControlPlane) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Creates an object and answers it as the API server has it; it is deleted after the test."""
    made: list[str] = []

    def create_one(document: dict[str, Any]) -> dict[str, Any]:
        created = api.kubectl("create", "--validate=strict", "--filename=-", "--output=json", input=json.dumps(document))
        made.append(created)
        answer: dict[str, Any] = json.loads(created)
        return answer

    yield create_one
    for document in made:
        api.kubectl("delete", "--filename=-", input=document)


def test_the_api_server_takes_every_crd_without_complaint(api: ControlPlane) -> None:
    crds = json.loads(api.kubectl("get", "crd", "--output=json"))["items"]
    assert {crd["metadata"]["name"] for crd in crds} == {f"{plural}.machinebot.dev" for plural in PLURALS}
    for crd in crds:
        conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_applying_the_crds_again_changes_nothing(api: ControlPlane) -> None:
    api.kubectl("diff", "--server-side", f"--filename={CRDS}")


@pytest.mark.parametrize("plural", PLURALS)
def test_kubectl_explains_every_kind(api: ControlPlane, plural: str) -> None:
    assert "spec\t<Object>" in api.kubectl("explain", plural, "--recursive")


def test_kubectl_explain_shows_the_default_that_the_api_server_does_not_fill_in(api: ControlPlane) -> None:
    assert "Default: 24h." in " ".join(api.kubectl("explain", "machineoutput.spec.credentialTTL").split())


def test_every_field_has_a_description(api: ControlPlane) -> None:
    def bare(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, field in schema.get("properties", {}).items():
            if path.count(".") == 0 and name == "metadata":
                continue
            if not field.get("description"):
                yield f"{path}.{name}"
            yield from bare(field, f"{path}.{name}")
        for below in {"items", "additionalProperties"} & schema.keys():
            yield from bare(schema[below], f"{path}[]")

    schemas = published_schemas(api)
    assert len(schemas) == len(PLURALS)
    assert [path for kind, schema in schemas.items() for path in bare(schema, kind)] == []


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_objects_come_back_as_they_were_written(create: Callable[[dict[str, Any]], dict[str, Any]], path: Path) -> None:
    for document in documents(path):
        assert create(document)["spec"] == document["spec"]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_objects_are_refused_with_the_field_and_what_to_write(
    api: ControlPlane, create: Callable[[dict[str, Any]], dict[str, Any]], path: Path
) -> None:
    *first, last = documents(path)
    for document in first:
        create(document)
    verb = "replace" if first else "create"
    with pytest.raises(KubectlError) as refusal:
        api.kubectl(verb, "--dry-run=server", "--validate=strict", "--filename=-", input=json.dumps(last))
    assert expectations(path)
    assert [sentence for sentence in expectations(path) if sentence not in str(refusal.value)] == [], refusal.value


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (
            "MachineRole",
            {
                "namespaces": ["n" * 63] * 64,
                "allow": {kind: ["n" * 253] * 64 for kind in NameKind} | {"hostPrincipals": ["{{ external.trait }}" * 12] * 64},
                "deny": {kind: ["*" * 253] * 64 for kind in NameKind},
                "options": {"sourceAddresses": ["2001:0db8:0000:0000:0000:0000:0000:0000/128"] * 64},
            },
        ),
        (
            "MachineBot",
            {
                "roles": [f"{number:02}{'r' * 251}" for number in range(32)],
                "logins": [f"{number:02}{'l' * 62}" for number in range(64)],
                "traits": {f"{number:02}{'t' * 61}": ["v" * 253] * 64 for number in range(31)} | {"logins": ["l" * 64] * 64},
            },
        ),
        (
            "MachineOutput",
            {
                "bot": "b" * 253,
                "roles": [f"{number:02}{'r' * 251}" for number in range(32)],
                "secret": {
                    "labels": {f"{'p.' * 126}x/{number:02}{'n' * 61}": "v" * 63 for number in range(32)},
                    "annotations": {f"{'p.' * 126}x/{number:02}{'n' * 61}": "v" * 4096 for number in range(32)},
                },
                "sshHost": {"principals": [f"{number:02}{'h' * 251}" for number in range(64)]},
            },
        ),
        (
            "MachineOutput",
            {
                "bot": "b" * 253,
                "secret": {
                    "type": "kubernetes.io/tls",
                    "keys": {f"{number:02}{'k' * 251}": KEY[number:] for number in range(16)},
                },
                "keystores": {"pkcs12": {"passwordSecretRef": {"name": "p" * 253, "key": KEY}}},
                "rolloutRestart": [{"kind": "DaemonSet", "name": f"{number:02}{'w' * 251}"} for number in range(16)],
                "x509SVID": {
                    "path": f"/{'p' * 252}",
                    "dnsNames": [f"d{number:02}.{DNS_NAME}" for number in range(64)],
                    "keys": {"svid": KEY, "key": KEY[1:], "bundle": KEY[2:]},
                },
            },
        ),
        (
            "MachineOutput",
            {
                "bot": "b",
                "database": {
                    "format": "cockroach",
                    "server": True,
                    "dnsNames": [f"d{number:02}.{DNS_NAME}" for number in range(64)],
                },
            },
        ),
        (
            "MachineOutput",
            {
                "bot": "b",
                "kubernetes": {
                    "server": f"https://{'s' * 245}",
                    "certificateAuthority": f"-----BEGIN CERTIFICATE-----{'A' * 32_741}",
                    "context": "c" * 253,
                    "user": "u" * 64,
                    "argoCD": True,
                    "project": "p" * 253,
                    "namespaces": [f"{number:03}{'n' * 250}" for number in range(256)],
                    "clusterResources": True,
                },
            },
        ),
        (
            "MachineOutput",
            {"bot": "b", "jwtSVID": {"audiences": [f"{number}{'a' * 252}" for number in range(8)], "path": f"/{'p' * 252}"}},
        ),
        (
            "MachineJoinToken",
            {
                "bot": "b" * 253,
                "github": {
                    "enterpriseServerHost": f"{'h.' * 125}hhh",
                    "staticJWKS": "k" * 131_072,
                    "audience": "a" * 253,
                    "allow": [{claim.name: f"{number:02}*{'g' * 509}" for claim in github.CLAIMS} for number in range(32)],
                },
            },
        ),
        (
            "MachineJoinToken",
            {
                "bot": "b",
                "oidc": {
                    "issuer": "https://login.example.test",
                    "audience": "a" * 253,
                    "mustMatch": {f"{'c.' * 98}c{number:02}": "v" * 512 for number in range(16)},
                },
            },
        ),
        (
            "MachineLock",
            {
                "target": {"joinToken": {"namespace": "n" * 63, "name": "t" * 253}},
                "message": "m" * 1024,
                "expires": "2027-01-01T00:00:00Z",
            },
        ),
        (
            "MachineAuthority",
            {
                "clusterName": "c" * 63,
                "embedded": {},
                "issuer": f"https://{'i' * 504}",
                "trustBundle": {"namespaces": ["n" * 63] * 64},
            },
        ),
    ],
    ids=["role", "bot", "output", "x509SVID", "database", "kubernetes", "jwtSVID", "github", "oidc", "lock", "authority"],
)
def test_the_largest_objects_stay_below_the_api_servers_budget_for_rules(
    create: Callable[[dict[str, Any]], dict[str, Any]], kind: str, spec: dict[str, Any]
) -> None:
    name = "n" * (253 if kind == "MachineRole" else 200)
    create({"apiVersion": "machinebot.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})


@pytest.mark.parametrize("name", [f"{kind}-minimal" for kind in KINDS], ids=KINDS)
def test_a_fresh_object_is_not_ready_yet(
    api: ControlPlane, create: Callable[[dict[str, Any]], dict[str, Any]], name: str
) -> None:
    created = create(documents(DATA / "good" / f"{name}.yaml")[0])
    read = json.loads(api.kubectl("get", created["kind"], created["metadata"]["name"], "--output=json"))
    (condition,) = read["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Ready", "Unknown", "Pending")


def test_a_status_cannot_be_written_with_the_object(create: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    (document,) = documents(DATA / "good" / "bot-minimal.yaml")
    forged = {"conditions": [CONDITION.wire()]}
    assert create(document | {"status": forged})["status"] != forged


@pytest.mark.parametrize(
    ("name", "status"),
    [
        (
            "authority-minimal",
            MachineAuthorityStatus(
                observed_generation=1,
                conditions=(CONDITION,),
                authorities=(CAStatus(purpose="ssh-user", id="1", state="Active", fingerprint="SHA256:abc", not_after=NOW),),
            ),
        ),
        ("role-minimal", Status(observed_generation=1, conditions=(CONDITION,))),
        (
            "bot-minimal",
            MachineBotStatus(
                observed_generation=1,
                conditions=(CONDITION,),
                service_account=ServiceAccountStatus(name="machinebot-deployer", uid="1-2-3"),
                outputs=2,
                instances=tuple(
                    BotInstance(
                        id=f"0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c{number:02}",
                        method="terraform_cloud",
                        join_token="t" * 200,
                        generation=7,
                        attributes={f"attribute{place}": "v" * 256 for place in range(MAX_ATTRIBUTES)},
                        joined_at=NOW,
                        last_seen=NOW,
                        expires_at=NOW,
                    )
                    for number in range(MAX_INSTANCES)
                ),
                warnings=("probably not meant",),
            ),
        ),
        (
            "join-token-minimal",
            MachineJoinTokenStatus(
                observed_generation=1,
                conditions=(CONDITION,),
                method="token",
                instance=RenewableInstance(
                    id="0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11",
                    generation=3,
                    key="a" * 64,
                    joined_at=NOW,
                    renewed_at=NOW,
                    expires_at=NOW,
                ),
                warnings=("probably not meant",),
            ),
        ),
        ("lock-minimal", Status(observed_generation=1, conditions=(CONDITION,))),
        (
            "output-minimal",
            MachineOutputStatus(
                observed_generation=1,
                conditions=(CONDITION, CONDITION.model_copy(update={"type": "Renewing"})),
                type="identity",
                secret=SecretStatus(name="deployer", resource_version="12", digest="a" * 64),
                serial=str(2**63 - 1),
                inputs="b" * 64,
                not_before=NOW,
                not_after=NOW,
                renew_at=NOW,
                ttl="24h",
                ttl_reduced_by="role access (maxSessionTTL 8h)",
                issue_reason="Expiring",
                renew_token="1",
                granted=Granted(
                    roles=("access",),
                    logins=(GrantedName(name="deploy", role="access", trait="logins"),),
                    host_principals=(GrantedName(name="*.example.test", role="access"),),
                    kubernetes_users=(GrantedName(name="deployer", role="access"),),
                    kubernetes_groups=(GrantedName(name="viewers", role="access", trait="kubernetes_groups"),),
                    db_users=(GrantedName(name="app", role="access"),),
                    db_names=(GrantedName(name="orders", role="access"),),
                    dns_names=(GrantedName(name="db.data.svc", role="access"),),
                    spiffe_paths=(GrantedName(name="/ns/ci/web", role="access"),),
                    jwt_audiences=(GrantedName(name="vault", role="access"),),
                ),
                restarted_for="7",
                warnings=("probably not meant",),
                failed_attempts=3,
                retry_at=NOW,
            ),
        ),
    ],
    ids=["authority", "role", "bot", "join-token", "lock", "output"],
)
def test_a_full_status_comes_back_as_it_was_written(
    api: ControlPlane, create: Callable[[dict[str, Any]], dict[str, Any]], name: str, status: Status
) -> None:
    created = create(documents(DATA / "good" / f"{name}.yaml")[0])
    path = f"{created['kind']}/{created['metadata']['name']}"
    patch = json.dumps({"status": status.wire()})
    written = api.kubectl("patch", path, "--subresource=status", "--type=merge", f"--patch={patch}", "--output=json")
    assert json.loads(written)["status"] == status.wire()


@pytest.mark.parametrize(
    ("plural", "columns"),
    [
        ("machineauthorities", ["NAME", "READY", "CLUSTER", "STATUS", "AGE"]),
        ("machinebots", ["NAME", "READY", "ROLES", "OUTPUTS", "STATUS", "AGE"]),
        ("machinejointokens", ["NAME", "READY", "BOT", "METHOD", "EXPIRES", "STATUS", "AGE"]),
        ("machinelocks", ["NAME", "READY", "REASON", "MESSAGE", "EXPIRES", "AGE"]),
        ("machineoutputs", ["NAME", "READY", "BOT", "TYPE", "SECRET", "EXPIRES", "RENEWS", "STATUS", "AGE"]),
        ("machineroles", ["NAME", "READY", "NAMESPACES", "LOGINS", "AGE"]),
    ],
)
def test_kubectl_get_shows_our_columns(
    api: ControlPlane, create: Callable[[dict[str, Any]], dict[str, Any]], plural: str, columns: list[str]
) -> None:
    kind = KINDS[PLURALS.index(plural)]
    create(documents(DATA / "good" / f"{kind}-minimal.yaml")[0])
    header, row = api.kubectl("get", plural, "--output=wide").splitlines()
    assert header.split() == " ".join(columns).split()
    assert " Unknown " in row


@pytest.mark.parametrize("word", ["machinebot", "machinebots", "mbot"])
def test_a_bot_is_found_by_each_of_its_names(
    api: ControlPlane, create: Callable[[dict[str, Any]], dict[str, Any]], word: str
) -> None:
    """A category of the same name as a kind would hide the kind."""
    (document,) = documents(DATA / "good" / "bot-minimal.yaml")
    create(document)
    assert api.kubectl("get", word, document["metadata"]["name"], "--output=name") == "machinebot.machinebot.dev/deployer\n"


def test_the_category_lists_every_kind(api: ControlPlane, create: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for kind in KINDS:
        create(documents(DATA / "good" / f"{kind}-minimal.yaml")[0])
    listed = api.kubectl("get", CATEGORY, "--output=name").splitlines()
    assert [name.partition(".")[0] for name in listed] == [f"machine{kind.replace('-', '')}" for kind in KINDS]


@pytest.mark.parametrize(("word", "kind"), [("mjt", "join-token"), ("mlock", "lock")])
def test_short_names(api: ControlPlane, create: Callable[[dict[str, Any]], dict[str, Any]], word: str, kind: str) -> None:
    (document,) = documents(DATA / "good" / f"{kind}-minimal.yaml")
    create(document)
    assert api.kubectl("get", word, "--output=name").endswith(f".machinebot.dev/{document['metadata']['name']}\n")


def test_a_rule_of_a_join_token_names_the_methods_that_there_are() -> None:
    crd = yaml.safe_load((CRDS / "machinebot.dev_machinejointokens.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    methods = spec["properties"].keys() - {"bot", "expires"}
    (message,) = [rule["message"] for rule in spec["x-kubernetes-validations"] if "exactly one" in rule["message"]]
    assert message == f"exactly one join method must be set: {', '.join(sorted(methods))}"
    shown = {name for path in GOOD for document in documents(path) for name in document["spec"]}
    assert methods - shown == set()


def test_the_good_examples_use_every_field_of_every_spec() -> None:
    def fields(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, field in schema.get("properties", {}).items():
            yield f"{path}.{name}"
            yield from fields(field.get("items", field), f"{path}.{name}")

    def used(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name, below in value.items():
                yield f"{path}.{name}"
                yield from used(below, f"{path}.{name}")
        if isinstance(value, list):
            for each in value:
                yield from used(each, path)

    crds = [yaml.safe_load(path.read_text())["spec"] for path in CRDS.glob("*.yaml")]
    known = {
        field
        for crd in crds
        for field in fields(crd["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], crd["names"]["kind"])
    }
    shown = {field for path in GOOD for document in documents(path) for field in used(document["spec"], document["kind"])}
    assert known - shown == set()
