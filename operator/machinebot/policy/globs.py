"""The one glob of Machinebot: anchored, case-sensitive, `*` for any characters and `?` for one."""

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *others = ("".join("." if char == "?" else re.escape(char) for char in piece) for piece in pattern.split("*"))
    if not others:
        return re.compile(first, re.DOTALL)
    # Atomic groups: a piece found where it comes first is never sought anew, so that many stars do not multiply the time.
    between = "".join(f"(?>.*?{piece})" for piece in others[:-1] if piece)
    return re.compile(f"{first}{between}.*{others[-1]}", re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits the pattern. An empty pattern fits nothing but the empty text.

    The time grows with the length of the pattern times the length of the text, whatever stars there are.
    """
    if pattern == text:
        return True
    if "*" not in pattern and "?" not in pattern:
        return False
    return _compiled(pattern).fullmatch(text) is not None


def matches_any(patterns: Iterable[str], text: str) -> bool:
    """Whether the text fits one of the patterns. No patterns: no fit."""
    return any(matches(pattern, text) for pattern in patterns)
