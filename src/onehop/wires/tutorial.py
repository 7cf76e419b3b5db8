"""`POST /execute`, as tutorials build it with FastAPI and `exec`: code in, its variable `output` back.

The code runs in a sandbox of its own. What it prints is not answered, as there; what fails is an answer of 200 with
`error`. Requests that are none get FastAPI's own shape of errors.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from onehop import errors
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.mounts import Mount, Refusal
from onehop.api.resources import Body, Operation
from onehop.lambdas import program
from onehop.sessions import Engine
from onehop.sessions.answers import Answer
from onehop.sessions.caller import EXECUTE
from onehop.sessions.requests import ExecuteOnceRequest, decode
from onehop.wires.process import retry_after

PATH = "/execute"
TAG = "Tutorial"
# In a list, so that an `output` that can be called is not.
LOOK = '\n[globals().get("output")]'


class Code(msgspec.Struct):
    code: str | None = None


_decode = msgspec.json.Decoder(Code)


def mount(engine: Engine) -> Mount:
    """The route."""
    return Mount(PATH, Tutorial(engine).operations(), _refuse)


def _refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    detail: Any = error.detail
    status = error.status
    if isinstance(error, errors.InvalidRequestError):
        status = 422
        place = ["body", error.extra["field"]] if error.extra.get("field") else ["body"]
        detail = [{"type": "value_error", "loc": place, "msg": error.detail, "input": None}]
    headers: list[Header] = [(b"content-type", b"application/json"), *retry_after(error)]
    return Refusal(status, encode_json({"detail": detail, "request_id": request_id}), tuple(headers))


class Tutorial:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST",
                PATH,
                self.execute,
                "tutorialExecute",
                TAG,
                "Run code, give its variable `output`",
                scope=EXECUTE,
                body=Body("The code, if the query has none.", Code, required=False),
                parameters=(
                    {"name": "code", "in": "query", "description": "The code.", "schema": {"type": "string"}},
                ),
            )
        ]

    async def execute(self, call: Call) -> None:
        body = await call.body(self._engine.settings.body_bytes)
        code = call.query("code")
        if body:
            call.require_type(b"application/json")
            code = decode(_decode, body).code or code
        if not code:
            raise errors.InvalidRequestError("code: give it as ?code=… or as JSON", field="code")
        asked = ExecuteOnceRequest(
            code=program.sandbox_source(code + LOOK, "[[], {}]"), on_disconnect="interrupt"
        )
        run = await self._engine.executions.start_once(asked, call.caller)
        if await call.gone_before(run.done):
            await self._engine.executions.stop(run)
            return
        await call.answer(encode_json(_told(await run.wait())))


def _told(answer: Answer) -> dict[str, Any]:
    shown = [one[program.MIME] for one in answer.results if program.MIME in one]
    found = json.loads(shown[-1]) if shown else {}
    if answer.status == "ok" and "value" in found:
        return {"output": json.loads(found["value"])[0]}
    if answer.status == "ok" and "refused" in found:
        return {"error": f"output is no JSON: {found['refused']}"}
    if "error" in found and answer.status == "error":
        return {"error": found["error"]["value"] or found["error"]["name"]}
    if answer.error is not None:
        return {"error": answer.error.value or answer.error.name}
    return {"error": answer.reason or answer.status}
