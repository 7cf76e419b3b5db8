"""The application: every route, behind the guard. Other protocols are mounted into the same application.

The native routes are looked up before FastAPI's own stack: its layers cost a request 45 µs of CPU time,
more than half of what /healthz costs without them. What is not native goes on to FastAPI.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from onehop import __version__
from onehop.api import docs, openapi
from onehop.api.archives import Archives
from onehop.api.asgi import Call, encode_json, problem_body
from onehop.api.authentication import Authentication
from onehop.api.batches import Batches
from onehop.api.commands import Commands
from onehop.api.contexts import Contexts
from onehop.api.environments import Environments
from onehop.api.executions import Executions
from onehop.api.files import Files
from onehop.api.guard import Guard
from onehop.api.keys import Keys
from onehop.api.lambdas import Lambdas
from onehop.api.metrics import Metrics
from onehop.api.mounts import Mount, Mounts
from onehop.api.resources import PUBLIC, Operation, Resource
from onehop.api.service import Service
from onehop.api.sessions import Sessions
from onehop.api.tools import Tools
from onehop.config import Settings
from onehop.errors import ForbiddenError, NotFoundError
from onehop.lambdas.lane import Lane
from onehop.sessions import Engine
from onehop.tools.registry import Registry

HEALTH = "/healthz"
"""Answers before the engine is ready; everything else waits for it."""


class App(FastAPI):
    """FastAPI with native routes in front.

    Attributes:
        operations: what the native routes do.
        lane: of the lambdas; to be entered inside of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        registry: Registry | None = None,
        mounts: list[Mount] | None = None,
    ) -> None:
        super().__init__(
            title="onehop",
            version=__version__,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        metrics = Metrics(engine)
        executions = Executions(engine)
        self.lane = Lane(engine)
        self.operations = [
            *executions.operations(),
            *Batches(engine, executions, self.lane).operations(),
            *Lambdas(engine, self.lane).operations(),
            *Sessions(engine).operations(),
            *Contexts(engine).operations(),
            *Commands(engine, executions).operations(),
            *Files(engine).operations(),
            *Archives(engine).operations(),
            *Tools(registry).operations(),
            *Keys(engine).operations(),
            *Environments(engine).operations(),
            *Service(engine).operations(),
            *metrics.operations(),
        ]
        self._engine = engine
        description = encode_json(openapi.document(self.operations, settings))

        async def describe(call: Call) -> None:
            await call.answer(description)

        pages = [
            Operation("GET", path, handler, "", "", "", scope=PUBLIC)
            for path, handler in {**docs.PAGES, "/openapi.json": describe}.items()
        ]
        mounts = mounts or []
        everything = [*self.operations, *pages, *(one for mount in mounts for one in mount.operations)]
        self._native = _routes(everything)
        self._sockets = [
            (WebSocketRoute(one.path, _nowhere), one) for mount in mounts for one in mount.sockets
        ]
        public = {one.path.partition("{")[0] for one in everything if one.scope == PUBLIC}
        self._mounts = beside = Mounts(mounts)
        authentication = Authentication(engine.keyring, public, beside)
        self._guard = Guard(self._route, settings, authentication, metrics.requests, beside)
        self.add_exception_handler(HTTPException, _not_found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guard(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._engine.wait_ready()
        for route, socket in self._sockets:
            match, child = route.matches(scope)
            if match is Match.FULL:
                scope.update(child)
                scope["template"] = route.path
                call = Call(scope, receive, send)
                if socket.scope not in call.caller.scopes:
                    raise ForbiddenError(
                        f"this needs a key with the scope {socket.scope!r}", scope=socket.scope
                    )
                await socket.handler(call)
                return
        raise NotFoundError("there is no websocket here")

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] == "http":
            if not self._engine.ready.is_set() and scope["path"] != HEALTH:
                await self._engine.wait_ready()
            for route in self._native:
                match, child = route.matches(scope)
                if match is Match.FULL:
                    scope.update(child)
                    scope["template"] = route.path
                    await route.app(scope, receive, send)
                    return
            if self._mounts.of(scope["path"]) is not None:
                raise NotFoundError(f"there is nothing at {str(scope['path'])[:200]!r}")
        await super().__call__(scope, receive, send)


def create_app(
    engine: Engine,
    settings: Settings,
    registry: Registry | None = None,
    mounts: list[Mount] | None = None,
) -> App:
    """The ASGI application for an engine, its registered tools and other protocols.

    Requests wait until the engine has been entered.
    """
    return App(engine, settings, registry, mounts)


async def _nowhere(_: object) -> None:
    """Never called: such a route only matches."""


def _routes(operations: list[Operation]) -> list[Route]:
    """One route per path, in the order of first mention: the hot ones come first."""
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    return [Route(path, Resource(several)) for path, several in by_path.items()]


async def _not_found(request: Request, error: Exception) -> Response:
    # Answered here: FastAPI's own stack would turn an exception into its 500 before the guard sees it.
    problem = NotFoundError(f"there is nothing at {str(request.scope['path'])[:200]!r}")
    body = problem_body(problem, request.scope["request_id"])
    return Response(body, status_code=problem.status, media_type="application/problem+json")
