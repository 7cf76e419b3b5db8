"""Conversations made shorter, by OpenAI's own SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, HangUp, Status, Text, Turn
from tests.wires.conftest import KINDS, Models

CODE: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
ITEMS: Any = [
    {"role": "user", "content": "We launch on Tuesday."},
    {"type": "message", "role": "assistant", "content": "Understood: Tuesday."},
]


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.compat("OpenAI", "conversations compacted")
def test_a_conversation_is_compacted_and_goes_on(sdk: Any, models: Models, model: str) -> None:
    models.play([[Text("Launch: Tuesday.")], [Text("On Tuesday.")]])
    made = sdk.responses.compact(model=model, input=ITEMS)
    assert (made.object, [one.type for one in made.output]) == (
        "response.compaction",
        ["message", "compaction"],
    )
    assert made.output[0].content[0].text == "We launch on Tuesday."
    assert (made.usage.input_tokens, made.usage.output_tokens) == (10, 5)
    items = [*(one.model_dump(warnings=False) for one in made.output), {"role": "user", "content": "When?"}]
    answer = sdk.responses.create(model=model, input=items)
    assert answer.output_text == "On Tuesday."
    told = json.dumps(models.sent[1])
    assert all(one in told for one in ("We launch on Tuesday.", "Launch: Tuesday.", "When?"))
    assert "Understood" not in told


def test_a_kept_conversation_is_compacted(sdk: Any, models: Models) -> None:
    models.play(
        [[Call("python", {"code": "41 + 1"})], [Text("It is 42.")], [Text("We found 42.")], [Text("Yes.")]]
    )
    first = sdk.responses.create(model="chat", input="How much?", tools=[CODE])
    made = sdk.responses.compact(model="chat", previous_response_id=first.id)
    assert [one.type for one in made.output] == ["message", "compaction"]
    assert made.output[0].content[0].text == "How much?"
    told = models.sent[2]
    assert all(one in json.dumps(told) for one in ("41 + 1", "It gave:", "It is 42."))
    assert not any("tool_calls" in one or one["role"] == "tool" for one in told["messages"])
    assert "tools" not in told
    # What was compacted once is not said by the user when it is compacted again.
    models.play([[Text("Still 42.")]])
    again = sdk.responses.compact(model="chat", input=[one.model_dump(warnings=False) for one in made.output])
    assert [one.type for one in again.output] == ["message", "compaction"]
    assert "We found 42." in json.dumps(models.sent[0])
    assert again.output[0].content == made.output[0].content


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"input": ITEMS}, "model"),
        ({"model": "chat"}, "input"),
        ({"model": "chat", "input": 7}, "input"),
        ({"model": "chat", "previous_response_id": "resp_none"}, "previous_response_id"),
        ({"model": "chat", "input": [{"type": "compaction", "encrypted_content": "onehop.äö"}]}, "input[0].encrypted_content"),
        ({"model": "nobody", "input": ITEMS}, None),
    ],
)  # fmt: skip
def test_what_cannot_be_compacted_is_named(
    client: httpx2.Client, given: dict[str, Any], param: str | None
) -> None:
    answer = client.post("/v1/responses/compact", json=given)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param, answer.text


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ([Text("")], 502),
        (Turn([Text("Half a")], stop="length"), 502),
        ([HangUp()], 502),
        ([Status(429)], 429),
    ],
)
def test_a_summary_that_does_not_come(client: httpx2.Client, models: Models, reply: Any, status: int) -> None:
    models.play([reply])
    answer = client.post("/v1/responses/compact", json={"model": "chat", "input": ITEMS})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
