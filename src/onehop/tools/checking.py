"""Whether arguments are valid for a JSON Schema, within a bounded time. Schemas and arguments may be hostile.

No reference is ever followed out of a schema, and patterns run in linear time. What would cost too much to
check here is left to the tool's own side, which has to check it anyway.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from onehop.errors import InvalidRequestError

MAX_SCHEMA_BYTES = 64 * 1024
MAX_NODES = 5000
"""A schema is checked against as if its references were written out; with more nodes than that it is not."""
MAX_WORK = 4_000_000
"""Nodes of a schema times bytes of arguments, about ten nanoseconds each."""
MAX_PROBLEMS = 5
MAX_DEPTH = 100

_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
_encode = msgspec.msgpack.Encoder().encode


class Checker:
    """A compiled schema.

    Raises:
        InvalidRequestError: it is no JSON Schema of an object, or too large.
    """

    __slots__ = ("_max_bytes", "_validator")

    def __init__(self, schema: dict[str, Any], field: str) -> None:
        kind = schema.get("type", "object")
        if kind != "object":
            raise _invalid(field, f'arguments are an object, so its type is "object", not {str(kind)[:40]!r}')
        try:
            size = len(msgspec.json.encode(schema))
            self._validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise _invalid(field, f"no valid JSON Schema: {str(error.message)[:300]}") from None
        except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
            raise _invalid(field, f"no valid JSON Schema: {str(error)[:300]}") from None
        if size > MAX_SCHEMA_BYTES:
            raise _invalid(field, f"a schema of {size} bytes; at most {MAX_SCHEMA_BYTES}")
        nodes = _nodes(schema)
        self._max_bytes = MAX_WORK // nodes if nodes <= MAX_NODES else 0

    def problems(self, arguments: dict[str, Any]) -> str:
        """What is wrong with them, in words; nothing when they are valid or cannot be checked here."""
        if not self._max_bytes or (self._max_bytes < 4 << 20 and len(_encode(arguments)) > self._max_bytes):
            return ""
        if self._validator.is_valid(arguments):
            return ""
        found = []
        for error in islice(self._validator.iter_errors(arguments), MAX_PROBLEMS):
            where = "".join(
                f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path
            )
            found.append(f"{where[1:]}: {error.message[:300]}" if where else error.message[:300])
        return "; ".join(found) or "they do not match the tool's parameters"


def _invalid(field: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: {what}", field=field)


def _nodes(schema: dict[str, Any]) -> int:
    """How many there are with all references written out; more than MAX_NODES when that has no end."""
    left = MAX_NODES + 1
    stack: list[Any] = [schema]
    while stack and left > 0:
        node = stack.pop()
        left -= 1
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            stack.extend(value for key, value in node.items() if key not in ("$defs", "definitions"))
            for key in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(node.get(key), str):
                    target = _target(schema, node[key])
                    if target is None:
                        return MAX_NODES + 1  # an anchor, or by an id: not followed here
                    stack.append(target)
    return MAX_NODES + 1 - left


def _target(schema: dict[str, Any], reference: str) -> Any:
    if reference == "#":
        return schema
    if not reference.startswith("#/"):
        return None
    node: Any = schema
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        else:
            return None
    return node
