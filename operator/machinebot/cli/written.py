"""What a person asks for, held against the schema that the API server will hold it against, in the words of its rules. Pure.

The rules are CEL; the plain ones (a pattern, a duration's bounds, at least one of some fields, the pattern of a map's keys) are
understood here, so that a mistake is told before anything is printed or sent. The API server checks all of them again.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

from machinebot.clock import parse_rfc3339, rfc3339
from machinebot.errors import Invalid
from machinebot.resources import crdgen
from machinebot.resources.lock import MOMENT
from machinebot.resources.meta import OBJECT_NAME, Kind, Model, parse_duration

Json = dict[str, Any]

INVALID: Final = "InvalidSpec"
"""Reason of what the schema would refuse."""

_NAMESPACE: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""RFC 1123 label, as Kubernetes names namespaces."""

_MATCHES: Final = re.compile(r"self\.matches\(r'(?P<pattern>[^']*)'\)(?: && .*)?")
_BOUND: Final = re.compile(r"duration\(self\) (?P<sign>[<>]=) duration\('(?P<bound>\w+)'\)")
_ONE_OF: Final = re.compile(r"has\(self\.\w+\)(?: \|\| has\(self\.\w+\))*")
_FIELD: Final = re.compile(r"has\(self\.(\w+)\)")
_KEYS: Final = re.compile(r"self\.all\((\w+), (?:size\(\1\) <= (?P<most>\d+) && )?\1\.matches\(r'(?P<pattern>[^']*)'\)\)")

_TYPES: Final[Mapping[str, type]] = {"string": str, "array": list, "object": dict, "boolean": bool, "integer": int}


@cache
def schema_of(kind: Kind, model: type[Model]) -> Json:
    """The schema of the kind's `spec`, as its CRD has it."""
    root: Json = crdgen.generate(kind, model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec: Json = root["properties"]["spec"]
    return spec


def check(schema: Mapping[str, Any], spec: Any) -> None:
    """Holds a spec against its schema.

    Raises:
        Invalid: It does not fit; the message has the first violation and what to write instead.
    """
    first = next(violations(schema, spec, "spec"), None)
    if first is not None:
        raise Invalid(INVALID, first)


def check_name(what: str, name: str, longest: int) -> None:
    """Refuses what cannot be the name of an object.

    Args:
        what: Whose name, for the message.
        name: The name.
        longest: Most characters.

    Raises:
        Invalid: It is none.
    """
    if re.fullmatch(OBJECT_NAME, name) is None or len(name) > longest:
        raise Invalid(
            INVALID,
            f"{name[:64]!r} cannot be the name of {what}: write at most {longest} lower-case letters and digits, with '-' "
            "and '.' inside, such as deployer",
        )


def check_namespace(namespace: str) -> None:
    """Refuses what cannot be a namespace.

    Raises:
        Invalid: It is none.
    """
    if re.fullmatch(_NAMESPACE, namespace) is None:
        raise Invalid(INVALID, f"{namespace[:64]!r} cannot be a namespace: write one such as ci")


def reference(text: str) -> Json:
    """Namespace and name of `ci/deployer`.

    Raises:
        Invalid: It has another form.
    """
    namespace, slash, name = text.partition("/")
    if not slash:
        raise Invalid(INVALID, f"{text[:64]!r} names no namespace: write it as NAMESPACE/{text[:64]}")
    check_namespace(namespace)
    check_name("an object", name, 253)
    return {"namespace": namespace, "name": name}


def moment(text: str, now: datetime) -> str:
    """The moment that a person means: a time, a day (its begin, UTC) or a length from now on.

    Raises:
        Invalid: It is none of these, or has passed.
    """
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        text += "T00:00:00Z"
    try:
        found = parse_rfc3339(text) if re.fullmatch(MOMENT, text) else now + parse_duration(text)
    except (ValueError, OverflowError):
        raise Invalid(
            INVALID, f"{text[:64]!r} is no time: write one in UTC such as 2027-01-01T00:00:00Z, a day, or a length such as 12h"
        ) from None
    if found <= now:
        raise Invalid(INVALID, f"{rfc3339(found)} has passed: write a later time")
    return rfc3339(found)


# --- the walk over the schema -------------------------------------------------------------------------------------------


def violations(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    """What is wrong with a value, each as a sentence that begins with its field; the most special first."""
    wanted = _TYPES[schema["type"]]
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        yield f"{path}: must be {_worded(schema['type'])}"
        return
    if isinstance(value, dict):
        yield from _of_object(schema, value, path)
    elif isinstance(value, list):
        yield from _of_list(schema, value, path)
    elif isinstance(value, str):
        yield from _of_text(schema, value, path)
    yield from (f"{path}: {rule['message']}" for rule in schema.get("x-kubernetes-validations", ()) if _violates(rule, value))


def _worded(kind: str) -> str:
    return {"string": "a text", "array": "a list", "object": "fields with values", "boolean": "true or false"}.get(
        kind, "a number"
    )


def _of_object(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    known: Mapping[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties")
    for name, each in value.items():
        field = known.get(name, others)
        if field is None:
            yield f"{path}: there is no field {name[:64]!r}: write one of {', '.join(known)}"
        else:
            yield from violations(field, each, f"{path}.{name}")
    yield from (f"{path}.{name}: is missing" for name in schema.get("required", ()) if name not in value)


def _of_list(schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[str]:
    for number, each in enumerate(value):
        yield from violations(schema["items"], each, f"{path}[{number}]")
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{path}: must have {schema.get('minItems', 0)} to {schema.get('maxItems', 'any number of')} entries"
    if schema.get("x-kubernetes-list-type") == "set" and len({str(each) for each in value}) < len(value):
        yield f"{path}: has an entry twice"


def _of_text(schema: Mapping[str, Any], value: str, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: must be one of {', '.join(map(str, schema['enum']))}"
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: must have {schema.get('minLength', 0)} to {schema.get('maxLength')} characters"
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{path}: must fit {schema['pattern']}"


def _violates(rule: Mapping[str, str], value: Any) -> bool:
    """Whether the value is known to break the rule; False where the rule is one that only the API server understands."""
    return any(breaks(rule["rule"], value) for breaks in _PLAIN_RULES)


def _breaks_pattern(rule: str, value: Any) -> bool:
    found = _MATCHES.fullmatch(rule)
    return found is not None and isinstance(value, str) and not _fits(found["pattern"], value)


def _breaks_bound(rule: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return any(
            parse_duration(value) < parse_duration(bound) if sign == ">=" else parse_duration(value) > parse_duration(bound)
            for sign, bound in _BOUND.findall(rule)
        )
    except ValueError:
        return False  # another rule says so


def _breaks_one_of(rule: str, value: Any) -> bool:
    return isinstance(value, dict) and _ONE_OF.fullmatch(rule) is not None and not value.keys() & set(_FIELD.findall(rule))


def _breaks_keys(rule: str, value: Any) -> bool:
    found = _KEYS.fullmatch(rule)
    if found is None or not isinstance(value, dict):
        return False
    return any(len(key) > int(found["most"] or len(key)) or not _fits(found["pattern"], key) for key in value)


def _fits(pattern: str, value: str) -> bool:
    """As RE2 has it, where `$` is the end and not the newline before it."""
    whole = pattern.startswith("^") and pattern.endswith("$")
    return (re.fullmatch if whole else re.search)(pattern, value) is not None


_PLAIN_RULES: Final[tuple[Callable[[str, Any], bool], ...]] = (_breaks_pattern, _breaks_bound, _breaks_one_of, _breaks_keys)
"""The rules that are understood, each by what breaks it."""
