"""Where the programs of a Debian-like machine are: servers stand in directories that are not on every user's PATH."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SBIN: Final = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where servers are; these directories are not on every user's PATH."""


class ProgramMissingError(RuntimeError):
    """A program is not installed; the text says what to install."""


def find_program(name: str, *, package: str, places: Sequence[Path] = ()) -> str:
    """The path of a program.

    Args:
        name: What it is called.
        package: Debian's package of it.
        places: Where to look before PATH.

    Raises:
        ProgramMissingError: there is none; the text says what to install.
    """
    path = os.pathsep.join((*map(str, places), os.environ.get("PATH", os.defpath), SBIN))
    found = shutil.which(name, path=path)
    if found is None:
        raise ProgramMissingError(f"there is no {name} on this machine: apt-get install {package}")
    return found
