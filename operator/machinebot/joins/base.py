"""What a join method is, and what it is handed to judge a proof by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from pydantic import ConfigDict, SecretStr

from machinebot.errors import Denied
from machinebot.joins.keysets import KeySet
from machinebot.resources.meta import Model

SettingsT = TypeVar("SettingsT", bound=Model)
"""The settings model of a join method."""

ProofT = TypeVar("ProofT", bound=Model)
"""The proof model of a join method."""

SettingsT_contra = TypeVar("SettingsT_contra", bound=Model, contravariant=True)
ProofT_contra = TypeVar("ProofT_contra", bound=Model, contravariant=True)

NOT_MATCHED: Final = "RulesNotMatched"
"""Reason of `Denied` where a proof is genuine and no rule of the join token lets it in."""


@dataclass(frozen=True, slots=True)
class HTTPSRequest:
    """A request that a join method wants to be sent, exactly as it stands, over HTTPS to port 443 of a host.

    Attributes:
        method: GET or POST.
        host: DNS name, which the method has held against what it knows: it never comes from outside unchecked.
        path: Path with query.
        headers: Header fields, without Host and Content-Length.
        body: The body.
    """

    method: str
    host: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HTTPSAnswer:
    """The answer: bounded, never a redirect that was followed."""

    status: int
    body: bytes = field(repr=False)


class Outside(Protocol):
    """What judging a proof asks of others. Every method has a time-out, and raises our own errors only."""

    async def keys(self, issuer: str, kid: str) -> KeySet:
        """The keys of an OpenID issuer, by discovery; fetched anew where none has that `kid` and the last fetch is not fresh.

        Raises:
            Unavailable: They cannot be fetched, and none were before.
        """
        ...

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        """The status of a TokenReview by the API server of the cluster that the authority runs in.

        Raises:
            Unavailable: The API server is away.
        """
        ...

    async def send(self, request: HTTPSRequest) -> HTTPSAnswer:
        """Sends the request; redirects are not followed, and the answer is bounded.

        Raises:
            Unavailable: No answer, or one that is too long.
        """
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a proof is held against beside the settings of the join token.

    Attributes:
        cluster_name: `spec.clusterName` of the authority: the audience of most methods.
        challenge: The challenge that the proof must contain, verified to be ours, fresh and for this client's public key; None
            where the method has none.
        now: The time, UTC.
    """

    cluster_name: str
    challenge: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Proved:
    """What a proof has shown.

    Attributes:
        subject: Who it is, as the platform names it; for people and the audit log.
        attributes: What else the platform says that matters, by the names of the rules; for status and the audit log.
        unknown: Names of claims that the method does not know: the platform has changed.
    """

    subject: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


class NotMatched(Denied):
    """A proof that is genuine, and that no rule lets in.

    Args:
        proved: What it has shown: for the audit log alone, where people see what to write into a rule. Who sent it is told
            nothing, since anybody can get a genuine token of a public platform.
    """

    def __init__(self, proved: Proved) -> None:
        super().__init__(
            NOT_MATCHED,
            "the proof is good, and no rule of the join token lets it in: the audit log of the operator has more",
        )
        self.proved = proved


class Verify(Protocol[SettingsT_contra, ProofT_contra]):
    """Judges a proof."""

    async def __call__(self, settings: SettingsT_contra, proof: ProofT_contra, asked: Asked, outside: Outside, /) -> Proved:
        """What the proof has shown.

        Raises:
            Denied: It is no proof, or one that the settings do not let in.
            Invalid: The settings cannot work.
            Unavailable: It cannot be judged now.
        """
        ...


class Proof(Model):
    """Base of all proofs: what a client sends. Nothing of it is shown in an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)


class TokenProof(Proof):
    """A token from the platform: an OpenID Connect ID token, mostly."""

    token: SecretStr


def no_audience(_settings: Any, _cluster_name: str, /) -> str | None:
    """`JoinMethod.audience` of a method whose proof names none."""
    return None


def no_warnings(_settings: Any, /) -> tuple[str, ...]:
    """`JoinMethod.warnings` of a method that has none."""
    return ()


@dataclass(frozen=True, slots=True)
class JoinMethod(Generic[SettingsT, ProofT]):
    """One join method.

    Attributes:
        name: Its name in agents' configuration, metrics and the audit log, as tbot spells it: `github`, `terraform_cloud`.
        field: The field of MachineJoinToken's spec that chooses it, camelCase.
        description: For `kubectl explain`.
        settings: Model of what stands in that field.
        proof: Model of what a client sends.
        verify: Judges a proof.
        audience: From settings and `clusterName` to the audience that the client must ask its platform for; None where the
            method has none, or the platform fixes it.
        warnings: From settings to what works but is probably not meant.
        challenge: Whether the proof must contain a challenge of ours.
        renewable: Whether the identity is renewed rather than joined anew: its proof is used up.
    """

    name: str
    field: str
    description: str
    settings: type[SettingsT]
    proof: type[ProofT]
    verify: Verify[SettingsT, ProofT]
    audience: Callable[[SettingsT, str], str | None] = no_audience
    warnings: Callable[[SettingsT], tuple[str, ...]] = no_warnings
    challenge: bool = False
    renewable: bool = False
