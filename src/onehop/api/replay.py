"""Requests that a client may send again: the key they carry, and the header of an answer given again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from onehop.api.asgi import Call, Header
from onehop.sessions import Engine
from onehop.sessions.claims import Replay

T = TypeVar("T")

REPLAYED: Header = (b"idempotency-replayed", b"true")
PARAMETER: dict[str, object] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request is carried out once; sent again, it is answered again. "
    "While the first one is under way: 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


async def once(
    call: Call,
    engine: Engine,
    body: bytes | bytearray,
    made: str,
    begin: Callable[[], Awaitable[T]],
    *,
    session: str | None = None,
) -> T | Replay:
    """What `begin` gives; with an Idempotency-Key, what came of it the first time.

    Args:
        made: id of the execution or session that `begin` makes.
        session: of the execution.
    """
    key = call.header(b"idempotency-key")
    if not key:
        return await begin()
    request = (call.scope["method"].encode(), call.scope["path"].encode(), body)
    return await engine.claims.once(call.caller, key.decode("latin-1"), request, made, begin, session=session)
