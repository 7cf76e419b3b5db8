"""generateContent, as Google's Gemini API serves it.

Sources: https://ai.google.dev/api/generate-content, /gemini-api/docs/function-calling and /thought-signatures. The
upstream's `url` has no version, as in Google's own SDK. It must never leave out what changes the meaning of a
request: what this dialect cannot say is refused by name.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from onehop.agent.model import (
    CallPart,
    Dialect,
    Function,
    ImagePart,
    Message,
    ModelRequest,
    Options,
    Part,
    RawPart,
    ReasoningPart,
    ResultPart,
    TextPart,
)
from onehop.agent.upstreams.codec import Capabilities, Codec, Reader
from onehop.agent.upstreams.gemini_errors import meaning
from onehop.agent.upstreams.gemini_reader import SIGNATURE, GeminiReader
from onehop.errors import ModelNotFoundError, ProblemError, UnsupportedParameterError

VERSION = "v1beta"
NO_PICTURE_NOTE = "(A picture, which this model cannot see.)"
NO_SIGNATURE = "skip_thought_signature_validator"
"""For calls that another model has made: Gemini 3 refuses those without a signature. (Google's page on thought
signatures, "migrating from other models".)"""
DECLARATION = "functionDeclaration"
"""In `Function.extra`: how a client of Google's protocol declared it."""
RESPONSE = "functionResponse"
"""In `ResultPart.extra`: how such a client answered it."""
OURS = ("contents", "systemInstruction", "tools", "generationConfig", "toolConfig")
BUDGETS = {
    "none": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
    "max": 24576,
}
"""Tokens of thought for the models (2.5) that count them; later ones have levels."""
LEVELS = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
_GENERATION = re.compile(r"gemini-(\d+)")


class GeminiCodec:
    """See `Codec`."""

    dialect: Dialect = "gemini"

    def path(self, model: str) -> str:
        return f"/{VERSION}/{resource(model)}:streamGenerateContent?alt=sse"

    def headers(self, key: str) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        if key:
            headers["x-goog-api-key"] = key
        return headers

    def body(self, request: ModelRequest, model: str, capabilities: Capabilities) -> dict[str, Any]:
        own = request.dialect == "gemini"
        body: dict[str, Any] = {}
        if own:
            body.update({name: value for name, value in request.options.extra.items() if name not in OURS})
        _Conversation(model, capabilities).into(body, request.messages)
        if request.raw_tools and not own:
            raise UnsupportedParameterError(
                "tools: the model's server speaks Google's protocol, which has no such tool", field="tools"
            )
        tools = list(request.raw_tools)
        if request.tools:
            tools.append({"functionDeclarations": [_declaration(one) for one in request.tools]})
        if tools:
            body["tools"] = tools
        _options(body, request.options, model, own, bool(request.tools))
        return body

    def reader(self) -> Reader:
        return GeminiReader()

    def error(self, status: int, body: bytes) -> ProblemError | None:
        return meaning(status, body)


def resource(model: str) -> str:
    """A model's name as a path: Google knows `models/` and `tunedModels/`.

    Raises ModelNotFoundError for one that leads elsewhere: the name is a client's, the key on the way is not.
    """
    if any(one in ("", ".", "..") for one in model.split("/")):
        raise ModelNotFoundError(f"there is no model {model[:200]!r}")
    name = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
    return quote(name, safe="/:@-._~")


class _Conversation:
    """Messages into contents."""

    def __init__(self, model: str, capabilities: Capabilities) -> None:
        generation = _GENERATION.search(model)
        self._generation = int(generation[1]) if generation else 0
        self._images = capabilities.images
        self._names: dict[str, str] = {}

    def into(self, body: dict[str, Any], messages: list[Message]) -> None:
        """Sets `contents` and `systemInstruction`. A system message amid the others becomes the user's."""
        system: list[dict[str, Any]] = []
        contents: list[dict[str, Any]] = []
        answered = False
        for message in messages:
            if message.role == "system" and not contents:
                system += [self._user_part(part) for part in message.parts]
                continue
            if message.role == "assistant":
                role, parts, answers = "model", self._model_parts(message.parts), False
            else:
                role, parts = "user", [one for part in message.parts for one in self._user_parts(part)]
                answers = any(isinstance(part, ResultPart) for part in message.parts)
            if not parts:
                continue
            if answers and answered:  # all results of a turn have to be in one content
                contents[-1]["parts"] += parts
            else:
                contents.append({"role": role, "parts": parts})
            answered = answers
        if system:
            body["systemInstruction"] = {"parts": system}
        body["contents"] = contents

    def _model_parts(self, parts: list[Part]) -> list[dict[str, Any]]:
        found = [one for part in parts if (one := self._model_part(part)) is not None]
        calls = [one for one in found if "functionCall" in one]
        if self._generation >= 3 and calls and not any(SIGNATURE in one for one in calls):
            calls[0][SIGNATURE] = NO_SIGNATURE
        return found

    def _model_part(self, part: Part) -> dict[str, Any] | None:
        if isinstance(part, TextPart):
            if not part.text and SIGNATURE not in part.extra:
                return None
            return _signed({"text": part.text}, part.extra)
        if isinstance(part, ReasoningPart):
            return part.raw if part.dialect == "gemini" else None
        if isinstance(part, CallPart):
            self._names[part.id] = part.name
            call: dict[str, Any] = {"id": part.id, "name": part.name, "args": _arguments(part.arguments)}
            return _signed({"functionCall": call}, part.extra)
        if isinstance(part, ImagePart):
            return _signed(_picture(part), part.extra)
        if isinstance(part, RawPart) and part.dialect == "gemini":
            return part.raw
        raise _cannot(part)

    def _user_parts(self, part: Part) -> list[dict[str, Any]]:
        return self._result(part) if isinstance(part, ResultPart) else [self._user_part(part)]

    def _user_part(self, part: Part) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return {"text": part.text}
        if isinstance(part, ImagePart):
            if not self._images:
                raise UnsupportedParameterError("messages: this model takes no pictures", field="messages")
            return _picture(part)
        if isinstance(part, RawPart) and part.dialect == "gemini":
            return part.raw
        raise _cannot(part)

    def _result(self, part: ResultPart) -> list[dict[str, Any]]:
        given = part.extra.get(RESPONSE)
        name = part.name or self._names.get(part.id, "")
        if isinstance(given, dict):
            return [{"functionResponse": {**given, "id": part.id, "name": given.get("name") or name}}]
        texts: list[str] = []
        pictures: list[dict[str, Any]] = []
        for one in part.content:
            if isinstance(one, TextPart):
                texts.append(one.text)
            elif isinstance(one, ImagePart):
                if self._images:
                    pictures.append(_picture(one))
                else:
                    texts.append(NO_PICTURE_NOTE)
            elif one.dialect == "gemini":
                pictures.append(one.raw)
            else:
                raise _cannot(one)
        response: dict[str, Any] = {
            "id": part.id,
            "name": name,
            "response": {"error" if part.error else "output": "\n".join(texts)},
        }
        if pictures and (self._generation == 0 or self._generation >= 3):
            response["parts"] = pictures
            return [{"functionResponse": response}]
        # Before Gemini 3 a response takes no media; they stand beside it.
        return [{"functionResponse": response}, *pictures]


def _signed(part: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    if SIGNATURE in extra:
        part[SIGNATURE] = extra[SIGNATURE]
    return part


def _picture(part: ImagePart) -> dict[str, Any]:
    if part.url:
        file = {"fileUri": part.url}
        if part.media_type:
            file["mimeType"] = part.media_type
        return {"fileData": file}
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}


def _arguments(text: str) -> dict[str, Any]:
    """As an object, which is all that this dialect knows; what is none goes under a name of its own."""
    try:
        found = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {"malformed": text}
    return found if isinstance(found, dict) else {"malformed": text}


def _cannot(part: Part) -> UnsupportedParameterError:
    kind = part.raw.get("type", "part") if isinstance(part, RawPart) else type(part).__name__
    return UnsupportedParameterError(
        f"messages: the model's server speaks Google's protocol, which cannot carry a {kind!r} here",
        field="messages",
    )


def _declaration(function: Function) -> dict[str, Any]:
    given = function.extra.get(DECLARATION)
    if isinstance(given, dict):
        return given
    document: dict[str, Any] = {"name": function.name}
    if function.description:
        document["description"] = function.description
    if function.parameters:
        document["parametersJsonSchema"] = function.parameters
    return document


def _options(body: dict[str, Any], options: Options, model: str, own: bool, tools: bool) -> None:
    given = options.extra.get("generationConfig") if own else None
    config: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    for name, value in (
        ("maxOutputTokens", options.max_tokens),
        ("temperature", options.temperature),
        ("topP", options.top_p),
        ("topK", options.top_k),
        ("stopSequences", options.stop or None),
        ("seed", options.seed),
    ):
        if value is not None:
            config[name] = value
    if options.reasoning is not None and "thinkingConfig" not in config:
        config["thinkingConfig"] = _thinking(options.reasoning, model)
    schema = options.schema
    if schema is not None and not config.keys() & {
        "responseSchema",
        "responseJsonSchema",
        "responseMimeType",
    }:
        config["responseMimeType"] = "application/json"
        if schema.schema is not None:
            config["responseJsonSchema"] = schema.schema
    if config:
        body["generationConfig"] = config
    given = options.extra.get("toolConfig") if own else None
    tool_config: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    if tools and options.choice is not None:
        tool_config["functionCallingConfig"] = _choice(options.choice)
    if tool_config:
        body["toolConfig"] = tool_config


def _thinking(effort: str, model: str) -> dict[str, Any]:
    if "2.5" in model:
        if effort not in BUDGETS:
            raise _no_effort(effort)
        budget = BUDGETS[effort]
        return {"thinkingBudget": budget, **({"includeThoughts": True} if budget else {})}
    if effort not in LEVELS:
        raise _no_effort(effort)
    return {"thinkingLevel": LEVELS[effort], "includeThoughts": True}


def _no_effort(effort: str) -> UnsupportedParameterError:
    return UnsupportedParameterError(
        f"reasoning: this model has no effort {effort[:40]!r}; there are {', '.join(LEVELS)}",
        field="reasoning",
    )


def _choice(choice: str) -> dict[str, Any]:
    if choice.startswith("="):
        return {"mode": "ANY", "allowedFunctionNames": [choice[1:]]}
    return {"mode": {"none": "NONE", "required": "ANY"}.get(choice, "AUTO")}


CODEC: Codec = GeminiCodec()
