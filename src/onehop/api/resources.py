"""From a path to its handlers: one resource per path, one handler per method.

A resource is an ASGI application, which Starlette routes without wrapping: that is what makes the hot
routes as cheap as they are, and what gives every 405 the complete list of methods.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from onehop.api.asgi import Call
from onehop.errors import MethodNotAllowedError, ProblemError

Handler = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Body:
    """What a request or an answer carries. `schema` is a msgspec type, None for raw bytes or text."""

    description: str
    schema: type | None = None
    media_type: str = "application/json"
    example: object = None
    required: bool = True


@dataclass(frozen=True)
class Operation:
    """One method of one path: its handler, and what OpenAPI says about it.

    Args:
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
    description: str = ""
    body: Body | None = None
    answers: dict[int, tuple[Body, ...]] = field(default_factory=dict)
    problems: tuple[type[ProblemError], ...] = ()
    parameters: tuple[dict[str, object], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


class Resource:
    """All methods of one path."""

    def __init__(self, operations: list[Operation]) -> None:
        self._handlers = {operation.method: operation.handler for operation in operations}
        self.methods = sorted(self._handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise MethodNotAllowedError(f"this path has {', '.join(self.methods)}", allow=self.methods)
        await handler(Call(scope, receive, send))
