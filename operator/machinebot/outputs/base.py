"""What an output type is, and what it is handed to make the content of a Secret from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from machinebot.outputs.keys import PrivateKeyPair
from machinebot.policy.credential import Issued, TrustBundle, Wish
from machinebot.resources.meta import Model

SettingsT = TypeVar("SettingsT", bound=Model)
"""The settings model of an output type."""

SettingsT_contra = TypeVar("SettingsT_contra", bound=Model, contravariant=True)
"""The same where it is only taken."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that the content of a Secret is made from.

    Attributes:
        key: The private key; made in this process, never sent.
        issued: The certificates.
        trust: The CAs that a verifier or the holder needs.
    """

    key: PrivateKeyPair
    issued: Issued
    trust: TrustBundle


class Render(Protocol[SettingsT_contra]):
    """Makes the content of the Secret: key to bytes."""

    def __call__(self, settings: SettingsT_contra, material: Material, /) -> Mapping[str, bytes]:
        """All keys of the Secret at once."""
        ...


class AskFor(Protocol[SettingsT_contra]):
    """Says what the authority shall sign."""

    def __call__(self, settings: SettingsT_contra, /) -> Wish:
        """The wish, from the settings alone."""
        ...


@dataclass(frozen=True, slots=True)
class OutputType(Generic[SettingsT]):
    """One type of output.

    Attributes:
        name: The field of MachineOutput's spec that chooses it, camelCase; also the value in metrics and status.
        description: For `kubectl explain`.
        settings: Model of what stands in that field.
        ask: Settings to wish.
        render: Settings and material to the content of the Secret.
        keys: Every key that the Secret holds.
        private_key: The key of the Secret that holds the private key.
        certificates: The keys of the Secret that hold a certificate of the private key.
    """

    name: str
    description: str
    settings: type[SettingsT]
    ask: AskFor[SettingsT]
    render: Render[SettingsT]
    keys: frozenset[str]
    private_key: str
    certificates: tuple[str, ...]
