"""What clients of Google's SDK do, with the unmodified SDK; run by the tests with the current and an older one.

Each flow gets a client and the beginning of a model's name (`g…-`: an upstream of Google's kind, `c…-`: of Chat
Completions), and its model is called like it. `SCRIPTS` has what that model says.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from google import genai
from google.genai import errors, types

from tests.models.script import Call, Calls, HangUp, Reasoning, Reply, Status, Text, Turn

CODE = types.Tool(code_execution=types.ToolCodeExecution())
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()"
CONVERSATION = "Onehop-Conversation"


def python(code: str, **given: Any) -> Call:
    return Call("python", {"code": code}, **given)


SCRIPTS: dict[str, list[Reply]] = {
    "code": [
        Turn([Text("Let me compute."), python("print('hello'); 1 + 1")], input_tokens=10, output_tokens=5),
        Turn([Text("It is 2.")], input_tokens=20, output_tokens=7, reasoning_tokens=2, cached_tokens=8),
    ],
    "picture": [[python(PLOT)], [Text("There it is.")]],
    "failing": [[python("1 / 0")], [Text("That failed.")]],
    "parallel": [
        [Calls([python("print('a')"), python("print('b')")])],
        [Text("Both done.")],
    ],
    "stream": [
        [Text("Let me see."), python("x = 20\nx + 1")],
        [Text("The answer is 21, as computed.")],
    ],
    "chat": [
        [python("x = 41")],
        [Text("Kept.")],
        [python("x + 1")],
        [Text("It is 42.")],
    ],
    "chat-stream": [
        [Text("One moment."), python("y = 1")],
        [Text("Done it is.")],
        [Text("Still here.")],
    ],
    "functions": [
        [Calls([python("print('ran')"), Call("weather", {"city": "Paris"})])],
        [Text("Sunny, and it ran.")],
    ],
    "automatic": [
        [Call("weather", {"city": "Rome"})],
        [python("print('rain' * 2)")],
        [Text("It rains.")],
    ],
    "thoughts": [Turn([Reasoning("hm, let me see"), Text('{"n": 3}')], output_tokens=9, reasoning_tokens=4)],
    "length": [Turn([Text("cut")], stop="length")],
    "broken": [[Text("half an answer"), HangUp()]],
    "busy": [[Status(429, "slow down")]],
    "loops": [[python("1 / 0")]],
    "aio": [[python("6 * 7")], [Text("It is 42.")]],
}  # fmt: skip


def parts_of(response: types.GenerateContentResponse) -> list[types.Part]:
    assert response.candidates
    content = response.candidates[0].content
    assert content is not None
    assert content.role == "model"
    return content.parts or []


def with_code(**given: Any) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(tools=[CODE], **given)


def code(client: genai.Client, kind: str) -> None:
    response = client.models.generate_content(model=f"{kind}code", contents="1+1?", config=with_code())
    said, ran, result, answer = parts_of(response)
    assert said.text == "Let me compute."
    assert ran.executable_code is not None
    assert ran.executable_code.language == types.Language.PYTHON
    assert ran.executable_code.code == "print('hello'); 1 + 1"
    assert result.code_execution_result is not None
    assert result.code_execution_result.outcome == types.Outcome.OUTCOME_OK
    assert result.code_execution_result.output == "hello\n2"
    assert result.code_execution_result.id == ran.executable_code.id
    assert answer.text == "It is 2."
    usage = response.usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.candidates_token_count) == (30, 10)
    assert (usage.thoughts_token_count, usage.total_token_count) == (2, 42)
    assert usage.cached_content_token_count == 8
    assert response.response_id
    assert response.model_version == f"{kind}code"
    assert response.candidates
    assert response.candidates[0].finish_reason == types.FinishReason.STOP
    headers = response.sdk_http_response.headers if response.sdk_http_response else None
    assert headers is not None
    assert {name.lower(): value for name, value in headers.items()}["onehop-end"] == "answer"


def picture(client: genai.Client, kind: str) -> None:
    response = client.models.generate_content(model=f"{kind}picture", contents="plot", config=with_code())
    ran, result, shown, answer = parts_of(response)
    assert ran.executable_code
    assert result.code_execution_result
    assert shown.inline_data is not None
    assert shown.inline_data.mime_type == "image/png"
    assert shown.inline_data.data is not None
    assert shown.inline_data.data.startswith(b"\x89PNG")
    assert answer.text == "There it is."


def failing(client: genai.Client, kind: str) -> None:
    response = client.models.generate_content(model=f"{kind}failing", contents="divide", config=with_code())
    result = parts_of(response)[1].code_execution_result
    assert result is not None
    assert result.outcome == types.Outcome.OUTCOME_FAILED
    assert "ZeroDivisionError" in (result.output or "")
    assert response.text == "That failed."


def parallel(client: genai.Client, kind: str) -> None:
    response = client.models.generate_content(model=f"{kind}parallel", contents="both", config=with_code())
    parts = parts_of(response)
    codes = {one.executable_code.id: one.executable_code.code for one in parts if one.executable_code}
    results = {
        one.code_execution_result.id: one.code_execution_result.output
        for one in parts
        if one.code_execution_result
    }
    assert {codes[name]: output for name, output in results.items()} == {"print('a')": "a", "print('b')": "b"}


def stream(client: genai.Client, kind: str) -> None:
    chunks = list(
        client.models.generate_content_stream(model=f"{kind}stream", contents="x+1?", config=with_code())
    )
    parts = [part for chunk in chunks for part in parts_of(chunk)]
    kinds = [
        "text" if part.text is not None else "code" if part.executable_code else "result" for part in parts
    ]
    assert kinds[: kinds.index("code")] == ["text"] * 3
    assert kinds[kinds.index("code") + 1] == "result"
    assert len(kinds) > 8  # words came one by one
    assert "".join(part.text or "" for part in parts) == "Let me see.The answer is 21, as computed."
    last = chunks[-1]
    assert last.candidates
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    assert last.usage_metadata is not None
    assert last.usage_metadata.total_token_count == 30
    assert {chunk.response_id for chunk in chunks} == {last.response_id}


def chat(client: genai.Client, kind: str) -> None:
    """Variables stay between messages, by the conversation's name."""
    options = types.HttpOptions(headers={CONVERSATION: f"{kind}chat-{genai.__version__}"})
    chat = client.chats.create(model=f"{kind}chat", config=with_code(http_options=options))
    assert chat.send_message("x = 41").text == "Kept."
    second = chat.send_message("x + 1?")
    assert second.text == "It is 42."
    result = parts_of(second)[1].code_execution_result
    assert result is not None
    assert result.output == "42"
    assert len(chat.get_history(curated=True)) == 4


def chat_stream(client: genai.Client, kind: str) -> None:
    chat = client.chats.create(model=f"{kind}chat-stream", config=with_code())
    assert "".join(one.text or "" for one in chat.send_message_stream("y = 1")) == "One moment.Done it is."
    assert "".join(one.text or "" for one in chat.send_message_stream("there?")) == "Still here."
    assert any(part.executable_code for one in chat.get_history(curated=True) for part in one.parts or [])


def functions(client: genai.Client, kind: str) -> None:
    """The client's functions beside ours: ours run, the client answers its own, by name or by id."""
    schema = types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)})
    declared = types.FunctionDeclaration(name="weather", description="of a city", parameters=schema)
    config = types.GenerateContentConfig(tools=[CODE, types.Tool(function_declarations=[declared])])
    question = types.Content(role="user", parts=[types.Part(text="weather in Paris, and run it")])
    first = client.models.generate_content(model=f"{kind}functions", contents=[question], config=config)
    calls = first.function_calls
    assert calls is not None
    assert [(one.name, one.args) for one in calls] == [("weather", {"city": "Paris"})]
    assert calls[0].id
    parts = parts_of(first)
    assert any(one.code_execution_result and one.code_execution_result.output == "ran" for one in parts)
    assert first.candidates
    content = first.candidates[0].content
    assert content is not None
    answer = types.FunctionResponse(id=calls[0].id, name="weather", response={"output": "sunny"})
    contents = [question, content, types.Content(role="user", parts=[types.Part(function_response=answer)])]
    second = client.models.generate_content(model=f"{kind}functions", contents=contents, config=config)
    assert second.text == "Sunny, and it ran."


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def automatic(client: genai.Client, kind: str) -> None:
    """The SDK calls Python functions by itself and sends their results without ids."""
    chat = client.chats.create(
        model=f"{kind}automatic",
        config=types.GenerateContentConfig(
            tools=[weather],
            # The SDK calls nothing by itself where one of its tools is code_execution; the server takes it so too.
            http_options=types.HttpOptions(extra_body={"onehop": {"code": True}}),
        ),
    )
    response = chat.send_message("weather in Rome?")
    assert response.text == "It rains."
    history = chat.get_history()
    assert any(part.function_response for one in history for part in one.parts or [])
    assert any(part.executable_code for one in history for part in one.parts or [])


def thoughts(client: genai.Client, kind: str) -> None:
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.LOW),
        response_mime_type="application/json",
        response_schema=types.Schema(
            type=types.Type.OBJECT, properties={"n": types.Schema(type=types.Type.INTEGER, nullable=True)}
        ),
        temperature=0.5, top_p=0.9, max_output_tokens=100, stop_sequences=["END"], seed=7,
        system_instruction="Answer in JSON.",
        safety_settings=[
            types.SafetySetting(
                category=types.HarmCategory.HARM_CATEGORY_HARASSMENT, threshold=types.HarmBlockThreshold.BLOCK_NONE
            )
        ],
    )  # fmt: skip
    response = client.models.generate_content(model=f"{kind}thoughts", contents="n?", config=config)
    thought, answer = parts_of(response)
    assert (thought.thought, thought.text) == (True, "hm, let me see")
    assert answer.text == '{"n": 3}'
    assert response.parsed == {"n": 3}
    plain = client.models.generate_content(model=f"{kind}thoughts", contents="n?")
    assert len(parts_of(plain)) == 1


def length(client: genai.Client, kind: str) -> None:
    response = client.models.generate_content(model=f"{kind}length", contents="long?")
    assert response.candidates
    assert response.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


def loops(client: genai.Client, kind: str) -> None:
    """A model that repeats its mistake for ever is ended, and the answer says so."""
    response = client.models.generate_content(model=f"{kind}loops", contents="go", config=with_code())
    assert response.candidates
    assert response.candidates[0].finish_reason == types.FinishReason.TOO_MANY_TOOL_CALLS


def raised(action: Callable[[], object]) -> errors.APIError:
    try:
        action()
    except errors.APIError as error:
        return error
    raise AssertionError("no APIError was raised")


def problems(client: genai.Client, kind: str) -> None:
    models = client.models
    unknown = raised(lambda: models.generate_content(model="nobody-has-this", contents="x"))
    assert (unknown.code, unknown.status) == (404, "NOT_FOUND")
    assert "nobody-has-this" in str(unknown.message)
    two = types.GenerateContentConfig(candidate_count=2)
    wrong = raised(lambda: models.generate_content(model=f"{kind}code", contents="x", config=two))
    assert (wrong.code, wrong.status) == (400, "INVALID_ARGUMENT")
    assert "candidateCount" in str(wrong.message)
    busy = raised(lambda: models.generate_content(model=f"{kind}busy", contents="x"))
    assert (busy.code, busy.status) == (429, "RESOURCE_EXHAUSTED")
    heard: list[str] = []

    def listen() -> None:
        for chunk in models.generate_content_stream(model=f"{kind}broken", contents="x"):
            heard.append(chunk.text or "")

    broken = raised(listen)
    assert (broken.code, broken.status) == (502, "UNAVAILABLE")
    assert "".join(heard) == "half an answer"
    if kind.startswith("c"):
        search = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
        refused = raised(lambda: models.generate_content(model=f"{kind}code", contents="x", config=search))
        assert refused.code == 400
        assert "tools[0].googleSearch" in str(refused.message)
        assert raised(lambda: models.count_tokens(model=f"{kind}code", contents="x")).code == 400
    else:
        assert models.count_tokens(model=f"{kind}code", contents="x").total_tokens == 7


def listing(client: genai.Client, kind: str) -> None:
    named = {one.name: one for one in client.models.list()}
    assert named["models/named"].supported_actions is not None
    assert "generateContent" in named["models/named"].supported_actions
    assert client.models.get(model="named").name == "models/named"
    assert raised(lambda: client.models.get(model="nobody-has-this")).code == 404


def aio(client: genai.Client, kind: str) -> None:
    url = str(client._api_client._http_options.base_url).removesuffix("/gemini")

    async def work() -> None:
        async with client_of(url).aio as own:
            whole = await own.models.generate_content(model=f"{kind}aio", contents="6*7?", config=with_code())
            assert whole.text == "It is 42."
            results = [one.code_execution_result for one in parts_of(whole)]
            assert any(one and one.output == "42" for one in results)
            chunks = await own.models.generate_content_stream(model=f"{kind}aio", contents="again")
            assert "".join([chunk.text or "" async for chunk in chunks]) == "It is 42."

    asyncio.run(work())


FLOWS: dict[str, Callable[[genai.Client, str], None]] = {
    one.__name__: one
    for one in (
        code, picture, failing, parallel, stream, chat, chat_stream, functions, automatic, thoughts, length,
        loops, problems, listing, aio,
    )
}  # fmt: skip


def client_of(url: str, version: str | None = None) -> genai.Client:
    options = types.HttpOptions(base_url=f"{url}/gemini", api_version=version)
    return genai.Client(api_key="unused", http_options=options)


def main(url: str, kind: str) -> None:
    """All of them, with the SDK that is on the path."""
    print(genai.__version__)
    with client_of(url) as client:
        for name, flow in FLOWS.items():
            flow(client, kind)
            print(name, "ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
