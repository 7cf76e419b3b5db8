"""Names of tools: the dotted Python path below `tools`, patterns that choose them, and names that may be meant."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice

MAX_COMPARED = 5000
PATTERN = re.compile(r"[A-Za-z0-9_.*?/:-]{1,128}")
"""What an allowlist may hold."""


def path_of(source: str, name: str, taken: Iterable[str] = ()) -> str:
    """The Python path of a tool; what is no identifier in its name becomes _.

    Args:
        taken: paths of other tools; a number is added until it is none of them.
    """
    parts = [_identifier(part) for part in name.split(".") if part] or ["_"]
    path = ".".join([source, *parts])
    number = 1
    while path in taken:
        number += 1
        path = ".".join([source, *parts]) + f"_{number}"
    return path


def _identifier(text: str) -> str:
    text = re.sub(r"\W", "_", text)
    if not text or text[0].isdigit():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) else text


def is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


@lru_cache(maxsize=10_000)
def allowed(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns (exact names, `source.*`, `*`) covers the name."""
    return any(one == name or (is_pattern(one) and fnmatchcase(name, one)) for one in patterns)


def near(name: str, names: Iterable[str]) -> str:
    """A sentence with the names that may be meant, or nothing."""
    known = list(dict.fromkeys(islice(names, MAX_COMPARED)))
    by_last: dict[str, list[str]] = {}
    for one in known:
        by_last.setdefault(one.rpartition(".")[2], []).append(one)
    close = get_close_matches(name[:128].rpartition(".")[2], by_last, n=3, cutoff=0.75)
    found = [one for last in close for one in by_last[last]][:3]
    found = found or get_close_matches(name[:128], known, n=3, cutoff=0.6)
    return f"; is {' or '.join(found)} meant?" if found else ""
