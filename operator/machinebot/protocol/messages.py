"""The messages of the join API, version 1: JSON, camelCase, every text and list bounded, unknown fields refused in requests.

Binary values are base64 (RFC 4648, section 4): public keys as DER SubjectPublicKeyInfo. Certificates are PEM or one OpenSSH line.
Moments are RFC 3339, UTC, whole seconds.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from machinebot.policy.credential import Purpose, Usage
from machinebot.policy.names import NameKind

MAX_REQUEST: Final = 64 * 1024
"""Largest request body, bytes: 16 outputs and a proof of 16 KiB fit."""

MAX_ANSWER: Final = 1024 * 1024
"""Largest answer that a client reads, bytes."""

MAX_OUTPUTS: Final = 16
"""Most outputs in one request."""

CHALLENGE_PATH: Final = "/v1/challenge"
JOIN_PATH: Final = "/v1/join"
RENEW_PATH: Final = "/v1/renew"
ISSUE_PATH: Final = "/v1/issue"
TRUST_PATH: Final = "/v1/trust"
OPENAPI_PATH: Final = "/v1/openapi.json"

ASK_WITH_IDENTITY: Final = "AskWithIdentity"
"""Reason of each output in an answer that is given again: it is issued to who shows the identity."""

RENEWAL: Final = "renewal"
"""In place of the method in the metrics of both ends: the next identity of a renewable instance."""

Name = Annotated[str, Field(min_length=1, max_length=253)]
PublicKey = Annotated[str, Field(min_length=1, max_length=1368, description="DER SubjectPublicKeyInfo, base64.")]
Moment = Annotated[str, Field(max_length=20, json_schema_extra={"format": "date-time"})]


class Message(BaseModel):
    """Base of what a server answers: a client passes over what it does not know, so that a newer server may say more."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def json_bytes(self) -> bytes:
        """The message as JSON; what is None is left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Request(Message):
    """Base of what a client sends: what is unknown is refused, and no value is shown in an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ChallengeRequest(Request):
    """Asks what a join takes: the first step, which may be left out for methods without a challenge."""

    namespace: Name = Field(description="Namespace of the join token and its bot.")
    join_token: Name = Field(description="Name of the MachineJoinToken.")
    public_key: PublicKey = Field(
        description="Public key of the identity that will be joined for, DER SubjectPublicKeyInfo, base64."
    )


class ChallengeAnswer(Message):
    """What a join takes."""

    method: str = Field(description="The join method, such as github.")
    cluster_name: str = Field(description="Name of the cluster of identities.")
    audience: str | None = Field(default=None, description="Audience to ask the platform for, where the method has one.")
    challenge: str | None = Field(
        default=None, description="What the proof must contain, where the method has a challenge: 32 characters."
    )
    expires_at: Moment | None = Field(default=None, description="When the challenge ends.")


class OutputRequest(Request):
    """One credential wanted: what it shall be used for. Names are held against the roles of the bot."""

    name: Name = Field(description="For the audit log, and to tell the answers apart.")
    usages: Annotated[tuple[Usage, ...], Field(min_length=1, max_length=4)] = Field(description="What it is used for.")
    names: Mapping[NameKind, Annotated[tuple[Name, ...], Field(max_length=64)]] = Field(
        default_factory=dict, description="Names asked for, by kind.", max_length=16
    )
    roles: Annotated[tuple[Name, ...], Field(max_length=32)] = Field(
        default=(), description="Roles that it carries. Default: all of the bot's."
    )
    lifetime_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = Field(
        default=86_400, description="Wished life. Above the limits it is reduced, and the answer says by what."
    )
    public_key: PublicKey | None = Field(default=None, description="The key to be certified; absent where nothing is.")


Outputs = Annotated[tuple[OutputRequest, ...], Field(max_length=MAX_OUTPUTS)]


class JoinRequest(Request):
    """A proof, and the public key that an identity is wanted for; and at once the outputs that are wanted."""

    namespace: Name = Field(description="Namespace of the join token and its bot.")
    join_token: Name = Field(description="Name of the MachineJoinToken.")
    public_key: PublicKey = Field(description="Public key of the identity, DER SubjectPublicKeyInfo, base64.")
    challenge: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="From `/v1/challenge`, where the method has one."
    )
    proof: dict[str, Any] = Field(description="The proof, by the method: see docs/joins.md.")
    outputs: Outputs = Field(default=(), description="Credentials wanted at once.")


class RenewRequest(Request):
    """Asks for the next identity of a renewable instance, over mutual TLS with the one that it has."""

    public_key: PublicKey = Field(
        description="Public key of the next identity, made anew; the same again where an answer was lost."
    )
    outputs: Outputs = Field(default=(), description="Credentials wanted at once.")


class IssueRequest(Request):
    """Asks for credentials, over mutual TLS with the identity of the bot."""

    outputs: Annotated[tuple[OutputRequest, ...], Field(min_length=1, max_length=MAX_OUTPUTS)] = Field(
        description="What is wanted."
    )


class Problem(Message):
    """Why something was refused: the one shape of every error."""

    reason: str = Field(description="A stable CamelCase word: see docs/troubleshooting.md.")
    message: str = Field(description="A sentence for a person; never a secret.")


class Credential(Message):
    """The credentials of one output, all with the same serial number and dates."""

    serial: str = Field(description="Serial number, decimal.")
    not_before: Moment = Field(description="Begin.")
    not_after: Moment = Field(description="End.")
    ssh_certificate: str | None = Field(default=None, description="OpenSSH certificate line.")
    x509_certificate: str | None = Field(default=None, description="X.509 certificate, PEM.")
    token: str | None = Field(default=None, description="A signed JWT.")
    authorities: Mapping[Purpose, str] = Field(description="CA generation that signed, by purpose.")
    roles: tuple[str, ...] = Field(description="Roles that it carries.")
    names: Mapping[NameKind, tuple[str, ...]] = Field(description="Names that it carries, by kind.")
    lifetime_seconds: int = Field(description="Life that was given, from begin to end.")
    reduced_by: str | None = Field(default=None, description="What reduced the wished life, if anything did.")


class OutputAnswer(Message):
    """One output: what was issued, or why nothing was. One refused output harms no other."""

    name: str = Field(description="As it was asked for.")
    credential: Credential | None = Field(default=None, description="What was issued.")
    problem: Problem | None = Field(default=None, description="Why nothing was.")


class Anchor(Message):
    """One CA generation, as verifiers need it."""

    purpose: Purpose = Field(description="What it signs.")
    id: str = Field(description="Identifier of the generation.")
    state: str = Field(description="Prepared, Active or Old.")
    public: str = Field(description="SSH: one authorized_keys line; X.509: the certificate, PEM.")
    fingerprint: str = Field(description="SSH: `SHA256:` and base64; X.509: SHA-256 of the certificate, hex.")
    not_after: Moment = Field(description="When it ends.")


class TrustAnswer(Message):
    """The trust bundle of an authority: public."""

    cluster_name: str = Field(description="Name of the cluster of identities: the SPIFFE trust domain.")
    issuer: str = Field(description="The `iss` of its JWTs.")
    anchors: tuple[Anchor, ...] = Field(description="Every published CA generation, the active one of each purpose first.")


class IdentityAnswer(Message):
    """The identity of an instance: the certificate for mutual TLS with the join API, good for nothing else."""

    namespace: str = Field(description="Namespace of the bot.")
    bot: str = Field(description="Name of the bot.")
    instance: str = Field(description="Identifier of the instance, a UUID.")
    generation: int = Field(description="How many identities the instance has had.")
    certificate: str = Field(description="X.509 certificate, PEM.")
    not_after: Moment = Field(description="When it ends.")
    renewable: bool = Field(description="Whether the next identity is got by `/v1/renew`, or else by another join.")


class JoinAnswer(Message):
    """The answer to a join and to a renewal."""

    identity: IdentityAnswer = Field(description="The identity.")
    outputs: tuple[OutputAnswer, ...] = Field(default=(), description="The outputs, in the order in which they were asked for.")
    trust: TrustAnswer = Field(description="The trust bundle.")


class IssueAnswer(Message):
    """The answer to an issue."""

    outputs: tuple[OutputAnswer, ...] = Field(description="The outputs, in the order in which they were asked for.")
    trust: TrustAnswer = Field(description="The trust bundle.")
