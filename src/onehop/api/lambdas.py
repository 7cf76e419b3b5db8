"""The lambda lane over HTTP: small code, JSON in and JSON out, and functions stored under names."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.config import MIB
from onehop.lambdas.functions import Function, FunctionList, FunctionRequest, Functions
from onehop.lambdas.lane import Arguments, LambdaAnswer, LambdaRequest, Lane
from onehop.sessions import Engine
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import decode

BODY_BYTES = 4 * MIB
"""The largest body: whoever has more data puts it into a session's files."""

PATH = "/api/functions/{function_name}"

_decode = msgspec.json.Decoder(LambdaRequest)
_decode_arguments = msgspec.json.Decoder(Arguments)
_decode_function = msgspec.json.Decoder(FunctionRequest)

RUN_PROBLEMS = (
    errors.InvalidJsonError,
    errors.InvalidRequestError,
    errors.TooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.TooManyError,
    errors.QuotaExceededError,
)


class Lambdas:
    def __init__(self, engine: Engine, lane: Lane) -> None:
        self._lane = lane
        self._functions = Functions(engine, lane)

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
            ),
            Operation(
                "POST",
                PATH,
                self.invoke,
                "callFunction",
                "Lambdas",
                "Call a stored function",
                scope=EXECUTE,
                body=Body("The arguments.", Arguments, example=examples.ARGUMENTS),
                answers={
                    200: (
                        Body(
                            "The code ran; `status` says how it ended.",
                            LambdaAnswer,
                            example=examples.LAMBDA_ANSWER,
                        ),
                    )
                },
                problems=(*RUN_PROBLEMS, errors.FunctionNotFoundError),
            ),
            Operation(
                "PUT",
                PATH,
                self.put,
                "putFunction",
                "Lambdas",
                "Store a function",
                "Its code is checked, not run. One of that name is replaced.",
                scope=EXECUTE,
                body=Body("The code.", FunctionRequest, example=examples.FUNCTION_REQUEST),
                answers={
                    200: (Body("It replaced one.", Function, example=examples.FUNCTION),),
                    201: (Body("It is new.", Function, example=examples.FUNCTION),),
                },
                problems=(*RUN_PROBLEMS,),
            ),
            Operation(
                "GET",
                PATH,
                self.get,
                "getFunction",
                "Lambdas",
                "A stored function",
                scope=READ,
                answers={200: (Body("The function.", Function, example=examples.FUNCTION),)},
                problems=(errors.FunctionNotFoundError,),
            ),
            Operation(
                "DELETE",
                PATH,
                self.delete,
                "deleteFunction",
                "Lambdas",
                "Forget a stored function",
                scope=EXECUTE,
                answers={204: ()},
                problems=(errors.FunctionNotFoundError, errors.QuotaExceededError),
            ),
            Operation(
                "GET",
                "/api/functions",
                self.list,
                "listFunctions",
                "Lambdas",
                "The stored functions",
                scope=READ,
                answers={200: (Body("By name.", FunctionList, example=examples.FUNCTION_LIST),)},
            ),
        ]

    async def run(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode, await call.body(BODY_BYTES))
        await call.answer(encode_json(await self._lane.run(request.code, request, call.caller)))

    async def invoke(self, call: Call) -> None:
        call.require_type(b"application/json")
        wanted = decode(_decode_arguments, await call.body(BODY_BYTES) or b"{}")
        answer = await self._functions.call(call.path["function_name"], wanted, call.caller)
        await call.answer(encode_json(answer))

    async def put(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode_function, await call.body(BODY_BYTES))
        function, made = await self._functions.put(call.path["function_name"], request, call.caller)
        await call.answer(encode_json(function), status=201 if made else 200)

    async def get(self, call: Call) -> None:
        await call.answer(encode_json(await self._functions.get(call.path["function_name"], call.caller)))

    async def delete(self, call: Call) -> None:
        await self._functions.delete(call.path["function_name"], call.caller)
        await call.empty()

    async def list(self, call: Call) -> None:
        await call.answer(encode_json(await self._functions.list(call.caller)))
