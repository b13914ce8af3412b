"""README, docs and examples are true: what they show is accepted, what they point to is there, and nothing is left out."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry

from controlplane.cluster import ControlPlane, KubectlError
from machinebot.agent.agent import State
from machinebot.agent.health import AgentCollector, Board
from machinebot.authority.plan import Plan, plan
from machinebot.errors import Denied
from machinebot.metrics import Metrics
from machinebot.outputs.registry import OUTPUT_TYPES, MachineOutput, parse_output
from machinebot.outputs.types.database import CLIENT_FILES, SERVER_FILES
from machinebot.policy.credential import AnchorState, Purpose, TrustAnchor
from machinebot.policy.grants import check_roles, warnings
from machinebot.policy.names import NameKind
from machinebot.reconcile.world import OutputFacts
from machinebot.resources.authority import MachineAuthoritySpec
from machinebot.resources.bot import MachineBot
from machinebot.resources.meta import GROUP
from machinebot.resources.role import MachineRole
from machinebot.web.collector import ResourceCollector
from workbench.chart import Release

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = ROOT / "operator" / "machinebot"
PAGES: Final = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
EXAMPLES: Final = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if not path.match("joins/*/bot.yaml"))
"""Of the API server's. The configurations of agents, and the files of platforms, are held and run by test_join_examples.py."""

CORE_GROUPS: Final = ("v1", "apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1")
"""Of Kubernetes itself: what pages show of these is held against the API server too."""

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)

Json = dict[str, Any]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text().splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
        else:
            yield Block(page, start + 1, lines[start].removeprefix("```").strip(), "\n".join(lines[start + 1 : number]))
            start = None
    assert start is None, f"{name_of(page)}: the block of line {start} is never closed"


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def documents(page: Path) -> list[Json]:
    """Every object in a YAML block of the page, or in an example."""
    texts = [page.read_text()] if page.suffix == ".yaml" else [each.text for each in blocks(page) if each.language == "yaml"]
    return [document for text in texts for document in yaml.safe_load_all(text) if isinstance(document, dict)]


def ours(document: Mapping[str, Any]) -> bool:
    return str(document.get("apiVersion", "")).startswith(f"{GROUP}/")


def checked(document: Mapping[str, Any]) -> bool:
    """Whether the API server of the tests has its kind."""
    return ours(document) or document.get("apiVersion") in CORE_GROUPS


# --- what is shown is accepted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_yaml_block_can_be_read(page: Path):
    for block in blocks(page):
        if block.language == "yaml":
            assert list(yaml.safe_load_all(block.text)), f"line {block.line} holds nothing"
        if block.language == "json":
            assert json.loads(block.text)
        assert block.language in ("yaml", "sh", "json", "python", "text", "console"), f"line {block.line}"


@pytest.mark.cluster
@pytest.mark.parametrize("page", [*(page for page in PAGES if any(map(checked, documents(page)))), *EXAMPLES], ids=name_of)
def test_the_api_server_takes_every_object_that_is_shown(release: Release, page: Path):
    found = [each for each in documents(page) if checked(each)]
    assert found
    namespaces(release.cluster, found)
    release.cluster.kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=docs",
        "--dry-run=server",
        "--validate=strict",
        "--filename=-",
        input=yaml.safe_dump_all(found),
    )


def namespaces(cluster: ControlPlane, found: list[Json]) -> None:
    names = sorted({each["metadata"]["namespace"] for each in found if "namespace" in each["metadata"]})
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    if made:
        cluster.kubectl("apply", "--server-side", "--filename=-", input=yaml.safe_dump_all(made))


@pytest.mark.cluster
def test_a_page_with_a_mistake_would_be_noticed(release: Release):
    wrong = documents(ROOT / "README.md")
    wrong[0]["spec"]["login"] = "deploy"
    namespaces(release.cluster, wrong)
    with pytest.raises(KubectlError, match=r"spec\.login\b"):
        release.cluster.kubectl(
            "apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-", input=yaml.safe_dump_all(wrong)
        )


def test_the_examples_leave_alone_what_the_chart_makes():
    made = {("MachineAuthority", "default"), ("MachineRole", "access")}
    found = {(each["kind"], each["metadata"]["name"]) for path in EXAMPLES for each in documents(path)}
    assert not made & found


def test_every_kind_and_type_is_in_the_examples_or_made_by_the_chart():
    found = [each for path in EXAMPLES for each in documents(path) if ours(each)]
    assert {each["kind"] for each in found} | {"MachineAuthority"} == {
        "MachineAuthority",
        "MachineRole",
        "MachineBot",
        "MachineOutput",
        "MachineJoinToken",
        "MachineLock",
    }
    assert {name for each in found for name in OUTPUT_TYPES if name in each["spec"]} == set(OUTPUT_TYPES)


# --- what is pointed to is there ----------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that GitHub and most others give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path):
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_listed():
    names = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    for listing, folder in ((ROOT / "README.md", "docs/"), (ROOT / "docs" / "index.md", "")):
        linked = set(re.findall(rf"\]\({folder}([a-z]+\.md)\)", listing.read_text()))
        assert names <= linked, name_of(listing)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_command_names_a_target(page: Path):
    code = [*re.findall(r"`([^`\n]+)`", prose(page)), *(each.text for each in blocks(page) if each.language == "sh")]
    named = {target for text in code for target in re.findall(r"^make ([a-z][a-z0-9-]*)", text, re.MULTILINE)}
    assert named <= targets()


def test_every_target_is_in_the_contributing_page():
    text = (ROOT / "docs" / "contributing.md").read_text()
    listed = set(re.findall(r"make ([a-z][a-z0-9-]*)", text))
    assert targets() - {"help", "crds-check", "format"} <= listed


# --- nothing is left out ------------------------------------------------------------------------------------------

NO_REASONS: Final = frozenset(
    """
    Accept Account Age Allow AlreadyExists AnswerT Arn Authorization BOOKMARK BearerToken Bot CERTIFICATE CRDs Cluster
    Code Config ConfigMap Connection CustomResourceDefinition DELETE DELETED DNS DaemonSet Date Default DeleteOptions
    Deny Deployment ERROR EdDSA Error Event Expires False GET GetCallerIdentityResponse GetCallerIdentityResult GitHub
    Google Granted GrantedName GuestT HEAD HTTPS Host Issue JWT Join KIND KUBECONFIG KeyT Lease List Load LogFormat Logins
    MODIFIED MachineAuthority MachineBot MachineJoinToken MachineJoinTokenSpecWithMethods MachineLock MachineLockSpec
    MachineOutput MachineOutputSpec MachineOutputSpecWithTypes MachineOutputStatus MachineRole Message MessageT Metadata
    Method ModelT Moment Namespace Namespaced Namespaces Normal OIDCSettingsT OKP ObjectRef Old Opaque Outputs PATCH
    POST PUT Prepared PrivateKey PrivateKeyAlgorithm Problem ProofT PublicKey Publish RSA Ready Reason Renewing Renews
    RequestLimitExceeded RequestT Restart Roles Rule Secret SecretStatus SecretTemplate Server ServiceAccount SettingsT
    StatefulSet Status Strict Throttling ThrottlingException TokenRequest TokenReview True TrustAnswer TrustBundle Type
    URI Unknown UserId Warning
    """.split()  # noqa: SIM905  # a hundred quoted words would hide that it is a list of words
)
"""Words in the code that look like a reason and are none: kinds, verbs, columns, states, types."""


def words_in_code() -> dict[str, str]:
    """Every string in the code that has the form of a reason, and a file that has it. Type annotations do not count."""
    found: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        annotations = {id(part) for node in ast.walk(tree) for note in _annotations(node) for part in ast.walk(note)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in annotations else None
            if isinstance(text, str) and re.fullmatch(r"[A-Z][A-Za-z]{2,40}", text):
                found[text] = name_of(path)
    return found


def _annotations(node: ast.AST) -> list[ast.AST]:
    return [note for field in ("annotation", "returns") if isinstance(note := getattr(node, field, None), ast.AST)]


def documented_reasons() -> set[str]:
    """What stands in the first column of the tables."""
    page = ROOT / "docs" / "troubleshooting.md"
    cells = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    return {word for cell in cells for word in re.findall(r"`([A-Z][A-Za-z]+)`", cell)} - {"Ready", "Renewing"}


def test_every_reason_is_in_the_troubleshooting_page():
    missing = {word: where for word, where in words_in_code().items() if word not in NO_REASONS | documented_reasons()}
    assert not missing, "a new reason belongs into docs/troubleshooting.md; a word that is none into NO_REASONS"


def test_the_troubleshooting_page_has_no_reason_that_is_not_in_the_code():
    assert documented_reasons() <= words_in_code().keys()


def registered() -> dict[str, tuple[str, ...]]:
    """Every metric as people write it in a query, to its labels."""
    registry = CollectorRegistry()
    facts = OutputFacts(
        namespace="ci",
        name="x",
        type="identity",
        not_before="2026-01-01T00:00:00Z",
        not_after="2026-01-01T00:00:00Z",
        renew_at="2026-01-01T00:00:00Z",
        ready="True",
    )
    anchor = TrustAnchor(Purpose.IDENTITY, "1", AnchorState.ACTIVE, b"", "", NOW)
    metrics = Metrics(registry)
    found: dict[str, tuple[str, ...]] = {}
    for metric in vars(metrics).values():
        if metric is not registry:
            name = metric.describe()[0].name + ("_total" if metric.describe()[0].type == "counter" else "")
            found[name] = tuple(metric._labelnames)
    for family in ResourceCollector(lambda: [facts], lambda: [("default", anchor)]).collect():
        found[family.name] = tuple(family.samples[0].labels)
    return found


def test_every_metric_is_on_its_page_with_its_labels():
    rows = re.findall(r"^\| `(machinebot_\w+)(?:\{([\w,]+)\})?` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert {name: tuple(filter(None, labels.split(","))) for name, labels in rows} == registered()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_metric_that_is_named_exists(page: Path):
    state = State("ci", NOW, NOW, "", "", (), {}, {})
    of_agents = {family.name for family in AgentCollector(Board(state)).collect()}
    series = {name + suffix for name in registered() for suffix in ("", "_bucket", "_sum", "_count")} | of_agents
    assert set(re.findall(r"(?<![\w_])machinebot_\w+", page.read_text())) - {"machinebot_"} <= series


def test_every_alert_says_what_it_is_about():
    rule = next(each for each in documents(ROOT / "docs" / "operations.md") if each.get("kind") == "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
        for label in re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]):
            aggregated = re.search(r"by \(([\w, ]+)\)", alert["expr"])
            metric = re.search(r"machinebot_\w+", alert["expr"])
            assert metric is not None
            known = aggregated[1].split(", ") if aggregated else registered()[metric[0]]
            assert label in known, alert["alert"]


def test_every_log_message_of_the_operations_page_is_in_the_code():
    section = (ROOT / "docs" / "operations.md").read_text().split("\n## Logs\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    messages = {message for cell in cells for message in re.findall(r"`([^`]+)`", cell)}
    assert "issued" in messages
    code = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    assert {message for message in messages if f'"{message}"' not in code} == set()


def shown_outputs() -> list[MachineOutput]:
    """Every MachineOutput of the pages and the examples."""
    found = [each for path in (*PAGES, *EXAMPLES) for each in documents(path) if each.get("kind") == "MachineOutput"]
    return [parse_output({**each, "metadata": {**each["metadata"], "uid": "1"}}) for each in found]


def test_every_key_of_every_type_is_on_the_outputs_page():
    text = (ROOT / "docs" / "outputs.md").read_text()
    for name in OUTPUT_TYPES:
        assert f"\n## {name}\n" in text
    shown = shown_outputs()
    assert {output.type.name for output in shown} == set(OUTPUT_TYPES)
    for output in shown:
        # A key with the database user in its name stands there with this user.
        missing = [key for key in output.type.keys(output.settings) if f"`{key}`" not in text]
        assert not missing, output.metadata.name


def test_every_format_of_databases_is_on_the_outputs_page():
    text = (ROOT / "docs" / "outputs.md").read_text()
    for files in (CLIENT_FILES, SERVER_FILES):
        for each in files.values():
            named = each.of("app")
            assert all(f"`{key}`" in text for key in (named.certificate, named.key, named.authorities))


def test_every_proof_of_the_outputs_page_is_a_test():
    text = (ROOT / "docs" / "outputs.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    proofs = re.findall(r"\]\((\.\./tests/[a-z_/0-9]+\.py)\)", text)
    assert len(set(proofs)) >= len(OUTPUT_TYPES)
    assert rows
    for proof in proofs:
        assert "\ndef test_" in ((ROOT / "docs") / proof).read_text(), proof


# --- nothing that does not belong there ---------------------------------------------------------------------------

HOSTS: Final = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("proxy", "golang", "org"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("gcr", "io"),
        ("registry", "k8s", "io"),
        ("registry", "npmjs", "org"),
    )
)
"""Hosts of registries: which one is used is the business of whoever installs."""


def files() -> list[Path]:
    """Every text file of the checkout that belongs to it."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # a copy without git
        places = ("operator", "tools", "tests", "bench", "charts", "crds", "docs", "examples")
        found = [*ROOT.glob("*"), *(path for place in places for path in (ROOT / place).rglob("*"))]
    return [path for path in found if path.is_file() and path.suffix in TEXTS | {""} and "__pycache__" not in path.parts]


TEXTS: Final = frozenset({".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".tpl", ".mod", ".sum"})


def test_no_registry_is_named():
    for path in files():
        text = path.read_text(errors="replace")
        assert [host for host in HOSTS if host in text] == [], name_of(path)


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=name_of)
def test_nothing_is_left_to_be_done(page: Path):
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX|coming soon|lorem)\b", page.read_text(), re.IGNORECASE)


# --- the answers of the FAQ are what the policy says ---------------------------------------------------------------


class World:
    """All objects of the FAQ together."""

    def __init__(self) -> None:
        found = documents(ROOT / "docs" / "faq.md")
        for number, each in enumerate(found):
            each["metadata"]["uid"] = f"uid-{number}"
        self.roles = {
            each["metadata"]["name"]: MachineRole.model_validate(each) for each in found if each["kind"] == "MachineRole"
        }
        self.bots = {
            each["metadata"]["name"]: MachineBot.model_validate({**each, "status": {}})
            for each in found
            if each["kind"] == "MachineBot"
        }
        self.outputs = {each["metadata"]["name"]: each for each in found if each["kind"] == "MachineOutput"}
        self.authority = MachineAuthoritySpec.model_validate({"clusterName": "example.test", "embedded": {}})

    def bot(self, name: str, *more_roles: str) -> MachineBot:
        """The bot, with more roles."""
        bot = self.bots[name]
        return bot.model_copy(update={"spec": bot.spec.model_copy(update={"roles": (*bot.spec.roles, *more_roles)})})

    def plan(self, bot: MachineBot, roles: tuple[str, ...], ttl: timedelta = timedelta(hours=1)) -> Plan:
        """What an identity output of the bot gives."""
        return plan(
            spec=self.authority,
            bot=bot,
            wanted_roles=roles,
            wish=OUTPUT_TYPES["identity"].ask(OUTPUT_TYPES["identity"].settings.model_validate({})),
            wished_lifetime=ttl,
            roles=self.roles,
            ca_not_after=None,
            now=NOW,
            locks=(),
        )

    def plan_of(self, output: str) -> Plan:
        """What an output of the page gives."""
        parsed = parse_output(self.outputs[output])
        return self.plan(self.bots[parsed.spec.bot], parsed.spec.roles, parsed.spec.wished_lifetime)


@pytest.fixture(scope="module")
def faq() -> World:
    return World()


def test_faq_logins_come_from_the_role_or_from_the_bot(faq: World):
    origins = {
        origin.name: (origin.role, origin.trait) for origin in faq.plan(faq.bots["deployer"], ()).grant.of(NameKind.LOGINS)
    }
    assert origins == {"deploy": ("deploy", None), "app": ("access", "logins")}


def test_faq_with_nothing_left_nothing_is_signed(faq: World):
    bot = faq.bots["deployer"]
    only_root = bot.model_copy(update={"spec": bot.spec.model_copy(update={"logins": ("root",)})})
    with pytest.raises(Denied, match="NoLogins"):
        faq.plan(only_root, ("access",))


def test_faq_an_output_carries_only_its_own_roles(faq: World):
    assert faq.plan_of("only-deploy").grant.plain(NameKind.LOGINS) == ("deploy",)
    assert faq.plan_of("only-access").grant.plain(NameKind.LOGINS) == ("app",)


def test_faq_a_trait_that_reaches_two_roles_is_warned_of(faq: World):
    (warning,) = warnings("ci", faq.bots["warned"].spec, faq.roles)
    assert "'logins'" in warning
    assert "'access', 'access-too'" in warning
    assert warnings("ci", faq.bots["deployer"].spec, faq.roles) == ()


def test_faq_a_role_with_session_mfa_is_refused_and_others_are_not(faq: World):
    bot = faq.bot("deployer", "people")
    with pytest.raises(Denied, match="SessionMFARequired: the role 'people'"):
        faq.plan(bot, ("people",))
    assert faq.plan(bot, ("deploy",)).grant.plain(NameKind.LOGINS) == ("deploy",)
    with pytest.raises(Denied, match="SessionMFARequired"):
        check_roles("ci", bot.spec, faq.roles, faq.authority)


def test_faq_device_trust_for_humans_lets_bots_pass(faq: World):
    bot = faq.bot("deployer", "devices")
    assert faq.plan(bot, ("devices",)).grant.plain(NameKind.LOGINS) == ("deploy",)
    role = faq.roles["devices"]
    options = role.spec.options.model_copy(update={"device_trust_mode": "required"})
    strict = {**faq.roles, "devices": role.model_copy(update={"spec": role.spec.model_copy(update={"options": options})})}
    with pytest.raises(Denied, match="DeviceTrustRequired"):
        check_roles("ci", bot.spec, strict, faq.authority)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("require_session_mfa", True, "SessionMFARequired"), ("device_trust_mode", "required", "DeviceTrustRequired")],
)
def test_faq_on_the_authority_they_refuse_every_bot(faq: World, field: str, value: object, reason: str):
    with pytest.raises(Denied, match=reason):
        check_roles("ci", faq.bots["deployer"].spec, faq.roles, faq.authority.model_copy(update={field: value}))


def test_faq_a_longer_life_is_reduced_and_said_so(faq: World):
    life = faq.plan_of("long").lifetime
    assert life.length == timedelta(hours=24)
    assert life.reduced_by is not None
    assert f"`{life.reduced_by}`" in (ROOT / "docs" / "faq.md").read_text()
