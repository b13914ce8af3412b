"""Reads the files of platforms in examples/joins: each is held to its platform's form, and gives the commands that it runs."""

import configparser
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

EXAMPLES: Final = Path(__file__).parents[2] / "examples" / "joins"

VENV: Final = "/opt/machinebot/bin/"
"""Where machines that are set up by us have the agent."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One shell of a job.

    Attributes:
        script: What it runs.
        variables: Environment variables of this step alone: from their names to what the file says.
    """

    script: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """What a platform runs.

    Attributes:
        steps: One after the other.
        daemon: Command of the agent where it goes on beside the steps; empty where a step runs it once.
        packages: What is installed by pip before any step.
    """

    steps: tuple[Step, ...] = ()
    daemon: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


def text_of(platform: str, name: str) -> str:
    """A file of an example."""
    return (EXAMPLES / platform / name).read_text()


def documents(platform: str, name: str) -> list[Json]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(text_of(platform, name)))


def _document(platform: str, name: str) -> Json:
    (found,) = documents(platform, name)
    return found


def config_of(platform: str) -> Json:
    """The agent's configuration."""
    return _document(platform, "bot.yaml")


# --- CI -----------------------------------------------------------------------------------------------------------------


def github() -> Pipeline:
    """docs.github.com, "Workflow syntax for GitHub Actions"."""
    workflow = _document("github", "workflow.yml")
    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    (job,) = workflow["jobs"].values()
    assert job["environment"] == _rule("github")["environment"]
    assert f"refs/heads/{workflow[True]['push']['branches'][0]}" == _rule("github")["ref"]  # `on` is true in YAML 1.1
    assert [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step] == [
        "actions/checkout",
        "actions/setup-python",
    ]
    return Pipeline(tuple(Step(step["run"]) for step in job["steps"] if "run" in step))


def gitlab() -> Pipeline:
    """docs.gitlab.com, "CI/CD YAML syntax reference"."""
    (job,) = _document("gitlab", "gitlab-ci.yml").values()
    (variable,) = job["id_tokens"]
    return Pipeline((Step("\n".join(job["script"]), {variable: job["id_tokens"][variable]["aud"]}),))


def circleci() -> Pipeline:
    """circleci.com/docs, "Configuration reference"."""
    config = _document("circleci", "config.yml")
    assert config["version"] == 2.1
    ((name, job),) = config["jobs"].items()
    ((used,),) = (workflow["jobs"] for workflow in config["workflows"].values())
    assert used[name]["context"]
    assert used[name]["filters"]["branches"]["only"] == "main"
    assert job["steps"][0] == "checkout"
    return Pipeline(tuple(Step(step["run"]["command"]) for step in job["steps"][1:]))


def bitbucket() -> Pipeline:
    """support.atlassian.com, "Bitbucket Pipelines configuration reference"."""
    branches = _document("bitbucket", "bitbucket-pipelines.yml")["pipelines"]["branches"]
    ((each,),) = branches.values()
    assert list(branches) == [_rule("bitbucket")["branchName"]]
    assert each["step"]["oidc"] is True
    assert each["step"]["deployment"]
    return Pipeline((Step("\n".join(each["step"]["script"])),))


def azure_devops() -> Pipeline:
    """learn.microsoft.com, "YAML schema reference for Azure Pipelines"."""
    pipeline = _document("azure-devops", "azure-pipelines.yml")
    assert [f"refs/heads/{name}" for name in pipeline["trigger"]["branches"]["include"]] == [
        _rule("azure-devops")["repositoryRef"]
    ]
    return Pipeline(tuple(Step(step["script"], step.get("env", {})) for step in pipeline["steps"] if "script" in step))


def spacelift() -> Pipeline:
    """docs.spacelift.io, "Runtime configuration"."""
    config = _document("spacelift", "config.yml")
    (stack,) = config["stacks"]
    assert stack == _rule("spacelift")["callerID"]
    hooks = config["stacks"][stack]
    return Pipeline((Step("\n".join(hooks["before_apply"])), Step("\n".join(hooks["after_apply"]))))


def terraform_cloud() -> Pipeline:
    """developer.hashicorp.com, "local-exec Provisioner", and the hooks of its agents."""
    text = text_of("terraform-cloud", "main.tf")
    blocks = re.findall(r'provisioner "local-exec" \{\n +command = <<-EOT\n(.*?)\n +EOT\n +\}', text, re.DOTALL)
    assert len(blocks) == text.count("provisioner") == 1
    _check_braces(text)
    return Pipeline((Step('exec "$HOOKS/terraform-pre-apply"'), Step(blocks[0])))


def buildkite() -> Pipeline:
    """buildkite.com/docs, "Command step"."""
    (step,) = _document("buildkite", "pipeline.yml")["steps"]
    assert step["branches"] == _settings("buildkite")["mustMatch"]["build_branch"]
    assert not re.search(r"(?<!\$)\$(?!\$)", step["command"])
    return Pipeline((Step(step["command"].replace("$$", "$")),))


# --- machines -----------------------------------------------------------------------------------------------------------


def jenkins() -> Pipeline:
    """jenkins.io, "Pipeline syntax": the part of the file that is a shell's."""
    text = text_of("jenkins", "Jenkinsfile")
    _check_braces(re.sub(r"//[^\n]*", "", text))
    shells = re.findall(r"\bsh '''\n(.*?)\n +'''", text, re.DOTALL)
    assert len(shells) == len(re.findall(r"\bsh\b '", text)) == 1
    place = config_of("jenkins")["outputs"][0]["directory"]["path"]
    assert f"--volume {place}:{place}:ro" in text
    return Pipeline((Step(shells[0]),), _unit("jenkins"))


def machine() -> Pipeline:
    """A script of our own."""
    return Pipeline((), _unit("machine"), tuple(_pip(text_of("machine", "install.sh").splitlines())))


def cloud(platform: str) -> Pipeline:
    """cloudinit.readthedocs.io, "Cloud config module reference": what it writes is what the other files say."""
    assert text_of(platform, "cloud-init.yml").startswith("#cloud-config\n")
    data = _document(platform, "cloud-init.yml")
    assert {each["path"]: each["content"] for each in data["write_files"]} == {
        "/etc/machinebot/bot.yaml": text_of(platform, "bot.yaml"),
        "/etc/systemd/system/machinebot-agent.service": text_of(platform, "machinebot-agent.service"),
    }
    assert data["groups"] == [config_of(platform)["outputs"][0]["directory"]["group"]]
    assert data["runcmd"][-1] == "systemctl enable --now machinebot-agent.service"
    return Pipeline((), _unit(platform), tuple(_pip(data["runcmd"])))


def job(platform: str) -> Pipeline:
    """kubernetes.io, "Sidecar containers": a Job ends when its own containers have, and its sidecars then."""
    (found,) = (each for each in documents(platform, "pod.yaml") if each["kind"] == "Job")
    spec = found["spec"]["template"]["spec"]
    (agent,), (user,) = spec["initContainers"], spec["containers"]
    assert (agent["restartPolicy"], spec["restartPolicy"], found["spec"]["backoffLimit"]) == ("Always", "Never", 0)
    assert {mount["name"] for part in (agent, user) for mount in part["volumeMounts"]} == {
        each["name"] for each in spec["volumes"]
    }
    assert config_of(platform)["health"]["listen"].endswith(f":{agent['startupProbe']['httpGet']['port']}")
    assert user["command"][:2] == ["sh", "-c"]
    return Pipeline((Step(user["command"][2]),), ("machinebot", *agent["args"]))


def _unit(platform: str) -> tuple[str, ...]:
    """The command of a systemd unit, which is held against the agent's configuration."""
    unit = configparser.ConfigParser(interpolation=None, allow_no_value=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's own way to make names exact
    unit.read_string(text_of(platform, "machinebot-agent.service"))
    service, config = unit["Service"], config_of(platform)
    assert service["Type"] == "notify"
    assert config["storage"]["directory"] == f"/var/lib/{service['StateDirectory']}"
    assert config["outputs"][0]["directory"]["path"].startswith(f"/run/{service['RuntimeDirectory']}/")
    assert config["outputs"][0]["directory"]["group"] == service["SupplementaryGroups"]
    command = shlex.split(service["ExecStart"])
    assert command[0] == f"{VENV}machinebot"
    return ("machinebot", *command[1:])


def _pip(lines: list[str]) -> list[str]:
    """What lines of a shell install into the agent's environment."""
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[2] for line in words if line[:2] == [f"{VENV}pip", "install"]]


def _check_braces(text: str) -> None:
    """Every brace, bracket and quote outside of texts has its counterpart."""
    plain = re.sub(r"'''.*?'''|<<-(\w+)\n.*?\n +\1|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*", "", text, flags=re.DOTALL)
    assert not re.search("['\"]", plain)
    before = ""
    while before != plain:
        before, plain = plain, re.sub(r"\{[^{}()\[\]]*\}|\([^{}()\[\]]*\)|\[[^{}()\[\]]*\]", "", plain)
    assert not re.search(r"[{}()\[\]]", plain)


# --- all of them --------------------------------------------------------------------------------------------------------


def _settings(platform: str) -> Json:
    """What a join token says for its method."""
    (spec,) = (each["spec"] for each in documents(platform, "token.yaml") if each["kind"] == "MachineJoinToken")
    (method,) = spec.keys() - {"bot", "expires"}
    found: Json = spec[method]
    return found


def _rule(platform: str) -> Json:
    """The one rule of a join token."""
    (rule,) = _settings(platform)["allow"]
    found: Json = rule
    return found


PIPELINES: Final[Mapping[str, Callable[[], Pipeline]]] = {
    "azure-devops": azure_devops,
    "azure-vm": lambda: cloud("azure-vm"),
    "bitbucket": bitbucket,
    "buildkite": buildkite,
    "circleci": circleci,
    "ec2": lambda: cloud("ec2"),
    "eks": lambda: job("eks"),
    "gce": lambda: cloud("gce"),
    "github": github,
    "gitlab": gitlab,
    "gke": lambda: job("gke"),
    "in-cluster": lambda: job("in-cluster"),
    "jenkins": jenkins,
    "kubernetes": lambda: job("kubernetes"),
    "machine": machine,
    "spacelift": spacelift,
    "terraform-cloud": terraform_cloud,
}
"""Every folder of examples/joins."""
