"""What an execution may call: found by name, by words, and told about in text."""
# runs inside the wall: standard library only

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from onehop.kernel import schemas
from onehop.kernel.tool_errors import ToolNotFoundError, ToolResultError
from onehop.protocol import ToolEntry

_WORD = re.compile(r"[^\W_]+")
_IN_NAME, _BEGINS, _IN_DESCRIPTION, _IN_PARAMETERS = 4.0, 2.0, 1.0, 0.5
MAX_LINE = 200


class Catalogue:
    """The tools of one execution."""

    def __init__(self, entries: list[ToolEntry]) -> None:
        self.entries = entries
        self.by_name = {entry.name: entry for entry in entries}
        self._words: list[tuple[set[str], set[str], set[str]]] | None = None

    def tree(self) -> dict[str, Any]:
        """Nested by the parts of their paths; an entry stands under the empty name."""
        top: dict[str, Any] = {}
        for entry in self.entries:
            node = top
            for part in entry.path.split("."):
                node = node.setdefault(part or "_", {})
            node[""] = entry
        return top

    def search(self, text: str, limit: int) -> list[dict[str, str]]:
        """The best first; all of them in their order when there are no words."""
        wanted = list(dict.fromkeys(_words(text)))
        if not wanted:
            return [_line(entry) for entry in self.entries[:limit]]
        if self._words is None:
            self._words = [
                (set(_words(e.path)), set(_words(e.description)), set(_words(" ".join(_properties(e)))))
                for e in self.entries
            ]
        scores = [0.0] * len(self.entries)
        for word in wanted:
            found = [_score(word, *words) for words in self._words]
            rarity = math.log(1 + len(found) / max(1, sum(1 for one in found if one)))
            for index, one in enumerate(found):
                scores[index] += one * rarity
        ranked = sorted((-score, index) for index, score in enumerate(scores) if score)
        return [_line(self.entries[index]) for _, index in ranked[:limit]]

    def describe(self, name: str) -> str:
        """Raises ToolNotFoundError."""
        entry = self.find(name)
        parameters = schemas.Parameters(entry.parameters)
        lines = [
            f"tools.{entry.path}{schemas.signature_text(parameters, entry.returns)}",
            "",
            schemas.documentation(entry, parameters),
            "",
            f"Parameters (JSON Schema): {json.dumps(entry.parameters, ensure_ascii=False)}",
        ]
        if entry.returns is not None:
            lines.append(f"Returns (JSON Schema): {json.dumps(entry.returns, ensure_ascii=False)}")
        if entry.waits:
            lines.append("The result comes from the client, or has to be approved first.")
        return "\n".join(lines)

    def find(self, name: str) -> ToolEntry:
        """By name or path. Raises ToolNotFoundError."""
        path = name.removeprefix("tools.")
        for entry in self.entries:
            if name == entry.name or path == entry.path:
                return entry
        closest = near(path, [entry.path for entry in self.entries])
        hint = f"did you mean {closest}?" if closest else "tools.search('…') finds what there is"
        raise ToolNotFoundError("", f"there is no tool {name!r}; {hint}")


def read(value: Any) -> list[ToolEntry]:
    """A catalogue as it came. Raises ToolResultError."""
    try:
        return msgspec.convert(value, list[ToolEntry])
    except ValueError as error:
        raise ToolResultError("", f"the list of tools cannot be read: {error}") from None


def near(name: str, names: Iterable[str]) -> str:
    """Those that `name` may have been meant for, empty if none."""
    by_lower = {one.lower(): one for one in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    return " or ".join(repr(by_lower[one]) for one in found)


def _words(text: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return [word.lower() for word in _WORD.findall(spaced)]


def _properties(entry: ToolEntry) -> list[str]:
    properties = entry.parameters.get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _score(word: str, name: set[str], description: set[str], parameters: set[str]) -> float:
    score = 0.0
    for weight, words in ((_IN_NAME, name), (_IN_DESCRIPTION, description), (_IN_PARAMETERS, parameters)):
        if word in words:
            score += weight
        elif len(word) > 2 and any(
            one.startswith(word) or (len(one) > 3 and word.startswith(one)) for one in words
        ):
            score += weight * _BEGINS / _IN_NAME
    return score


def _line(entry: ToolEntry) -> dict[str, str]:
    first = entry.description.strip().partition("\n")[0]
    return {
        "name": entry.path,
        "signature": f"tools.{entry.path}"
        + schemas.signature_text(schemas.Parameters(entry.parameters), entry.returns),
        "description": first if len(first) <= MAX_LINE else first[: MAX_LINE - 1] + "…",
    }
