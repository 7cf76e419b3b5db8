"""Lists a page at a time, as OpenAI's clients turn them: `after` is the id of the last object they have seen.

Ids begin with the time of their making, so that a place in a list is known even when what stood there is gone:
clients delete what they list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from onehop.api.asgi import Call
from onehop.errors import InvalidRequestError


class Named(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Named)


def limit_of(call: Call, *, default: int, most: int) -> int:
    """The query's `limit`. Raises InvalidRequestError."""
    limit = call.query_int("limit")
    if limit is None:
        return default
    if not 1 <= limit <= most:
        raise InvalidRequestError(f"limit: from 1 to {most}, got {limit}", field="limit")
    return limit


def ascending(call: Call, *, default: bool = False) -> bool:
    """The query's `order`. Raises InvalidRequestError."""
    order = call.query("order")
    if order not in ("", "asc", "desc"):
        raise InvalidRequestError(f"order: expected asc or desc, got {order[:40]!r}", field="order")
    return order == "asc" if order else default


def page(call: Call, objects: Sequence[T], *, default: int = 20, most: int = 100) -> tuple[list[T], bool]:
    """The page that a query asks for, by ids, and whether there is more. Raises InvalidRequestError."""
    limit, upwards, after = limit_of(call, default=default, most=most), ascending(call), call.query("after")
    found = sorted(objects, key=lambda one: one.id, reverse=not upwards)
    if after:
        found = [one for one in found if (one.id > after if upwards else one.id < after)]
    return found[:limit], len(found) > limit


def document(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """The list object."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
