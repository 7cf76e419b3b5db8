"""Responses with the loop inside, by OpenAI's own SDK."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, Calls, Reasoning, Refusal, Request, Status, Text, Turn
from tests.wires.conftest import KINDS, Models

CODE: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
OUTPUTS: Any = ["code_interpreter_call.outputs"]
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.savefig('line.png'); plt.show()"


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(params=[one for one in ("chat", "responses") if one in KINDS])
def model(request: pytest.FixtureRequest) -> str:
    """Of an upstream of that kind: the wire is the same for all."""
    return str(request.param)


def python(code: str, **more: Any) -> Call:
    return Call("python", {"code": code, **more})


def results(sent: dict[str, Any]) -> list[str]:
    """Results of calls in a request to an upstream, of either kind."""
    if "input" in sent:
        return [one["output"] for one in sent["input"] if one.get("type") == "function_call_output"]
    return [one["content"] for one in sent["messages"] if one["role"] == "tool"]


def kinds(response: Any) -> list[str]:
    return [item.type for item in response.output]


# --- code ---------------------------------------------------------------------------------------------


def test_code_runs(sdk: Any, models: Models, model: str) -> None:
    models.play(
        [Turn([Reasoning("Hm."), Text("Let me see."), python("print('hi')\n40 + 2")]), [Text("It is 42.")]]
    )
    response = sdk.responses.create(model=model, input="What is it?", tools=[CODE], include=OUTPUTS)
    assert kinds(response) == ["reasoning", "message", "code_interpreter_call", "message"]
    assert (response.status, response.output_text) == ("completed", "Let me see.It is 42.")
    call = response.output[2]
    assert (call.code, call.status) == ("print('hi')\n40 + 2", "completed")
    assert [(one.type, one.logs) for one in call.outputs] == [("logs", "hi\n42\n")]
    assert call.container_id.startswith("cntr_")
    assert results(models.sent[1]) == ["hi\n42"]
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (
        20,
        10,
        30,
    )
    assert response.usage.onehop["turns"] == 2


def test_the_stream_has_openais_order(sdk: Any, models: Models, model: str) -> None:
    models.play([[python("1 + 1")], [Text("It is 2.", pieces=2)]])
    stream = list(sdk.responses.create(model=model, input="?", tools=[CODE], stream=True))
    assert [one.sequence_number for one in stream] == list(range(len(stream)))
    order = [one.type for one in stream]
    once = [kind for place, kind in enumerate(order) if place == 0 or order[place - 1] != kind]
    assert once == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    code = "".join(one.delta for one in stream if one.type == "response.code_interpreter_call_code.delta")
    assert code == "1 + 1"


def test_the_sdks_own_accumulation(sdk: Any, models: Models, model: str) -> None:
    models.play([Turn([Reasoning("Hm."), python("1 + 1")]), [Text("It is 2.", pieces=3)]])
    with sdk.responses.stream(model=model, input="?", tools=[CODE], include=OUTPUTS) as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    assert kinds(response) == ["reasoning", "code_interpreter_call", "message"]
    assert response.output_text == "It is 2."


def test_pictures_and_files_come_back(sdk: Any, models: Models) -> None:
    models.play([[python(PLOT)], [Text("See line.png.")]])
    response = sdk.responses.create(model="chat", input="Plot.", tools=[CODE], include=OUTPUTS)
    call, message = response.output
    assert [one.type for one in call.outputs][-1] == "image"
    assert call.outputs[-1].url.startswith("data:image/png;base64,iVBOR")
    (note,) = message.content[0].annotations
    assert (note.type, note.filename, note.container_id) == (
        "container_file_citation", "line.png", call.container_id,
    )  # fmt: skip
    assert message.content[0].text[note.start_index : note.end_index] == "line.png"


# --- state --------------------------------------------------------------------------------------------


def test_a_response_is_continued(sdk: Any, models: Models, model: str) -> None:
    models.play([[python("x = 41")], [Text("Set.")], [python("x + 1")], [Text("42.")]])
    first = sdk.responses.create(model=model, input="Set x.", instructions="Be short.", tools=[CODE])
    second = sdk.responses.create(model=model, input="And?", previous_response_id=first.id, tools=[CODE])
    assert second.previous_response_id == first.id
    assert results(models.sent[3]) == ["[no output]", "42"]
    assert second.output[0].container_id == first.output[0].container_id
    told = json.dumps(models.sent[2])
    assert "Set x." in told
    assert "Be short." not in told  # instructions are not carried over


def test_a_response_is_kept_until_it_is_deleted(sdk: Any, models: Models) -> None:
    models.play([[Text("Hello.")]])
    made = sdk.responses.create(model="chat", input="Hi.", metadata={"a": "b"}, temperature=0.5)
    again = sdk.responses.retrieve(made.id)
    assert again.model_dump() == made.model_dump()
    assert (again.metadata, again.temperature) == ({"a": "b"}, 0.5)
    (item,) = sdk.responses.input_items.list(made.id).data
    assert item.content[0].text == "Hi."
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.delete(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="chat", input="Go on.", previous_response_id=made.id)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )


def test_what_is_not_to_be_stored_is_not(sdk: Any, models: Models) -> None:
    models.play([[Text("Hello.")]])
    made = sdk.responses.create(model="chat", input="Hi.", store=False)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)


def test_a_client_that_keeps_its_own_conversation(sdk: Any, models: Models, model: str) -> None:
    models.play([Turn([Reasoning("Hm."), python("print(1)")]), [Text("One.")], [Text("Sure.")]])
    first = sdk.responses.create(model=model, input="?", tools=[CODE], include=OUTPUTS, store=False)
    items: list[Any] = [
        {"role": "user", "content": "?"},
        *(one.model_dump(exclude_none=True) for one in first.output),
    ]
    items.append({"role": "user", "content": "Sure?"})
    sdk.responses.create(model=model, input=items, tools=[CODE], store=False)
    assert results(models.sent[2]) == ["1\n"]


def test_named_containers(sdk: Any, client: httpx2.Client, models: Models) -> None:
    models.play([[python("x = 1")], [Text("a")], [python("x + 1")], [Text("b")], [python("x")]])
    session = client.post("/api/sessions", json={}).json()["id"]
    tool: Any = {"type": "code_interpreter", "container": session.replace("ses_", "cntr_")}
    sdk.responses.create(model="chat", input="?", tools=[tool])
    sdk.responses.create(model="chat", input="?", tools=[tool])
    assert results(models.sent[3]) == ["2"]
    client.delete(f"/api/sessions/{session}")
    with pytest.raises(openai.NotFoundError) as told:
        sdk.responses.create(model="chat", input="?", tools=[tool])
    assert told.value.code == "container_expired"


def test_files_of_the_input_are_in_the_container(sdk: Any, models: Models) -> None:
    models.play([[python("print(open('data.csv').read())")], [Text("ok")]])
    data = "data:text/csv;base64," + b64encode(b"a,b\n1,2").decode()
    content: Any = [
        {"type": "input_file", "filename": "data.csv", "file_data": data},
        {"type": "input_text", "text": "Sum."},
    ]
    sdk.responses.create(model="chat", input=[{"role": "user", "content": content}], tools=[CODE])
    assert results(models.sent[1]) == ["a,b\n1,2"]
    assert "data.csv is in the working folder" in json.dumps(models.sent[0])


# --- functions of the client --------------------------------------------------------------------------


def test_a_clients_function_in_the_same_turn(sdk: Any, models: Models, model: str) -> None:
    def script(request: Request) -> Any:
        if request.number == 1:
            return [Calls([python("6 * 7"), Call("weather", {"city": "Oslo"}, id="call_w")])]
        return [Text("Sunny, and 42.")]

    models.play(script)
    first = sdk.responses.create(model=model, input="?", tools=[CODE, WEATHER])
    assert sorted(kinds(first)) == ["code_interpreter_call", "function_call"]
    call = next(item for item in first.output if item.type == "function_call")
    assert (first.status, call.name, json.loads(call.arguments)) == ("completed", "weather", {"city": "Oslo"})
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = sdk.responses.create(
        model=model, input=[result], previous_response_id=first.id, tools=[CODE, WEATHER]
    )
    assert second.output_text == "Sunny, and 42."
    assert sorted(results(models.sent[1])) == ["42", "sunny"]


def test_code_calls_a_clients_function(sdk: Any, models: Models, model: str) -> None:
    models.play([[python("tools.weather(city='Oslo')['c'] + 1")], [Text("11.")]])
    more = {"onehop": {"code_callable": ["weather"]}}
    first = sdk.responses.create(model=model, input="?", tools=[CODE, WEATHER], extra_body=more)
    call = first.output[-1]
    assert (call.type, call.name) == ("function_call", "weather")
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": '{"c": 10}'}
    second = sdk.responses.create(
        model=model,
        input=[result],
        previous_response_id=first.id,
        tools=[CODE, WEATHER],
        include=OUTPUTS,
        extra_body=more,
    )
    assert kinds(second) == ["code_interpreter_call", "message"]
    assert second.output[0].outputs[0].logs == "11\n"
    assert results(models.sent[1]) == ["11"]


# --- options, limits, errors --------------------------------------------------------------------------


def test_structured_output_and_options_are_passed_on(sdk: Any, models: Models) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    models.play([[Text('{"a": 1}')]])
    form: Any = {"format": {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}}
    sdk.responses.create(
        model="responses" if "responses" in KINDS else "chat",
        input="?",
        text=form,
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=77,
        top_p=0.9,
        truncation="auto",
    )
    sent = models.sent[0]
    assert sent["text"]["format"]["schema"] == schema
    assert sent["reasoning"] == {"effort": "low", "summary": "auto"}
    assert (sent["max_output_tokens"], sent["top_p"], sent["truncation"]) == (77, 0.9, "auto")


def test_limits_make_it_incomplete(sdk: Any, models: Models) -> None:
    numbers = iter(range(1000))
    models.play(lambda _: [python(f"{next(numbers)}")])
    response = sdk.responses.create(model="chat", input="?", tools=[CODE], max_tool_calls=2)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_tool_calls")
    models.play([Turn([Text("Half an ans")], stop="length")])
    cut = sdk.responses.create(model="chat", input="?", max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_refusal(sdk: Any, models: Models, model: str) -> None:
    models.play([Turn([Refusal("I will not.")], stop="refusal")])
    response = sdk.responses.create(model=model, input="?")
    assert response.output[0].content[0].refusal == "I will not."


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://example.com"}]}, "tools[0].server_url"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "lots"}}]}, "tools[0].container.memory_limit"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": []}, "input"),
        ({"store": "yes"}, "store"),
        ({"max_tool_calls": 0}, "max_tool_calls"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named(client: httpx2.Client, given: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/responses", json={"model": "chat", "input": "?", **given})
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param, answer.text


def test_a_stream_that_breaks_says_so(sdk: Any, models: Models) -> None:
    models.play([[python("1")], [Status(500)]])
    stream = list(sdk.responses.create(model="chat", input="?", tools=[CODE], stream=True))
    assert stream[-1].type == "response.failed"
    assert (stream[-1].response.status, bool(stream[-1].response.error.message)) == ("failed", True)
