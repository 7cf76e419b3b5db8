"""The lambda lane over HTTP: small code, JSON in and JSON out."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.config import MIB
from onehop.lambdas.lane import LambdaAnswer, LambdaRequest, Lane
from onehop.sessions.caller import EXECUTE
from onehop.sessions.requests import decode

BODY_BYTES = 4 * MIB
"""The largest body: whoever has more data puts it into a session's files."""

_decode = msgspec.json.Decoder(LambdaRequest)

RUN_PROBLEMS = (
    errors.InvalidJsonError,
    errors.InvalidRequestError,
    errors.TooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.TooManyError,
    errors.QuotaExceededError,
)


class Lambdas:
    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST",
                "/api/lambda",
                self.run,
                "runLambda",
                "Lambdas",
                "Evaluate an expression or call a small function",
                "In Monty, without a sandbox, where the code is known to mean the same there; else in a sandbox "
                "of its own. The answer says which.",
                scope=EXECUTE,
                body=Body("The code and its arguments.", LambdaRequest, example=examples.LAMBDA),
                answers={
                    200: (
                        Body(
                            "The code ran; `status` says how it ended.",
                            LambdaAnswer,
                            example=examples.LAMBDA_ANSWER,
                        ),
                    )
                },
                problems=RUN_PROBLEMS,
            )
        ]

    async def run(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode, await call.body(BODY_BYTES))
        await call.answer(encode_json(await self._lane.run(request.code, request, call.caller)))
