"""What an output type is, and what it is handed to make the content of a Secret from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar, get_args

from machinebot.outputs.keys import PrivateKeyPair
from machinebot.policy.credential import Issued, TrustBundle, Wish
from machinebot.resources.meta import Model
from machinebot.resources.output import PrivateKeyAlgorithm

SettingsT = TypeVar("SettingsT", bound=Model)
"""The settings model of an output type."""

SettingsT_contra = TypeVar("SettingsT_contra", bound=Model, contravariant=True)
"""The same where it is only taken."""

EVERY_ALGORITHM: Final[frozenset[PrivateKeyAlgorithm]] = frozenset(get_args(PrivateKeyAlgorithm))
"""Every algorithm of private keys."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster that the operator runs in, as its clients reach it.

    Attributes:
        server: Address of the API server.
        certificate_authority: CA certificates of the API server, PEM.
    """

    server: str
    certificate_authority: bytes


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that the content of a Secret is made from.

    Attributes:
        private_key: Made in this process, never sent; None for a type without one.
        issued: The credentials.
        trust: The CAs that a verifier or the holder needs.
        cluster: The cluster that the operator runs in.
    """

    private_key: PrivateKeyPair | None
    issued: Issued
    trust: TrustBundle
    cluster: ClusterFacts

    @property
    def key(self) -> PrivateKeyPair:
        """The private key.

        Raises:
            ValueError: The type has none: a fault of ours.
        """
        if self.private_key is None:
            raise ValueError("an output of this type has no private key")
        return self.private_key


@dataclass(frozen=True, slots=True)
class Parts:
    """The pieces of a Secret's content that must fit each other.

    Attributes:
        private_key: PEM or OpenSSH; the text may hold certificates as well. None for a type without one.
        certificates: Certificates of that key, by the name to speak of them: PEM or one OpenSSH line. A PEM text may hold the
            private key too, so that none of them is shown either.
        tokens: JWTs in compact form, by the name to speak of them.
    """

    private_key: bytes | None = field(default=None, repr=False)
    certificates: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, bytes] = field(default_factory=dict, repr=False)


class AskFor(Protocol[SettingsT_contra]):
    """Says what the authority shall sign."""

    def __call__(self, settings: SettingsT_contra, /) -> Wish:
        """The wish, from the settings alone."""
        ...


class Render(Protocol[SettingsT_contra]):
    """Makes the content of the Secret: key to bytes."""

    def __call__(self, settings: SettingsT_contra, material: Material, /) -> Mapping[str, bytes]:
        """All keys of the Secret at once."""
        ...


class KeysOf(Protocol[SettingsT_contra]):
    """Says which keys the Secret holds."""

    def __call__(self, settings: SettingsT_contra, /) -> frozenset[str]:
        """Every key, no more and no less than `Render` makes."""
        ...


class PartsOf(Protocol[SettingsT_contra]):
    """Finds the pieces that must fit each other."""

    def __call__(self, settings: SettingsT_contra, data: Mapping[str, bytes], /) -> Parts:
        """The pieces of a content that has every key.

        Raises:
            ValueError: It cannot be read.
        """
        ...


class LabelsOf(Protocol[SettingsT_contra]):
    """Says which labels the Secret must have for what reads it."""

    def __call__(self, settings: SettingsT_contra, /) -> Mapping[str, str]:
        """The labels; they win over those of `secret.labels`."""
        ...


def _no_labels(_settings: Any, /) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class OutputType(Generic[SettingsT]):
    """One type of output.

    Attributes:
        name: The field of MachineOutput's spec that chooses it, camelCase; also the value in metrics and status.
        description: For `kubectl explain`.
        settings: Model of what stands in that field.
        ask: Settings to wish.
        render: Settings and material to the content of the Secret.
        keys: Settings to every key that the Secret holds.
        parts: Settings and content to the pieces that must fit each other.
        algorithms: Algorithms of private keys that what reads the Secret takes; none where there is no private key.
        x509: Whether it holds an X.509 certificate, so that keystores can be made of it.
        labels: Settings to labels of the Secret.
    """

    name: str
    description: str
    settings: type[SettingsT]
    ask: AskFor[SettingsT]
    render: Render[SettingsT]
    keys: KeysOf[SettingsT]
    parts: PartsOf[SettingsT]
    algorithms: frozenset[PrivateKeyAlgorithm] = EVERY_ALGORITHM
    x509: bool = True
    labels: LabelsOf[SettingsT] = _no_labels


def always(*keys: str) -> Callable[[Any], frozenset[str]]:
    """`OutputType.keys` of a type whose Secret holds the same keys whatever the settings."""
    fixed = frozenset(keys)
    return lambda _settings: fixed


def files(*, private_key: str, certificates: tuple[str, ...]) -> Callable[[Any, Mapping[str, bytes]], Parts]:
    """`OutputType.parts` of a type whose private key and certificates each have a key of their own.

    Args:
        private_key: The key of the Secret that holds the private key.
        certificates: The keys that hold a certificate of it.
    """

    def parts(_settings: Any, data: Mapping[str, bytes], /) -> Parts:
        return Parts(private_key=data[private_key], certificates={name: data[name] for name in certificates})

    return parts
