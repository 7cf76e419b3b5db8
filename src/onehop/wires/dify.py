"""dify's sandbox: one piece of Python, run to its end in a sandbox of its own.

Source: https://github.com/langgenius/dify-sandbox (internal/controller, internal/service, internal/types). Its
answers have the status 200 also when something was wrong; `code` tells. dify always asks for the network, so that
wish alone refuses nothing: code that connects fails by itself, as sandboxes here have none.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from onehop import errors
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.mounts import Mount, Refusal
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import ExecuteOnceRequest, decode
from onehop.wires.process import outcome, retry_after

PREFIX = "/dify"
TAG = "dify"
LANGUAGE = "python3"
HTTP_STATUS = {401: 401, 403: 403, 429: 503}
"""Of our statuses; every other refusal is told by `code` alone."""


class Run(msgspec.Struct):
    """Code and its language. `preload` runs before it."""

    language: Annotated[str, Meta(min_length=1)]
    code: Annotated[str, Meta(min_length=1)]
    preload: str = ""
    enable_network: bool = False


_decode = msgspec.json.Decoder(Run)


def mount(engine: Engine) -> Mount:
    """The protocol's routes."""
    return Mount(PREFIX, Dify(engine).operations(), _refuse)


def _refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    status = HTTP_STATUS.get(error.status, 404 if isinstance(error, errors.NotFoundError) else 200)
    if isinstance(error, errors.UnsupportedParameterError):
        status = 400
    code = -400 if isinstance(error, errors.InvalidRequestError) else -error.status
    body = {"code": code, "message": error.detail, "data": None, "request_id": request_id}
    headers: list[Header] = [(b"content-type", b"application/json"), *retry_after(error)]
    return Refusal(status, encode_json(body), tuple(headers))


class Dify:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        packages = PREFIX + "/v1/sandbox/dependencies"
        return [
            Operation("GET", PREFIX + "/health", self.health, "difyHealth", TAG, "Whether it serves", scope=READ),
            Operation(
                "POST", PREFIX + "/v1/sandbox/run", self.run, "difyRun", TAG, "Run code", scope=EXECUTE,
                body=Body("The code.", Run),
            ),
            Operation("GET", packages, self.packages, "difyDependencies", TAG, "The packages", scope=READ),
            Operation("GET", packages + "/refresh", self.packages, "difyRefresh", TAG, "The packages", scope=READ),
        ]  # fmt: skip

    async def health(self, call: Call) -> None:
        await call.answer(b'"ok"')

    async def run(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode, await call.body(self._engine.settings.body_bytes))
        _check(request.language)
        code = f"{request.preload}\n{request.code}" if request.preload.strip() else request.code
        asked = ExecuteOnceRequest(code=code, on_disconnect="interrupt")
        run = await self._engine.executions.start_once(asked, call.caller)
        if await call.gone_before(run.done):
            await self._engine.executions.stop(run)
            return
        done = outcome(await run.wait(), results=False)
        error = f"process exited with code {done.return_code}\n{done.stderr}" if done.return_code else ""
        data = {
            "stdout": done.stdout,
            "stderr": done.stderr,
            "error": error,
            "exit_code": done.return_code,
        }
        await call.answer(encode_json({"code": 0, "message": "success", "data": data}))

    async def packages(self, call: Call) -> None:
        _check(call.query("language") or LANGUAGE)
        wanted = self._engine.settings.environment
        found = [one for one in await self._engine.environments() if one.name == wanted]
        packages = [
            {"name": name, "version": version} for one in found for name, version in one.packages.items()
        ]
        answer = {"code": 0, "message": "success", "data": {"dependencies": packages}}
        await call.answer(encode_json(answer))


def _check(language: str) -> None:
    if language != LANGUAGE:
        raise errors.UnsupportedParameterError(
            f"unsupported language {language[:40]!r}: there is {LANGUAGE} here", field="language"
        )
