"""MachineBot: a machine identity, namespaced."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

from machinebot.resources.meta import (
    DEFAULT_MAX_TTL,
    MAX_ITEMS,
    MAX_NAME,
    PENDING_STATUS,
    Column,
    Duration,
    Kind,
    Model,
    ObjectMeta,
    ObjectName,
    Rule,
    Status,
    matches,
    name_rule,
    parse_duration,
    rules,
    written_as,
)

KIND: Final = Kind(
    kind="MachineBot",
    plural="machinebots",
    short="mbot",
    namespaced=True,
    description="A machine identity: who it is, which roles its credentials may carry, and its traits.",
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether it has joined."),
        Column("Roles", ".spec.roles", description="Roles that its credentials may carry."),
        Column("Outputs", ".status.outputs", "integer", description="How many outputs it has."),
        Column("Status", '.status.conditions[?(@.type=="Ready")].message', priority=1, description="Why it is not ready."),
    ),
)

LOGIN_PATTERN: Final = r"^[A-Za-z0-9_]([A-Za-z0-9_.@\\-]*[A-Za-z0-9_$])?$"
"""An operating system account: no blank, comma, newline, wildcard or leading dash (it could be read as an option)."""

MAX_LOGIN: Final = 64
"""Longest login, in characters."""

LOGIN_MESSAGE: Final = (
    "must be an account name such as deploy: letters, digits, '_', '.', '@', '-' and '\\', without blanks, commas, newlines, "
    "wildcards or a dash in front; one entry for each"
)

Login = Annotated[str, written_as(LOGIN_PATTERN, LOGIN_MESSAGE), Field(max_length=MAX_LOGIN)]

_TRAIT_VALUE: Final = Rule(
    matches(r"^[^{}*?\x00-\x1f\x7f]+$"),
    "must be a name without the characters { } * ? (only roles may hold templates and wildcards) and without newlines: state "
    "each name in full",
)

TraitValues = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=MAX_NAME, json_schema_extra=rules(_TRAIT_VALUE))], ...],
    Field(max_length=MAX_ITEMS),
]

SERVICE_ACCOUNT_PREFIX: Final = "machinebot-"
"""Name of the ServiceAccount that the operator makes for a bot: this and the bot's name."""

MAX_BOT_NAME: Final = 200
"""Longest bot name: its ServiceAccount's name and certificate subject must fit (253 and 64 x 4 characters)."""


MAX_BOT_PATH: Final = len("/ns//bot/") + 63 + MAX_BOT_NAME
"""Longest path of a bot's SPIFFE ID, characters: with the longest namespace and name."""


class MachineBotSpec(Model):
    """What a person writes."""

    roles: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=32)] = Field(
        description=(
            "MachineRoles that the bot's credentials may carry. Whoever sets them needs the RBAC verb `impersonate` on each "
            "of these machineroles."
        ),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    logins: Annotated[tuple[Login, ...], Field(max_length=MAX_ITEMS)] = Field(
        default=(),
        description=("The trait `logins`: it reaches only roles that name `{{ internal.logins }}`. Joined with `traits.logins`."),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    traits: Annotated[Mapping[Annotated[str, Field(max_length=63)], TraitValues], Field(max_length=32)] = Field(
        default_factory=dict,
        description="Traits for the templates of roles: `{{ external.NAME }}` and `{{ internal.NAME }}`.",
        json_schema_extra=rules(
            Rule(
                f"self.all(name, size(name) <= 63 && {matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$', 'name')})",
                "the name of a trait may hold letters, digits, '_', '.' and '-', at most 63, such as kubernetes_groups",
            ),
            Rule(
                f"!('logins' in self) || self['logins'].all(it, size(it) <= {MAX_LOGIN} && {matches(LOGIN_PATTERN, 'it')})",
                f"each value of the trait logins {LOGIN_MESSAGE}",
            ),
        ),
    )
    max_session_ttl: Duration = Field(
        default="24h", alias="maxSessionTTL", description="Longest life of any credential of this bot."
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description=(
            "ServiceAccount of the same namespace that the bot joins with. Default: one that the operator makes and owns, "
            "`machinebot-` and the bot's name."
        ),
    )
    authority: ObjectName = Field(default="default", description="MachineAuthority that the bot joins.")

    @property
    def max_lifetime(self) -> timedelta:
        """`maxSessionTTL` as a length, never above 24 hours."""
        return min(parse_duration(self.max_session_ttl), DEFAULT_MAX_TTL)


class ServiceAccountStatus(Model):
    """The ServiceAccount that the bot is pinned to."""

    name: str = Field(description="Name of the ServiceAccount.", max_length=MAX_NAME)
    uid: str = Field(description="Its UID: one of the same name that was made later is another one.", max_length=64)


MAX_INSTANCES: Final = 10
"""Most instances that status shows: those seen last. Thousands of jobs a day may join as one bot."""

MAX_ATTRIBUTES: Final = 16
"""Most attributes of an instance that status shows."""


class BotInstance(Model):
    """One running holder of the bot's identity, that joined from outside of the operator."""

    id: str = Field(description="Identifier of the instance, a UUID; a MachineLock can name it.", max_length=36)
    method: str = Field(description="The join method.", max_length=63)
    join_token: str = Field(description="The MachineJoinToken that it joined by.", max_length=MAX_NAME)
    generation: int = Field(default=1, description="How many identities it has had, where they are renewed.", ge=1)
    attributes: Annotated[Mapping[str, Annotated[str, Field(max_length=256)]], Field(max_length=MAX_ATTRIBUTES)] = Field(
        default_factory=dict, description="What its platform says of it, by the names of the rules."
    )
    joined_at: str = Field(description="When it joined first.", json_schema_extra={"format": "date-time"})
    last_seen: str = Field(description="When it last got an identity.", json_schema_extra={"format": "date-time"})
    expires_at: str = Field(description="When that identity ends.", json_schema_extra={"format": "date-time"})


class MachineBotStatus(Status):
    """What the operator answers."""

    service_account: ServiceAccountStatus | None = Field(default=None, description="The ServiceAccount that the bot joined with.")
    outputs: int = Field(default=0, description="How many MachineOutputs name this bot.", ge=0)
    instances: tuple[BotInstance, ...] = Field(
        default=(),
        description="Who joined as the bot from outside of the operator: those seen last, each until its identity ends.",
        max_length=MAX_INSTANCES,
    )
    warnings: tuple[str, ...] = Field(default=(), description="What works but is probably not meant.", max_length=16)


class MachineBot(Model):
    """A MachineBot as stored."""

    model_config = name_rule(MAX_BOT_NAME)

    metadata: ObjectMeta
    spec: MachineBotSpec
    status: MachineBotStatus = Field(default_factory=MachineBotStatus, json_schema_extra={"default": dict(PENDING_STATUS)})

    @property
    def service_account(self) -> str:
        """Name of the ServiceAccount that the bot joins with."""
        return self.spec.service_account_name or SERVICE_ACCOUNT_PREFIX + self.metadata.name
