"""MachineLock: a refusal that takes effect at once, cluster-scoped; administrators and the authority itself write these."""

from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field

from machinebot.clock import parse_rfc3339
from machinebot.resources.meta import (
    MAX_NAME,
    PENDING_STATUS,
    Column,
    Kind,
    Model,
    ObjectMeta,
    ObjectName,
    Rule,
    Status,
    matches,
    rules,
    written_as,
)

KIND: Final = Kind(
    kind="MachineLock",
    plural="machinelocks",
    short="mlock",
    namespaced=False,
    description="A refusal that takes effect at once: nothing is issued for a bot, an instance, a role or a join token.",
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether the lock is in force."),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', description="Active or Expired."),
        Column("Message", ".spec.message", description="Why."),
        Column("Expires", ".spec.expires", description="When it ends by itself."),
    ),
)

MOMENT: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
"""A moment as people write it here: RFC 3339, UTC, whole seconds."""


def _checked_moment(text: str) -> str:
    parse_rfc3339(text)
    return text


Moment = Annotated[
    str,
    AfterValidator(_checked_moment),
    Field(
        pattern=MOMENT,
        max_length=20,
        json_schema_extra=rules(
            Rule(
                f"{matches(MOMENT)} && timestamp(self) > timestamp('2000-01-01T00:00:00Z')",
                'must be a time in UTC such as "2027-01-01T00:00:00Z", in quotes',
            )
        ),
    ),
]
"""A moment in UTC, RFC 3339, whole seconds."""

INSTANCE_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
"""An instance: a UUID (RFC 9562)."""


class ObjectRef(Model):
    """A namespaced object of ours."""

    namespace: ObjectName = Field(description="Its namespace.")
    name: ObjectName = Field(description="Its name.")


_TARGETS: Final = ("bot", "instance", "role", "joinToken")


class LockTarget(Model):
    """What is locked: exactly one."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in _TARGETS) + " == 1",
                f"exactly one target must be set: {', '.join(_TARGETS)}",
            )
        )
    )

    bot: ObjectRef | None = Field(default=None, description="A bot with all of its instances.")
    instance: (
        Annotated[
            str,
            written_as(
                INSTANCE_PATTERN, "must be the id of an instance, as the status of its bot shows it: a UUID in small letters"
            ),
            Field(max_length=36),
        ]
        | None
    ) = Field(default=None, description="One instance of a bot, by its id.")
    role: ObjectName | None = Field(default=None, description="A role: no credential that would carry it is issued.")
    join_token: ObjectRef | None = Field(default=None, description="A join token, and every instance that joined by it.")


class MachineLockSpec(Model):
    """What a person writes."""

    target: LockTarget = Field(description="What is locked.")
    message: str = Field(
        default="",
        description="Why, for people: shown to whoever is refused. Must hold nothing secret. Default: none.",
        max_length=1024,
    )
    expires: Moment | None = Field(default=None, description="When the lock ends by itself. Default: when it is deleted.")


class MachineLock(Model):
    """A MachineLock as stored."""

    metadata: ObjectMeta
    spec: MachineLockSpec
    status: Status = Field(default_factory=Status, json_schema_extra={"default": dict(PENDING_STATUS)})


__all__ = ["INSTANCE_PATTERN", "KIND", "MAX_NAME", "MachineLock", "MachineLockSpec", "Moment", "ObjectRef"]
