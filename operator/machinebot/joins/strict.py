"""Reads what comes from outside in one way only: JSON without duplicate keys, base64url in its one canonical form."""

import base64
import json
import math
from typing import Any, Final, NoReturn

MAX_DEPTH = 32
"""Deepest nesting of JSON that is taken; tokens of platforms have four levels at most."""


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object (RFC 8259), its keys unique at every level, its numbers finite, its text UTF-8 throughout.

    Two readers of an object with a key that stands there twice may see different values: such a one is refused. So is half of
    a surrogate pair, which no log and no answer could be written with.

    Args:
        data: At most some hundred KiB: the caller has bounded it.

    Raises:
        ValueError: It is none. The text shows nothing of it.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8"))
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise ValueError("no JSON object with unique keys") from None
    # Nothing is nested deeper than brackets are opened: few of them, as in every message and token, and nothing is to be counted.
    opened = data.count(b"{") + data.count(b"[")
    if not isinstance(value, dict) or (opened > MAX_DEPTH and _depth(value) > MAX_DEPTH):
        raise ValueError("no JSON object with unique keys")
    return value


def base64url(text: str) -> bytes:
    """Bytes from base64url without padding (RFC 7515, appendix C), in the one form that encoding them gives.

    Raises:
        ValueError: It is none. The text shows nothing of it.
    """
    try:
        raw = text.encode("ascii")
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ValueError("no base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != raw:
        raise ValueError("no base64url")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999 is JSON, and no number that a clock or a text can be made of
        raise ValueError("not finite")
    return number


def _refused(_constant: str) -> NoReturn:
    raise ValueError("not a number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refused)
"""Made once: to make it takes as long as to read a header."""


def _depth(value: object) -> int:
    deepest = 0
    pending = [(value, 1)]
    while pending:
        each, depth = pending.pop()
        deepest = max(deepest, depth)
        if isinstance(each, dict):
            pending += [(inner, depth + 1) for inner in each.values()]
        elif isinstance(each, list):
            pending += [(inner, depth + 1) for inner in each]
    return deepest
