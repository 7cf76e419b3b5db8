"""Running code, and asking for executions again. Here every microsecond counts."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples, replay, sse
from onehop.api.asgi import JSON, Call, encode_json, whole_number
from onehop.api.resources import Body, Operation
from onehop.config import MIB
from onehop.sessions import Answer, Engine, ExecuteOnceRequest, ExecuteRequest
from onehop.sessions.answers import ToolCallList
from onehop.sessions.audit import tool_call_list
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.calls import ToolResults
from onehop.sessions.claims import Replay
from onehop.sessions.requests import decode
from onehop.sessions.run import Run, new_id

EXECUTION_HEADER = b"onehop-execution-id"
MAX_WAIT_S = 60
SMALL_BODY_BYTES = MIB
"""Bodies up to this size are not counted against the budget."""
BUFFERED_BODIES = 8
"""So many bodies of the largest size may be in memory at once."""

_decode_once = msgspec.json.Decoder(ExecuteOnceRequest)
_decode_in_session = msgspec.json.Decoder(ExecuteRequest)
_decode_results = msgspec.json.Decoder(ToolResults)

EVENTS = Body(
    "Numbered events while it happens: `stdout` and `stderr` (TextEvent), `result` (ResultEvent), `error` "
    "(ErrorInfo), `tools_asked`, `tools_loaded`, `tool_call` (ToolCallEvent), `tool_result` (ToolResultEvent), "
    "`tool_call_required` (ToolCallRequiredEvent: it waits for its client; the stream of a POST ends there), "
    "`gap` (GapEvent: events that are no longer stored) and last `end` (EndEvent). "
    "Comments keep the connection alive.",
    media_type="text/event-stream",
    example=examples.EVENTS,
)
_ANSWERS: dict[int, tuple[Body, ...]] = {
    200: (Body("The code ran; `status` says how it ended.", Answer, example=examples.ANSWER), EVENTS)
}
EXECUTE_PROBLEMS = (
    errors.InvalidJsonError,
    errors.InvalidRequestError,
    errors.InvalidPathError,
    errors.NotARegularFileError,
    errors.ConflictError,
    errors.TooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.TooManyError,
    errors.QuotaExceededError,
    errors.IdempotencyKeyReusedError,
    errors.IdempotencyInProgressError,
)
HEADERS = {
    EXECUTION_HEADER.decode(): "id of the execution",
    replay.REPLAYED[0].decode(): "`true` when the request came before and this is its answer again",
}
ACCEPT: dict[str, object] = {
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
        self._reserved_bytes: dict[str, int] = {}
        """By owner."""

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
                    *EXECUTE_PROBLEMS,
                    errors.SessionNotFoundError,
                    errors.SessionBusyError,
                    errors.SessionEndedError,
                ),
                parameters=(ACCEPT, replay.PARAMETER),
                headers=HEADERS,
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
                problems=(*EXECUTE_PROBLEMS, errors.UnknownEnvironmentError),
                parameters=(ACCEPT, replay.PARAMETER),
                headers=HEADERS,
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
                problems=(errors.ExecutionNotFoundError, errors.InvalidRequestError),
                parameters=(
                    {
                        "name": "wait_s",
                        "in": "query",
                        "description": f"Seconds to wait for the end, at most {MAX_WAIT_S}.",
                        "schema": {"type": "integer", "minimum": 0, "default": 0},
                    },
                ),
            ),
            Operation(
                "POST",
                "/api/executions/{execution_id}/tool_results",
                self.tool_results,
                "submitToolResults",
                "Executions",
                "Answer calls of the client's tools, or approve calls",
                "The execution goes on where it stopped; the answer is like that of its start, with all output so "
                "far. All results are checked before any is used. Calls that are left out stay pending.",
                scope=EXECUTE,
                body=Body("Results of pending calls.", ToolResults, example=examples.TOOL_RESULTS),
                answers=_ANSWERS,
                headers=HEADERS,
                problems=(
                    errors.ExecutionNotFoundError,
                    errors.CallNotPendingError,
                    errors.InvalidJsonError,
                    errors.InvalidRequestError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                    errors.TooManyError,
                    errors.IdempotencyKeyReusedError,
                    errors.IdempotencyInProgressError,
                ),
                parameters=(ACCEPT, replay.PARAMETER),
            ),
            Operation(
                "GET",
                "/api/executions/{execution_id}/tool_calls",
                self.tool_calls,
                "listToolCalls",
                "Executions",
                "The calls of tools that it has made: the audit",
                "Calls that have ended, in the order of their starts, at most 1000 from `after` on.",
                scope=READ,
                answers={200: (Body("The calls.", ToolCallList, example=examples.TOOL_CALLS),)},
                problems=(errors.ExecutionNotFoundError, errors.InvalidRequestError),
                parameters=(
                    {
                        "name": "after",
                        "in": "query",
                        "description": "Number of the last call that is known already.",
                        "schema": {"type": "integer", "minimum": 0, "default": 0},
                    },
                ),
            ),
            Operation(
                "GET",
                "/api/executions/{execution_id}/events",
                self.events,
                "getExecutionEvents",
                "Executions",
                "The events again, and those to come",
                scope=READ,
                answers={200: (EVENTS,)},
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

    async def tool_results(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await self.body(call)
        answers = decode(_decode_results, body).results
        execution_id = call.path["execution_id"]

        async def begin() -> tuple[Run, int]:
            return await self._engine.executions.tool_results(execution_id, answers, call.caller)

        given = await replay.once(call, self._engine, body, "", begin)
        if isinstance(given, Replay):
            await self._answer_again(call, execution_id)
            return
        run, last = given
        await self.answer(call, run, interrupt=False, after=last)

    async def tool_calls(self, call: Call) -> None:
        rows = await self._engine.executions.tool_calls(
            call.path["execution_id"], call.caller, after=call.query_int("after") or 0
        )
        await call.answer(encode_json(tool_call_list(rows)))

    async def execute(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await self.body(call)
        request = decode(_decode_in_session, body)
        session, name = call.path["session_id"], new_id("exe")

        async def begin() -> Run:
            return await self._engine.executions.start(session, request, call.caller, name=name)

        run = await replay.once(call, self._engine, body, name, begin, session=session)
        await self.answer(call, run, interrupt=request.on_disconnect == "interrupt")

    async def execute_once(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await self.body(call)
        request = decode(_decode_once, body)
        name = new_id("exe")

        async def begin() -> Run:
            return await self._engine.executions.start_once(request, call.caller, name=name)

        run = await replay.once(call, self._engine, body, name, begin)
        await self.answer(call, run, interrupt=request.on_disconnect == "interrupt")

    async def get(self, call: Call) -> None:
        wait_s = min(call.query_int("wait_s") or 0, MAX_WAIT_S)
        answer = await self._engine.executions.answer(call.path["execution_id"], call.caller, wait_s=wait_s)
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

    async def answer(self, call: Call, run: Run | Replay, *, interrupt: bool, after: int = 0) -> None:
        """Answers when it has ended or waits for its client, or with its events as they come until then.

        Args:
            interrupt: the execution is not to go on without the client.
            after: number of the last event that the client knows.
        """
        if isinstance(run, Replay):
            await self._answer_again(call, run.made)
            return
        name = (EXECUTION_HEADER, run.id.encode())
        call.scope["execution"] = run.id
        try:
            if sse.wanted(call):
                events = run.follow_encoded(after, pause_s=sse.KEEP_ALIVE_S, until_turn=True)
                await sse.stream(call, events, headers=[name])
                return
            if interrupt and await call.gone_before(run.turn()):
                return
            await run.wait()
            await call.answer(run.document(), headers=(JSON, name))
        finally:
            if interrupt and run.end is None and not run.waits:
                await self._engine.executions.stop(run)

    async def _answer_again(self, call: Call, execution_id: str) -> None:
        answer = await self._engine.executions.answer(execution_id, call.caller)
        if not isinstance(answer, bytes):
            if answer.status == "running":
                raise errors.IdempotencyInProgressError(
                    "the same request is being carried out; wait for its end", execution=execution_id
                )
            answer = encode_json(answer)
        headers = [(EXECUTION_HEADER, execution_id.encode()), replay.REPLAYED]
        if sse.wanted(call):
            events = await self._engine.executions.events(
                execution_id, 0, call.caller, pause_s=sse.KEEP_ALIVE_S
            )
            await sse.stream(call, events, headers=headers)
            return
        await call.answer(answer, headers=(JSON, *headers))

    async def body(self, call: Call) -> bytes | bytearray:
        """The body; many large ones at once wait for nobody, they are refused."""
        length = call.declared_length(self._body_bytes)
        if 0 <= length <= SMALL_BODY_BYTES:
            return await call.body(SMALL_BODY_BYTES)
        reserved = self._body_bytes if length < 0 else length
        owner = call.caller.owner
        own = self._reserved_bytes.get(owner, 0) + reserved
        # Half is left for others, however slowly one tenant sends; without keys there are no others.
        if reserved > self._budget_bytes or (
            call.caller.key and own > BUFFERED_BODIES // 2 * self._body_bytes
        ):
            raise errors.TooManyError("too many large requests are being received; try again in a moment")
        self._budget_bytes -= reserved
        self._reserved_bytes[owner] = own
        try:
            return await call.body(self._body_bytes)
        finally:
            self._budget_bytes += reserved
            self._reserved_bytes[owner] -= reserved
            if not self._reserved_bytes[owner]:
                del self._reserved_bytes[owner]
