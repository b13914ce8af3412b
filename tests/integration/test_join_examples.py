"""The examples of docs/joins.md: each file is read, each resource accepted, and what a platform would run is run for real.

Only what is a fact of this machine is exchanged: where the server and the metadata services are, which CA they are by, and below
which directory the files lie. The commands are those of the platforms' own files.
"""

import http.client
import importlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from controlplane.cluster import ControlPlane
from controlplane.pki import Authority
from controlplane.ports import LOOPBACK, ReservedPort, get
from controlplane.processes import Part, wait_until
from machinebot.agent.config import parse_config
from machinebot.agent.outputs import outputs_of
from machinebot.agent.proofs import gitlab
from machinebot.client.pins import pin_of
from machinebot.joins.claims import Match
from machinebot.joins.methods.token import secret_hash
from machinebot.joins.registry import JOIN_METHODS, parse_join_token
from machinebot.resources.bot import MachineBot
from support.inprocess import RunningOperator
from support.joined_platforms import BUILDKITE, BUILDKITE_SUBJECT, NAMESPACE, World, base_environment, serving_platforms
from support.logins import serving
from support.mounting import mounted
from support.pipelines import EXAMPLES, PIPELINES, Pipeline, Step, config_of, documents, text_of
from support.platforms import SAMPLES
from support.stage import Stage
from support.verifier import public_of
from support.waiting import DEADLINE
from workbench.chart import CLUSTER_NAME
from workbench.sshd import SSHServer, config_flags

pytest_plugins = ["support.fixtures"]

Json = dict[str, Any]

HOST: Final = "web-1.node.example.test"
COMMAND: Final = "./deploy.sh"
PLACES: Final = re.compile(
    r"(?<![\w./$-])/(?=(?:tmp/machinebot|run/machinebot|var/lib/machinebot|etc/machinebot|opt/machinebot|id|trust)\b)"
)
"""Directories of a runner or machine; here they lie below one of the test's own."""

NOBODY: Final = 65534
"""Stands for the user `machinebot`, which the tests may not make."""


PLATFORMS: Final = sorted(PIPELINES)
HOOKS: Final = ("terraform-pre-apply", "terraform-post-apply")
CLEARING: Final = {"buildkite": (), "terraform-cloud": (Step('exec "$HOOKS/terraform-post-apply"'),)}
"""Runners that live on, to what takes the files away behind the job's steps; nothing where these do so themselves."""

EXTRA: Final = re.compile(r"machinebot(?:\[(?P<extra>[a-z]+)\])?")


# --- as they stand ------------------------------------------------------------------------------------------------------


def test_every_folder_is_a_platform() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == set(PLATFORMS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_yaml_file_can_be_read(platform: str) -> None:
    for path in sorted((EXAMPLES / platform).rglob("*")):
        if path.suffix in (".yaml", ".yml"):
            assert all(documents(platform, path.name)), path.name


@pytest.mark.parametrize("platform", PLATFORMS)
def test_file_of_the_platform_runs_the_agent(platform: str) -> None:
    pipeline = PIPELINES[platform]()
    lines = [line.strip() for step in pipeline.steps for line in step.script.splitlines()]
    once = [line for line in lines if line.startswith("machinebot ")]
    if platform == "terraform-cloud":
        once = [line for line in text_of(platform, "terraform-pre-apply").splitlines() if line.startswith("machinebot ")]
    assert len(once) == (0 if pipeline.daemon else 1)
    for line in once:
        assert re.fullmatch(r'machinebot agent --config (bot\.yaml|"\$\(dirname "\$0"\)/bot\.yaml") --oneshot', line)
    if pipeline.daemon:
        assert pipeline.daemon == ("machinebot", "agent", "--config", "/etc/machinebot/bot.yaml")
    place = config_of(platform)["outputs"][0]["directory"]["path"]
    assert all(f" -F {place}/ssh_config deploy@{HOST} {COMMAND}" in line for line in lines if line.startswith("ssh "))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_agent_takes_its_configuration(platform: str) -> None:
    config = parse_config(text_of(platform, "bot.yaml").encode())
    (output,) = outputs_of(config)
    assert output.type == "identity"
    bot, token = documents(platform, "token.yaml")
    MachineBot.model_validate(bot | {"metadata": bot["metadata"] | {"uid": "u"}})
    parsed = parse_join_token(token | {"metadata": token["metadata"] | {"uid": "u"}})
    assert parsed.spec.bot == bot["metadata"]["name"]
    assert parsed.method.warnings(parsed.settings) == ()
    onboarding = config.onboarding
    assert (onboarding.namespace, onboarding.join_token) == (token["metadata"]["namespace"], token["metadata"]["name"])
    assert onboarding.method == parsed.method.name


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_kept_and_what_is_trusted(platform: str) -> None:
    """A job keeps nothing and trusts the CAs of its machine; a machine keeps its identity, and begins with a pin."""
    config = config_of(platform)
    assert (
        ("storage" in config)
        == ("pins" in config.get("ca", {}))
        == (platform in {"azure-vm", "ec2", "gce", "jenkins", "machine"})
    )


def test_every_method_has_an_example() -> None:
    shown = {key for platform in PLATFORMS for each in documents(platform, "token.yaml") for key in each["spec"]}
    assert set(JOIN_METHODS) <= shown


def test_gitlab_puts_the_token_where_the_agent_looks() -> None:
    (step,) = PIPELINES["gitlab"]().steps
    assert step.variables == {gitlab.ENVIRONMENT: CLUSTER_NAME}


@pytest.mark.parametrize("name", ["machine/install.sh", *(f"terraform-cloud/{name}" for name in HOOKS)])
def test_shell_script_can_be_read(name: str) -> None:
    assert os.access(EXAMPLES / name, os.X_OK)
    subprocess.run(["sh", "-n", EXAMPLES / name], check=True, timeout=30)


# --- the page -----------------------------------------------------------------------------------------------------------

PAGE: Final = Path(__file__).parents[2] / "docs" / "joins.md"


def test_files_on_the_page_are_those_of_the_examples() -> None:
    text = PAGE.read_text()
    files = {path: path.read_text() for path in sorted(EXAMPLES.rglob("*")) if path.is_file()}
    shown = re.findall(r"^```(?:yaml|sh|text)\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)
    own = [block for block in shown if not any(block in content for content in files.values())]
    assert len(own) == len(OWN_BLOCKS)
    assert all(block.startswith(begin) for block, begin in zip(own, OWN_BLOCKS, strict=True))
    assert set(re.findall(r"\(\.\./examples/joins/([a-z0-9-]+)\)", text)) == set(PLATFORMS)


OWN_BLOCKS: Final = (
    "agent   ",
    "machinebot trust",
    "pip wheel",
    "gcloud iam",
    "az role",
    "apiVersion: machinebot.dev",
    "machinebot tokens add",
)
"""How what is on the page alone begins."""


def rows(heading: str) -> dict[str, list[str]]:
    """The table of the page whose first line begins with those columns: by the method in the first column, the other ones."""
    table = PAGE.read_text().split(heading)[1].split("\n\n")[0].split("\n", 2)[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")]
    return {re.sub(r"[^a-zA-Z]", "", re.sub(r"\(.*\)", "", first)): rest for first, *rest in cells}


def claims_of(method: str) -> set[str]:
    """The fields of a rule as the page has them: bold where stable, and how they are compared."""
    module = importlib.import_module(f"machinebot.joins.methods.{JOIN_METHODS[method].name}")
    found = set()
    for claim in module.CLAIMS:
        name = f"**`{claim.name}`**" if claim.stable else f"`{claim.name}`"
        found.add(f"{name} {'G' if claim.match is Match.GLOB else 'E'}")
    return found


def test_every_method_is_in_both_tables() -> None:
    assert rows("| method | what proves it |").keys() == rows("| method | fields of a rule |").keys() == JOIN_METHODS.keys()


@pytest.mark.parametrize("method", SAMPLES)
def test_fields_and_settings_are_those_of_the_platform(method: str) -> None:
    fields, least, more, _ = rows("| method | fields of a rule |")[method]
    assert set(fields.split(", ")) == claims_of(method)
    assert set(re.findall("`([^`]+)`", least)) <= set(re.findall("`([^`]+)`", fields))
    settings = {field.alias or name for name, field in JOIN_METHODS[method].settings.model_fields.items()} - {"allow"}
    assert set(re.findall("`([^`]+)`", more)) == settings


@pytest.mark.parametrize("method", ["kubernetes", "iam", "azure", "oidc", "token"])
def test_fields_and_settings_are_those_of_the_method(method: str) -> None:
    fields, _, more, _ = rows("| method | fields of a rule |")[method]
    schema = JOIN_METHODS[method].settings.model_json_schema(by_alias=True)
    rule = {name for each in schema.get("$defs", {}).values() if each["title"].endswith("Rule") for name in each["properties"]}
    shown = set(re.findall("`([^`]+)`", fields + more)) - {"expires"}
    assert shown == (rule | schema["properties"].keys()) - {"allow"}


def test_challenges_and_renewals_are_those_of_the_methods() -> None:
    proofs, fields = rows("| method | what proves it |"), rows("| method | fields of a rule |")
    assert {name for name, row in proofs.items() if "a challenge" in row[1]} == {
        name for name, method in JOIN_METHODS.items() if method.challenge
    }
    assert {name for name, row in fields.items() if row[-1] == "is renewed"} == {
        name for name, method in JOIN_METHODS.items() if method.renewable
    }


def test_command_of_the_page_makes_a_pin(tmp_path: Path) -> None:
    certificate = Authority("a CA").certificate
    (tmp_path / "ca.pem").write_bytes(certificate)
    (command,) = re.findall(r"`(openssl x509 -pubkey [^`]* sha256sum)`", PAGE.read_text())
    done = subprocess.run(
        ["sh", "-c", command.replace("\n", " ")], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert f"sha256:{done.stdout.split()[0]}" == pin_of(x509.load_pem_x509_certificate(certificate))


# --- run ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving_platforms(plane, tmp_path_factory.mktemp("platforms")) as serving_all:
        yield serving_all


@dataclass(frozen=True)
class Site:
    """What there is beside the platforms.

    Attributes:
        operator: The operator, which serves the join API.
        authorities: CAs of its certificate, PEM.
        server: The host that is logged in to.
        secrets: The secrets of join tokens, by platform.
    """

    operator: RunningOperator
    authorities: bytes
    server: SSHServer
    secrets: dict[str, str]

    @property
    def address(self) -> str:
        """Of the join API."""
        return f"https://localhost:{self.operator.https_port}"

    @property
    def pin(self) -> str:
        """Of the CA, for agents."""
        return pin_of(x509.load_pem_x509_certificate(self.authorities))


@pytest.fixture(scope="module")
def site(stage: Stage, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    kept = {platform: secrets.token_hex(32) for platform in ("jenkins", "machine")}
    resources = [each for platform in PLATFORMS for each in resources_of(platform, world, kept)]
    plane, folder = stage.release.cluster, tmp_path_factory.mktemp("host")
    with stage.operator(outside=world.outside) as operator:
        operator.wait_leading()
        authorities = public_of(stage.authority_ready("default"), "identity")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        apply(plane, namespace)
        apply(plane, *resources)
        tokens = [each["metadata"]["name"] for each in resources if each["kind"] == "MachineJoinToken"]
        plane.kubectl("wait", f"--namespace={NAMESPACE}", "--for=condition=Ready", "--timeout=60s", "machinejointokens", *tokens)
        with stage.tenant("default") as tenant:
            tenant.bot("web-1", roles=(stage.role(allow={"hostPrincipals": ["*.node.example.test"]}),))
            tenant.output("web-1", bot="web-1", sshHost={"principals": [HOST]})
            with sshd(folder, mounted(tenant, folder, "web-1")) as server:
                yield Site(operator, authorities, server, kept)
        plane.kubectl("delete", "--ignore-not-found", "--wait=false", "--filename=-", input=yaml.safe_dump_all(resources))
        operator.wait_quiet()


def sshd(folder: Path, files: Path) -> SSHServer:
    """A host whose every login says what was to be run."""
    return serving(folder, files, options={"ForceCommand": 'echo "ran $SSH_ORIGINAL_COMMAND"'})


def resources_of(platform: str, world: World, kept: dict[str, str]) -> list[Json]:
    """What is applied for a platform: its token.yaml, and the ServiceAccount of its pods.

    The secret, the keys of the other cluster and the roots of Azure are those that there are here.
    """
    found = documents(platform, "token.yaml")
    spec = found[1]["spec"]
    if platform in kept:
        spec["token"]["secretHash"] = secret_hash(kept[platform])
    if platform == "kubernetes":
        spec["kubernetes"]["staticJWKS"]["jwks"] = world.plane.kubectl("get", "--raw", "/openid/v1/jwks")
    if platform == "azure-vm":
        spec["azure"]["rootCertificates"] = world.azure.root.pem
    if (EXAMPLES / platform / "pod.yaml").exists():
        found += [each for each in documents(platform, "pod.yaml") if each["kind"] == "ServiceAccount"]
    return found


def apply(plane: ControlPlane, *objects: Json) -> None:
    """As kubectl does, strictly."""
    flags = ("--server-side", "--force-conflicts", "--field-manager=examples", "--validate=strict", "--filename=-")
    plane.kubectl("apply", *flags, input=yaml.safe_dump_all(objects))


class Runner:
    """A machine of a platform: a directory for its files, its commands, and its variables.

    Args:
        platform: Folder of the example.
        world: The platforms.
        site: The operator, and the host.
        root: The directory.
    """

    def __init__(self, platform: str, world: World, site: Site, root: Path) -> None:
        self.platform = platform
        self.root = root
        self._world = world
        self._site = site
        self._held = ReservedPort(socket.SO_REUSEADDR)
        self._bin = root / "bin"
        self._installed = root / "installed"
        for place in (self._bin, root / "checkout", root / "etc" / "machinebot", root / "trust", root / "id", root / "run"):
            place.mkdir(parents=True, mode=0o755)
        (root / "id").chmod(0o777)  # as Kubernetes makes an emptyDir
        self._write_programs()
        self._write_files()

    def _write_programs(self) -> None:
        """The agent of this checkout; ssh that finds the host; pip that notes what it is asked for, and an environment for it that
        changes nothing; Buildkite's own agent.
        """
        programs = {
            "pip": f'echo "$@" >>{self._installed}',
            "python3": 'test "$1 $2" = "-m venv" && mkdir -p "$3/bin" && : >"$3/bin/activate"',
            "buildkite-agent": f'test "$*" = "{_BUILDKITE_CALL}" && cat {self.root}/buildkite-token',
            "ssh": f'exec /usr/bin/ssh {_quoted(config_flags(Path("-"), port=self._site.server.port, user="root")[2:])} "$@"',
        }
        for name, line in programs.items():
            (self._bin / name).write_text(f"#!/bin/sh\n{line}\n")
            (self._bin / name).chmod(0o755)
        (self._bin / "machinebot").symlink_to(Path(sys.executable).parent / "machinebot")

    def _write_files(self) -> None:
        config = self._config()
        for place in ("checkout", "etc/machinebot"):
            (self.root / place / "bot.yaml").write_text(yaml.safe_dump(config))
        hooks = self.root / "hooks"
        if self.platform == "terraform-cloud":
            hooks.mkdir()
            (hooks / "bot.yaml").write_text(yaml.safe_dump(config))
            for name in HOOKS:
                (hooks / name).write_text(self.placed(text_of(self.platform, name)))
                (hooks / name).chmod(0o755)
        if self.platform == "buildkite":
            token = self._world.provider.token(BUILDKITE, CLUSTER_NAME, BUILDKITE_SUBJECT)
            (self.root / "buildkite-token").write_text(token)
        (self.root / "trust" / "identity-ca").write_bytes(self._site.authorities)
        (self.root / "ca.pem").write_bytes(self._world.trusted.read_bytes() + self._site.authorities)
        if self.platform in self._site.secrets:
            (self.root / "etc" / "machinebot" / "join-secret").write_text(self._site.secrets[self.platform])

    def _config(self) -> Json:
        """The agent's configuration, with the addresses and directories of this machine."""
        config: Json = yaml.safe_load(self.placed(text_of(self.platform, "bot.yaml")))
        config["server"] = self._site.address
        if "pins" in config.get("ca", {}):
            config["ca"]["pins"] = [self._site.pin]
        if "health" in config:
            config["health"]["listen"] = f"{LOOPBACK}:{self._held.number}"
        directory = config["outputs"][0]["directory"]
        if "group" in directory:  # the agent's user is another one than the jobs', who are in the group
            directory["group"] = os.getegid()
            directory |= {"owner": NOBODY} if os.geteuid() == 0 else {"mode": "0700"}
        self.mode = int(str(directory.get("mode", "0700")), 8)
        method = config["onboarding"]["method"]
        if method in ("azure", "gcp"):
            config["onboarding"][method] = {"metadataURL": self._world.metadata}
        if self.platform == "gke":
            config["onboarding"]["gcp"]["serviceAccount"] = "pod"  # there is one metadata service here for all machines
        return config

    def placed(self, text: str) -> str:
        """With directories below the one of the test."""
        return PLACES.sub(f"{self.root}/", text)

    def environment(self, step: Step | None = None) -> dict[str, str]:
        """Variables of a step."""
        platform = self._world.variables(self.platform, self.root)
        own = {} if step is None else self._world.filled_in(step.variables)
        paths = {
            "PATH": f"{self._bin}:/usr/bin:/bin",
            "HOOKS": str(self.root / "hooks"),
            "SSL_CERT_FILE": str(self.root / "ca.pem"),
        }
        return {**base_environment(), **paths, **platform, **own}

    def run(self, step: Step) -> str:
        """Run a step as the platform's shell does; everything must succeed."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self.placed(step.script)],
            cwd=self.root / "checkout",
            env=self.environment(step),
            umask=0 if self.platform == "gitlab" else -1,  # GitLab's runner for containers has it so
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def daemon(self, command: tuple[str, ...]) -> Part:
        """The agent as it goes on beside the jobs; not yet started."""
        program, *arguments = command
        line = [str(self._bin / program), *(self.placed(each) for each in arguments)]
        return Part("agent", line, self.root / "agent.log", self.environment())

    def ready(self) -> bool:
        """Whether the daemon says so.

        Raises:
            ConnectionError: It says what is missing.
        """
        status, body = get(http.client.HTTPConnection(LOOPBACK, self._held.number, timeout=10), "/readyz")
        if status != http.client.OK:
            raise ConnectionError(body)
        return True

    @property
    def installed(self) -> set[str]:
        """What pip was asked for."""
        lines = self._installed.read_text().splitlines() if self._installed.exists() else []
        assert all(line.startswith("install ") for line in lines)
        return {line.removeprefix("install ") for line in lines}

    @property
    def files(self) -> Path:
        """Where the credential is."""
        return Path(self.placed(config_of(self.platform)["outputs"][0]["directory"]["path"]))

    def release(self) -> None:
        """Give back its port."""
        self._held.release()


_BUILDKITE_CALL: Final = f"oidc request-token --audience {CLUSTER_NAME} --claim organization_id,pipeline_id"


def _quoted(words: list[str]) -> str:
    return " ".join(f"'{word}'" if "'" not in word else json.dumps(word) for word in words)


@pytest.fixture
def runner(request: pytest.FixtureRequest, world: World, site: Site, tmp_path: Path) -> Iterator[Runner]:
    made = Runner(request.param, world, site, tmp_path)
    yield made
    made.release()


def check_credential(runner: Runner) -> None:
    """The files are a set of the bot's own, readable to whom they are for."""
    found = load_ssh_public_identity((runner.files / "key-cert.pub").read_bytes())
    assert isinstance(found, SSHCertificate)
    assert found.valid_principals == [b"deploy"]
    assert found.key_id == b"bot:ci:deployer"
    modes = (runner.files.stat().st_mode & 0o777, (runner.files / "key").stat().st_mode & 0o777)
    assert modes == (runner.mode, runner.mode & 0o666)


def check_installed(pipeline: Pipeline, runner: Runner) -> None:
    """What is installed brings what the method needs, and there is such an extra."""
    extras = Path(__file__).parents[2].joinpath("pyproject.toml").read_text()
    asked = {*pipeline.packages, *runner.installed}
    for each in asked:
        found = EXTRA.fullmatch(each)
        assert found is not None, each
        assert found["extra"] is None or f"\n{found['extra']} = [" in extras
    assert ("machinebot[aws]" in asked) == (config_of(runner.platform)["onboarding"]["method"] == "iam")


@pytest.mark.cluster
@pytest.mark.parametrize("runner", [each for each in PLATFORMS if not PIPELINES[each]().daemon], indirect=True)
def test_job_joins_and_logs_in(runner: Runner) -> None:
    pipeline = PIPELINES[runner.platform]()
    said = "".join(runner.run(step) for step in pipeline.steps)
    assert said.splitlines()[-1] == f"ran {COMMAND}"
    clearing = CLEARING.get(runner.platform)
    if clearing != ():
        check_credential(runner)
    for step in clearing or ():
        runner.run(step)
    assert runner.files.exists() == (clearing is None)
    check_installed(pipeline, runner)


@pytest.mark.cluster
@pytest.mark.parametrize("runner", ["buildkite"], indirect=True)
def test_files_are_gone_also_where_the_job_fails(runner: Runner) -> None:
    (step,) = PIPELINES[runner.platform]().steps
    place = config_of(runner.platform)["outputs"][0]["directory"]["path"]
    failing = replace(step, script=step.script.replace("ssh -F", f"cat {place}/key-cert.pub >&2; false"))
    with pytest.raises(AssertionError, match=r"-cert-v01@openssh\.com"):
        runner.run(failing)
    assert not runner.files.parent.exists()


@pytest.mark.cluster
@pytest.mark.parametrize("runner", [each for each in PLATFORMS if PIPELINES[each]().daemon], indirect=True)
def test_daemon_joins_and_its_files_log_in(runner: Runner) -> None:
    pipeline = PIPELINES[runner.platform]()
    agent = runner.daemon(pipeline.daemon)
    agent.start()
    try:
        wait_until("the agent", runner.ready, seconds=DEADLINE, parts=[agent])
        check_credential(runner)
        own = Step(f"ssh -F {runner.files}/ssh_config deploy@{HOST} {COMMAND}")
        assert [runner.run(step) for step in pipeline.steps or (own,)] == [f"ran {COMMAND}\n"]
    finally:
        agent.stop()
    check_installed(pipeline, runner)
