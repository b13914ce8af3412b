"""Finds the join methods and puts their settings into the model of MachineJoinToken."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field, ValidationError, create_model

from machinebot.clock import parse_rfc3339
from machinebot.errors import Invalid
from machinebot.joins import methods as _methods
from machinebot.joins.base import JoinMethod
from machinebot.resources.join_token import MAX_TOKEN_NAME, MachineJoinTokenSpec, MachineJoinTokenStatus
from machinebot.resources.meta import PENDING_STATUS, Model, ObjectMeta, Rule, first_error, name_rule, rules


def _discover() -> Mapping[str, JoinMethod[Any, Any]]:
    found: dict[str, JoinMethod[Any, Any]] = {}
    for module in sorted(pkgutil.iter_modules(_methods.__path__), key=lambda module: module.name):
        method: JoinMethod[Any, Any] = importlib.import_module(f"{_methods.__name__}.{module.name}").METHOD
        if method.field in found:
            raise RuntimeError(f"two join methods have the field {method.field!r}")
        found[method.field] = method
    return MappingProxyType(found)


JOIN_METHODS: Final = _discover()
"""Every join method by its field in MachineJoinToken's spec, in the order of their modules."""


@dataclass(frozen=True, slots=True)
class MachineJoinToken:
    """A MachineJoinToken as stored, its method found and the settings of that method read.

    Attributes:
        metadata: Name, namespace, UID and so on.
        spec: What all methods share.
        status: What the operator answered last.
        method: The method that is chosen.
        settings: What stands in the field of that method.
    """

    metadata: ObjectMeta
    spec: MachineJoinTokenSpec
    status: MachineJoinTokenStatus
    method: JoinMethod[Any, Any]
    settings: Model

    @property
    def expires_at(self) -> datetime | None:
        """`spec.expires`, or None."""
        return None if self.spec.expires is None else parse_rfc3339(self.spec.expires)


def parse_join_token(body: Mapping[str, Any]) -> MachineJoinToken:
    """Reads a MachineJoinToken as the API server stores it.

    Raises:
        Invalid: Not exactly one method is set, or the object does not fit the model (one stored before a schema change).
    """
    spec = body.get("spec") or {}
    chosen = [name for name in JOIN_METHODS if spec.get(name) is not None]
    if len(chosen) != 1:
        raise Invalid("InvalidSpec", one_method_message())
    method = JOIN_METHODS[chosen[0]]
    if method.renewable and spec.get("expires") is None:
        raise Invalid("InvalidSpec", expires_message(method))
    try:
        return MachineJoinToken(
            metadata=ObjectMeta.model_validate(body.get("metadata")),
            spec=MachineJoinTokenSpec.model_validate(spec),
            status=MachineJoinTokenStatus.model_validate(body.get("status") or {}),
            method=method,
            settings=method.settings.model_validate(spec[method.field]),
        )
    except ValidationError as error:
        raise Invalid("InvalidSpec", first_error(error)) from error


def one_method_message() -> str:
    """What to write where no method, or more than one, is set."""
    return f"exactly one join method must be set: {', '.join(JOIN_METHODS)}"


def expires_message(method: JoinMethod[Any, Any]) -> str:
    """What to write where a secret never ends."""
    return f'{method.field} needs expires, since a secret must not lie about for ever: a time such as "2027-01-01T00:00:00Z"'


class _Root(Model):
    """Carries the rule on the name of a join token."""

    model_config = name_rule(MAX_TOKEN_NAME)


def schema_model() -> type[Model]:
    """The model that the CRD's schema is generated from: the spec with one optional field for each method."""
    fields: dict[str, Any] = {
        method.field: (method.settings | None, Field(default=None, description=method.description, alias=method.field))
        for method in JOIN_METHODS.values()
    }
    spec = create_model("MachineJoinTokenSpecWithMethods", __base__=MachineJoinTokenSpec, **fields)
    count = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in JOIN_METHODS)
    needy = [
        Rule(f"!has(self.{method.field}) || has(self.expires)", expires_message(method), ".expires")
        for method in JOIN_METHODS.values()
        if method.renewable
    ]
    checks = rules(Rule(f"{count} == 1", one_method_message()), *needy)
    return create_model(
        "MachineJoinToken",
        __base__=_Root,
        metadata=(ObjectMeta, ...),
        spec=(spec, Field(description="What a person writes.", json_schema_extra=checks)),
        status=(
            MachineJoinTokenStatus,
            Field(default_factory=MachineJoinTokenStatus, json_schema_extra={"default": dict(PENDING_STATUS)}),
        ),
    )
