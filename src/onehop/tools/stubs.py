"""Typed Python stubs of tools, for the prompt of a model: the same bytes for the same tools, always.

What goes in comes from operators and from other people's servers, so every text is written as a literal and
every name is checked: a description must not be able to look like code.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from typing import Any

from onehop.protocol import ToolEntry

WIDTH = 100
MAX_DEPTH = 6
HEAD = '''"""Tools that code may call. In a cell with `await` a call is awaited, in any other it gives its value."""

from typing import Any, Literal
'''
_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def stubs(entries: Iterable[ToolEntry]) -> str:
    """One class per source (and per further dot), one function per tool, everything sorted."""
    tree: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda one: one.path):
        *parents, name = entry.path.split(".")
        node = tree
        for part in parents:
            found = node.setdefault(part, {})
            node = found if isinstance(found, dict) else node.setdefault(f"{part}_", {})
        node[name] = entry
    lines: list[str] = [HEAD]
    _write(tree, "", lines)
    return "\n".join(lines).rstrip("\n") + "\n"


def _write(node: dict[str, Any], indent: str, lines: list[str]) -> None:
    for name in sorted(node):
        value = node[name]
        lines.append("")
        if isinstance(value, dict):
            lines.append(f"{indent}class {name}:")
            _write(value, f"{indent}    ", lines)
        else:
            lines.extend(_function(name, value, indent))


def _function(name: str, entry: ToolEntry, indent: str) -> list[str]:
    schema = entry.parameters
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    required = set(map(str, required)) if isinstance(required, list) else set()
    # Those that must be given come first, as Python wants it; in both groups the author's order is kept.
    ordered = sorted(properties, key=lambda one: one not in required)
    parameters = []
    told = []
    for one in ordered:
        member = properties[one] if isinstance(properties[one], dict) else {}
        if not _is_name(one):
            told.append(f"{one!r}: {_type(member, schema, 0)}; pass it as **{{{one!r}: ...}}")
            continue
        text = f"{one}: {_type(member, schema, 0)}"
        if one not in required:
            text += f" = {_default(member)}"
        parameters.append(text)
        if isinstance(member.get("description"), str) and member["description"].strip():
            told.append(f"{one}: {_one_line(member['description'])}")
    closed = schema.get("additionalProperties") in (None, False)
    if not closed or not all(map(_is_name, properties)):
        parameters.append("**others: Any")
    returns = _type(entry.returns, entry.returns, 0) if entry.returns else "Any"
    lines = _signature(name, parameters, returns, indent)
    notes = ["Changes nothing."] if entry.read_only else []
    notes += ["Waits for the client."] if entry.waits else []
    return [*lines, *_docstring(entry.description, told, notes, f"{indent}    "), f"{indent}    ..."]


def _signature(name: str, parameters: list[str], returns: str, indent: str) -> list[str]:
    whole = f"{indent}def {name}({', '.join(parameters)}) -> {returns}:"
    if len(whole) <= WIDTH:
        return [whole]
    return [
        f"{indent}def {name}(",
        *(f"{indent}    {one}," for one in parameters),
        f"{indent}) -> {returns}:",
    ]


def _docstring(description: str, told: Sequence[str], notes: Sequence[str], indent: str) -> list[str]:
    lines = [_safe(line.rstrip()) for line in description.strip().splitlines()]
    for note in notes:
        lines += [""] if lines else []
        lines.append(note)
    if told:
        lines += ["", "Args:"] if lines else ["Args:"]
        lines += [f"    {_safe(one)}" for one in told]
    if not lines:
        return []
    text = [f"{indent}{line}".rstrip() for line in lines]
    if len(text) == 1:
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *text[1:], f'{indent}"""']


def _safe(text: str) -> str:
    """For the inside of a docstring: it can neither end it nor hide in it."""
    text = "".join(c if c.isprintable() else " " for c in text.replace("\\", "\\\\").replace('"""', "'''"))
    return f"{text}." if text.endswith('"') else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def _default(member: dict[str, Any]) -> str:
    value = member.get("default", ...)
    if value is ... or isinstance(value, list | dict):
        return "..."
    text = repr(value)
    return text if len(text) <= 60 else "..."


def _type(schema: Any, root: Any, depth: int) -> str:
    """The annotation for a JSON Schema; Any where it has none or goes too deep."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return "Any"
    if isinstance(schema.get("$ref"), str):
        return _type(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return _literal([schema["const"]])
    if isinstance(schema.get("enum"), list):
        return _literal(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return _union([_type(one, root, depth + 1) for one in schema[key]])
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) == 1:
        return _type(schema["allOf"][0], root, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union([_type({**schema, "type": one}, root, depth + 1) for one in kind])
    if kind == "array":
        item = _type(schema.get("items"), root, depth + 1)
        return f"list[{item}]"
    if kind == "object":
        value = schema.get("additionalProperties")
        if isinstance(value, dict) and not schema.get("properties"):
            return f"dict[str, {_type(value, root, depth + 1)}]"
        return "dict[str, Any]"
    return _SIMPLE.get(kind, "Any") if isinstance(kind, str) else "Any"


def _literal(values: list[Any]) -> str:
    if not values or len(values) > 30 or not all(isinstance(one, str | int | bool | None) for one in values):
        return "Any"
    if any(isinstance(one, str) and not re.fullmatch(r"[ -~]{0,100}", one) for one in values):
        return "str"
    return "None" if values == [None] else f"Literal[{', '.join(map(repr, values))}]"


def _union(types: list[str]) -> str:
    unique = list(dict.fromkeys(types))
    return "Any" if "Any" in unique or not unique else " | ".join(unique)


def _resolve(reference: str, root: Any) -> Any:
    node = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if reference.startswith("#") else None
