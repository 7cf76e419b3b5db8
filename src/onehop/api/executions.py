"""Running code, and asking for executions again. Here every microsecond counts."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples, replay, sse
from onehop.api.asgi import JSON, Call, encode_json, whole_number
from onehop.api.resources import Body, Operation
from onehop.config import MIB
from onehop.sessions import Answer, Engine, ExecuteOnceRequest, ExecuteRequest
from onehop.sessions.caller import EXECUTE, READ
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

EVENTS = Body(
    "Numbered events while it happens: `stdout` and `stderr` (TextEvent), `result` (ResultEvent), `error` "
    "(ErrorInfo), `gap` (GapEvent: events that are no longer stored) and last `end` (EndEvent). "
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

    async def execute(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await self._body(call)
        request = decode(_decode_in_session, body)
        session, name = call.path["session_id"], new_id("exe")

        async def begin() -> Run:
            return await self._engine.executions.start(session, request, call.caller, name=name)

        run = await replay.once(call, self._engine, body, name, begin, session=session)
        await self.answer(call, run, interrupt=request.on_disconnect == "interrupt")

    async def execute_once(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await self._body(call)
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

    async def answer(self, call: Call, run: Run | Replay, *, interrupt: bool) -> None:
        """Answers when it has ended, or with its events as they come.

        Args:
            interrupt: the execution is not to go on without the client.
        """
        if isinstance(run, Replay):
            await self._answer_again(call, run.made)
            return
        name = (EXECUTION_HEADER, run.id.encode())
        call.scope["execution"] = run.id
        try:
            if sse.wanted(call):
                await sse.stream(call, run.follow_encoded(0, pause_s=sse.KEEP_ALIVE_S), headers=[name])
                return
            if interrupt and await call.gone_before(run.done):
                return
            await run.wait()
            await call.answer(run.document(), headers=(JSON, name))
        finally:
            if interrupt and run.end is None:
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

    async def _body(self, call: Call) -> bytes | bytearray:
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
