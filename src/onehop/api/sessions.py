"""A session's life, without what runs in it."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine, SessionRequest
from onehop.sessions.answers import Interrupted, SessionInfo, SessionList
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import SessionChange, decode

BODY_BYTES = 64 * 1024

_GONE = (errors.SessionNotFoundError, errors.SessionEndedError)


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object."""


_decode_session = msgspec.json.Decoder(SessionRequest)
_decode_change = msgspec.json.Decoder(SessionChange)
_decode_nothing = msgspec.json.Decoder(Nothing)


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
                ),
                headers={"location": "path of the session"},
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
                body=Body("Nothing, or an empty object.", Nothing, example={}, required=False),
                answers={
                    200: (Body("Whether something was running.", Interrupted, example={"interrupted": True}),)
                },
                problems=(
                    *_GONE,
                    errors.InvalidJsonError,
                    errors.InvalidRequestError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                ),
            ),
        ]

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        session = await self._engine.sessions.create(
            decode(_decode_session, await call.body(BODY_BYTES) or b"{}"), call.caller
        )
        location = (b"location", f"/api/sessions/{session.id}".encode())
        await call.answer(
            encode_json(session), status=201, headers=[(b"content-type", b"application/json"), location]
        )

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
        decode(_decode_nothing, await call.body(BODY_BYTES) or b"{}")
        await call.answer(
            encode_json(
                Interrupted(await self._engine.executions.interrupt(call.path["session_id"], call.caller))
            )
        )
