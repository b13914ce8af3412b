"""What all kinds share: the model base, schema notes for the CRD, durations, names, conditions, object metadata."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel as to_camel  # noqa: PLC0414 - part of our face

GROUP: Final = "machinebot.dev"
"""API group of every kind."""

VERSION: Final = "v1alpha1"
"""The one served and stored version."""

API_VERSION: Final = f"{GROUP}/{VERSION}"

CATEGORY: Final = "machine-identity"
"""`kubectl get machine-identity` lists every kind. It is not `machinebot`, the singular of MachineBot: kubectl takes a word for a
category first, so that `kubectl get machinebot NAME` would fail and `kubectl delete machinebot --all` would delete all kinds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule of the CRD (`x-kubernetes-validations`).

    Attributes:
        rule: The CEL expression over `self`.
        message: What to write instead.
        field_path: JSON path of the field to point at, or None for the place of the rule.
    """

    rule: str
    message: str
    field_path: str | None = None

    def schema(self) -> dict[str, str]:
        """The rule as the CRD has it."""
        entry = {"rule": self.rule, "message": self.message}
        if self.field_path is not None:
            entry["fieldPath"] = self.field_path
        return entry


def rules(*entries: Rule) -> dict[str, Any]:
    """CEL rules in the form that pydantic carries into a JSON schema."""
    return {"x-kubernetes-validations": [entry.schema() for entry in entries]}


def matches(pattern: str, value: str = "self") -> str:
    """The CEL expression that a text fits a regular expression (RE2; a raw string, so that backslashes stay)."""
    return f"{value}.matches(r'{pattern}')"


def written_as(pattern: str, message: str) -> Any:
    """A pattern that the models and the CRD both check; the CRD refuses with a sentence rather than the expression.

    Args:
        pattern: Regular expression for the whole text, the same in RE2 and Rust, without single quotes.
        message: What to write instead.
    """
    return Field(pattern=pattern, json_schema_extra=rules(Rule(matches(pattern), message)))


class Model(BaseModel):
    """Base of everything that is read from the API server: frozen, camelCase outside, unknown fields passed over.

    The schema in the CRD refuses unknown fields; a stored object that a newer release has written is still read.
    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def wire(self) -> dict[str, Any]:
        """The object as JSON for the API server: camelCase, absent where None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def first_error(error: ValidationError) -> str:
    """The first violation as a sentence: field and what is wrong, without the value (it may be long)."""
    entry = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}"


# --- durations ----------------------------------------------------------------------------------------------------

DURATION_PATTERN: Final = "^([0-9]{1,6}h([0-9]{1,6}m)?([0-9]{1,8}s)?|[0-9]{1,6}m([0-9]{1,8}s)?|[0-9]{1,8}s)$"
"""Go's duration form, kept to hours, minutes and seconds; never rewritten, so that GitOps sees no difference."""

_DURATIONS: Final = 256
"""Durations that are kept read: a cluster has a handful, and each issue reads eight."""

_PART: Final = re.compile("([0-9]+)([hms])")
_UNITS: Final[Mapping[str, timedelta]] = {"h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}

DEFAULT_MAX_TTL: Final = timedelta(hours=24)
"""Nothing lives longer (design rule 1)."""

MIN_TTL: Final = timedelta(minutes=5)
"""Shortest credential: one minute goes to the backdating, and renewal needs room for retries."""


@lru_cache(maxsize=_DURATIONS)
def parse_duration(text: str) -> timedelta:
    """The length that a duration such as `24h`, `90m` or `1h30m` names.

    Raises:
        ValueError: The text is no duration; the message shows the form.
    """
    if re.fullmatch(DURATION_PATTERN, text) is None:
        raise ValueError(f'{text!r} is no duration; write hours, minutes and seconds such as "24h", "90m" or "1h30m"')
    return sum((int(number) * _UNITS[unit] for number, unit in _PART.findall(text)), timedelta(0))


@lru_cache(maxsize=_DURATIONS)
def format_duration(length: timedelta) -> str:
    """The shortest text for a length of whole seconds: `24h`, `1h30m`, `45s`; `0s` for none."""
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{amount}{unit}" for amount, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if amount]
    return "".join(parts) or "0s"


def _checked_duration(text: str) -> str:
    parse_duration(text)
    return text


def duration_rule(least: str = "5m", most: str | None = None) -> dict[str, Any]:
    """CEL rules for a duration: at least `least`, and at most `most` where given."""
    entries = [
        Rule(
            f"{matches(DURATION_PATTERN)} && duration(self) >= duration('{least}')",
            f'must be a duration of at least {least}, in hours, minutes and seconds, such as "24h", "90m" or "1h30m"',
        )
    ]
    if most is not None:
        entries.append(
            Rule(
                f"!{matches(DURATION_PATTERN)} || duration(self) <= duration('{most}')",
                f'must be at most "{most}": nothing that Machinebot signs lives longer',
            )
        )
    return rules(*entries)


Duration = Annotated[str, AfterValidator(_checked_duration), Field(max_length=32, json_schema_extra=duration_rule())]
"""A length of time as text, at least five minutes."""

# --- names --------------------------------------------------------------------------------------------------------

OBJECT_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""RFC 1123 subdomain, as Kubernetes names its objects."""

ObjectName = Annotated[
    str,
    written_as(
        OBJECT_NAME, "must be the name of an object: lower-case letters and digits, with '-' and '.' inside, such as web-1"
    ),
    Field(max_length=253),
]

TEMPLATE: Final = r"\{\{ *(internal|external)\.[A-Za-z0-9_.-]+ *\}\}"
"""One template: `{{ internal.NAME }}` or `{{ external.NAME }}`, filled in from the bot's traits."""

MAX_ITEMS: Final = 64
"""Longest list that people may write; keeps the cost of CEL rules and of a certificate bounded."""

MAX_NAME: Final = 253
"""Longest single name in a list."""


def name_rule(longest: int) -> ConfigDict:
    """Bounds the name of the objects of a kind, which only a rule at the root of the CRD may read."""
    message = (
        f"metadata.name must have at most {longest} characters, since other objects are named after it: choose a shorter one"
    )
    return ConfigDict(json_schema_extra=rules(Rule(f"size(self.metadata.name) <= {longest}", message)))


# --- conditions ---------------------------------------------------------------------------------------------------

ConditionStatus = Literal["True", "False", "Unknown"]

READY: Final = "Ready"
"""The one summary condition of every kind."""

RENEWING: Final = "Renewing"
"""On an output whose credential is good: whether replacing it is under way or in trouble."""


class Condition(Model):
    """One condition (`metav1.Condition`)."""

    type: str = Field(description="What the condition is about: `Ready` sums the object up.", max_length=316)
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(description="One stable CamelCase word for programs.", max_length=1024)
    message: str = Field(description="A sentence for people: what is, and what to do.", max_length=32768)
    last_transition_time: str = Field(
        description="When the status of the condition last flipped.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int | None = Field(
        default=None, description="The generation of the object that the condition was set for.", ge=0
    )


Conditions = Annotated[
    tuple[Condition, ...],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]

PENDING_STATUS: Final[Mapping[str, Any]] = {
    "conditions": [
        {
            "type": READY,
            "status": "Unknown",
            "reason": "Pending",
            "message": "waiting for the operator",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
    ]
}
"""The default of `status`: without a `Ready`, kstatus takes a fresh object for finished (Flux, `kubectl wait`, Helm)."""


def find_condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == kind), None)


def with_condition(
    conditions: Sequence[Condition],
    *,
    kind: str,
    status: ConditionStatus,
    reason: str,
    message: str,
    generation: int,
    now: str,
) -> tuple[Condition, ...]:
    """The conditions with one set; its lastTransitionTime moves only when the status flips.

    Args:
        conditions: As they stand; order is kept.
        kind: Type of the condition.
        status: True, False or Unknown.
        reason: CamelCase word.
        message: Sentence; cut at 1,024 characters.
        generation: The object's generation that was looked at.
        now: RFC 3339 time, used when the status flips.
    """
    old = find_condition(conditions, kind)
    unchanged = old is not None and old.status == status
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message[:1024],
        last_transition_time=old.last_transition_time if old is not None and unchanged else now,
        observed_generation=generation,
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if condition.type == kind else condition for condition in conditions)


def without_condition(conditions: Sequence[Condition], kind: str) -> tuple[Condition, ...]:
    """The conditions without the one of that type."""
    return tuple(condition for condition in conditions if condition.type != kind)


# --- objects ------------------------------------------------------------------------------------------------------


class ObjectMeta(Model):
    """The part of `metadata` that decisions use."""

    name: str
    namespace: str = ""
    uid: str
    resource_version: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    annotations: Mapping[str, str] = Field(default_factory=dict)


class Status(Model):
    """What every kind's status has."""

    observed_generation: int | None = Field(
        default=None, description="The generation of the object that this status is about.", ge=0
    )
    conditions: Conditions = Field(default=(), description="`Ready` sums the object up.", max_length=8)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get` (`additionalPrinterColumns`)."""

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind is registered with the API server.

    Attributes:
        kind: CamelCase name.
        plural: Path segment of the API.
        short: Short name for kubectl.
        namespaced: Whether it lives in a namespace.
        description: First line of `kubectl explain`.
        columns: What `kubectl get` shows; age is added.
    """

    kind: str
    plural: str
    short: str
    namespaced: bool
    description: str
    columns: tuple[Column, ...]

    @property
    def singular(self) -> str:
        """Lower-case singular, as kubectl accepts it."""
        return self.kind.lower()
