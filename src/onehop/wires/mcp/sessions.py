"""Which session a client's code runs in: the one that it names, or the one that belongs to its connection."""

from __future__ import annotations

from onehop import errors
from onehop.sessions import Engine
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import Caller
from onehop.sessions.calls import ToolChoice
from onehop.sessions.requests import SessionRequest

CONNECTIONS = ("mcp-session-id", "onehop-connection")
"""Headers that name a connection: the protocol's own in revisions that have sessions, and that of `onehop mcp`."""
LABEL = "mcp.session"
"""Of a session that belongs to a connection: the protocol's own id of that."""


async def choose(
    engine: Engine, named: str, connection: str, caller: Caller, tools: list[ToolChoice]
) -> SessionInfo:
    """The session, made if the connection has none yet.

    Args:
        named: its id, as the client gives it; empty for the connection's own.
        connection: empty for clients that have none; these get a session for each call.
        tools: what code of a new one may call.

    Raises:
        SessionNotFoundError, SessionEndedError: of the named one.
    """
    if named:
        return await engine.sessions.get(named, caller)
    found = own(engine, connection, caller)
    if found is not None:
        return found
    made = await create(engine, connection, caller, tools)
    first = own(engine, connection, caller)
    if first is not None and first.id != made.id:
        # Another call of the same connection made one meanwhile: the older one stays.
        await engine.sessions.delete(made.id, caller)
        return first
    return made


async def create(engine: Engine, connection: str, caller: Caller, tools: list[ToolChoice]) -> SessionInfo:
    """One more."""
    labels = {LABEL: connection} if connection else {}
    return await engine.sessions.create(SessionRequest(metadata=labels, tools=tools), caller)


def own(engine: Engine, connection: str, caller: Caller) -> SessionInfo | None:
    if not connection:
        return None
    found = engine.sessions.find({LABEL: connection}, caller)
    return min(found, key=lambda one: (one.created_at, one.id)) if found else None


async def end(engine: Engine, connection: str, caller: Caller) -> None:
    """With the connection."""
    found = own(engine, connection, caller)
    if found is not None:
        try:
            await engine.sessions.delete(found.id, caller)
        except errors.NotFoundError:
            pass  # it has ended meanwhile
