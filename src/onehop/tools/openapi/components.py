"""References of an OpenAPI document, and its schemas as JSON Schemas that stand alone.

A schema keeps its references: what it refers to comes along as `$defs`, so that cycles need no end. Only
references within the document are followed. Nothing here may take more room than it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from onehop.tools.names import distinct, identifier
from onehop.tools.schemas import size_bytes

MAX_HOPS = 20
MAX_DESCRIPTION = 1000
MAX_SCHEMA_DEPTH = 60
MAPS = frozenset({"properties", "patternProperties", "dependentSchemas"})
LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
SINGLE = frozenset(
    {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
     "unevaluatedItems", "unevaluatedProperties"}
)  # fmt: skip
AS_THEY_ARE = frozenset(
    {"type", "enum", "const", "default", "format", "multipleOf", "maximum", "exclusiveMaximum", "minimum",
     "exclusiveMinimum", "maxLength", "minLength", "maxItems", "minItems", "uniqueItems", "maxProperties",
     "minProperties", "required", "dependentRequired", "minContains", "maxContains", "title", "deprecated"}
)  # fmt: skip
"""Everything else says nothing about data (xml, discriminator, example) or refers elsewhere ($dynamicRef)."""


class Components:
    """Args:
    document: as document.parse gave it.
    warn: told once of each reference that leads nowhere.
    """

    def __init__(self, document: dict[str, Any], warn: Callable[[str], None]) -> None:
        self._document = document
        self._is_30 = str(document.get("openapi")).startswith("3.0")
        self._warn = warn
        self._warned: set[str] = set()

    def resolve(self, node: Any) -> dict[str, Any]:
        """What a node is, its references followed; an empty one for what leads nowhere."""
        for _ in range(MAX_HOPS):
            if not isinstance(node, dict):
                return {}
            if not isinstance(node.get("$ref"), str):
                return node
            node = self._at(node["$ref"])
        self._tell("a chain of references has no end")
        return {}

    def _at(self, pointer: str) -> Any:
        if not pointer.startswith("#/"):
            self._tell(f"{pointer!r} is not followed: only references within the document are")
            return {}
        here: Any = self._document
        for part in pointer[2:].split("/"):
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(here, dict) and part in here:
                here = here[part]
            elif isinstance(here, list) and part.isdecimal() and int(part) < len(here):
                here = here[int(part)]
            else:
                self._tell(f"{pointer!r} leads nowhere")
                return {}
        return here

    def _tell(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < 100:
            self._warned.add(text)
            self._warn(text)

    def standalone(self, schema: Any, room_bytes: int) -> dict[str, Any]:
        """A JSON Schema of draft 2020-12 that needs nothing else.

        Args:
            room_bytes: for it and what it refers to; definitions that do not fit in allow everything.
        """
        whole = self.together({"": schema}, room_bytes)
        found: Any = whole[0][""]
        if found is True:
            found = {}
        if whole[1]:
            found = {**found, "$defs": whole[1]}
        return dict(found)

    def together(
        self, schemas: dict[str, Any], room_bytes: int
    ) -> tuple[dict[str, dict[str, Any] | bool], dict[str, Any]]:
        """Several schemas with the `$defs` that they share."""
        pointers: dict[str, str] = {}

        def name(pointer: str) -> str:
            if pointer not in pointers:
                last = unquote(pointer).rpartition("/")[2].replace("~1", "/").replace("~0", "~")
                (pointers[pointer],) = distinct([identifier(last, "schema")], pointers.values())
            return pointers[pointer]

        found = {key: self._convert(one, name, 0) for key, one in schemas.items()}
        room_bytes -= size_bytes(found)
        defs: dict[str, Any] = {}
        waiting = list(pointers)
        while waiting:
            pointer = waiting.pop(0)
            known = set(pointers)
            defs[pointers[pointer]] = {}
            if room_bytes <= 0:
                continue
            converted = self._convert(self._at(pointer), name, 0)
            room_bytes -= size_bytes(converted)
            if room_bytes < 0:
                for new in pointers.keys() - known:
                    del pointers[new]
                continue
            defs[pointers[pointer]] = converted
            waiting += [new for new in pointers if new not in known]
        return found, defs

    def _convert(self, schema: Any, name: Callable[[str], str], depth: int) -> dict[str, Any] | bool:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict) or depth > MAX_SCHEMA_DEPTH:
            return {}
        out: dict[str, Any] = {}
        if isinstance(schema.get("$ref"), str):
            if not schema["$ref"].startswith("#/"):
                self._at(schema["$ref"])  # says so
                return {}
            out["$ref"] = f"#/$defs/{name(schema['$ref'])}"
            if self._is_30:
                return out  # its neighbours mean nothing before 3.1
        for key, value in schema.items():
            if key in AS_THEY_ARE:
                out[key] = value
            elif key in MAPS and isinstance(value, dict):
                out[key] = {inner: self._convert(one, name, depth + 1) for inner, one in value.items()}
            elif key in LISTS and isinstance(value, list) and value:
                out[key] = [self._convert(one, name, depth + 1) for one in value]
            elif key in SINGLE and isinstance(value, dict | bool):
                out[key] = self._convert(value, name, depth + 1)
            elif key == "description" and isinstance(value, str):
                out[key] = value[:MAX_DESCRIPTION]
            elif key == "pattern" and _is_expression(value):
                out[key] = value
        return self._from_30(schema, out) if self._is_30 else out

    @staticmethod
    def _from_30(schema: dict[str, Any], out: dict[str, Any]) -> dict[str, Any]:
        """What OpenAPI 3.0 says in its own words."""
        for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(out.get(exclusive), bool) and out.pop(exclusive) and limit in out:
                out[exclusive] = out.pop(limit)
        if schema.get("nullable") is True:
            if isinstance(out.get("type"), str):
                out["type"] = [out["type"], "null"]
                if isinstance(out.get("enum"), list) and None not in out["enum"]:
                    out["enum"] = [*out["enum"], None]
            elif any(key in out for key in ("allOf", "anyOf", "oneOf")):
                out = {"anyOf": [out, {"type": "null"}]}
        return out


def _is_expression(pattern: Any) -> bool:
    """Written for JavaScript: what Python cannot read says nothing here."""
    try:
        re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError):
        return False
    return True
