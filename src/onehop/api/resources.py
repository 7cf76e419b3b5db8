"""From a path to its handlers: one resource per path, one handler per method.

A resource is an ASGI application, which Starlette routes without wrapping: that is what makes the hot
routes as cheap as they are, and what gives every 405 the complete list of methods.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from onehop.api.asgi import Call
from onehop.errors import ForbiddenError, MethodNotAllowedError, ProblemError
from onehop.sessions.caller import SCOPES

Handler = Callable[[Call], Awaitable[None]]

PUBLIC = ""
"""The scope of what everybody may see: it says nothing about anybody."""


@dataclass(frozen=True)
class Body:
    """What a request or an answer carries. `schema` is a msgspec type, None for raw bytes or text.

    Args:
        other_types: further media types of a request's body.
    """

    description: str
    schema: type | None = None
    media_type: str = "application/json"
    example: object = None
    required: bool = True
    other_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one path: its handler, and what OpenAPI says about it.

    Args:
        scope: what a key needs to be allowed for it: `execute`, `read`, `admin`, or PUBLIC for no key at all.
            It has no default: a route that nobody has classified does not come into being.
        problems: the problems it may answer with, besides those that every route has.
        answers: by status.
        parameters: header and query parameters, as OpenAPI writes them.
        headers: of the successful answer, by name, with their meaning.
    """

    method: str
    path: str
    handler: Handler
    name: str
    tag: str
    summary: str
    scope: str = field(kw_only=True)
    description: str = ""
    body: Body | None = None
    answers: dict[int, tuple[Body, ...]] = field(default_factory=dict)
    problems: tuple[type[ProblemError], ...] = ()
    parameters: tuple[dict[str, object], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scope != PUBLIC and self.scope not in SCOPES:
            raise ValueError(f"{self.method} {self.path}: {self.scope!r} is no scope")


class Resource:
    """All methods of one path."""

    def __init__(self, operations: list[Operation]) -> None:
        self._handlers = {operation.method: (operation.handler, operation.scope) for operation in operations}
        self.methods = sorted(self._handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._handlers.get(scope["method"])
        if found is None:
            raise MethodNotAllowedError(f"this path has {', '.join(self.methods)}", allow=self.methods)
        handler, needed = found
        call = Call(scope, receive, send)
        if needed is not PUBLIC and needed not in call.caller.scopes:
            raise ForbiddenError(f"this needs a key with the scope {needed!r}", scope=needed)
        await handler(call)
