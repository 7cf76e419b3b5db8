"""Running code, and asking for executions again. Here every microsecond counts."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples, sse
from onehop.api.asgi import JSON, Call, encode_json, whole_number
from onehop.api.resources import Body, Operation
from onehop.config import MIB
from onehop.sessions import Answer, Engine, ExecuteOnceRequest, ExecuteRequest
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import decode
from onehop.sessions.run import Run

EXECUTION_HEADER = b"onehop-execution-id"
SMALL_BODY_BYTES = MIB
"""Bodies up to this size are not counted against the budget."""
BUFFERED_BODIES = 8
"""So many bodies of the largest size may be in memory at once."""

_decode_once = msgspec.json.Decoder(ExecuteOnceRequest)
_decode_in_session = msgspec.json.Decoder(ExecuteRequest)

_EVENTS = Body(
    "Numbered events while it happens: `stdout` and `stderr` (TextEvent), `result` (ResultEvent), `error` "
    "(ErrorInfo), `gap` (GapEvent: events that are no longer stored) and last `end` (EndEvent). "
    "Comments keep the connection alive.",
    media_type="text/event-stream",
    example=examples.EVENTS,
)
_ANSWERS: dict[int, tuple[Body, ...]] = {
    200: (Body("The code ran; `status` says how it ended.", Answer, example=examples.ANSWER), _EVENTS)
}
_EXECUTE_PROBLEMS = (
    errors.InvalidJsonError,
    errors.InvalidRequestError,
    errors.InvalidPathError,
    errors.NotARegularFileError,
    errors.ConflictError,
    errors.TooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.TooManyError,
    errors.QuotaExceededError,
)
_ACCEPT: dict[str, object] = {
    "name": "Accept",
    "in": "header",
    "description": "`text/event-stream` for events instead of one answer.",
    "schema": {"type": "string"},
}


class Executions:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._body_bytes = engine.settings.body_bytes
        self._budget_bytes = BUFFERED_BODIES * self._body_bytes

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST",
                "/api/sessions/{session_id}/execute",
                self.execute,
                "executeInSession",
                "Executions",
                "Run code in a session",
                "Variables, imports and files of earlier executions are there. One execution runs at a time.",
                scope=EXECUTE,
                body=Body("The code and its limits.", ExecuteRequest, example=examples.EXECUTE),
                answers=_ANSWERS,
                problems=(
                    *_EXECUTE_PROBLEMS,
                    errors.SessionNotFoundError,
                    errors.SessionBusyError,
                    errors.SessionEndedError,
                ),
                parameters=(_ACCEPT,),
                headers={EXECUTION_HEADER.decode(): "id of the execution"},
            ),
            Operation(
                "POST",
                "/api/execute",
                self.execute_once,
                "execute",
                "Executions",
                "Run code once",
                "The code gets a sandbox of its own, which is gone afterwards.",
                scope=EXECUTE,
                body=Body(
                    "The code, its limits and its sandbox.", ExecuteOnceRequest, example=examples.EXECUTE_ONCE
                ),
                answers=_ANSWERS,
                problems=(*_EXECUTE_PROBLEMS, errors.UnknownEnvironmentError),
                parameters=(_ACCEPT,),
                headers={EXECUTION_HEADER.decode(): "id of the execution"},
            ),
            Operation(
                "GET",
                "/api/executions/{execution_id}",
                self.get,
                "getExecution",
                "Executions",
                "The answer again",
                "While it runs, the status is `running` and the output is what there is so far.",
                scope=READ,
                answers={200: (Body("The answer.", Answer, example=examples.ANSWER),)},
                problems=(errors.ExecutionNotFoundError,),
            ),
            Operation(
                "GET",
                "/api/executions/{execution_id}/events",
                self.events,
                "getExecutionEvents",
                "Executions",
                "The events again, and those to come",
                scope=READ,
                answers={200: (_EVENTS,)},
                problems=(errors.ExecutionNotFoundError, errors.InvalidRequestError),
                parameters=(
                    {
                        "name": "after",
                        "in": "query",
                        "description": "Number of the last event that is known already.",
                        "schema": {"type": "integer", "minimum": 0, "default": 0},
                    },
                    {
                        "name": "Last-Event-ID",
                        "in": "header",
                        "description": "Like `after`, as browsers send it when they connect again.",
                        "schema": {"type": "integer", "minimum": 0},
                    },
                ),
            ),
        ]

    async def execute(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode_in_session, await self._body(call))
        await self._answer(
            call, await self._engine.executions.start(call.path["session_id"], request, call.caller)
        )

    async def execute_once(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode_once, await self._body(call))
        await self._answer(call, await self._engine.executions.start_once(request, call.caller))

    async def get(self, call: Call) -> None:
        answer = await self._engine.executions.answer(call.path["execution_id"], call.caller)
        await call.answer(answer if isinstance(answer, bytes) else encode_json(answer))

    async def events(self, call: Call) -> None:
        after = call.query_int("after")
        if after is None:
            last = call.header(b"last-event-id")
            after = whole_number(last.decode("ascii", "replace"), "Last-Event-ID") if last else 0
        execution_id = call.path["execution_id"]
        events = await self._engine.executions.events(
            execution_id, after, call.caller, pause_s=sse.KEEP_ALIVE_S
        )
        await sse.stream(call, events, headers=[(EXECUTION_HEADER, execution_id.encode())])

    async def _answer(self, call: Call, run: Run) -> None:
        name = (EXECUTION_HEADER, run.id.encode())
        if sse.wanted(call):
            await sse.stream(call, run.follow_encoded(0, pause_s=sse.KEEP_ALIVE_S), headers=[name])
            return
        await run.wait()
        await call.answer(run.document(), headers=(JSON, name))

    async def _body(self, call: Call) -> bytes | bytearray:
        """The body; many large ones at once wait for nobody, they are refused."""
        length = call.declared_length(self._body_bytes)
        if 0 <= length <= SMALL_BODY_BYTES:
            return await call.body(SMALL_BODY_BYTES)
        reserved = self._body_bytes if length < 0 else length
        if reserved > self._budget_bytes:
            raise errors.TooManyError("too many large requests are being received; try again in a moment")
        self._budget_bytes -= reserved
        try:
            return await call.body(self._body_bytes)
        finally:
            self._budget_bytes += reserved
