"""Google's schemas (a part of OpenAPI 3.0, types in capitals) as JSON Schema, which all other models take.

Source: https://ai.google.dev/api/caching#Schema. Numbers may come as texts there, as protocol buffers write them.
"""

from __future__ import annotations

from typing import Any

from onehop.errors import InvalidRequestError

NUMBERS = {
    *("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"),
    *("min_items", "max_items", "min_length", "max_length", "min_properties", "max_properties"),
}
SAME = {"title", "description", "pattern", "minimum", "maximum", "required", "enum", "default"}
MAX_DEPTH = 64


def json_schema(schema: Any, where: str, depth: int = 0) -> dict[str, Any]:
    """Raises InvalidRequestError for what is no schema."""
    if not isinstance(schema, dict):
        raise InvalidRequestError(f"{where}: expected a schema, an object", field=where)
    if depth > MAX_DEPTH:
        raise InvalidRequestError(f"{where}: a schema of more than {MAX_DEPTH} levels", field=where)
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if value is None:
            continue
        if name == "type" and isinstance(value, str):
            if value != "TYPE_UNSPECIFIED":
                found["type"] = value.lower()
        elif name in NUMBERS:
            found[_camel(name)] = _number(value, f"{where}.{name}")
        elif name == "format":
            if value != "enum":
                found["format"] = value
        elif name == "items":
            found["items"] = json_schema(value, f"{where}.items", depth + 1)
        elif name in ("anyOf", "any_of"):
            found["anyOf"] = [
                json_schema(one, f"{where}.anyOf", depth + 1)
                for one in (value if isinstance(value, list) else [value])
            ]
        elif name == "properties" and isinstance(value, dict):
            found["properties"] = {
                key: json_schema(one, f"{where}.properties.{key}", depth + 1) for key, one in value.items()
            }
        elif name in SAME:
            found[name] = value
    if schema.get("nullable") is True:
        if isinstance(found.get("type"), str):
            found["type"] = [found["type"], "null"]
        if isinstance(found.get("enum"), list):
            found["enum"] = [*found["enum"], None]
    return found


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _number(value: Any, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidRequestError(f"{where}: expected a whole number", field=where)
