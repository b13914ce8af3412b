"""The agent's configuration: one YAML file. It is read and checked here; a mistake is answered by what to write instead."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import override

from machinebot.client.pins import MAX_PINS, PIN
from machinebot.client.transport import Address
from machinebot.errors import Invalid
from machinebot.resources.meta import MAX_NAME, OBJECT_NAME, ObjectName
from machinebot.settings import LogFormat

ModelT = TypeVar("ModelT", bound=BaseModel)

REASON: Final = "InvalidConfig"
"""Reason of every mistake in the configuration."""

MAX_CONFIG: Final = 256 * 1024
"""Longest file, bytes: a hundred outputs have some ten KiB."""

MAX_OUTPUTS: Final = 256
"""Most outputs of one agent."""

MAX_PORT: Final = 65535

_VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"

Variable = Annotated[str, Field(pattern=_VARIABLE)]
"""Name of an environment variable."""

MethodName = Literal[
    "token",
    "kubernetes",
    "github",
    "gitlab",
    "circleci",
    "iam",
    "azure",
    "gcp",
    "spacelift",
    "terraform_cloud",
    "bitbucket",
    "azure_devops",
    "oidc",
]
"""The join methods, as tbot spells them; each has a module of its name in `machinebot.agent.proofs`."""

WITH_AUDIENCE: Final = frozenset({"azure", "gcp", "github", "gitlab", "kubernetes", "oidc", "terraform_cloud"})
"""Methods whose audience the authority names; with the others there is none, or the platform fixes it."""


def _absolute(text: str) -> Path:
    """A path, from the current directory where it is relative."""
    if not text or "\0" in text:
        raise ValueError("write a path")
    return Path(os.path.abspath(text))  # noqa: PTH100 - resolve() would follow links


def _path(value: Any) -> Any:
    return _absolute(value) if isinstance(value, str) else value


FilePath = Annotated[Path, BeforeValidator(_path)]


class Strict(BaseModel):
    """Base of every part: frozen, camelCase, unknown keys refused, no value shown in an error."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
        extra="forbid",
        hide_input_in_errors=True,
    )


def _checked_url(url: str) -> str:
    try:
        Address.of(url)
    except Invalid as error:
        raise ValueError(error.message) from None
    return url


def _checked_pin(pin: str) -> str:
    if PIN.fullmatch(pin) is None:
        raise ValueError("write sha256: and 64 hex digits, the SHA-256 of the CA certificate's public key: see docs/agent.md")
    return pin


class ServerTrust(Strict):
    """By which CA the server is verified; neither means by those of the machine."""

    file: FilePath | None = None
    pins: Annotated[tuple[Annotated[str, AfterValidator(_checked_pin)], ...], Field(min_length=1, max_length=MAX_PINS)] | None = (
        None
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.pins is None):
            raise ValueError("write one of file and pins; for the CAs of the machine leave ca out")
        return self


# --- onboarding ---------------------------------------------------------------------------------------------------------


class TokenBlock(Strict):
    """Where the secret of the method `token` is. It never stands in the configuration itself."""

    secret_file: FilePath | None = None
    env: Variable | None = None


class KubernetesBlock(Strict):
    """Where the kubelet puts the token."""

    token_path: FilePath | None = None


class GitLabBlock(Strict):
    """Which variable the job's `id_tokens` names."""

    token_env: Variable | None = None


class IAMBlock(Strict):
    """Which of AWS's regions and profiles."""

    region: Annotated[str, Field(pattern="^[a-z0-9-]{1,64}$")] | None = None
    profile: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class AzureBlock(Strict):
    """Which managed identity, where the machine has several."""

    client_id: Annotated[str, Field(pattern="^[0-9A-Fa-f-]{36}$")] | None = Field(default=None, alias="clientID")
    metadata_url: Annotated[str, Field(pattern="^https?://", max_length=253)] | None = Field(default=None, alias="metadataURL")


class GCPBlock(Strict):
    """Which service account, where the machine has several."""

    service_account: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    metadata_url: Annotated[str, Field(pattern="^https?://", max_length=253)] | None = Field(default=None, alias="metadataURL")


class TerraformCloudBlock(Strict):
    """Which of the workspace's tokens."""

    tag: Annotated[str, Field(pattern="^[A-Za-z0-9_]{1,64}$")] | None = None


class OIDCBlock(Strict):
    """Where the platform puts the token."""

    token_file: FilePath | None = None
    token_env: Variable | None = None


def _checked_audience(audience: str) -> str:
    if not audience.isprintable():
        raise ValueError("write the audience as plain text, without control characters")
    return audience


class Onboarding(Strict):
    """By which join token, and how it is proved."""

    namespace: ObjectName
    join_token: ObjectName
    method: MethodName
    audience: Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_checked_audience)] | None = None
    token: TokenBlock | None = None
    kubernetes: KubernetesBlock | None = None
    gitlab: GitLabBlock | None = None
    iam: IAMBlock | None = None
    azure: AzureBlock | None = None
    gcp: GCPBlock | None = None
    terraform_cloud: TerraformCloudBlock | None = None
    oidc: OIDCBlock | None = None

    @model_validator(mode="after")
    def _block_of_method(self) -> Self:
        for name in get_args(MethodName):
            if name != self.method and getattr(self, name, None) is not None:
                written = type(self).model_fields[name].alias
                raise ValueError(f"{written} is for the method {name}, and the method is {self.method}: keep one of them")
        return self

    @model_validator(mode="after")
    def _audience_of_method(self) -> Self:
        if self.audience is not None and self.method not in WITH_AUDIENCE:
            raise ValueError(
                f"audience is for the methods {', '.join(sorted(WITH_AUDIENCE))}, and the method is {self.method}: leave it out"
            )
        return self

    @property
    def settings(self) -> Mapping[str, Any]:
        """The block of the method, by the names in the file."""
        block = getattr(self, self.method, None)
        return {} if block is None else block.model_dump(mode="json", by_alias=True, exclude_none=True)


# --- the rest -----------------------------------------------------------------------------------------------------------


class StorageConfig(Strict):
    """Where the agent keeps its identity."""

    directory: FilePath


def _mode(value: Any) -> int:
    """`"0750"`, or the number that YAML makes of 0750 without quotes."""
    number = int(value, 8) if isinstance(value, str) and re.fullmatch("0?[0-7]{3}", value) else value
    if number not in (0o700, 0o750):
        raise ValueError('write "0700", or "0750" where the group may read: private keys are never readable by all')
    return int(number)


class DirectoryConfig(Strict):
    """Where the files of an output are, and whose."""

    path: FilePath
    owner: str | int | None = None
    group: str | int | None = None
    mode: Annotated[int, BeforeValidator(_mode)] = 0o700
    unsafe_skip_checks: bool = False


def _checked_listen(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError('write an address with a port, such as "127.0.0.1:3001"')
    return listen


class HealthConfig(Strict):
    """Where health and metrics are served, without TLS and for everybody who reaches it."""

    listen: Annotated[str, AfterValidator(_checked_listen)]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def _checked_level(level: str) -> str:
    if level not in {"debug", "info", "warning", "error"}:
        raise ValueError("write one of debug, info, warning and error")
    return level


class LogConfig(Strict):
    """What is logged, to standard error."""

    format: LogFormat = "json"
    level: Annotated[str, AfterValidator(_checked_level)] = "info"


class AgentConfig(Strict):
    """The whole file. The outputs are read by `machinebot.agent.outputs`, which knows their types."""

    server: Annotated[str, AfterValidator(_checked_url)]
    ca: ServerTrust | None = None
    onboarding: Onboarding
    storage: StorageConfig | None = None
    outputs: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=MAX_OUTPUTS)]
    health: HealthConfig | None = None
    log: LogConfig = Field(default_factory=LogConfig)

    @property
    def place(self) -> str:
        """The server and the join token: an identity of another place is not used."""
        return f"{self.server.rstrip('/')} {self.onboarding.namespace}/{self.onboarding.join_token}"


# --- reading ------------------------------------------------------------------------------------------------------------


def read_config(path: Path) -> AgentConfig:
    """The configuration in a file.

    Raises:
        Invalid: It cannot be read, or a part of it cannot be meant; the message names the part and what to write.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG + 1)
    except OSError as error:
        raise Invalid(REASON, f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_CONFIG:
        raise Invalid(REASON, f"{path} is longer than {MAX_CONFIG} bytes")
    return parse_config(content)


def parse_config(content: bytes) -> AgentConfig:
    """The configuration in a text.

    Raises:
        Invalid: See `read_config`.
    """
    try:
        found = yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise Invalid(REASON, f"this is no YAML{where}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        raise Invalid(REASON, "this is no YAML") from None
    if not isinstance(found, dict):
        raise Invalid(REASON, "this is no configuration: it begins with server, onboarding and outputs")
    return parsed(AgentConfig, found, "")


def parsed(model: type[ModelT], found: Any, where: str = "") -> ModelT:
    """A part of the configuration as its model.

    Args:
        model: The model.
        found: What stands there.
        where: Where it stands, for the message.

    Raises:
        Invalid: It does not fit.
    """
    try:
        return model.model_validate(found)
    except ValidationError as error:
        entry = error.errors(include_url=False, include_input=False)[0]
        location = entry["loc"]
        place = ".".join((where, *map(str, location)) if where else map(str, location))
        if entry["type"] == "extra_forbidden":
            message = unknown_key(str(location[-1]), _keys_at(model, location[:-1]))
        elif entry["type"] == "missing":
            message = "is missing: write it"
        elif entry["type"] == "string_pattern_mismatch" and entry["ctx"]["pattern"] == OBJECT_NAME:
            message = "must be a name as Kubernetes has them: lower-case letters and digits, with '-' and '.' inside"
        else:
            message = entry["msg"].removeprefix("Value error, ")
        raise Invalid(REASON, f"{place}: {message}" if place else message) from None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to write instead of a key that there is not."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1)
    return f"there is no such key: write {near[0]}" if near else f"there is no such key: there are {', '.join(names)}"


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that a part of the configuration may have."""
    for part in location:
        field = next((each for each in model.model_fields.values() if each.alias == part), None)
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            break
        model = inner
    return [each.alias or name for name, each in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)


class _Loader(yaml.SafeLoader):
    """Reads plain YAML: no aliases, by which a small text could become a large one, and no key twice, of which one would win."""

    @override
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not read", None)
        return super().compose_node(parent, index)

    @override
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
