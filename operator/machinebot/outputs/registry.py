"""Finds the output types and puts their settings into the model of MachineOutput."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field, ValidationError, create_model

from machinebot.errors import Invalid
from machinebot.outputs import types as _types
from machinebot.outputs.base import EVERY_ALGORITHM, OutputType
from machinebot.resources.meta import PENDING_STATUS, Model, ObjectMeta, Rule, first_error, name_rule, rules
from machinebot.resources.output import MAX_OUTPUT_NAME, SPEC_RULES, MachineOutputSpec, MachineOutputStatus


def _discover() -> Mapping[str, OutputType[Any]]:
    found: dict[str, OutputType[Any]] = {}
    for module in sorted(pkgutil.iter_modules(_types.__path__), key=lambda module: module.name):
        output: OutputType[Any] = importlib.import_module(f"{_types.__name__}.{module.name}").OUTPUT
        if output.name in found:
            raise RuntimeError(f"two output types are called {output.name!r}")
        found[output.name] = output
    return MappingProxyType(found)


OUTPUT_TYPES: Final = _discover()
"""Every output type by its name, in the order of their modules."""


@dataclass(frozen=True, slots=True)
class MachineOutput:
    """A MachineOutput as stored, its type found and the settings of that type read.

    Attributes:
        metadata: Name, UID, generation and so on.
        spec: What all types share.
        status: What the operator answered last.
        type: The type that is chosen.
        settings: What stands in the field of that type.
    """

    metadata: ObjectMeta
    spec: MachineOutputSpec
    status: MachineOutputStatus
    type: OutputType[Any]
    settings: Model

    @property
    def secret_name(self) -> str:
        """Name of the Secret: the one written, or the output's own."""
        return self.spec.secret.name or self.metadata.name


def parse_output(body: Mapping[str, Any]) -> MachineOutput:
    """Reads a MachineOutput as the API server stores it.

    Raises:
        Invalid: Not exactly one type is set, the type has no room for something else that is, or the object does not fit the
            model (one stored before a schema change).
    """
    spec = body.get("spec") or {}
    chosen = [name for name in OUTPUT_TYPES if spec.get(name) is not None]
    if len(chosen) != 1:
        raise Invalid("InvalidSpec", one_type_message())
    output = OUTPUT_TYPES[chosen[0]]
    try:
        shared = MachineOutputSpec.model_validate(spec)
        if shared.private_key.algorithm not in (output.algorithms or EVERY_ALGORITHM):
            raise Invalid("InvalidSpec", algorithms_message(output))
        if shared.keystores is not None and not output.x509:
            raise Invalid("InvalidSpec", keystores_message(output))
        return MachineOutput(
            metadata=ObjectMeta.model_validate(body.get("metadata")),
            spec=shared,
            status=MachineOutputStatus.model_validate(body.get("status") or {}),
            type=output,
            settings=output.settings.model_validate(spec[output.name]),
        )
    except ValidationError as error:
        raise Invalid("InvalidSpec", first_error(error)) from error


def one_type_message() -> str:
    """What to write where no type, or more than one, is set."""
    return f"exactly one type of output must be set: {', '.join(OUTPUT_TYPES)}"


def algorithms_message(output: OutputType[Any]) -> str:
    """What to write where the algorithm of the private key does not fit the type."""
    if not output.algorithms:
        return f"an output of the type {output.name} has no private key: leave privateKey out"
    return f"privateKey.algorithm of an output of the type {output.name} must be one of: {', '.join(sorted(output.algorithms))}"


def keystores_message(output: OutputType[Any]) -> str:
    """What to write where keystores do not fit the type."""
    return f"an output of the type {output.name} holds no X.509 certificate: leave keystores out"


def _type_rules() -> Iterator[Rule]:
    """What a type has no room for, as CEL rules; most types take everything and add none."""
    for name, output in OUTPUT_TYPES.items():
        if not output.algorithms:
            yield Rule(f"!has(self.{name}) || !has(self.privateKey)", algorithms_message(output), ".privateKey")
        elif output.algorithms != EVERY_ALGORITHM:
            allowed = ", ".join(f"'{algorithm}'" for algorithm in sorted(output.algorithms))
            chosen = "has(self.privateKey) && has(self.privateKey.algorithm) ? self.privateKey.algorithm : 'ECDSA-P256'"
            yield Rule(f"!has(self.{name}) || ({chosen}) in [{allowed}]", algorithms_message(output), ".privateKey")
        if not output.x509:
            yield Rule(f"!has(self.{name}) || !has(self.keystores)", keystores_message(output), ".keystores")


class _Root(Model):
    """Carries the rule on the name of an output."""

    model_config = name_rule(MAX_OUTPUT_NAME)


def schema_model() -> type[Model]:
    """The model that the CRD's schema is generated from: the spec with one optional field for each type."""
    fields: dict[str, Any] = {
        output.name: (output.settings | None, Field(default=None, description=output.description, alias=output.name))
        for output in OUTPUT_TYPES.values()
    }
    spec = create_model("MachineOutputSpecWithTypes", __base__=MachineOutputSpec, **fields)
    count = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in OUTPUT_TYPES)
    checks = rules(*SPEC_RULES, Rule(f"{count} == 1", one_type_message()), *_type_rules())
    return create_model(
        "MachineOutput",
        __base__=_Root,
        metadata=(ObjectMeta, ...),
        spec=(spec, Field(description="What a person writes.", json_schema_extra=checks)),
        status=(
            MachineOutputStatus,
            Field(default_factory=MachineOutputStatus, json_schema_extra={"default": dict(PENDING_STATUS)}),
        ),
    )
