"""The application: every route, behind the guard. Other protocols are mounted into the same application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from onehop import __version__
from onehop.api import docs, openapi
from onehop.api.asgi import Call, encode_json
from onehop.api.executions import Executions
from onehop.api.files import Files
from onehop.api.guard import Guard
from onehop.api.resources import Operation, Resource
from onehop.api.service import Service
from onehop.api.sessions import Sessions
from onehop.config import Settings
from onehop.errors import NotFoundError
from onehop.sessions import Engine


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """The ASGI application for an engine that has been entered."""
    operations = [
        *Executions(engine).operations(),
        *Sessions(engine).operations(),
        *Files(engine).operations(),
        *Service(engine).operations(),
    ]
    app = FastAPI(
        title="onehop",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Guard, settings=settings)
    app.add_exception_handler(HTTPException, _not_found)
    app.router.routes.extend(routes(operations))
    described = encode_json(openapi.document(operations, settings))

    async def description(call: Call) -> None:
        await call.answer(described)

    pages = {**docs.PAGES, "/openapi.json": description}
    for path, handler in pages.items():
        page = Operation("GET", path, handler, handler.__name__, "", "")
        app.router.routes.append(Route(path, Resource([page])))
    return app


def routes(operations: list[Operation]) -> list[Route]:
    """One route per path, in the order of first mention: the hot ones come first."""
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    return [Route(path, Resource(several)) for path, several in by_path.items()]


async def _not_found(request: Request, error: Exception) -> Response:
    # Raised on to the guard, which answers every problem.
    raise NotFoundError(f"there is nothing at {str(request.scope['path'])[:200]!r}") from error
