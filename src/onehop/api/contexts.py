"""A session's contexts: kernels with variables of their own in one sandbox."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import ContextInfo, ContextList
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import ContextRequest, Nothing, decode

BODY_BYTES = 64 * 1024
PATH = "/api/sessions/{session_id}/contexts"

_GONE = (errors.SessionNotFoundError, errors.SessionEndedError)
_BODY = (
    errors.InvalidJsonError,
    errors.InvalidRequestError,
    errors.TooLargeError,
    errors.UnsupportedMediaTypeError,
)
_decode = msgspec.json.Decoder(ContextRequest)
_decode_nothing = msgspec.json.Decoder(Nothing)


class Contexts:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        one = Body("The context.", ContextInfo, example=examples.CONTEXT)
        several = Body("Oldest first.", ContextList, example={"contexts": [examples.CONTEXT]})
        return [
            Operation(
                "POST",
                PATH,
                self.create,
                "createContext",
                "Contexts",
                "Make another context",
                "A kernel with variables of its own; the workspace is shared. Contexts run side by side.",
                scope=EXECUTE,
                body=Body(
                    "Its name and where it starts; both may be left out, and so may the whole body.",
                    ContextRequest,
                    example={"name": "plots", "cwd": ""},
                    required=False,
                ),
                answers={201: (one,)},
                problems=(
                    *_GONE,
                    *_BODY,
                    errors.InvalidPathError,
                    errors.ConflictError,
                    errors.TooManyError,
                    errors.QuotaExceededError,
                ),
                headers={"location": "path of the context"},
            ),
            Operation(
                "GET",
                PATH,
                self.list,
                "listContexts",
                "Contexts",
                "The session's contexts",
                scope=READ,
                answers={200: (several,)},
                problems=_GONE,
            ),
            Operation(
                "GET",
                PATH + "/{name}",
                self.get,
                "getContext",
                "Contexts",
                "One context",
                scope=READ,
                answers={200: (one,)},
                problems=(*_GONE, errors.ContextNotFoundError),
            ),
            Operation(
                "DELETE",
                PATH + "/{name}",
                self.delete,
                "deleteContext",
                "Contexts",
                "End a context",
                "What runs in it is killed. `main` stays as long as its session.",
                scope=EXECUTE,
                answers={204: ()},
                problems=(*_GONE, errors.ContextNotFoundError, errors.ConflictError),
            ),
            Operation(
                "POST",
                PATH + "/{name}/restart",
                self.restart,
                "restartContext",
                "Contexts",
                "Start a context anew",
                "Its variables are gone, the files stay, what runs in it is killed.",
                scope=EXECUTE,
                body=Body("Nothing, or an empty object.", Nothing, example={}, required=False),
                answers={200: (one,)},
                problems=(*_GONE, *_BODY, errors.ContextNotFoundError),
            ),
        ]

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode, await call.body(BODY_BYTES) or b"{}")
        session = call.path["session_id"]
        context = await self._engine.contexts.create(session, request, call.caller)
        location = f"/api/sessions/{session}/contexts/{context.name}".encode()
        await call.answer(encode_json(context), status=201, headers=[JSON, (b"location", location)])

    async def list(self, call: Call) -> None:
        found = await self._engine.contexts.list(call.path["session_id"], call.caller)
        await call.answer(encode_json(ContextList(found)))

    async def get(self, call: Call) -> None:
        found = await self._engine.contexts.get(call.path["session_id"], call.path["name"], call.caller)
        await call.answer(encode_json(found))

    async def delete(self, call: Call) -> None:
        await self._engine.contexts.delete(call.path["session_id"], call.path["name"], call.caller)
        await call.empty()

    async def restart(self, call: Call) -> None:
        call.require_type(b"application/json")
        decode(_decode_nothing, await call.body(BODY_BYTES) or b"{}")
        session, name = call.path["session_id"], call.path["name"]
        await call.answer(encode_json(await self._engine.contexts.restart(session, name, call.caller)))
