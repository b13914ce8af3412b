"""The one glob of Machinebot: anchored, case-sensitive, `*` for any characters and `?` for one."""

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in re.sub(r"\*+", "*", pattern))
    return re.compile("".join(parts), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits the pattern. An empty pattern fits nothing but the empty text.

    The number of stars that a pattern may hold is bounded by its length in the CRD; runs of stars count as one.
    """
    if pattern == text:
        return True
    if "*" not in pattern and "?" not in pattern:
        return False
    return _compiled(pattern).fullmatch(text) is not None


def matches_any(patterns: Iterable[str], text: str) -> bool:
    """Whether the text fits one of the patterns. No patterns: no fit."""
    return any(matches(pattern, text) for pattern in patterns)
