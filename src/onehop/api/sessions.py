"""A session's life, without what runs in it."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples, replay
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine, SessionRequest
from onehop.sessions.answers import Interrupted, SessionInfo, SessionList
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.claims import Replay
from onehop.sessions.requests import ContextChoice, SessionChange, decode
from onehop.sessions.run import new_id

BODY_BYTES = 64 * 1024

_GONE = (errors.SessionNotFoundError, errors.SessionEndedError)


_decode_session = msgspec.json.Decoder(SessionRequest)
_decode_change = msgspec.json.Decoder(SessionChange)
_decode_choice = msgspec.json.Decoder(ContextChoice)


class Sessions:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        one = Body("The session.", SessionInfo, example=examples.SESSION)
        return [
            Operation(
                "POST",
                "/api/sessions",
                self.create,
                "createSession",
                "Sessions",
                "Make a session",
                scope=EXECUTE,
                body=Body(
                    "What it may use; all fields have defaults, and so has the whole body.",
                    SessionRequest,
                    example=examples.SESSION_REQUEST,
                    required=False,
                ),
                answers={201: (one,)},
                problems=(
                    errors.InvalidJsonError,
                    errors.InvalidRequestError,
                    errors.UnknownEnvironmentError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                    errors.TooManyError,
                    errors.QuotaExceededError,
                    errors.IdempotencyKeyReusedError,
                    errors.IdempotencyInProgressError,
                ),
                parameters=(replay.PARAMETER,),
                headers={
                    "location": "path of the session",
                    replay.REPLAYED[
                        0
                    ].decode(): "`true` when the request came before and this is its answer again",
                },
            ),
            Operation(
                "GET",
                "/api/sessions",
                self.list,
                "listSessions",
                "Sessions",
                "All live sessions",
                scope=READ,
                answers={
                    200: (Body("Oldest first.", SessionList, example={"sessions": [examples.SESSION]}),)
                },
            ),
            Operation(
                "GET",
                "/api/sessions/{session_id}",
                self.get,
                "getSession",
                "Sessions",
                "One session",
                scope=READ,
                answers={200: (one,)},
                problems=_GONE,
            ),
            Operation(
                "PATCH",
                "/api/sessions/{session_id}",
                self.change,
                "changeSession",
                "Sessions",
                "Change how long a session lives",
                "Counts as use, so an empty object keeps it from ending for being idle. Metadata is replaced.",
                scope=EXECUTE,
                body=Body("What is to be different.", SessionChange, example={"ends_in_s": 600}),
                answers={200: (one,)},
                problems=(
                    *_GONE,
                    errors.InvalidJsonError,
                    errors.InvalidRequestError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                    errors.QuotaExceededError,
                ),
            ),
            Operation(
                "DELETE",
                "/api/sessions/{session_id}",
                self.delete,
                "deleteSession",
                "Sessions",
                "End a session",
                "What runs in it is killed. When the answer comes, nothing is left of it.",
                scope=EXECUTE,
                answers={204: ()},
                problems=_GONE,
            ),
            Operation(
                "POST",
                "/api/sessions/{session_id}/interrupt",
                self.interrupt,
                "interruptSession",
                "Sessions",
                "Stop what runs, keep the variables",
                scope=EXECUTE,
                body=Body(
                    "Which context; `main` when it is left out.",
                    ContextChoice,
                    example={"context": "main"},
                    required=False,
                ),
                answers={
                    200: (Body("Whether something was running.", Interrupted, example={"interrupted": True}),)
                },
                problems=(
                    *_GONE,
                    errors.ContextNotFoundError,
                    errors.InvalidJsonError,
                    errors.InvalidRequestError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                ),
            ),
        ]

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await call.body(BODY_BYTES) or b"{}"
        request = decode(_decode_session, body)
        session, again = await self._create_once(call, request, body)
        headers = [JSON, (b"location", f"/api/sessions/{session.id}".encode())]
        await call.answer(
            encode_json(session), status=201, headers=[*headers, replay.REPLAYED] if again else headers
        )

    async def _create_once(
        self, call: Call, request: SessionRequest, body: bytes | bytearray
    ) -> tuple[SessionInfo, bool]:
        """The session, and whether the same request made it before."""
        name = new_id("ses")

        async def begin() -> SessionInfo:
            return await self._engine.sessions.create(request, call.caller, name=name)

        outcome = await replay.once(call, self._engine, body, name, begin)
        if not isinstance(outcome, Replay):
            return outcome, False
        try:
            return await self._engine.sessions.get(outcome.made, call.caller), True
        except errors.SessionNotFoundError:
            # The gateway ended between the claim and the session: nothing is left of that attempt.
            key = call.header(b"idempotency-key").decode("latin-1")
            self._engine.claims.forget(call.caller, key, outcome.made)
            return await self._create_once(call, request, body)

    async def list(self, call: Call) -> None:
        await call.answer(encode_json(SessionList(self._engine.sessions.list(call.caller))))

    async def get(self, call: Call) -> None:
        await call.answer(encode_json(await self._engine.sessions.get(call.path["session_id"], call.caller)))

    async def change(self, call: Call) -> None:
        call.require_type(b"application/json")
        change = decode(_decode_change, await call.body(BODY_BYTES))
        await call.answer(
            encode_json(await self._engine.sessions.change(call.path["session_id"], change, call.caller))
        )

    async def delete(self, call: Call) -> None:
        await self._engine.sessions.delete(call.path["session_id"], call.caller)
        await call.empty()

    async def interrupt(self, call: Call) -> None:
        call.require_type(b"application/json")
        choice = decode(_decode_choice, await call.body(BODY_BYTES) or b"{}")
        stopped = await self._engine.executions.interrupt(
            call.path["session_id"], call.caller, context=choice.context
        )
        await call.answer(encode_json(Interrupted(stopped)))
