"""`machinebot inspect`: the credentials in a Secret, a file or a directory, side by side."""

import base64
import binascii
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from machinebot.cli.cluster import Scope, on_cluster, scope
from machinebot.cli.credentials import MAX_PIECE, read_all
from machinebot.cli.found import Found
from machinebot.cli.tables import Cell, Look, Table, print_json, print_tables, relative
from machinebot.clock import SystemClock, rfc3339
from machinebot.errors import Invalid, NotFound
from machinebot.kube.resources import SECRETS
from machinebot.resources.meta import MAX_NAME

Json = dict[str, Any]

MAX_FILES: Final = 64
"""Most files of a directory, or keys of a Secret, that are read."""

INVALID: Final = "NothingToInspect"
"""Reason where there is nothing that could be shown."""

_SECRET_PREFIX: Final = "secret/"  # noqa: S105 - kubectl's way to name a Secret


def show(context: str | None, namespace: str | None, source: str, *, as_json: bool) -> None:
    """Prints what is found.

    Raises:
        MachinebotError: It cannot be read, or holds nothing that could be shown.
    """
    path = Path(source)
    if not source.startswith(_SECRET_PREFIX) and ("/" in source or (len(source) <= MAX_NAME and path.exists())):
        title, files = source, from_path(path)
    else:
        where = scope(context, namespace)
        name = source.removeprefix(_SECRET_PREFIX)
        title, files = f"Secret {where.namespace}/{name}", from_secret(where, name)
    found, now = read_all(files), SystemClock().now()
    if not found:
        raise Invalid(INVALID, f"{title} holds no certificate, key or token: its files are {', '.join(sorted(files)) or 'none'}")
    if as_json:
        print_json({"source": title, "at": rfc3339(now), "credentials": [as_object(each, now) for each in found]}, sys.stdout)
    else:
        print_tables([table(title, found, now)], sys.stdout)


# --- where it comes from ------------------------------------------------------------------------------------------------


def from_path(path: Path) -> Mapping[str, bytes]:
    """A file, or the files of a directory, each bounded. What is no plain file is never opened.

    Raises:
        Invalid: It is not there, cannot be read, or has too many files.
    """
    try:
        if not path.is_dir():
            return {path.name: _bounded(path)}
        files = sorted(each for each in path.iterdir() if each.is_file())
        if len(files) > MAX_FILES:
            raise Invalid(INVALID, f"{path} has more than {MAX_FILES} files: name one of them")
        return {each.name: _bounded(each) for each in files}
    except OSError as error:
        raise Invalid(INVALID, f"{path} cannot be read: {error.strerror}; a Secret is written as secret/NAME") from error


def _bounded(path: Path) -> bytes:
    """One byte more than is parsed, so that what is larger shows."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise Invalid(INVALID, f"{path} is no plain file")
    with path.open("rb") as file:
        return file.read(MAX_PIECE + 1)


def from_secret(where: Scope, name: str) -> Mapping[str, bytes]:
    """The content of a Secret; takes RBAC `get` on it.

    Raises:
        MachinebotError: It is not there, or cannot be read.
    """
    body = on_cluster(where.context, lambda client: client.get(SECRETS, where.namespace, name))
    if body is None:
        raise NotFound("SecretMissing", f"there is no Secret {where.namespace}/{name}, nor a file of that name")
    data: Mapping[str, str] = body.get("data") or {}
    if len(data) > MAX_FILES:
        raise Invalid(INVALID, f"the Secret {where.namespace}/{name} has more than {MAX_FILES} keys: it is none of ours")
    try:
        return {key: base64.b64decode(value, validate=True) for key, value in data.items()}
    except (binascii.Error, ValueError) as error:
        raise Invalid(INVALID, f"the Secret {where.namespace}/{name} holds what is no base64") from error


# --- how it is shown ----------------------------------------------------------------------------------------------------


def as_object(each: Found, now: datetime) -> Json:
    """One find for programs."""
    return {
        "form": each.form,
        "files": list(each.files),
        "subject": each.subject,
        "names": list(each.names),
        "serial": each.serial,
        "notBefore": None if each.not_before is None else rfc3339(each.not_before),
        "notAfter": None if each.not_after is None else rfc3339(each.not_after),
        "expired": each.not_after is not None and each.not_after <= now,
        "issuer": each.issuer,
        "extensions": list(each.extensions),
        "algorithm": each.algorithm,
        "fingerprint": each.fingerprint,
        "authority": each.authority,
        "privateKey": each.private_key,
        "problem": each.problem,
    }


def _validity(each: Found, now: datetime) -> Cell:
    if each.not_after is None:
        return Cell("no end" if each.form.endswith("certificate") else "", Look.BAD)
    begins = each.not_before is not None and each.not_before > now
    look = Look.BAD if each.not_after <= now or begins else Look.GOOD
    text = f"{rfc3339(each.not_after)} ({relative(each.not_after, now)})"
    return Cell(f"{text}, not valid yet" if begins else text, look)


def _key_cell(each: Found) -> Cell:
    if not each.wants_key:
        return Cell("")
    return Cell("none here fits", Look.BAD) if each.private_key is None else Cell(f"fits (in {each.private_key})", Look.GOOD)


def _form(each: Found) -> str:
    return f"{each.form} of a CA" if each.authority else each.form


ROWS: Final[tuple[tuple[str, Callable[[Found, datetime], str | Cell]], ...]] = (
    ("what", lambda each, _now: _form(each)),
    ("in", lambda each, _now: ", ".join(each.files)),
    ("subject", lambda each, _now: each.subject),
    ("names", lambda each, _now: ", ".join(each.names)),
    ("serial", lambda each, _now: each.serial),
    ("begins", lambda each, _now: "" if each.not_before is None else rfc3339(each.not_before)),
    ("ends", _validity),
    ("signed by", lambda each, _now: each.issuer),
    ("says", lambda each, _now: ", ".join(each.extensions)),
    ("key", lambda each, _now: each.algorithm),
    ("fingerprint", lambda each, _now: each.fingerprint),
    ("private key", lambda each, _now: _key_cell(each)),
    ("problem", lambda each, _now: Cell(each.problem, Look.BAD)),
)
"""The rows of the table, one for each thing that a credential may say; a row that nobody fills is left out."""


def table(title: str, found: Sequence[Found], now: datetime) -> Table:
    """The finds side by side, a column each; without the keys that a certificate here is about, which its column names."""
    certified = {each.public for each in found if each.wants_key}
    shown = [each for each in found if each.wants_key or not each.public or each.public not in certified]
    rows = [(name, *(cell(each, now) for each in shown)) for name, cell in ROWS]
    filled = [row for row in rows if any((each.text if isinstance(each, Cell) else each) for each in row[1:])]
    return Table(("", *(f"#{number}" for number in range(1, len(shown) + 1))), filled, title)
