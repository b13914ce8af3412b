#!/usr/bin/env python3
"""Makes `.venv` with everything that the tests, the demo and the benchmark need. Needs nothing but Python 3.11 or newer.

Run it as often as you like: it does nothing where nothing changed. It installs the pinned packages of constraints.txt, each
held against its hash, then the project itself, and where they are missing the real programs that the tests hold it against:
OpenSSH, OpenSSL, PostgreSQL, MariaDB, nginx and Java's keytool.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
"""The checkout."""

OLDEST: Final = (3, 11)
"""The oldest Python that the project runs on; `requires-python` in pyproject.toml."""

CONSTRAINTS: Final = "constraints.txt"
"""Every package with its version and the hashes of its files."""

INPUTS: Final = (CONSTRAINTS, "pyproject.toml")
"""Files whose change makes the environment out of date."""

STAMP: Final = "bootstrap.digest"
"""File in the environment: digest of what it was made from. Written last, so that a half-made one is made again."""

PACKAGES: Final[Mapping[str, str]] = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "openssl": "openssl",
}
"""Programs that the demo uses, and the Debian package of each."""

TEST_PACKAGES: Final[Mapping[str, str]] = {
    **PACKAGES,
    "pg_ctlcluster": "postgresql",  # its servers lie beside the PATH, in /usr/lib/postgresql
    "psql": "postgresql-client",
    "mariadbd": "mariadb-server-core",  # without the service
    "mariadb": "mariadb-client-core",
    "nginx": "nginx-light",
    "keytool": "default-jre-headless",
}
"""Those that the tests use too. The tests run servers of their own: services that the packages bring are not used."""

SBIN: Final = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where sshd is; these directories are not on every user's PATH."""

TESTS: Final = "--tests"
"""The one argument: programs that only the tests use are installed as well."""

Say = Callable[[str], None]


class SetupError(Exception):
    """Set-up cannot go on; the text says what to do."""


def main() -> int:
    """Run it; returns the exit code."""
    started = time.monotonic()
    try:
        check_python(sys.version_info[:2])
        install_programs(say, TEST_PACKAGES if TESTS in sys.argv[1:] else PACKAGES)
        environment = ROOT / ".venv"
        make_environment(environment, say)
        install_packages(environment, say)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    say(f"ready after {time.monotonic() - started:.0f} s: .venv")
    return 0


def say(line: str) -> None:
    """Print one line of progress."""
    print(f"setup: {line}", flush=True)


def check_python(version: tuple[int, ...]) -> None:
    """Refuse a Python that is too old.

    Raises:
        SetupError: it is.
    """
    if version < OLDEST:
        found, needed = ".".join(map(str, version)), ".".join(map(str, OLDEST))
        raise SetupError(f"this is Python {found}, and {needed} or newer is needed: make setup PYTHON=/path/to/python{needed}")


# --- programs ---------------------------------------------------------------------------------------------------------


def install_programs(tell: Say, packages: Mapping[str, str]) -> None:
    """Install the programs that are missing, with apt-get.

    Args:
        tell: Is told what is done.
        packages: Programs, and the Debian package of each.

    Raises:
        SetupError: they cannot be installed here.
    """
    missing = missing_packages(os.environ.get("PATH", os.defpath), packages)
    if not missing:
        tell(f"{', '.join(sorted(set(packages)))}: there")
        return
    tell(f"installing {', '.join(missing)}")
    apt_install(missing)


def missing_packages(path: str, packages: Mapping[str, str]) -> list[str]:
    """The Debian packages of the programs that are not on the path or where system programs are."""
    everywhere = os.pathsep.join((path, SBIN))
    return sorted({package for program, package in packages.items() if shutil.which(program, path=everywhere) is None})


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages, as root or with sudo.

    Raises:
        SetupError: there is no apt-get, no right to use it, or it failed.
    """
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise SetupError(f"please install what Debian calls {names}; then run this again")
    rights: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise SetupError(f"please run as root: apt-get update && apt-get install {names}; then run this again")
        rights = ["sudo"]
    apt = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    run([*apt, "update"], what="apt-get update")
    run([*apt, "install", "--no-install-recommends", "--yes", *packages], what=f"apt-get install {names}")


# --- the environment --------------------------------------------------------------------------------------------------


def make_environment(environment: Path, tell: Say) -> None:
    """Make the virtual environment, unless there is one of this very Python.

    Raises:
        SetupError: Python cannot make one.
    """
    wanted = ".".join(map(str, sys.version_info[:3]))
    found = version_of(environment / "bin" / "python")
    if found == wanted:
        tell(f"Python environment: there, Python {wanted}")
        return
    tell(f"making the Python environment with Python {wanted}" + (f" in place of {found}" if found else ""))
    if not can_make_environments():
        apt_install(["python3-venv"])
    run([sys.executable, "-m", "venv", "--clear", environment], what="python3 -m venv")


def version_of(python: Path) -> str:
    """The version that an interpreter tells, such as 3.11.7; empty where there is none that runs."""
    question = "import platform; print(platform.python_version())"
    try:
        answer = subprocess.run([python, "-I", "-c", question], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def can_make_environments() -> bool:
    """False on Debian without python3-venv, where venv is there and ensurepip is not."""
    asked = subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True, timeout=60, check=False)
    return asked.returncode == 0


def install_packages(environment: Path, tell: Say) -> None:
    """Install the pinned packages and the project, unless that was done from the same files.

    Raises:
        SetupError: pip failed.
    """
    stamp, wanted = environment / STAMP, digest(environment)
    if stamp.exists() and stamp.read_text() == wanted:
        tell("packages: up to date")
        return
    stamp.unlink(missing_ok=True)
    python = environment / "bin" / "python"
    if subprocess.run([python, "-I", "-c", "import pip"], capture_output=True, timeout=60, check=False).returncode != 0:
        run([python, "-m", "ensurepip"], what="ensurepip")  # an environment that another tool made
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    count = count_pinned((ROOT / CONSTRAINTS).read_text())
    tell(f"installing the {count} packages of {CONSTRAINTS}; the first time takes a minute")
    # The list is whole, so nothing is resolved: pip would look for newer versions of what a package wants with extras, which
    # the list does not have.
    run([*pip, "--no-deps", "--require-hashes", "--requirement", ROOT / CONSTRAINTS], what=f"pip install -r {CONSTRAINTS}")
    tell("installing the project itself, editable")
    run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], what="pip install -e .")
    stamp.write_text(wanted)


def digest(environment: Path) -> str:
    """SHA-256 over what the environment is made from: the files, this Python, and where it stands."""
    total = hashlib.sha256(f"{sys.version}\n{environment}\n".encode())
    for name in INPUTS:
        content = (ROOT / name).read_bytes()
        total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def count_pinned(constraints: str) -> int:
    """How many packages a constraints file pins."""
    return sum("==" in line for line in constraints.splitlines() if not line.startswith((" ", "#")))


def run(command: Iterable[str | Path], *, what: str) -> None:
    """Run a command in the checkout, its output where ours goes.

    Raises:
        SetupError: it failed.
    """
    try:
        subprocess.run([str(word) for word in command], cwd=ROOT, stdin=subprocess.DEVNULL, check=True)
    except FileNotFoundError as error:
        raise SetupError(f"{what}: there is no {error.filename}") from None
    except subprocess.CalledProcessError as error:
        raise SetupError(f"{what} failed with exit code {error.returncode}; what it wrote stands above") from None


if __name__ == "__main__":
    sys.exit(main())
