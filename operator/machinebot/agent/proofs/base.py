"""What every proof is made for, and how tokens are read: bounded, without blanks around them, and never shown."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from machinebot.errors import Invalid, Unavailable

MAX_TOKEN: Final = 16 * 1024
"""Longest token or secret, characters: what the join API takes."""

MISSING: Final = "ProofMissing"
"""Reason where the platform does not give what the proof is made of: mostly a setting of the job that is left out."""

UNAVAILABLE: Final = "ProofUnavailable"
"""Reason where the platform is asked for a proof and does not answer as it should."""

_PRINTABLE: Final = re.compile(r"[!-~]+")
"""What a token or secret consists of: no blank, no newline, no other letters than ASCII's."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the join API asks the proof to contain.

    Attributes:
        audience: The audience to ask the platform for; None where the method has none, or the platform fixes it.
        challenge: The challenge that the proof must contain; None where the method has none.
        cluster_name: Name of the cluster of identities.
    """

    audience: str | None
    challenge: str | None
    cluster_name: str


class Prove(Protocol):
    """What every module here has as `prove`."""

    def __call__(self, settings: Mapping[str, Any], wanted: Wanted, /) -> dict[str, str]:
        """The proof, as the join API takes it: read anew at each call, since tokens are short-lived.

        Args:
            settings: The block of the method in `onboarding`, or nothing.
            wanted: What it must contain.

        Raises:
            Invalid: The platform does not give what is needed; the message says what to set there.
            Unavailable: The platform does not answer.
        """
        ...


def from_environment(name: str, hint: str) -> str:
    """A token in an environment variable.

    Args:
        name: Of the variable.
        hint: What to do where it is not set.

    Raises:
        Invalid: It is not set, or holds no token.
    """
    return checked(os.environ.get(name, ""), f"the environment variable {name}", hint)


def from_file(path: str, hint: str) -> str:
    """A token in a file, which somebody else renews.

    Raises:
        Invalid: The file holds no token.
        Unavailable: It cannot be read now.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_TOKEN + 2)
    except OSError as error:
        raise Unavailable(MISSING, f"the file {path} cannot be read ({error.strerror}): {hint}") from error
    return checked(content.decode("ascii", errors="replace"), f"the file {path}", hint)


def checked(text: str, where: str, hint: str) -> str:
    """A token without the blanks and newlines around it.

    Raises:
        Invalid: It is empty or no token. It is not shown.
    """
    found = text.strip()
    if not found:
        raise Invalid(MISSING, f"{where} is empty or not set: {hint}")
    if len(found) > MAX_TOKEN or _PRINTABLE.fullmatch(found) is None:
        raise Invalid(
            MISSING, f"{where} holds no token: it has more than {MAX_TOKEN} characters, or blanks or other letters: {hint}"
        )
    return found


def text(settings: Mapping[str, Any], name: str, default: str) -> str:
    """A setting of the method, or its default."""
    value = settings.get(name)
    return default if value is None else str(value)
