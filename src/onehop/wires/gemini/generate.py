"""generateContent, streamGenerateContent and countTokens; models as Google lists them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from onehop.agent.containers import private
from onehop.agent.events import LoopRequest
from onehop.agent.service import Agent
from onehop.agent.upstreams.gemini import resource
from onehop.agent.upstreams.router import Model, ModelInfo
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.api.sse import CONTENT_TYPE
from onehop.errors import (
    InvalidJsonError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedParameterError,
    UpstreamError,
)
from onehop.sessions.caller import EXECUTE, READ
from onehop.wires import extras, streaming
from onehop.wires.gemini import request as requests
from onehop.wires.gemini.answers import Answer, Chunks, Whole

PREFIX = "/gemini"
TAG = "Gemini"
VERSIONS = ("v1", "v1beta", "v1alpha")
METHODS = ["generateContent", "streamGenerateContent", "countTokens"]
COUNT_TIMEOUT_S = 30.0

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Generate:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._settings = agent.engine.settings

    def operations(self) -> list[Operation]:
        models = PREFIX + "/{version}/models"
        one = models + "/{model:path}"
        return [
            Operation(
                "POST",
                one,
                self.generate,
                "geminiGenerateContent",
                TAG,
                "Answer a conversation: {model}:generateContent, :streamGenerateContent, :countTokens",
                scope=EXECUTE,
                body=Body("A request of generateContent.", dict),
            ),
            Operation("GET", models, self.list, "geminiListModels", TAG, "The models", scope=READ),
            Operation("GET", one, self.get, "geminiGetModel", TAG, "One model", scope=READ),
        ]

    async def generate(self, call: Call) -> None:
        _check_version(call)
        name, _, method = call.path["model"].rpartition(":")
        if method not in METHODS or not name:
            raise NotFoundError(f"models have the methods {', '.join(METHODS)}; not {method[:64]!r}")
        call.require_type(b"application/json")
        document = _document(await call.body(self._settings.body_bytes))
        model = await self._agent.models.resolve(name)
        if method == "countTokens":
            await self._count(call, model, document)
            return
        hosted = model.capabilities.hosted and model.dialect == "gemini"
        request = requests.read(document, name, hosted=hosted)
        request.for_dialect(model.dialect)
        run = self._agent.loop.run(self._loop_request(call, request))
        answer = Answer(name, thoughts=request.thoughts)
        if method == "streamGenerateContent":
            alt = call.query("alt") or "json"
            if alt not in ("sse", "json"):
                raise InvalidRequestError(f"alt: expected sse or json, got {alt[:40]!r}", field="alt")
            chunks = Chunks(answer, array=alt == "json")
            kind = JSON if alt == "json" else CONTENT_TYPE
            await streaming.stream(call, run, chunks.of, chunks.failed, ping=chunks.ping, content_type=kind)
            return
        whole = Whole(answer)
        if await streaming.collect(call, run, whole.take):
            headers = [JSON, *extras.headers(answer.end)] if answer.end is not None else [JSON]
            await call.answer(encode_json(whole.document()), headers=headers)

    def _loop_request(self, call: Call, request: requests.GenerateRequest) -> LoopRequest:
        more = extras.read(call, request.extras)
        kinds = request.kinds if more.code is None else ["python"] if more.code else []
        loop = LoopRequest(
            request=request.model,
            caller=call.caller,
            kinds=kinds,  # type: ignore[arg-type]
            hosted={"codeExecution": {}} if request.kinds else {},
        )
        extras.apply(more, loop)
        if more.container:
            loop.container.session = private(more.container)
        return loop

    async def _count(self, call: Call, model: Model, document: dict[str, Any]) -> None:
        """Only a server of Google's kind can count for its model; what we would say would be a guess."""
        if model.dialect != "gemini":
            raise UnsupportedParameterError(
                "countTokens: the server of this model does not speak Google's protocol, and has no such method",
                field="countTokens",
            )
        target = model.targets[0]
        upstream = self._agent.models.upstreams[target.upstream]
        path = f"/v1beta/{resource(target.model)}:countTokens"
        answer = await upstream.transport.send(
            "POST", path, upstream.headers, encode_json(document), COUNT_TIMEOUT_S
        )
        try:
            body = await answer.body(asyncio.get_running_loop().time() + COUNT_TIMEOUT_S)
        finally:
            answer.close()
        if answer.status != 200:
            error = upstream.codec.error(answer.status, body)
            raise upstream.clean(error or UpstreamError("the model's server could not count"))
        await call.answer(body)

    async def list(self, call: Call) -> None:
        _check_version(call)
        found = [_model(one) for one in await self._agent.models.names()]
        await call.answer(encode_json({"models": found}))

    async def get(self, call: Call) -> None:
        _check_version(call)
        name = call.path["model"]
        for one in await self._agent.models.names():
            if one.name == name:
                await call.answer(encode_json(_model(one)))
                return
        await self._agent.models.resolve(
            name
        )  # one that a pattern takes in, or an error that names what is near
        await call.answer(encode_json(_model(ModelInfo(name=name, upstream="", dialect="gemini"))))


def _check_version(call: Call) -> None:
    version = call.path["version"]
    if version not in VERSIONS:
        raise NotFoundError(f"there is no version {version[:40]!r}; there are {', '.join(VERSIONS)}")


def _model(info: ModelInfo) -> dict[str, Any]:
    methods = METHODS if info.dialect == "gemini" else METHODS[:2]
    return {"name": f"models/{info.name}", "displayName": info.name, "supportedGenerationMethods": methods}


def _document(body: bytes | bytearray) -> dict[str, Any]:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJsonError(f"the body is no JSON object: {error}") from None
