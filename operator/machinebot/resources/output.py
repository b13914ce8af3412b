"""MachineOutput: one credential wanted, namespaced. The types of output add one field each: see `machinebot.outputs`."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from machinebot.resources.bot import MAX_BOT_PATH
from machinebot.resources.meta import (
    DEFAULT_MAX_TTL,
    MAX_NAME,
    OBJECT_NAME,
    Column,
    Duration,
    Kind,
    Model,
    ObjectName,
    Rule,
    Status,
    matches,
    parse_duration,
    rules,
    written_as,
)

KIND: Final = Kind(
    kind="MachineOutput",
    plural="machineoutputs",
    short="mout",
    namespaced=True,
    description="One credential wanted: its type, roles and lifetime, and the Secret that holds it.",
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether the Secret is good."),
        Column("Bot", ".spec.bot", description="Whose credential it is."),
        Column("Type", ".status.type", description="Type of the output."),
        Column("Secret", ".status.secret.name", description="The Secret that holds it."),
        Column("Expires", ".status.notAfter", "string", description="When the credential ends."),
        Column("Renews", ".status.renewAt", "string", description="When it is replaced."),
        Column("Status", '.status.conditions[?(@.type=="Ready")].message', priority=1, description="Why it is not ready."),
    ),
)

PrivateKeyAlgorithm = Literal["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-2048", "RSA-4096"]

SecretType = Literal["Opaque", "kubernetes.io/tls"]
"""The types of a Secret that the operator writes (design rule 5)."""

WorkloadKind = Literal["Deployment", "StatefulSet", "DaemonSet"]

MAX_RESTARTS: Final = 16
"""Most workloads that one output restarts."""

_SECRET_KEY: Final = r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$"  # noqa: S105 - a pattern
"""A key of a Secret: a name of a file, and neither `.` nor one that begins with `..` (Kubernetes, IsConfigMapKey)."""

RENEW_ANNOTATION: Final = "machinebot.dev/renew"
"""Put by a person on an output: each new value asks for one renewal."""

MAX_OUTPUT_NAME: Final = 200
"""Longest name: those of its events add to it and must fit 253 characters."""

_NAME: Final = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
"""The name part of a key, and a label's value: at most 63 characters (Kubernetes, "Labels and Selectors")."""

_KEY: Final = f"^({OBJECT_NAME.strip('^$')}/)?{_NAME}$"
"""The key of a label or an annotation."""


def _key_rules(what: str) -> tuple[Rule, ...]:
    """What holds for the keys of `secret.labels` and `secret.annotations`; the write of the Secret would fail otherwise.

    Args:
        what: The word for them in messages, in the plural.
    """
    return (
        Rule(
            f"self.all(key, size(key) <= 317 && key.indexOf('/') <= {MAX_NAME} && {matches(_KEY, 'key')})",
            f"the keys of {what} are names of at most 63 letters, digits, '-', '_' and '.', with a DNS name and '/' in front "
            "if wanted, such as team or example.test/team",
        ),
        Rule(
            "!self.exists(key, key.startsWith('machinebot.dev/') || key == 'app.kubernetes.io/managed-by')",
            f"{what} of machinebot.dev and app.kubernetes.io/managed-by are set by the operator: remove them here",
        ),
        Rule(
            "!self.exists(key, key.startsWith('argocd.argoproj.io/') || key.startsWith('kubectl.kubernetes.io/'))",
            f"{what} of Argo CD and kubectl would make them take the Secret for their own: remove them here",
        ),
    )


LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=rules(
            Rule(
                matches(f"^({_NAME})?$"),
                "must be the value of a label: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
            )
        ),
    ),
]


SecretKey = Annotated[
    str,
    written_as(
        _SECRET_KEY, "must be the key of a Secret: letters, digits, '-', '_' and '.', not two dots in front, such as client.crt"
    ),
    Field(max_length=MAX_NAME),
]


class PrivateKey(Model):
    """The private key of the credential; a new one is made for every issue."""

    algorithm: PrivateKeyAlgorithm = Field(
        default="ECDSA-P256",
        description="Algorithm of the private key. RSA is for what takes nothing else: a key costs 0.1 to 2 seconds of CPU.",
    )


class SecretTemplate(Model):
    """The Secret that holds the credential."""

    name: ObjectName | None = Field(default=None, description="Name of the Secret. Default: the name of the output.")
    type: SecretType = Field(
        default="Opaque",
        description=(
            "Type of the Secret. kubernetes.io/tls is for outputs whose Secret holds tls.crt and tls.key, as Ingress controllers "
            "want it. When it changes, the Secret is deleted and made again: its type cannot be changed."
        ),
    )
    keys: Annotated[Mapping[str, SecretKey], Field(max_length=16)] = Field(
        default_factory=dict,
        description="Other names for keys of the Secret: from the one of the output's type to the one wanted.",
        json_schema_extra=rules(
            Rule(
                "self.all(one, self.all(other, one == other || self[one] != self[other]))",
                "two keys cannot have the same name in the Secret: give each another one",
            )
        ),
    )
    labels: Annotated[Mapping[str, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict,
        description="Labels for the Secret. Nothing else is copied to it.",
        json_schema_extra=rules(*_key_rules("labels")),
    )
    annotations: Annotated[Mapping[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = Field(
        default_factory=dict,
        description="Annotations for the Secret, such as those of Reloader and Reflector. Nothing else is copied to it.",
        json_schema_extra=rules(*_key_rules("annotations")),
    )


class SecretKeyRef(Model):
    """One key of a Secret in the output's own namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: SecretKey = Field(default="password", description="Its key.")


class PKCS12(Model):
    """PKCS #12 files (RFC 7292) beside the other keys: `keystore.p12` and `truststore.p12`, for Java and others."""

    password_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description=(
            "Where the password is that protects the files; a changed one counts from the next issue. Default: one is made for "
            "each issue and stands in the key `keystore.password`."
        ),
    )


class Keystores(Model):
    """The credential in other forms, in the same Secret."""

    model_config = ConfigDict(
        json_schema_extra=rules(Rule("has(self.pkcs12)", "keystores names no form: write pkcs12: {}, or leave keystores out"))
    )

    pkcs12: PKCS12 | None = Field(default=None, description="PKCS #12 files with the certificate and with the CAs.")


class Workload(Model):
    """A workload of the output's own namespace."""

    kind: WorkloadKind = Field(description="Deployment, StatefulSet or DaemonSet.")
    name: ObjectName = Field(description="Its name.")


class MachineOutputSpec(Model):
    """What a person writes, but for the one field of the output's type."""

    bot: ObjectName = Field(
        description="MachineBot of the same namespace whose credential it is.",
        json_schema_extra=rules(
            Rule(
                matches(OBJECT_NAME),
                "must be the name of a MachineBot of the output's own namespace, such as deployer; one of another namespace "
                "cannot be named",
            )
        ),
    )
    roles: Annotated[tuple[ObjectName, ...], Field(max_length=32)] = Field(
        default=(),
        description="Roles of the bot that this credential carries. Default: all of the bot's.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    credential_ttl: Duration = Field(
        default="24h",
        alias="credentialTTL",
        description=(
            "Wished life of the credential. Above the limits of the authority, the bot and its roles it is reduced, and status "
            "says by what."
        ),
    )
    renew_before: Duration | None = Field(
        default=None,
        description=(
            "How long before its end the credential is replaced; passed over where the credential does not live longer. Excludes "
            "renewBeforePercentage."
        ),
    )
    renew_before_percentage: Annotated[int, Field(ge=10, le=90)] | None = Field(
        default=None,
        description=(
            "Which part of the credential's actual life is left when it is replaced, in percent. Default: 50. Excludes "
            "renewBefore."
        ),
    )
    private_key: PrivateKey = Field(default_factory=PrivateKey, description="The private key of the credential.")
    secret: SecretTemplate = Field(default_factory=SecretTemplate, description="The Secret that holds the credential.")
    keystores: Keystores | None = Field(default=None, description="The credential in other forms, in the same Secret.")
    rollout_restart: Annotated[tuple[Workload, ...], Field(max_length=MAX_RESTARTS)] = Field(
        default=(),
        description=(
            "Workloads that are restarted once after each rotation, as `kubectl rollout restart` does; never after the first "
            "issue."
        ),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["kind", "name"]},
    )

    @property
    def wished_lifetime(self) -> timedelta:
        """`credentialTTL` as a length; it may be above 24 hours."""
        return parse_duration(self.credential_ttl)

    @property
    def renew_before_length(self) -> timedelta | None:
        """`renewBefore` as a length, or None where it is not set."""
        return None if self.renew_before is None else parse_duration(self.renew_before)


SPEC_RULES: Final = (
    Rule(
        "!(has(self.renewBefore) && has(self.renewBeforePercentage))",
        "renewBefore and renewBeforePercentage exclude each other: keep one",
        ".renewBefore",
    ),
)
"""Rules over the whole spec; the rule that exactly one type is set is added from the registry of types."""


class SecretStatus(Model):
    """The Secret as it was written last."""

    name: str = Field(description="Name of the Secret.", max_length=MAX_NAME)
    resource_version: str = Field(description="Its resourceVersion after our write.", max_length=64)
    digest: str = Field(description="SHA-256 over its data.", max_length=64)


class GrantedName(Model):
    """One name that the credential carries, and where it came from."""

    name: str = Field(description="The name.", max_length=MAX_BOT_PATH)
    role: str = Field(description="The role that allows it.", max_length=MAX_NAME)
    trait: str | None = Field(default=None, description="The trait that it came from, if any.", max_length=MAX_NAME)


GrantedNames = Annotated[tuple[GrantedName, ...], Field(max_length=256)]


class Granted(Model):
    """What the credential carries."""

    roles: tuple[str, ...] = Field(default=(), description="Roles that it carries.", max_length=32)
    logins: GrantedNames = Field(default=(), description="Logins, each with its origin.")
    host_principals: GrantedNames = Field(default=(), description="Host names, each with its origin.")
    kubernetes_users: GrantedNames = Field(
        default=(), description="The Kubernetes user, with its origin; none is the bot itself."
    )
    kubernetes_groups: GrantedNames = Field(default=(), description="Kubernetes groups, each with its origin.")
    db_users: GrantedNames = Field(default=(), description="The database user, with its origin.")
    db_names: GrantedNames = Field(default=(), description="The database, with its origin.")
    dns_names: GrantedNames = Field(default=(), description="DNS names, each with its origin.")
    spiffe_paths: GrantedNames = Field(default=(), description="The path of the SPIFFE ID, with its origin.")
    jwt_audiences: GrantedNames = Field(default=(), description="Audiences, each with its origin.")


class MachineOutputStatus(Status):
    """What the operator answers. All of it can be made again from the Secret, the spec and the roles."""

    type: str | None = Field(default=None, description="Type of the output.", max_length=63)
    secret: SecretStatus | None = Field(default=None, description="The Secret as it was written last.")
    serial: str | None = Field(default=None, description="Serial number of the certificates, decimal.", max_length=64)
    inputs: str | None = Field(
        default=None, description="SHA-256 over everything that the credential was made from.", max_length=64
    )
    authorities: Annotated[Mapping[str, Annotated[str, Field(max_length=64)]], Field(max_length=16)] = Field(
        default_factory=dict, description="CA generation that signed it, for each purpose."
    )
    not_before: str | None = Field(
        default=None, description="When the credential begins.", json_schema_extra={"format": "date-time"}
    )
    not_after: str | None = Field(
        default=None, description="When the credential ends.", json_schema_extra={"format": "date-time"}
    )
    renew_at: str | None = Field(default=None, description="When it is replaced.", json_schema_extra={"format": "date-time"})
    ttl: str | None = Field(default=None, description="Life that was given.", max_length=32)
    ttl_reduced_by: str | None = Field(
        default=None, alias="ttlReducedBy", description="What reduced the wished life, if anything did.", max_length=512
    )
    restarted_for: str | None = Field(
        default=None, description="Serial number that the workloads of rolloutRestart were last restarted for.", max_length=64
    )
    issue_reason: str | None = Field(default=None, description="Why it was issued last.", max_length=64)
    renew_token: str | None = Field(
        default=None, description="The value of the annotation machinebot.dev/renew that was last fulfilled.", max_length=256
    )
    granted: Granted | None = Field(default=None, description="What the credential carries, and where each name came from.")
    warnings: tuple[str, ...] = Field(default=(), description="What works but is probably not meant.", max_length=16)
    failed_attempts: int = Field(default=0, description="Failed attempts in a row.", ge=0)
    retry_at: str | None = Field(
        default=None, description="When the next attempt is made.", json_schema_extra={"format": "date-time"}
    )


__all__ = [
    "DEFAULT_MAX_TTL",
    "KIND",
    "MAX_OUTPUT_NAME",
    "RENEW_ANNOTATION",
    "SPEC_RULES",
    "Granted",
    "GrantedName",
    "MachineOutputSpec",
    "MachineOutputStatus",
    "PrivateKey",
    "PrivateKeyAlgorithm",
    "SecretStatus",
    "SecretTemplate",
]
