"""MachineJoinToken: the rule that says who may join from outside as a bot. What is the same for every join method stands here;
the one field of the method comes from `machinebot.joins.registry`.
"""

from typing import Final

from pydantic import Field

from machinebot.resources.lock import Moment
from machinebot.resources.meta import Column, Kind, Model, ObjectName, Status

KIND: Final = Kind(
    kind="MachineJoinToken",
    plural="machinejointokens",
    short="mjt",
    namespaced=True,
    description="Who may join from outside of the cluster as a bot of this namespace, and by which proof.",
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether it can be joined by."),
        Column("Bot", ".spec.bot", description="The bot."),
        Column("Method", ".status.method", description="The join method."),
        Column("Expires", ".spec.expires", description="When it ends."),
        Column("Status", '.status.conditions[?(@.type=="Ready")].message', priority=1, description="Why it is not ready."),
    ),
)

MAX_TOKEN_NAME: Final = 200
"""Longest name of a join token, characters: agents send it, certificates of bots carry it."""


class MachineJoinTokenSpec(Model):
    """What a person writes, but for the one field of the join method."""

    bot: ObjectName = Field(description="MachineBot of the same namespace that is joined as.")
    expires: Moment | None = Field(
        default=None,
        description="From when on nobody joins by it, nor is renewed who has. Default: never, where the method allows it.",
    )


class RenewableInstance(Model):
    """The one instance that has joined by a secret: the only one whose identity is renewed rather than joined anew."""

    id: str = Field(description="Identifier of the instance, a UUID.", max_length=36)
    generation: int = Field(description="How many identities it has had. Another one in a certificate locks the instance.", ge=1)
    key: str = Field(description="SHA-256 of the public key of its last identity, hex.", max_length=64)
    joined_at: str = Field(description="When it joined.", json_schema_extra={"format": "date-time"})
    renewed_at: str = Field(description="When it got its last identity.", json_schema_extra={"format": "date-time"})
    expires_at: str = Field(description="When that identity ends.", json_schema_extra={"format": "date-time"})


class MachineJoinTokenStatus(Status):
    """What the operator answers."""

    method: str | None = Field(default=None, description="The join method.", max_length=63)
    instance: RenewableInstance | None = Field(
        default=None, description="Who has joined by the secret. Set once: the secret is used up by it."
    )
    warnings: tuple[str, ...] = Field(default=(), description="What works but is probably not meant.", max_length=16)
