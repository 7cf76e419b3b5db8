"""A tool's JSON Schema as Python says it: names and order of arguments, signature, documentation.

Schemas come from outside and may hold anything: what cannot be understood is `Any`, never an error.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import functools
import inspect
import keyword
import operator
import typing
from typing import Any

from onehop.protocol import ToolEntry

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": None,
}
MAX_LITERALS = 20
_DEPTH = 4


class Parameters:
    """What a tool takes.

    Attributes:
        names: as the schema has them; the required ones first.
        required: those without which there is no call.
        properties: the schema of each.
        open: others are taken, too.
        python: by the name that Python code can write, the schema's: `from_` for `from`.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        properties = schema.get("properties")
        self.properties: dict[str, Any] = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        listed = required if isinstance(required, list) else []
        self.required = [name for name in self.properties if name in listed]
        self.names = self.required + [name for name in self.properties if name not in listed]
        more = schema.get("additionalProperties", not self.properties and "properties" not in schema)
        self.open = more is not False and ("additionalProperties" in schema or bool(more))
        self.python: dict[str, str] = {}
        for name in self.names:
            spelled = _identifier(name)
            if spelled not in self.python and (spelled == name or spelled not in self.properties):
                self.python[spelled] = name

    def spelled(self, name: str) -> str:
        """How code writes it."""
        written = _identifier(name)
        return written if self.python.get(written) == name else name


def _identifier(name: str) -> str:
    text = "".join(one if one.isalnum() or one == "_" else "_" for one in name) or "_"
    if text[0].isdigit():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) else text


def annotation(schema: Any, depth: int = 0) -> Any:
    """The Python type of a schema's values, Any where it is not said."""
    if not isinstance(schema, dict) or depth > _DEPTH:
        return Any
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list) and 0 < len(values) <= MAX_LITERALS:
        if all(one is None or isinstance(one, str | int | bool) for one in values):
            return typing.Literal[tuple(values)]
        return Any
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return _union([annotation(one, depth + 1) for one in schema[key]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union([annotation({**schema, "type": one}, depth + 1) for one in kind])
    if kind == "array":
        inner = annotation(schema.get("items"), depth + 1)
        return list if inner is Any else list[inner]  # type: ignore[valid-type]
    if kind == "object":
        inner = annotation(schema.get("additionalProperties"), depth + 1)
        return dict if inner is Any else dict[str, inner]  # type: ignore[valid-type]
    return _TYPES.get(kind, Any) if isinstance(kind, str) else Any


def _union(kinds: list[Any]) -> Any:
    if not kinds or Any in kinds:
        return Any
    return functools.reduce(operator.or_, (type(None) if one is None else one for one in kinds))


def signature(parameters: Parameters, returns: dict[str, Any] | None) -> inspect.Signature:
    """As `inspect.signature` gives it."""
    made = []
    for name in parameters.names:
        spelled = parameters.spelled(name)
        if not spelled.isidentifier() or keyword.iskeyword(spelled):
            continue
        schema = parameters.properties[name]
        default: Any = inspect.Parameter.empty
        if name not in parameters.required:
            default = schema.get("default") if isinstance(schema, dict) else None
        made.append(
            inspect.Parameter(
                spelled,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=default,
                annotation=annotation(schema),
            )
        )
    if parameters.open:
        made.append(inspect.Parameter("others_", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(made, return_annotation=annotation(returns))


def signature_text(parameters: Parameters, returns: dict[str, Any] | None) -> str:
    """The same as text: `(city: str, days: int = 3) -> dict`."""
    return str(signature(parameters, returns)).replace("typing.", "")


def documentation(entry: ToolEntry, parameters: Parameters) -> str:
    """What `help` shows: the description, and a line for each parameter."""
    lines = [entry.description.strip() or f"The tool {entry.name}."]
    described = [
        (parameters.spelled(name), schema["description"].strip())
        for name, schema in parameters.properties.items()
        if isinstance(schema, dict) and isinstance(schema.get("description"), str)
    ]
    if described:
        lines += ["", "Args:"]
        lines += [f"    {name}: {' '.join(text.split())}" for name, text in described]
    if isinstance(entry.returns, dict) and isinstance(entry.returns.get("description"), str):
        lines += ["", "Returns:", f"    {entry.returns['description'].strip()}"]
    return "\n".join(lines)
