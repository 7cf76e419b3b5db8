"""Messages with the loop inside, by Anthropic's own SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, Calls, Gate, Pause, Reasoning, Refusal, Status, Text, Turn
from tests.wires.conftest import KINDS, Models

VERSIONS = ("20250522", "20250825", "20260120", "20260521")
CODE = {"type": "code_execution_20260120", "name": "code_execution"}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLABLE = {**WEATHER, "allowed_callers": ["code_execution_20260120"]}
USER = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=gateway.url + "/anthropic", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(params=[one for one in ("chat", "messages") if one in KINDS])
def model(request: pytest.FixtureRequest) -> str:
    """Of an upstream of that kind: the wire is the same for all."""
    return str(request.param)


def python(code: str, **more: Any) -> Call:
    return Call("python", {"code": code, **more})


def ask(sdk: Any, messages: Any = USER, **given: Any) -> Any:
    return sdk.beta.messages.create(
        model=given.pop("model", "messages"), max_tokens=1000, messages=messages, **given
    )


def results(sent: dict[str, Any]) -> list[str]:
    """Texts of results of calls in a request to an upstream, of either kind."""
    found = []
    for message in sent["messages"]:
        if message["role"] == "tool":
            found.append(message["content"])
        elif isinstance(message["content"], list):
            for block in message["content"]:
                if block["type"] == "tool_result":
                    found.append("".join(one.get("text", "") for one in block["content"]))
    return found


def kinds(message: Any) -> list[str]:
    return [block.type for block in message.content]


# --- code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_code_runs_in_every_version(sdk: Any, models: Models, model: str, version: str) -> None:
    models.play([Turn([Text("Let me see."), python("print('hi')\n40 + 2")]), [Text("It is 42.")]])
    tool = {"type": f"code_execution_{version}", "name": "code_execution"}
    message = ask(sdk, model=model, tools=[tool])
    assert kinds(message) == ["text", "server_tool_use", "code_execution_tool_result", "text"]
    use, result = message.content[1:3]
    assert (use.name, use.input) == ("code_execution", {"code": "print('hi')\n40 + 2"})
    assert result.tool_use_id == use.id
    assert use.id.startswith("srvtoolu_")
    assert (result.content.stdout, result.content.return_code) == ("hi\n42\n", 0)
    assert message.stop_reason == "end_turn"
    assert message.container.id.startswith("container_")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (20, 10)
    offered = models.sent[0]["tools"]
    names = [one.get("name") or one["function"]["name"] for one in offered]
    assert names == (["python"] if version == "20250522" else ["python", "bash", "text_editor"])


def test_the_stream_adds_up_to_the_same(sdk: Any, models: Models, model: str) -> None:
    code = 'print("a \\"quote\\" and ünïcode \U0001f600")\n1 / 0'
    script: list[Any] = [
        Turn([Reasoning("Hm.", pieces=2), Text("See:", pieces=2), python(code)]),
        [Text("Bad.")],
    ]
    models.play(script)
    whole = ask(sdk, model=model, tools=[CODE])
    models.play(script)
    with sdk.beta.messages.stream(model=model, max_tokens=1000, messages=USER, tools=[CODE]) as stream:
        told = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert kinds(streamed) == kinds(whole) == [
        "thinking", "text", "server_tool_use", "code_execution_tool_result", "text",
    ]  # fmt: skip
    assert streamed.content[2].input == whole.content[2].input == {"code": code}
    assert streamed.content[3].content.stderr == whole.content[3].content.stderr
    assert "ZeroDivisionError" in streamed.content[3].content.stderr
    assert streamed.content[3].content.return_code == 1
    assert (streamed.stop_reason, streamed.usage.output_tokens) == ("end_turn", 10)
    assert streamed.container.id.startswith("container_")
    assert (told[0], told[-1]) == ("message_start", "message_stop")


def test_shell_and_editor(sdk: Any, models: Models) -> None:
    calls = Calls(
        [
            Call("bash", {"command": "echo out; exit 3"}),
            Call("text_editor", {"command": "create", "path": "a.txt", "file_text": "one\ntwo\n"}),
        ]
    )
    more: list[Any] = [
        [Call("text_editor", {"command": "str_replace", "path": "a.txt", "old_str": "two", "new_str": "2"})],
        [Call("text_editor", {"command": "view", "path": "a.txt"})],
        [Call("text_editor", {"command": "view", "path": "none.txt"})],
        [Text("Done.")],
    ]  # fmt: skip
    models.play([[calls], *more])
    message = ask(sdk, tools=[CODE])
    blocks = {
        block.type: [one for one in message.content if one.type == block.type] for block in message.content
    }
    bash = blocks["bash_code_execution_tool_result"][0].content
    assert (bash.type, bash.stdout, bash.return_code) == ("bash_code_execution_result", "out\n", 3)
    created, changed, viewed, missing = (
        one.content for one in blocks["text_editor_code_execution_tool_result"]
    )
    assert (created.type, created.is_file_update) == ("text_editor_code_execution_create_result", False)
    assert (changed.old_start, changed.lines) == (2, ["-two", "+2"])
    assert (viewed.file_type, viewed.content, viewed.total_lines) == ("text", "one\n2", 2)
    assert missing.error_code == "file_not_found"
    uses = [block.name for block in message.content if block.type == "server_tool_use"]
    assert uses == ["bash_code_execution"] + ["text_editor_code_execution"] * 4


def test_a_container_is_used_again(sdk: Any, client: httpx2.Client, models: Models) -> None:
    models.play([[python("x = 41")], [Text("a")], [python("x + 1")], [Text("b")], [python("x")]])
    first = ask(sdk, tools=[CODE])
    second = ask(sdk, tools=[CODE], container=first.container.id)
    assert second.container.id == first.container.id
    assert results(models.sent[3])[-1] == "42"
    client.delete(f"/api/sessions/{first.container.id.replace('container_', 'ses_')}")
    with pytest.raises(anthropic.BadRequestError):
        ask(sdk, tools=[CODE], container=first.container.id)


def test_a_conversation_sent_back_is_understood(sdk: Any, models: Models, model: str) -> None:
    models.play([Turn([Reasoning("Hm."), Text("See:"), python("print(1)")]), [Text("One.")], [Text("Sure.")]])
    first = ask(sdk, model=model, tools=[CODE])
    back = [
        *USER,
        {"role": "assistant", "content": [one.model_dump(exclude_none=True) for one in first.content]},
        {"role": "user", "content": "Sure?"},
    ]
    ask(sdk, back, model=model, tools=[CODE])
    assert results(models.sent[2]) == ["1\n"]
    roles = [one["role"] for one in models.sent[2]["messages"]]
    result = "tool" if model == "chat" else "user"
    assert roles == ["user", "assistant", result, "assistant", "user"]


def test_time_over_is_an_error_of_the_tool(sdk: Any, models: Models) -> None:
    models.play([[python("while True: pass")], [Text("Slow.")]])
    limits = {"onehop": {"limits": {"wall_s": 1.0}}}
    message = ask(sdk, tools=[CODE], extra_body=limits)
    assert message.content[1].content.error_code == "execution_time_exceeded"
    assert (message.stop_reason, message.usage.onehop["end"]) == ("pause_turn", "max_time")


# --- functions of the client --------------------------------------------------------------------------


def test_a_clients_tool_in_the_same_turn(sdk: Any, models: Models, model: str) -> None:
    script: list[Any] = [
        [Calls([python("6 * 7"), Call("weather", {"city": "Oslo"})])],
        [Text("Sunny, and 42.")],
    ]
    for stream in (False, True):
        models.play(script)
        if stream:
            with sdk.beta.messages.stream(
                model=model, max_tokens=1000, messages=USER, tools=[CODE, WEATHER]
            ) as events:
                first = events.get_final_message()
        else:
            first = ask(sdk, model=model, tools=[CODE, WEATHER])
        assert first.stop_reason == "tool_use"
        use = next(block for block in first.content if block.type == "tool_use")
        assert (use.name, use.input) == ("weather", {"city": "Oslo"})
        back = [
            *USER,
            {"role": "assistant", "content": [one.model_dump(exclude_none=True) for one in first.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]},
        ]
        second = ask(sdk, back, model=model, tools=[CODE, WEATHER])
        assert second.content[-1].text == "Sunny, and 42."
        assert sorted(results(models.sent[1])) == ["42", "sunny"]


def test_code_calls_a_tool_and_goes_on_alive(sdk: Any, models: Models, model: str) -> None:
    code = "ran = globals().get('ran', 0) + 1\nhot = [c for c in ('Oslo', 'Rome') if tools.weather(city=c)['c'] > 20]\nprint(ran, hot)"
    models.play([[Text("I look."), python(code)], [Text("Rome.")], [Text("Sure.")]])
    messages: list[Any] = list(USER)
    celsius = {"Oslo": 10, "Rome": 30}
    container: Any = None
    for number in range(2):
        message = ask(sdk, messages, model=model, tools=[CODE, CALLABLE], container=container)
        container = message.container.id
        use = message.content[-1]
        assert (message.stop_reason, use.type, use.name) == ("tool_use", "tool_use", "weather")
        assert use.caller.type == "code_execution_20260120"
        if not number:
            code_use = message.content[-2]
            assert use.caller.tool_id == code_use.id
        result = {
            "type": "tool_result",
            "tool_use_id": use.id,
            "content": json.dumps({"c": celsius[use.input["city"]]}),
        }
        messages += [
            {"role": "assistant", "content": [one.model_dump(exclude_none=True) for one in message.content]},
            {"role": "user", "content": [result]},
        ]
        assert len(models.sent) == 1
    last = ask(sdk, messages, model=model, tools=[CODE, CALLABLE], container=container)
    assert kinds(last) == ["code_execution_tool_result", "text"]
    assert last.content[0].tool_use_id == code_use.id
    assert last.content[0].content.stdout == "1 ['Rome']\n"
    assert results(models.sent[1]) == ["1 ['Rome']"]
    messages += [
        {"role": "assistant", "content": [one.model_dump(exclude_none=True) for one in last.content]},
        {"role": "user", "content": "Sure?"},
    ]
    ask(sdk, messages, model=model, tools=[CODE, CALLABLE], container=container)
    assert results(models.sent[2]) == ["1 ['Rome']"]


def test_a_tool_that_only_code_may_call_is_not_offered(sdk: Any, models: Models) -> None:
    models.play([[Text("ok")]])
    ask(sdk, tools=[CODE, CALLABLE, {**WEATHER, "name": "direct"}])
    assert [one["name"] for one in models.sent[0]["tools"]][3:] == ["direct"]


def test_a_failed_tool_raises_in_the_code(sdk: Any, models: Models) -> None:
    models.play(
        [
            [python("try:\n    tools.weather(city='Oslo')\nexcept tools.ToolError as e:\n    print(e)")],
            [Text("ok")],
        ]
    )
    message = ask(sdk, tools=[CODE, CALLABLE])
    use = message.content[-1]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "no idea", "is_error": True}
    back = [
        *USER,
        {"role": "assistant", "content": [one.model_dump(exclude_none=True) for one in message.content]},
        {"role": "user", "content": [result]},
    ]
    ask(sdk, back, tools=[CODE, CALLABLE])
    assert "no idea" in results(models.sent[1])[0]


# --- options, ends, errors ----------------------------------------------------------------------------


def test_options_and_hints_are_passed_on(sdk: Any, models: Models) -> None:
    models.play([[Text("Hello.")]])
    content = [{"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}]
    ask(
        sdk,
        [{"role": "user", "content": content}],
        system="Be short.",
        extra_body={"temperature": 0.5},  # newer models take none, and so the SDK
        stop_sequences=["END"],
        thinking={"type": "enabled", "budget_tokens": 2000},
        metadata={"user_id": "me"},
    )
    sent = models.sent[0]
    assert sent["system"] == [{"type": "text", "text": "Be short."}]
    assert sent["messages"][0]["content"] == content
    assert (sent["temperature"], sent["stop_sequences"], sent["max_tokens"]) == (0.5, ["END"], 1000)
    assert (sent["thinking"]["budget_tokens"], sent["metadata"]) == (2000, {"user_id": "me"})


def test_ends(sdk: Any, models: Models) -> None:
    models.play([Turn([Text("Half")], stop="length")])
    assert ask(sdk).stop_reason == "max_tokens"
    models.play([Turn([Refusal("No.")], stop="refusal")])
    assert ask(sdk).stop_reason == "refusal"
    numbers = iter(range(1000))
    models.play(lambda _: [python(f"{next(numbers)}")])
    paused = ask(sdk, tools=[CODE], extra_body={"onehop": {"limits": {"turns": 2}}})
    assert (paused.stop_reason, paused.usage.onehop["end"]) == ("pause_turn", "max_turns")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type"),
        ({"tools": [{"type": "code_execution_20990101", "name": "code_execution"}]}, "tools.0.type"),
        ({"tools": [CALLABLE]}, "allowed_callers"),
        ({"tools": [{"name": "x"}]}, "tools.0"),
        ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "mcp_servers"),
        ({"container": {"skills": [{"type": "anthropic", "skill_id": "pdf", "version": "1"}]}}, "container.skills"),
        ({"tool_choice": {"type": "some"}}, "tool_choice"),
        ({"temperature": "hot"}, "temperature"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named(client: httpx2.Client, given: dict[str, Any], named: str) -> None:
    body = {"model": "messages", "max_tokens": 10, "messages": USER, **given}
    answer = client.post("/anthropic/v1/messages", json=body)
    document = answer.json()
    assert (answer.status_code, document["type"], document["error"]["type"]) == (
        400,
        "error",
        "invalid_request_error",
    )
    assert named in document["error"]["message"]
    assert answer.headers["request-id"] == document["request_id"]


def test_errors_are_the_sdks_own(sdk: Any, models: Models) -> None:
    with pytest.raises(anthropic.NotFoundError):
        ask(sdk, model="nothing")
    models.play([[Status(429, headers={"retry-after": "7"})]])
    with pytest.raises(anthropic.RateLimitError):
        ask(sdk)
    models.play([[python("1")], [Status(500)]])
    with (
        pytest.raises(anthropic.APIStatusError),
        sdk.beta.messages.stream(model="messages", max_tokens=10, messages=USER, tools=[CODE]) as stream,
    ):
        stream.until_done()
    models.play([[python("1")]])
    with pytest.raises(anthropic.NotFoundError):
        ask(sdk, tools=[CODE], container="container_none")


def test_a_client_that_hangs_up_stops_the_model(client: httpx2.Client, models: Models) -> None:
    gate = Gate()
    models.play([[Text("Wait"), Pause(gate)]])
    body = {"model": "messages", "max_tokens": 10, "messages": USER, "stream": True}
    with client.stream("POST", "/anthropic/v1/messages", json=body) as answer:
        next(answer.iter_lines())
        models.server.wait(1)
    assert models.server.requests[0].gone.wait(10)


def test_models_are_listed(sdk: Any) -> None:
    names = [one.id for one in sdk.models.list(limit=2)]
    assert set(KINDS) <= set(names)
    assert sdk.models.retrieve("chat").display_name == "chat"
    with pytest.raises(anthropic.NotFoundError):
        sdk.models.retrieve("nothing")
