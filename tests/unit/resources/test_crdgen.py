"""From models to CRDs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field, create_model

from machinebot.joins import registry as joins
from machinebot.outputs import registry as outputs
from machinebot.resources import authority, bot, crdgen, join_token, lock, output, role
from machinebot.resources.meta import PENDING_STATUS, Column, Kind, Model, ObjectMeta, Rule, Status, matches, rules, written_as

CRDS = Path(__file__).parents[3] / "crds"
KINDS = (
    (authority.KIND, authority.MachineAuthority),
    (role.KIND, role.MachineRole),
    (bot.KIND, bot.MachineBot),
    (output.KIND, outputs.schema_model()),
    (join_token.KIND, joins.schema_model()),
    (lock.KIND, lock.MachineLock),
)
KIND = Kind(
    kind="MachineThing",
    plural="machinethings",
    short="mth",
    namespaced=True,
    description="A thing.",
    columns=(Column("Size", ".spec.size", "integer", priority=1, description="How big."), Column("Plain", ".spec.plain")),
)


def whole(spec: type[Model]) -> type[Model]:
    status: Any = Field(default_factory=Status, description="The answer.", json_schema_extra={"default": dict(PENDING_STATUS)})
    return create_model(
        "Thing",
        __base__=Model,
        metadata=(ObjectMeta, ...),
        spec=(spec, Field(description="The wish.")),
        status=(Status, status),
    )


def spec_schema(**fields: Any) -> dict[str, Any]:
    """The schema of a spec with these fields."""
    crd = crdgen.generate(KIND, whole(create_model("Spec", __base__=Model, **fields)))
    schema: dict[str, Any] = root(crd)["properties"]["spec"]
    return schema


def field_schema(annotation: Any, default: Any = ..., **settings: Any) -> dict[str, Any]:
    """The schema of a spec's field of that type."""
    described = Field(default, **{"description": "Words.", **settings})
    schema: dict[str, Any] = spec_schema(it=(annotation, described))["properties"]["it"]
    return schema


def root(crd: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and every one below it."""
    yield schema
    below = [*schema.get("properties", {}).values(), *(schema[key] for key in ("items", "additionalProperties") if key in schema)]
    for entry in below:
        yield from schemas(entry)


def test_the_files_are_what_the_models_say() -> None:
    written = {path.name: path.read_text() for path in CRDS.glob("*.yaml")}
    assert written == crdgen.all_crds(KINDS), "run `make crds`"


@pytest.mark.parametrize(("kind", "model"), KINDS, ids=lambda value: getattr(value, "kind", None))
def test_no_default_but_that_of_the_status(kind: Kind, model: type[Model]) -> None:
    properties = root(crdgen.generate(kind, model))["properties"]
    assert [schema for schema in schemas(properties["spec"]) if "default" in schema] == []
    assert [schema["default"] for schema in schemas(properties["status"]) if "default" in schema] == [PENDING_STATUS]


@pytest.mark.parametrize(("kind", "model"), KINDS, ids=lambda value: getattr(value, "kind", None))
def test_the_spec_is_required_and_the_metadata_left_to_the_api_server(kind: Kind, model: type[Model]) -> None:
    schema = root(crdgen.generate(kind, model))
    assert schema["required"] == ["spec"]
    assert schema["properties"]["metadata"] == {"type": "object"}


@pytest.mark.parametrize(("kind", "model"), KINDS, ids=lambda value: getattr(value, "kind", None))
def test_every_rule_says_what_to_write(kind: Kind, model: type[Model]) -> None:
    for schema in schemas(root(crdgen.generate(kind, model))):
        for rule in schema.get("x-kubernetes-validations", []):
            assert len(rule["message"]) > 25


def test_names_scope_and_columns() -> None:
    crd = crdgen.generate(KIND, whole(create_model("Spec", __base__=Model)))
    assert crd["metadata"] == {"name": "machinethings.machinebot.dev"}
    assert crd["spec"]["names"] == {
        "kind": "MachineThing",
        "listKind": "MachineThingList",
        "plural": "machinethings",
        "singular": "machinething",
        "shortNames": ["mth"],
        "categories": ["machine-identity"],
    }
    assert crd["spec"]["scope"] == "Namespaced"
    (version,) = crd["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"] == [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big.", "priority": 1},
        {"name": "Plain", "type": "string", "jsonPath": ".spec.plain"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "How long ago it was made."},
    ]


@pytest.mark.parametrize(("kind", "model"), KINDS, ids=lambda value: getattr(value, "kind", None))
def test_no_category_is_a_name_of_a_kind(kind: Kind, model: type[Model]) -> None:
    """Kubectl takes a word for a category first: `kubectl delete WORD --all` would delete every kind."""
    names = crdgen.generate(kind, model)["spec"]["names"]
    assert not {*names["categories"]} & {names["singular"], names["plural"], *names["shortNames"]}


def test_the_text_says_where_it_comes_from_and_repeats_instead_of_referring() -> None:
    text = crdgen.all_crds([(role.KIND, role.MachineRole)])["machinebot.dev_machineroles.yaml"]
    assert text.startswith("# Generated by `make crds` from the models in machinebot.resources.role")
    assert "&id" not in text
    assert yaml.safe_load(text) == crdgen.generate(role.KIND, role.MachineRole)


Short = Annotated[str, Field(max_length=5)]


LETTERS = Annotated[Mapping[Annotated[str, Field(pattern="^a+$")], bool], Field(max_length=2)]
"""A map whose keys have a pattern."""


class Inner(Model):
    """Settings inside."""

    size: int = Field(default=3, description="How big.", ge=1, le=9)


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Short, {"type": "string", "maxLength": 5}),
        (Short | None, {"type": "string", "maxLength": 5}),
        (Annotated[str, Field(max_length=5, pattern="^a+$")], {"type": "string", "maxLength": 5, "pattern": "^a+$"}),
        (
            Annotated[str, written_as("^a+$", "write a"), Field(max_length=5)],
            {
                "type": "string",
                "maxLength": 5,
                "x-kubernetes-validations": [{"rule": "self.matches(r'^a+$')", "message": "write a"}],
            },
        ),
        (bool, {"type": "boolean"}),
        (Annotated[int, Field(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"], {"type": "string", "enum": ["a"]}),
        (
            Annotated[tuple[Short, ...], Field(min_length=1, max_length=2)],
            {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string", "maxLength": 5}},
        ),
        (
            Annotated[Mapping[str, Short], Field(max_length=2)],
            {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string", "maxLength": 5}},
        ),
        (
            Inner,
            {
                "type": "object",
                "properties": {"size": {"type": "integer", "description": "How big. Default: 3.", "minimum": 1, "maximum": 9}},
            },
        ),
    ],
    ids=["text", "optional", "pattern", "sentence", "flag", "number", "choice", "constant", "list", "map", "model"],
)
def test_a_type_becomes_a_structural_schema(annotation: Any, schema: dict[str, Any]) -> None:
    assert field_schema(annotation) == {**schema, "description": "Words."}


def test_a_model_without_a_description_of_the_field_has_its_own() -> None:
    assert field_schema(Inner, description=None)["description"] == "Settings inside."


def test_the_pattern_of_keys_is_said_by_a_rule() -> None:
    noted = rules(Rule(f"self.all(key, {matches('^a+$', 'key')})", "write a"))
    assert field_schema(LETTERS, json_schema_extra=noted) == {
        "type": "object",
        "description": "Words.",
        "maxProperties": 2,
        "additionalProperties": {"type": "boolean"},
        **noted,
    }


def test_a_models_own_rules_stay() -> None:
    noted = rules(Rule("self.size > 1", "write more"))
    assert field_schema(Inner, json_schema_extra=noted)["x-kubernetes-validations"] == noted["x-kubernetes-validations"]


@pytest.mark.parametrize(
    ("annotation", "default", "description", "text"),
    [
        (Short, "24h", "How long.", "How long. Default: 24h."),
        (bool, False, "Whether.", "Whether. Default: false."),
        (bool, True, "Whether.", "Whether. Default: true."),
        (int, 0, "How many.", "How many. Default: 0."),
        (Short | None, None, "Which.", "Which."),
        (Annotated[tuple[Short, ...], Field(max_length=2)], (), "Which.", "Which."),
        (Short, "x", "Which. Default: x, and so on.", "Which. Default: x, and so on."),
    ],
)
def test_a_default_is_told_and_not_filled_in(annotation: Any, default: Any, description: str, text: str) -> None:
    schema = field_schema(annotation, default, description=description)
    assert schema["description"] == text
    assert "default" not in schema


def test_a_field_with_a_default_is_not_required() -> None:
    schema = spec_schema(must=(Short, Field(description="Words.")), may=(Short, Field(default="x", description="Words.")))
    assert schema["required"] == ["must"]


@pytest.mark.parametrize(
    ("annotation", "settings", "message"),
    [
        (bool, {"description": None}, "spec.it: has no description"),
        (str, {}, "spec.it: has no maxLength"),
        (tuple[bool, ...], {}, "spec.it: has no maxItems"),
        (Annotated[tuple[str, ...], Field(max_length=2)], {}, r"spec\.it\[\]: has no maxLength"),
        (Mapping[str, bool], {}, "spec.it: has no maxProperties"),
        (Annotated[Mapping[str, str], Field(max_length=2)], {}, r"spec\.it\.\*: has no maxLength"),
        (Annotated[Mapping[str, Any], Field(max_length=2)], {}, "spec.it: takes any value"),
        (Annotated[Mapping[Short, bool], Field(max_length=2)], {}, "spec.it: a CRD has no propertyNames"),
        (LETTERS, {}, "spec.it: a CRD has no place for patternProperties"),
        (LETTERS, {"json_schema_extra": rules(Rule("self.all(key, key != 'b')", "write a"))}, "no place for patternProperties"),
        (int | bool, {}, "spec.it: a structural schema needs one type"),
        (Annotated[int, Field(multiple_of=2)], {}, "spec.it: a CRD has no place for multipleOf"),
        (Annotated[int, Field(gt=2)], {}, "spec.it: a CRD has no place for exclusiveMinimum"),
        (tuple[bool, bool], {}, "spec.it: a CRD has no place for prefixItems"),
    ],
)
def test_what_a_crd_cannot_say_is_an_error(annotation: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        field_schema(annotation, **settings)
