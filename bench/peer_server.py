"""RestrictedPython and Monty behind the same HTTP stack as onehop's hot routes: Starlette, uvicorn, uvloop.

A process of its own: `python -m bench.peer_server PORT SITE_PACKAGES`. The second argument is where pandas
is, imported at the start, as a zygote does. It must do no more per request than a thin server would.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pydantic_monty
import uvicorn
from RestrictedPython import compile_restricted_eval, compile_restricted_exec, safe_builtins
from RestrictedPython.Eval import default_guarded_getitem, default_guarded_getiter
from RestrictedPython.Guards import full_write_guard, guarded_iter_unpack_sequence, safer_getattr
from RestrictedPython.PrintCollector import PrintCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ALLOWED_MODULES = ("numpy", "pandas")


def _import(name: str, *arguments: Any) -> Any:
    if name.partition(".")[0] not in ALLOWED_MODULES:
        raise ImportError(f"{name} is not allowed")
    return importlib.import_module(name)


def _namespace() -> dict[str, Any]:
    return {
        "__builtins__": {**safe_builtins, "__import__": _import},
        "_print_": PrintCollector,
        "_getattr_": safer_getattr,
        "_getitem_": default_guarded_getitem,
        "_getiter_": default_guarded_getiter,
        "_iter_unpack_sequence_": guarded_iter_unpack_sequence,
        "_write_": full_write_guard,
    }


def _answer(stdout: str, value: Any) -> Response:
    results = [] if value is None else [{"text/plain": repr(value)}]
    document = {"status": "ok", "stdout": stdout, "stderr": "", "results": results, "error": None}
    return Response(msgspec.json.encode(document), media_type="application/json")


def _run_restricted(code: str, namespace: dict[str, Any]) -> Response:
    compiled = compile_restricted_eval(code)
    if not compiled.errors:
        return _answer("", eval(compiled.code, namespace))  # noqa: S307 - that is what this peer is
    compiled = compile_restricted_exec(code)
    if compiled.errors:
        raise SyntaxError(compiled.errors)
    exec(compiled.code, namespace)
    printed = namespace.pop("_print", None)
    return _answer(printed() if printed else "", None)


class Server:
    """The routes, and the sessions that clients hold."""

    def __init__(self) -> None:
        self._pool = pydantic_monty.AsyncMonty()
        self._numbers = itertools.count(1)
        self._restricted: dict[str, dict[str, Any]] = {}
        self._monty: dict[str, pydantic_monty.AsyncMontySession] = {}
        self._stack = contextlib.AsyncExitStack()

    def application(self) -> Starlette:
        routes = {
            "/noop": self.noop,
            "/restricted": self.restricted,
            "/restricted/sessions": self.restricted_session,
            "/monty": self.monty,
            "/monty/sessions": self.monty_session,
        }
        return Starlette(
            routes=[Route(path, handler, methods=["POST"]) for path, handler in routes.items()],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, application: Starlette) -> AsyncIterator[None]:
        async with self._stack:
            await self._stack.enter_async_context(self._pool)
            yield

    async def noop(self, request: Request) -> Response:
        msgspec.json.decode(await request.body())
        return _answer("", 2)

    async def restricted(self, request: Request) -> Response:
        wanted = msgspec.json.decode(await request.body())
        session = wanted.get("session")
        return _run_restricted(wanted["code"], self._restricted[session] if session else _namespace())

    async def restricted_session(self, request: Request) -> Response:
        name = str(next(self._numbers))
        self._restricted[name] = _namespace()
        return Response(msgspec.json.encode({"id": name}), media_type="application/json")

    async def monty(self, request: Request) -> Response:
        wanted = msgspec.json.decode(await request.body())
        printed = pydantic_monty.CollectString()
        if wanted.get("session"):
            session = self._monty[wanted["session"]]
            value = await session.feed_run(wanted["code"], print_callback=printed)
        else:
            async with self._pool.checkout() as session:
                value = await session.feed_run(wanted["code"], print_callback=printed)
        return _answer(printed.output, value)

    async def monty_session(self, request: Request) -> Response:
        name = str(next(self._numbers))
        self._monty[name] = await self._stack.enter_async_context(self._pool.checkout())
        return Response(msgspec.json.encode({"id": name}), media_type="application/json")


async def _serve(port: int) -> None:
    config = uvicorn.Config(
        Server().application(),
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
    await uvicorn.Server(config).serve()


def main() -> None:
    if sys.argv[2]:
        # Appended: the server's own packages come first, as in any server that allows pandas.
        sys.path.append(sys.argv[2])
        for module in ALLOWED_MODULES:
            importlib.import_module(module)
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
