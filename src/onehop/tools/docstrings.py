"""Reads what a docstring says about a function and its parameters: Google's, NumPy's or Sphinx' way."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

_SPHINX = re.compile(r":param\s+(?:[^:]*\s)?(\w+):\s*(.*)")
_ITEM = re.compile(r"(\*{0,2}\w+)(?:\s*\([^)]*\))?\s*:\s*(.*)")
_NUMPY_ITEM = re.compile(r"(\w+)\s*(?::.*)?$")
_SECTIONS = re.compile(
    r"(args|arguments|parameters|returns?|raises|yields?|examples?|notes?|attributes|see also)\s*:?\s*$", re.I
)
_PARAMETERS = ("args", "arguments", "parameters")


def split(text: str | None, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The description without the part about parameters, and what is said of each parameter.

    Args:
        names: of the parameters; others are no parameters.
    """
    known = set(names)
    lines = inspect.cleandoc(text or "").splitlines()
    kept: list[str] = []
    said: dict[str, str] = {}
    section, current = "", ""
    for number, line in enumerate(lines):
        heading = _SECTIONS.match(line)
        underlined = number + 1 < len(lines) and set(lines[number + 1].strip()) == {"-"}
        if heading and (line.rstrip().endswith(":") or underlined):
            section, current = heading[1].lower(), ""
            if section not in _PARAMETERS:
                kept.append(line)
            continue
        if section in _PARAMETERS and line.strip() and not line.startswith(" ") and not underlined:
            item = _NUMPY_ITEM.match(line)
            if not (item and item[1] in known) and set(line.strip()) != {"-"}:
                section = ""
        sphinx = _SPHINX.match(line.strip())
        if sphinx and sphinx[1] in known:
            current = sphinx[1]
            said[current] = sphinx[2]
            continue
        if section not in _PARAMETERS:
            kept.append(line)
            continue
        stripped = line.strip()
        item = _ITEM.match(stripped) if line.startswith(" ") else None
        numpy = None if line.startswith(" ") else _NUMPY_ITEM.match(stripped)
        if item and item[1].lstrip("*") in known:
            current = item[1].lstrip("*")
            said[current] = item[2]
        elif numpy and numpy[1] in known:
            current = numpy[1]
            said[current] = ""
        elif current and stripped and set(stripped) != {"-"}:
            said[current] = f"{said[current]} {stripped}".strip()
    description = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    return description, {name: words for name, words in said.items() if words}
