"""Names that others chose, made into names of Python: of operations, of MCP tools, of their parameters.

The same names in the same order always give the same identifiers, or a prompt that lists them would change
with every start.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

MAX_CHARACTERS = 80


def identifier(text: str, prefix: str = "tool") -> str:
    """What is nearest to `text` among Python's public identifiers; `prefix` begins those that need one."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\W+", "_", text).strip("_")[:MAX_CHARACTERS].rstrip("_")
    if not text.isidentifier():
        text = f"{prefix}_{text}".rstrip("_")
        if not text.isidentifier():
            text = prefix
    return f"{text}_" if keyword.iskeyword(text) else text


def distinct(wanted: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names with a number added to each that is there already, or in `taken`."""
    names = list(wanted)
    used = set(taken)
    everyone = used | set(names)
    found = []
    for name in names:
        free, number = name, 2
        while free in used or (free is not name and free in everyone):
            free, number = f"{name}_{number}", number + 1
        used.add(free)
        found.append(free)
    return found
