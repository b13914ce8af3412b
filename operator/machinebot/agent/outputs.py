"""The outputs of an agent: each as the same type that a MachineOutput has, with a directory in the place of the Secret."""

import grp
import hashlib
import json
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from machinebot.agent.config import REASON, AgentConfig, DirectoryConfig, parsed, unknown_key
from machinebot.agent.directory import ABOUT
from machinebot.agent.ownership import Ownership
from machinebot.clock import parse_rfc3339, rfc3339
from machinebot.errors import Invalid
from machinebot.outputs import packing
from machinebot.outputs.base import ClusterFacts, Material
from machinebot.outputs.inspect import digest, inspect
from machinebot.outputs.keys import PrivateKeyPair, generate
from machinebot.outputs.registry import OUTPUT_TYPES, MachineOutput, algorithms_message, one_type_message, parse_output
from machinebot.policy.credential import Issued, IssueRequest, Purpose, TrustBundle
from machinebot.policy.decision import Credential
from machinebot.protocol import convert
from machinebot.protocol.messages import OutputRequest
from machinebot.resources.meta import ObjectName, first_error

SHARED: Final = ("roles", "credentialTTL", "renewBefore", "renewBeforePercentage", "privateKey", "keystores")
"""What all types have, as in MachineOutput."""

_OURS: Final = ("name", "directory")
_NOWHERE: Final = ClusterFacts(server="", certificate_authority=b"")
"""There is no cluster here: a `kubernetes` output names its own, and its CAs where they are not those of the machine."""

_FOR_SECRETS: Final = {
    "kubernetes": (("argoCD", "project", "namespaces", "clusterResources"), "is for Secrets of Argo CD, and this is a directory"),
}
"""Settings of types that mean nothing in a directory."""


class About(BaseModel):
    """What a set of files was made from: stands beside them, so that they alone are enough to go on from. Nothing secret."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    serial: str
    inputs: str
    """SHA-256 over what the configuration says about it."""
    trust: str
    """SHA-256 over the CAs whose certificates are in it."""
    digest: str
    """SHA-256 over the files."""
    authorities: Mapping[str, str]
    not_before: str
    not_after: str


@dataclass(frozen=True, slots=True)
class Output:
    """One output.

    Attributes:
        name: Its name.
        parsed: As the operator would read it from a MachineOutput.
        directory: Where its files go.
        inputs: SHA-256 over everything here that the credential is made from.
    """

    name: str
    parsed: MachineOutput
    directory: DirectoryConfig
    inputs: str

    @property
    def type(self) -> str:
        """Name of its type."""
        return self.parsed.type.name

    @property
    def files(self) -> frozenset[str]:
        """Names of its files."""
        return packing.keys(self.parsed)

    def new_key(self) -> PrivateKeyPair | None:
        """A private key for the next credential; None for a type without one."""
        return generate(self.parsed.spec.private_key.algorithm) if self.parsed.type.algorithms else None

    def request(self, key: PrivateKeyPair | None) -> OutputRequest:
        """What the join API is asked for."""
        return convert.output_request(
            IssueRequest(
                output=self.name,
                wish=self.parsed.type.ask(self.parsed.settings),
                roles=self.parsed.spec.roles,
                lifetime=self.parsed.spec.wished_lifetime,
                public_key=None if key is None else key.spki,
            )
        )

    def content(self, key: PrivateKeyPair | None, issued: Issued, trust: TrustBundle) -> tuple[dict[str, bytes], bytes]:
        """The files, and what they were made from.

        Raises:
            Invalid: What was issued is not what was asked for.
        """
        files = packing.pack(self.parsed, Material(key, issued, trust, _NOWHERE), password=None)
        try:
            found = inspect(self.parsed, files)
        except Invalid:
            raise Invalid("CredentialMismatch", "the credential that came is not whole, or does not fit the key") from None
        if found.serial != issued.serial:
            raise Invalid("CredentialMismatch", "the credential that came is not the one that the answer tells of")
        about = About(
            serial=str(found.serial),
            inputs=self.inputs,
            trust=trust_digest(trust),
            digest=digest(files),
            authorities=dict(issued.authorities),
            not_before=rfc3339(found.not_before),
            not_after=rfc3339(found.not_after),
        )
        return files, about.model_dump_json().encode()

    def stored(self, files: Mapping[str, bytes]) -> "Stored":
        """What a set of files amounts to.

        Raises:
            Invalid: It is not as it was written, or none of this output's.
        """
        try:
            about = About.model_validate_json(files[ABOUT])
            content = {name: data for name, data in files.items() if name != ABOUT}
            found = inspect(self.parsed, content)
            begin, end = parse_rfc3339(about.not_before), parse_rfc3339(about.not_after)
        except (ValidationError, ValueError, LookupError, Invalid):
            raise Invalid("FilesDamaged", "the files are not whole, or not this output's") from None
        if (digest(content), str(found.serial), found.not_before, found.not_after) != (about.digest, about.serial, begin, end):
            raise Invalid("FilesDamaged", "the files are not as they were written")
        return Stored(
            credential=Credential(
                damage=None,
                inputs=about.inputs,
                authorities=about.authorities,
                not_before=found.not_before,
                not_after=found.not_after,
            ),
            serial=found.serial,
            trust=about.trust,
        )

    def owned(self) -> Ownership:
        """Whose the files are.

        Raises:
            Invalid: There is no such user or group.
        """
        config = self.directory
        return Ownership(
            owner=_id(config.owner, "owner", "user", lambda name: pwd.getpwnam(name).pw_uid),
            group=_id(config.group, "group", "group", lambda name: grp.getgrnam(name).gr_gid),
            mode=config.mode,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A set of files as it was found.

    Attributes:
        credential: Its dates and what it was made from.
        serial: Its serial number.
        trust: Digest of the CAs in it.
    """

    credential: Credential
    serial: int
    trust: str


def trust_digest(trust: TrustBundle) -> str:
    """SHA-256 over the CAs that may stand in files: when it changes, all files are made anew."""
    told = sorted([str(anchor.purpose), anchor.id] for anchor in trust.anchors if anchor.purpose is not Purpose.BOT)
    return hashlib.sha256(json.dumps([trust.cluster_name, trust.issuer, told]).encode()).hexdigest()


# --- reading ------------------------------------------------------------------------------------------------------------


def outputs_of(config: AgentConfig) -> tuple[Output, ...]:
    """The outputs of a configuration.

    Raises:
        Invalid: One cannot be meant; the message names it and what to write.
    """
    found: list[Output] = []
    taken: dict[str, str] = {} if config.storage is None else {str(config.storage.directory): "storage"}
    for index, written in enumerate(config.outputs):
        output = _output(config, written, f"outputs.{index}")
        if output.name in {each.name for each in found}:
            raise Invalid(REASON, f"outputs.{index}.name: there are two outputs {output.name!r}: give each its own name")
        path = str(output.directory.path)
        if path in taken:
            raise Invalid(
                REASON, f"outputs.{index}.directory.path: {path} is the directory of {taken[path]} too: give each its own"
            )
        taken[path] = f"the output {output.name!r}"
        found.append(output)
    return tuple(found)


class _Named(BaseModel):
    """What an output has beside what a MachineOutput has."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    name: ObjectName
    directory: DirectoryConfig


def _output(config: AgentConfig, written: Mapping[str, Any], where: str) -> Output:
    _check_keys(written, where)
    named = parsed(_Named, {name: written[name] for name in _OURS if name in written}, where)
    spec = {key: value for key, value in written.items() if key not in _OURS}
    chosen = next(key for key in spec if key in OUTPUT_TYPES)
    _check_type(chosen, spec, where)
    spec[chosen] = _with_mount_path(chosen, spec[chosen] or {}, str(named.directory.path))
    body = {"metadata": {"name": named.name, "uid": named.name}, "spec": {"bot": "agent", **spec}}
    try:
        read = parse_output(body)
    except Invalid as error:
        raise Invalid(REASON, f"{where}.{error.message}") from error
    known = {
        **read.spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
        chosen: read.settings.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }
    _check_known(spec, known, where)
    _check_files(read, where)
    made = Output(name=named.name, parsed=read, directory=named.directory, inputs=_inputs(config, known))
    try:
        made.request(None)
    except ValidationError as error:
        raise Invalid(REASON, f"{where}: the join API does not take it: {first_error(error)}") from None
    return made


def _inputs(config: AgentConfig, known: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([config.place, known], sort_keys=True).encode()).hexdigest()


def _check_keys(written: Mapping[str, Any], where: str) -> None:
    known = (*_OURS, *SHARED, *OUTPUT_TYPES)
    for key in written:
        if key not in known:
            raise Invalid(REASON, f"{where}.{key}: {unknown_key(str(key), known)}")
    if sum(key in OUTPUT_TYPES for key in written) != 1:
        raise Invalid(REASON, f"{where}: {one_type_message()}, such as identity: {{}}")
    if "renewBefore" in written and "renewBeforePercentage" in written:
        raise Invalid(REASON, f"{where}: renewBefore and renewBeforePercentage exclude each other: keep one")


def _check_type(chosen: str, spec: Mapping[str, Any], where: str) -> None:
    settings = spec[chosen]
    if settings is not None and not isinstance(settings, dict):
        raise Invalid(REASON, f"{where}.{chosen}: write the settings of the type, or {{}} for none")
    keys, why = _FOR_SECRETS.get(chosen, ((), ""))
    for key in keys:
        if key in (settings or {}):
            raise Invalid(REASON, f"{where}.{chosen}.{key}: {why}: leave it out")
    if chosen == "kubernetes" and not (settings or {}).get("server"):
        raise Invalid(REASON, f"{where}.kubernetes.server: write the address of the API server: there is no cluster here")
    if "privateKey" in spec and not OUTPUT_TYPES[chosen].algorithms:
        raise Invalid(REASON, f"{where}.privateKey: {algorithms_message(OUTPUT_TYPES[chosen])}")
    keystores = spec.get("keystores")
    if isinstance(keystores, dict) and isinstance(keystores.get("pkcs12"), dict) and keystores["pkcs12"]:
        raise Invalid(
            REASON, f"{where}.keystores.pkcs12: write {{}}: a password is made, and stands beside the files in keystore.password"
        )


def _with_mount_path(chosen: str, settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    """An ssh_config names the other files by where they are."""
    if "mount_path" in OUTPUT_TYPES[chosen].settings.model_fields and "mountPath" not in settings:
        return {**settings, "mountPath": path}
    return dict(settings)


def _check_known(written: Any, known: Any, where: str) -> None:
    """Refuses what the models have passed over: they read what a newer release has stored, and this is written by a person."""
    if isinstance(written, dict) and isinstance(known, dict):
        for key, value in written.items():
            if key not in known:
                raise Invalid(REASON, f"{where}.{key}: there is no such key, see docs/outputs.md")
            _check_known(value, known[key], f"{where}.{key}")
    elif isinstance(written, list) and isinstance(known, list):
        for index, (one, other) in enumerate(zip(written, known, strict=True)):
            _check_known(one, other, f"{where}.{index}")


def _check_files(output: MachineOutput, where: str) -> None:
    try:
        names = packing.keys(output)
    except Invalid as error:
        raise Invalid(REASON, f"{where}: {error.message}") from error
    if ABOUT in names:
        raise Invalid(REASON, f"{where}: a file cannot be called {ABOUT}: give it another name")


def _id(written: str | int | None, field: str, kind: str, find: Callable[[str], int]) -> int | None:
    if written is None or isinstance(written, int):
        return written
    try:
        return find(written)
    except KeyError:
        raise Invalid(REASON, f"directory.{field}: this machine has no {kind} {written!r}") from None
