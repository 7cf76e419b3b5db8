"""Members of Google's documents: in camel case, or as protocol buffers name them; both are understood."""

from __future__ import annotations

import re
from typing import Any

from onehop.errors import InvalidRequestError

_CAPITAL = re.compile(r"[A-Z]")


def member(document: dict[str, Any], name: str) -> Any:
    """The value of `name` (in camel case), or None."""
    value = document.get(name)
    if value is not None:
        return value
    return document.get(_CAPITAL.sub(lambda match: "_" + match[0].lower(), name))


def camel(name: str) -> str:
    """`function_declarations` as `functionDeclarations`."""
    if "_" not in name:
        return name
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def camels(document: dict[str, Any]) -> dict[str, Any]:
    """The same with every (own) name in camel case, without what is null."""
    return {camel(name): value for name, value in document.items() if value is not None}


def listed(value: Any, where: str) -> list[Any]:
    """A list; one object instead of it is a list of one."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise wrong(where, "a list")
    return value


def struct(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where, "an object")
    return value


def wrong(where: str, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(f"{where}: expected {wanted}", field=where)
