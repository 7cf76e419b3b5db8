"""What any model that can call functions has to bring about, as an ordinary client of Chat Completions sees it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import openai

SECRET = uuid.uuid4().hex
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
NUMBER = int(DIGEST[:12], 16)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city. Nobody else knows it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def ask(sdk: openai.OpenAI, model: str, text: str, **more: Any) -> Any:
    return sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


def code_runs(sdk: openai.OpenAI, model: str) -> None:
    """No model can guess a digest."""
    answer = ask(
        sdk,
        model,
        f"Run Python to print hashlib.sha256(b'{SECRET}').hexdigest(), then answer with its first twelve digits.",
    )
    assert DIGEST[:12] in answer.choices[0].message.content
    assert answer.usage.onehop["executions"] >= 1
    assert answer.usage.total_tokens > 0


def answers_stream(sdk: openai.OpenAI, model: str) -> None:
    chunks = list(ask(sdk, model, "Answer with the words: one two three", stream=True))
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert "three" in text.lower()
    assert chunks[-1].choices == [] or chunks[-1].choices[0].finish_reason == "stop"


def state_is_kept(sdk: openai.OpenAI, model: str) -> None:
    """A second request of the same conversation finds the variables of the first."""
    header = {"Onehop-Conversation": f"live-{SECRET}-{model}"}
    ask(sdk, model, f"Run Python to set x = {NUMBER}. Say when it is done.", extra_headers=header)
    again = ask(
        sdk, model, "Run Python to print(x + 1), then answer with that number only.", extra_headers=header
    )
    assert str(NUMBER + 1) in again.choices[0].message.content.replace(",", "").replace("\u202f", "")


def a_clients_function_beside_ours(sdk: openai.OpenAI, model: str) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "What is the weather in Oslo? Ask the function weather."}
    ]
    answer = sdk.chat.completions.create(model=model, messages=messages, tools=[WEATHER])  # type: ignore[list-item]
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls
    call: Any = message.tool_calls[0]
    assert "oslo" in json.loads(call.function.arguments)["city"].lower()
    messages += [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": f"Sunny, {NUMBER % 97} degrees"},
    ]
    last = sdk.chat.completions.create(model=model, messages=messages, tools=[WEATHER])  # type: ignore[list-item]
    assert str(NUMBER % 97) in (last.choices[0].message.content or "")


SCENARIOS: list[Callable[[openai.OpenAI, str], None]] = [
    code_runs,
    answers_stream,
    state_is_kept,
    a_clients_function_beside_ours,
]
