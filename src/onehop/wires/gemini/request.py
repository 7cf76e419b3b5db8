"""A request of generateContent in the loop's words. Source: https://ai.google.dev/api/generate-content.

Members that the loop has no word for go to an upstream of Google's kind as they are; another kind would not get
them, so those that change the meaning of the answer are refused by name there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from onehop.agent.events import Kind
from onehop.agent.model import Dialect, Function, ModelRequest, Options, Schema
from onehop.agent.upstreams.gemini import DECLARATION
from onehop.errors import InvalidRequestError, UnsupportedParameterError
from onehop.wires.extras import Extras
from onehop.wires.gemini import history
from onehop.wires.gemini.members import camels, listed, struct, wrong
from onehop.wires.gemini.schemas import json_schema

MEMBERS = {
    *("contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "labels"),
    *("cachedContent", "serviceTier", "store", "continuationToken", "model", "onehop"),
}
ONLY_GOOGLES = ("cachedContent", "continuationToken")
CONFIG_ONLY_GOOGLES = (
    *("responseLogprobs", "logprobs", "presencePenalty", "frequencyPenalty", "speechConfig", "imageConfig"),
    *("audioTranscriptionConfig", "enableEnhancedCivicAnswers", "routingConfig", "modelSelectionConfig"),
)
LENIENT = ("BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED")
"""Filters that are none; another kind of upstream cannot be told of the others."""
JSON_TYPE = "application/json"


class GenerateRequest(msgspec.Struct, kw_only=True):
    """What is to be done, and how it is to be told.

    Args:
        kinds: our tools that the model gets.
        thoughts: they are shown.
        only_googles: members that an upstream of another kind cannot be told.
    """

    model: ModelRequest
    kinds: list[Kind]
    extras: Extras | None
    thoughts: bool
    only_googles: list[str]

    def for_dialect(self, dialect: Dialect) -> None:
        """Raises UnsupportedParameterError when an upstream of that kind cannot do what is asked for."""
        if dialect != "gemini" and self.only_googles:
            name = self.only_googles[0]
            raise UnsupportedParameterError(
                f"{name}: the server of this model does not speak Google's protocol and cannot be told",
                field=name,
            )


def read(document: Any, model: str, *, hosted: bool = False) -> GenerateRequest:
    """A decoded body. Raises InvalidRequestError (of which UnsupportedParameterError is one) naming the member."""
    body = camels(struct(document, "body"))
    if unknown := sorted(body.keys() - MEMBERS):
        raise UnsupportedParameterError(f"{unknown[0][:64]}: there is no such member", field=unknown[0][:64])
    only = [name for name in ONLY_GOOGLES if name in body]
    only += _safety(body.get("safetySettings"))
    options = Options(
        extra={
            name: body[name]
            for name in (
                "safetySettings",
                "labels",
                "cachedContent",
                "serviceTier",
                "store",
                "continuationToken",
            )
            if name in body
        }
    )
    thoughts = _generation(body.get("generationConfig"), options, only)
    functions, raw_tools, kinds = _tools(body.get("tools"), only)
    functions, kinds = _choice(body.get("toolConfig"), functions, kinds, options)
    request = ModelRequest(
        model=model,
        messages=[
            *history.system(body.get("systemInstruction")),
            *history.messages(body.get("contents"), hosted=hosted),
        ],
        tools=functions,
        raw_tools=raw_tools,
        options=options,
        dialect="gemini",
    )
    return GenerateRequest(
        model=request, kinds=kinds, extras=_extras(body.get("onehop")), thoughts=thoughts, only_googles=only
    )


def _extras(given: Any) -> Extras | None:
    if given is None:
        return None
    try:
        return msgspec.convert(given, Extras)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"onehop: {error}", field="onehop") from None


def _safety(settings: Any) -> list[str]:
    for number, one in enumerate(listed(settings, "safetySettings")):
        if struct(one, f"safetySettings[{number}]").get("threshold") not in (None, *LENIENT):
            return ["safetySettings"]
    return []


# --- generationConfig ---------------------------------------------------------------------------------


def _generation(given: Any, options: Options, only: list[str]) -> bool:
    """Whether thoughts are shown."""
    config = camels(struct(given or {}, "generationConfig"))
    where = "generationConfig."
    if config.pop("candidateCount", 1) != 1:
        raise UnsupportedParameterError(
            f"{where}candidateCount: one answer is given for a request", field=f"{where}candidateCount"
        )
    options.max_tokens = _number(config, "maxOutputTokens", whole=True)
    options.temperature = _number(config, "temperature")
    options.top_p = _number(config, "topP")
    options.top_k = _number(config, "topK")
    if options.top_k is not None:
        options.top_k = int(options.top_k)  # the SDK's is a float
    options.seed = _number(config, "seed", whole=True)
    stops = listed(config.get("stopSequences"), f"{where}stopSequences")
    if not all(isinstance(one, str) for one in stops):
        raise wrong(f"{where}stopSequences", "a list of texts")
    options.stop = stops
    modalities = [
        str(one).upper() for one in listed(config.get("responseModalities"), f"{where}responseModalities")
    ]
    if modalities not in ([], ["TEXT"]):
        only.append(f"{where}responseModalities")
    only += [f"{where}{name}" for name in CONFIG_ONLY_GOOGLES if config.get(name) not in (None, False, 0)]
    options.schema = _schema(config, only)
    thinking = camels(struct(config.get("thinkingConfig") or {}, f"{where}thinkingConfig"))
    options.reasoning = _effort(thinking)
    if config:
        options.extra["generationConfig"] = config
    return thinking.get("includeThoughts") is True


def _schema(config: dict[str, Any], only: list[str]) -> Schema | None:
    where = "generationConfig."
    kind = config.get("responseMimeType", "text/plain")
    own, plain = config.get("responseSchema"), config.get("responseJsonSchema")
    if plain is None:
        plain = config.get("_responseJsonSchema")
    if kind not in ("text/plain", JSON_TYPE):
        only.append(f"{where}responseMimeType")
        return None
    if kind == JSON_TYPE or own is not None or plain is not None:
        if plain is not None:
            return Schema(name="answer", schema=struct(plain, f"{where}responseJsonSchema"))
        if own is not None:
            return Schema(name="answer", schema=json_schema(own, f"{where}responseSchema"))
        return Schema()
    return None


def _effort(thinking: dict[str, Any]) -> str | None:
    """How much is thought, in the words that all kinds know; Google's own models get the original."""
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if isinstance(level, str) and level != "THINKING_LEVEL_UNSPECIFIED":
        return level.lower()
    if isinstance(budget, int) and budget >= 0:
        return "none" if budget == 0 else "low" if budget <= 1024 else "medium" if budget <= 8192 else "high"
    return None


def _number(config: dict[str, Any], name: str, *, whole: bool = False) -> Any:
    value = config.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise wrong(f"generationConfig.{name}", "a whole number" if whole else "a number")
    return value


# --- tools --------------------------------------------------------------------------------------------


def _tools(given: Any, only: list[str]) -> tuple[list[Function], list[dict[str, Any]], list[Kind]]:
    functions: list[Function] = []
    raw: list[dict[str, Any]] = []
    kinds: list[Kind] = []
    for number, tool in enumerate(listed(given, "tools")):
        where = f"tools[{number}]"
        for name, value in camels(struct(tool, where)).items():
            if name == "functionDeclarations":
                for place, one in enumerate(listed(value, f"{where}.{name}")):
                    functions.append(_function(one, f"{where}.{name}[{place}]"))
            elif name == "codeExecution":
                kinds = ["python"]
            else:
                raw.append({name: value})
                only.append(f"{where}.{name}")
    seen: set[str] = set()
    for function in functions:
        if function.name in seen:
            raise InvalidRequestError(
                f"tools: the function {function.name[:64]!r} is declared twice", field="tools"
            )
        seen.add(function.name)
    return functions, raw, kinds


def _function(given: Any, where: str) -> Function:
    declared = camels(struct(given, where))
    name = declared.get("name")
    if not isinstance(name, str) or not name:
        raise wrong(f"{where}.name", "a text")
    parameters: dict[str, Any] = {}
    if "parametersJsonSchema" in declared:
        parameters = struct(declared["parametersJsonSchema"], f"{where}.parametersJsonSchema")
    elif "parameters" in declared:
        parameters = json_schema(declared["parameters"], f"{where}.parameters")
    return Function(
        name=name,
        description=str(declared.get("description") or ""),
        parameters=parameters,
        extra={DECLARATION: declared},
    )


def _choice(
    given: Any, functions: list[Function], kinds: list[Kind], options: Options
) -> tuple[list[Function], list[Kind]]:
    """What of the tools the model may use; sets `options.choice`."""
    config = camels(struct(given or {}, "toolConfig"))
    calling = camels(
        struct(config.pop("functionCallingConfig", None) or {}, "toolConfig.functionCallingConfig")
    )
    if config:
        options.extra["toolConfig"] = config
    where = "toolConfig.functionCallingConfig"
    mode = str(calling.get("mode") or "AUTO").upper()
    allowed = listed(calling.get("allowedFunctionNames"), f"{where}.allowedFunctionNames")
    known = {one.name for one in functions}
    for name in allowed:
        if name not in known:
            raise InvalidRequestError(
                f"{where}.allowedFunctionNames: there is no function {str(name)[:64]!r}",
                field=f"{where}.allowedFunctionNames",
            )
    if mode in ("AUTO", "MODE_UNSPECIFIED"):
        return functions, kinds
    if mode == "NONE":
        if kinds:  # that is about functions only; code still may run
            return [], kinds
        options.choice = "none"
        return functions, kinds
    if mode not in ("ANY", "VALIDATED"):
        raise InvalidRequestError(f"{where}.mode: there is no mode {mode[:40]!r}", field=f"{where}.mode")
    chosen = [one for one in functions if not allowed or one.name in allowed]
    if mode == "VALIDATED":
        return chosen, kinds
    if not chosen:
        raise InvalidRequestError(f"{where}.mode: ANY needs a function", field=f"{where}.mode")
    # "constrained to always predicting function calls only": no code either.
    options.choice = f"={chosen[0].name}" if len(chosen) == 1 else "required"
    return chosen, []
