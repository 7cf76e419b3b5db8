"""Chat Completions with the loop inside, by OpenAI's own SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, Calls, Gate, Pause, Raw, Reasoning, Refusal, Request, Status, Text, Turn
from tests.wires.conftest import Models

USER = [{"role": "user", "content": "What is it?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


def python(code: str, **more: Any) -> Call:
    return Call("python", {"code": code, **more})


def ask(sdk: openai.OpenAI, messages: Any = USER, **given: Any) -> Any:
    return sdk.chat.completions.create(model=given.pop("model", "chat"), messages=messages, **given)


def streamed(sdk: openai.OpenAI, messages: Any = USER, **given: Any) -> tuple[str, list[Any]]:
    """The text, and all chunks."""
    chunks = list(ask(sdk, messages, stream=True, **given))
    return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices), chunks


def results(sent: dict[str, Any]) -> list[str]:
    return [one["content"] for one in sent["messages"] if one["role"] == "tool"]


# --- the loop -----------------------------------------------------------------------------------------


def test_code_runs_and_an_ordinary_client_sees_an_ordinary_answer(sdk: openai.OpenAI, models: Models) -> None:
    models.play([Turn([Text("Let me see."), python("print('hi')\n40 + 2")]), [Text("It is 42.")]])
    answer = ask(sdk)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason, choice.message.tool_calls) == (
        "Let me see.\n\nIt is 42.", "stop", None,
    )  # fmt: skip
    assert results(models.sent[1]) == ["hi\n42"]
    # Both turns' tokens, and our own block.
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        20,
        10,
        30,
    )
    report = answer.usage.onehop
    assert (report["end"], report["turns"], report["executions"], report["hops_saved"]) == ("answer", 2, 1, 1)


def test_a_stream_is_the_same(sdk: openai.OpenAI, models: Models) -> None:
    models.play([Turn([Text("Let me see.", pieces=4), python("1")]), [Text("It is 1.", pieces=2)]])
    text, chunks = streamed(sdk, stream_options={"include_usage": True})
    assert text == "Let me see.\n\nIt is 1."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
    assert (chunks[-1].usage.total_tokens, chunks[-1].choices) == (30, [])
    assert all(one.usage is None for one in chunks[:-1])
    assert not any("onehop" in (one.choices[0].delta.model_extra or {}) for one in chunks[:-1])


def test_state_stays_in_a_request_and_in_a_conversation(sdk: openai.OpenAI, models: Models) -> None:
    models.play([[python("x = 41")], [python("x + 1")], [Text("42")], [python("x + 2")], [Text("43")]])
    talk = {"Onehop-Conversation": "state stays"}
    first = ask(sdk, extra_headers=talk)
    assert results(models.sent[2]) == ["[no output]", "42"]
    second = ask(sdk, extra_headers=talk)
    assert results(models.sent[4]) == ["43"]
    assert first.usage.onehop["container"] == second.usage.onehop["container"]


def test_two_requests_have_containers_of_their_own(sdk: openai.OpenAI, models: Models) -> None:
    models.play([[python("x = 41")], [Text("a")], [python("x")], [Text("b")]])
    ask(sdk)
    ask(sdk)
    assert "NameError" in results(models.sent[3])[0]


def test_who_asks_sees_the_work(sdk: openai.OpenAI, models: Models) -> None:
    code = "print('out')\nopen('a.txt', 'w').write('x')\n1 / 0"
    models.play([[python(code)], [Text("It failed.")]] * 2)
    show = {"onehop": {"show": True}}
    work = ask(sdk, extra_body=show).choices[0].message.onehop
    assert [one["type"] for one in work if one["type"] != "code.delta"] == [
        "container", "code", "code.done", "output", "done",
    ]  # fmt: skip
    done = work[-1]
    assert (done["status"], done["error"]["name"]) == ("error", "ZeroDivisionError")
    file = done["files"][0]
    assert (file["path"], sdk.containers.files.content.retrieve(
        file["file_id"], container_id=work[0]["id"].replace("ses_", "cntr_")
    ).read()) == ("a.txt", b"x")  # fmt: skip
    _, chunks = streamed(sdk, extra_body=show)
    told = [
        one.choices[0].delta.onehop for one in chunks if "onehop" in (one.choices[0].delta.model_extra or {})
    ]
    assert "".join(one["text"] for one in told if one["type"] == "code.delta") == code
    assert [one["type"] for one in told if one["type"] != "code.delta"] == [
        "container", "code", "code.done", "output", "done", "end",
    ]  # fmt: skip


def test_reasoning_is_passed_on_and_is_no_text(sdk: openai.OpenAI, models: Models) -> None:
    models.play([Turn([Reasoning("First, think."), python("1")]), [Reasoning("Then"), Text("One.")]] * 2)
    message = ask(sdk).choices[0].message
    assert (message.content, message.reasoning_content) == ("One.", "First, think.Then")
    text, chunks = streamed(sdk)
    deltas = [one.choices[0].delta.model_extra or {} for one in chunks if one.choices]
    assert (text, "".join(one.get("reasoning_content", "") for one in deltas)) == (
        "One.",
        "First, think.Then",
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_wanted_json_is_the_last_turns_text(sdk: openai.OpenAI, models: Models, stream: bool) -> None:
    models.play([Turn([Text('{"step": 1}', pieces=3), python("1")]), [Text('{"step": 2}', pieces=3)]])
    given: dict[str, Any] = {"response_format": {"type": "json_object"}}
    text = streamed(sdk, **given)[0] if stream else ask(sdk, **given).choices[0].message.content
    assert text == '{"step": 2}'


def test_without_code_it_is_passed_through(sdk: openai.OpenAI, models: Models) -> None:
    models.play([[Text("Hello.")]])
    answer = ask(
        sdk, extra_body={"onehop": {"code": False}}, temperature=0.5, seed=7, user="me", logit_bias={"1": 2}
    )
    assert answer.choices[0].message.content == "Hello."
    sent = models.sent[0]
    assert "tools" not in sent
    assert (sent["temperature"], sent["seed"], sent["user"], sent["logit_bias"]) == (0.5, 7, "me", {"1": 2})


def test_pictures_go_to_models_that_see(sdk: openai.OpenAI, models: Models) -> None:
    plot = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"
    models.play([[python(plot)], [Text("A line.")]] * 2)
    ask(sdk)
    assert "data:image/png;base64," in json.dumps(models.sent[1])
    ask(sdk, model="blind")
    assert "base64" not in json.dumps(models.sent[3])
    assert "[a picture, shown to the user]" in results(models.sent[3])[0]


def test_long_output_is_cut_in_the_middle(sdk: openai.OpenAI, models: Models) -> None:
    models.play([[python("print('a' * 50_000 + 'b' * 50_000)")], [Text("Long.")]])
    ask(sdk)
    (told,) = results(models.sent[1])
    assert len(told) < 25_000
    assert told.startswith("aaa")
    assert "characters left out" in told
    assert told.rstrip().endswith("bbb")


def test_calls_of_a_turn_run_in_order_and_contexts_side_by_side(sdk: openai.OpenAI, models: Models) -> None:
    wait = "import time\nt = time.time()\nwhile not __import__('os').path.exists('go'):\n    assert time.time() < t + 20\n    time.sleep(0.01)\n'went'"
    calls = [
        python("y = 1"),
        python(wait, context="a"),
        python("open('go', 'w').close(); y + 1"),
    ]
    models.play([[Calls(calls)], [Text("Done.")]])
    ask(sdk)
    assert results(models.sent[1]) == ["[no output]", "'went'", "2\n[files made or changed: go (0 bytes)]"]


# --- functions of the client --------------------------------------------------------------------------


def test_a_clients_function_in_the_same_turn(sdk: openai.OpenAI, models: Models) -> None:
    def script(request: Request) -> Any:
        if request.number == 1:
            return [Text("Both."), Calls([python("6 * 7"), Call("weather", {"city": "Oslo"}, id="call_w")])]
        return [Text("Sunny, and 42.")]

    for stream in (False, True):
        models.play(script)
        if stream:
            _, chunks = streamed(sdk, tools=[WEATHER])
            deltas = [call for one in chunks for call in one.choices[0].delta.tool_calls or []]
            name = next(one.id for one in deltas if one.id)
            arguments = "".join(one.function.arguments or "" for one in deltas)
            assert [one.choices[0].finish_reason for one in chunks][-1] == "tool_calls"
        else:
            choice = ask(sdk, tools=[WEATHER]).choices[0]
            (call,) = choice.message.tool_calls
            name, arguments = call.id, call.function.arguments
            assert (choice.finish_reason, call.function.name) == ("tool_calls", "weather")
        assert json.loads(arguments) == {"city": "Oslo"}
        call = {"id": name, "type": "function", "function": {"name": "weather", "arguments": arguments}}
        back = [
            *USER,
            {"role": "assistant", "content": "Both.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": name, "content": "sunny"},
        ]
        assert ask(sdk, back, tools=[WEATHER]).choices[0].message.content == "Sunny, and 42."
        told = models.sent[1]["messages"]
        assert [len(one.get("tool_calls") or []) for one in told if one["role"] == "assistant"] == [2]
        assert results(models.sent[1]) == ["42", "sunny"]


def test_code_calls_a_clients_function_and_goes_on_where_it_stopped(
    sdk: openai.OpenAI, models: Models
) -> None:
    code = "ran = globals().get('ran', 0) + 1\nhot = [c for c in ('Oslo', 'Rome') if tools.weather(city=c)['c'] > 20]\nprint(ran, hot)"
    models.play([[python(code)], [Text("Rome.")], [Text("And again: Rome.")]])
    more = {"onehop": {"code_callable": ["weather"]}}
    messages: list[Any] = list(USER)
    celsius = {"Oslo": 10, "Rome": 30}
    for _ in range(2):
        choice = ask(sdk, messages, tools=[WEATHER], extra_body=more).choices[0]
        (call,) = choice.message.tool_calls
        assert (choice.finish_reason, call.function.name) == ("tool_calls", "weather")
        city = json.loads(call.function.arguments)["city"]
        result = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"c": celsius[city]})}
        messages += [choice.message.model_dump(exclude_none=True), result]
        assert len(models.sent) == 1  # the model is not asked in between
    answer = ask(sdk, messages, tools=[WEATHER], extra_body=more)
    assert answer.choices[0].message.content == "Rome."
    assert results(models.sent[1]) == ["1 ['Rome']"]
    # The whole conversation again, with a next question: the model sees one call and its result.
    messages += [{"role": "assistant", "content": "Rome."}, {"role": "user", "content": "Sure?"}]
    ask(sdk, messages, tools=[WEATHER], extra_body=more)
    assert results(models.sent[2]) == ["1 ['Rome']"]
    assert [one["role"] for one in models.sent[2]["messages"]] == [
        "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip


def test_a_failed_function_raises_in_the_code(sdk: openai.OpenAI, models: Models) -> None:
    models.play([[python("tools.weather(city='Oslo')")], [Text("Sorry.")]])
    more = {"onehop": {"code_callable": ["weather"]}}
    message = ask(sdk, tools=[WEATHER], extra_body=more).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "no idea"}
    ask(sdk, [*USER, message.model_dump(exclude_none=True), result], tools=[WEATHER], extra_body=more)
    assert results(models.sent[1]) == ["'no idea'"]  # Chat Completions has no word for a failure


def test_no_other_tenant_goes_on(sdk: openai.OpenAI, models: Models) -> None:
    """An id that nobody has kept is the client's own business: the conversation is passed on as it came."""
    models.play([[Text("ok")]])
    call = {"id": "call_of_nobody", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    back = [
        *USER,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_of_nobody", "content": "x"},
    ]
    assert ask(sdk, back, tools=[WEATHER]).choices[0].message.content == "ok"
    assert results(models.sent[0]) == ["x"]


# --- guards -------------------------------------------------------------------------------------------


def test_a_model_that_makes_the_same_mistake_for_ever(sdk: openai.OpenAI, models: Models) -> None:
    numbers = iter(range(1000))
    models.play(lambda _: [python(f"# try {next(numbers)}\n1 / 0")])
    answer = ask(sdk)
    assert answer.usage.onehop["end"] == "repeated_error"
    assert answer.choices[0].message.content == "the same error came 4 times"
    assert len(models.sent) == 4
    assert "for the 3. time" in results(models.sent[3])[-1]


def test_a_model_that_runs_the_same_code_for_ever(sdk: openai.OpenAI, models: Models) -> None:
    models.play(lambda _: [python("1 + 1")])
    assert ask(sdk).usage.onehop["end"] == "repeated_result"
    assert len(models.sent) == 3
    assert "has run before with this result" in results(models.sent[2])[-1]


def test_malformed_arguments_are_told_to_the_model(sdk: openai.OpenAI, models: Models) -> None:
    models.play(
        [
            [Call("python", '{"code": "1 +')],
            [Call("python", "[1]")],
            [Call("python", '{"code": 1}')],
            [Text("I give up.")],
        ]
    )
    assert ask(sdk).choices[0].message.content == "I give up."
    told = results(models.sent[3])
    assert ["no JSON" in told[0], "JSON object" in told[1], "need 'code'" in told[2]] == [True] * 3


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"turns": 3}, "max_turns"), ({"tokens": 30}, "max_tokens"), ({"tool_calls": 2}, "max_tool_calls")],
)
def test_limits(sdk: openai.OpenAI, models: Models, limits: dict[str, int], reason: str) -> None:
    numbers = iter(range(1000))
    models.play(lambda _: [python(f"{next(numbers)}")])
    answer = ask(sdk, extra_body={"onehop": {"limits": limits}})
    assert answer.usage.onehop["end"] == reason
    assert answer.usage.onehop["detail"]
    assert answer.choices[0].finish_reason == "length"


def test_the_time_of_a_request_is_limited(sdk: openai.OpenAI, models: Models) -> None:
    models.play(lambda _: [python("while True: pass")])
    answer = ask(sdk, extra_body={"onehop": {"limits": {"wall_s": 1.0}}})
    assert answer.usage.onehop["end"] == "max_time"
    assert answer.usage.onehop["wall_s"] < 15


# --- what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "x"}]}, "functions"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": 7}, "stop"),
        ({"stream": True, "stream_options": {"include_usage": "no"}}, "stream_options.include_usage"),
        ({"tools": [{"type": "function", "function": {"name": "x", "strict": 1}}]}, "tools[0].function.strict"),
        ({"onehop": {"shows": True}}, "onehop"),
        ({"onehop": {"conversation": "a", "container": "cntr_x"}}, "onehop.container"),
        ({"onehop": {"code_callable": ["nobody"]}}, "onehop.code_callable"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named(client: httpx2.Client, given: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/chat/completions", json={"model": "chat", "messages": USER, **given})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error"), error
    assert error["message"]


def test_errors_are_the_sdks_own(sdk: openai.OpenAI, models: Models) -> None:
    with pytest.raises(openai.NotFoundError) as told:
        ask(sdk, model="nothing")
    assert told.value.code == "model_not_found"
    models.play([[Status(429, headers={"retry-after": "7"})]])
    with pytest.raises(openai.RateLimitError) as limited:
        ask(sdk)
    assert limited.value.response.headers["retry-after"] == "7"
    models.play([[Status(401)]])
    with pytest.raises(openai.InternalServerError) as refused:
        ask(sdk)
    assert refused.value.status_code == 502
    models.play([[Status(500)]])
    with pytest.raises(openai.InternalServerError):
        ask(sdk, stream=True)


def test_a_stream_that_breaks_says_so(sdk: openai.OpenAI, models: Models) -> None:
    models.play([Turn([Text("Half an ans"), Raw(b"data: {broken\n\n")], ends=False)])
    with pytest.raises(openai.APIError):
        streamed(sdk)


def test_a_refusal(sdk: openai.OpenAI, models: Models) -> None:
    models.play([Turn([Refusal("I will not.")], stop="refusal")] * 2)
    message = ask(sdk).choices[0].message
    assert (message.refusal, message.content) == ("I will not.", None)
    _, chunks = streamed(sdk)
    assert "".join(one.choices[0].delta.refusal or "" for one in chunks) == "I will not."


def test_a_client_that_hangs_up_stops_the_model_and_the_code(
    gateway: Gateway, client: httpx2.Client, models: Models
) -> None:
    gate = Gate()
    models.play([[Text("Wait"), Pause(gate)]])
    body = {"model": "chat", "messages": USER, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
        models.server.wait(1)
    assert models.server.requests[0].gone.wait(10)
    models.play([[python("print('running', flush=True)\nwhile True: pass")]])
    show = {**body, "onehop": {"show": True, "conversation": "hangs up"}}
    with client.stream("POST", "/v1/chat/completions", json=show) as answer:
        next(line for line in answer.iter_lines() if "running" in line)
    # Its container is free again: the code was stopped, the variables are there.
    models.play([[python("'free'")], [Text("yes")]])
    again = {"model": "chat", "messages": USER, "onehop": {"conversation": "hangs up"}}
    assert client.post("/v1/chat/completions", json=again).status_code == 200
    assert results(models.sent[1]) == ["'free'"]


def test_an_expired_container_is_told_or_replaced(
    sdk: openai.OpenAI, client: httpx2.Client, models: Models
) -> None:
    talk = {"conversation": "expires"}
    models.play([[python("x = 1")], [Text("a")], [python("x")], [python("x")], [Text("b")]])
    container = ask(sdk, extra_body={"onehop": talk}).usage.onehop["container"]
    assert client.delete(f"/api/sessions/{container}").status_code == 204
    with pytest.raises(openai.NotFoundError) as told:
        ask(sdk, extra_body={"onehop": talk})
    assert told.value.code == "container_expired"
    # By a header, which counts where the body says nothing.
    ask(sdk, extra_body={"onehop": talk}, extra_headers={"Onehop-Expired": "restart"})
    assert "has expired" in results(models.sent[4])[0]
    assert "NameError" in results(models.sent[4])[0]
