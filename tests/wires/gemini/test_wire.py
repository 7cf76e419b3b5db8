"""Google's protocol as it goes over the wire: what the SDK does not show, and what upstreams are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from google.genai._api_client import HttpResponse

from onehop.wires.gemini.answers import Chunks
from tests.models.script import Call, Gate, HangUp, Pause, Raw, Reasoning, Refusal, Text, Turn
from tests.wires.gemini.conftest import Wire, model_of
from tests.wires.gemini.flows import client_of, python

HELLO = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
CODE: dict[str, Any] = {"tools": [{"codeExecution": {}}]}


@pytest.fixture
def http(wire: Wire) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"{wire.url}/gemini/v1beta/models", timeout=60) as client:
        yield client


def post(http: httpx2.Client, model: str, body: Any, method: str = "generateContent", **given: Any) -> Any:
    answer = http.post(f"/{model}:{method}", json=body, **given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def parts(answer: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["candidates"][0]["content"]["parts"]
    return found


@pytest.mark.parametrize("version", ["v1", "v1alpha", "v1beta"])
def test_versions(wire: Wire, version: str) -> None:
    wire.script.scripts["versions"] = [[Text("ok")]]
    with client_of(wire.url, version) as client:
        assert client.models.generate_content(model="g-versions", contents="x").text == "ok"
    with httpx2.Client(base_url=wire.url) as http:
        assert http.get("/gemini/v2/models").status_code == 404


def test_an_array_of_chunks(wire: Wire, http: httpx2.Client) -> None:
    wire.script.scripts["array"] = [[Text("so it is"), python("1 + 1")], [Text("Two.")]]
    answer = http.post("/g-array:streamGenerateContent", json=HELLO | CODE)
    assert answer.headers["content-type"] == "application/json"
    chunks = answer.json()
    said = [part for chunk in chunks for part in parts(chunk)]
    assert "".join(part.get("text", "") for part in said) == "so it isTwo."
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert chunks[-1]["usageMetadata"]["onehop"]["executions"] == 1
    wire.script.scripts["array-fails"] = [[Text("so it is", per_s=20), HangUp()]]
    failed = http.post("/g-array-fails:streamGenerateContent", json=HELLO | CODE).json()
    assert failed[-1]["error"]["status"] == "UNAVAILABLE"


@pytest.mark.parametrize("kind", ["g", "c"])
def test_resent_parts_are_the_calls_that_they_were(wire: Wire, http: httpx2.Client, kind: str) -> None:
    """The second request has the first one's answer in it; the model sees what it saw then."""
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show(); print('drawn')"
    wire.script.scripts["resent"] = [[Text("I draw."), python(draw)], [Text("Drawn.")], [Text("Yes.")]]
    model = f"{kind}-resent"
    first = post(http, model, HELLO | CODE)
    contents = [*HELLO["contents"], first["candidates"][0]["content"], {"parts": [{"text": "sure?"}]}]
    assert parts(post(http, model, {"contents": contents} | CODE)) == [{"text": "Yes."}]
    _, then, again = wire.asked(model)
    if kind == "g":
        before, now = then.body["contents"], again.body["contents"]
        assert now[-1] == {"role": "user", "parts": [{"text": "sure?"}]}
        assert now[-2] == {"role": "model", "parts": [{"text": "Drawn."}]}
        said = now[1]["parts"][1]
        assert said["thoughtSignature"]
        assert now[: len(before)] == before
    else:
        before, now = then.body["messages"], again.body["messages"]
        assert [one["role"] for one in now[: len(before)]] == [one["role"] for one in before]
        assert now[1]["tool_calls"] == before[1]["tool_calls"]
        assert now[2] == before[2]


def test_code_without_a_result_does_not_stop_a_conversation(wire: Wire, http: httpx2.Client) -> None:
    wire.script.scripts["cut"] = [[Text("ok")]]
    ran = {"executableCode": {"language": "PYTHON", "code": "while True: pass"}}
    contents = [*HELLO["contents"], {"role": "model", "parts": [ran]}, {"parts": [{"text": "and?"}]},
                {"role": "model", "parts": [{"text": "late"}]}, {"parts": [{"text": "so?"}]}]  # fmt: skip
    post(http, "c-cut", {"contents": contents} | CODE)
    messages = wire.asked("c-cut")[0].body["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "user", "assistant", "user"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]


def test_what_an_upstream_of_googles_kind_is_told(wire: Wire, http: httpx2.Client) -> None:
    wire.script.scripts["told"] = [[Text("ok")]]
    declared = {"name": "f", "parameters": {"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}}}
    body: dict[str, Any] = {
        **HELLO,
        "system_instruction": {"parts": {"text": "be brief"}},
        "tools": [{"function_declarations": [declared]}, {"google_search": {}}, {"codeExecution": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}, "retrievalConfig": {"languageCode": "de"}},
        "generationConfig": {
            "topK": 40,
            "responseModalities": ["TEXT"],
            "thinkingConfig": {"thinkingBudget": 99},
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_LOW_AND_ABOVE"}],
        "labels": {"team": "x"},
    }
    post(http, "g-told", body)
    told = wire.asked("g-told")[0].body
    assert told["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    assert told["tools"][0] == {"googleSearch": {}}
    python_tool, own = told["tools"][1]["functionDeclarations"]
    assert (python_tool["name"], own) == ("python", declared)
    assert told["toolConfig"] == {"retrievalConfig": {"languageCode": "de"}}
    assert told["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 99}
    assert (told["safetySettings"], told["labels"]) == (body["safetySettings"], {"team": "x"})


def test_what_another_upstream_is_told(wire: Wire, http: httpx2.Client) -> None:
    wire.script.scripts["told"] = [[Text("ok")]]
    schema = {
        "type": "ARRAY",
        "minItems": "2",
        "items": {"type": "STRING", "nullable": True, "format": "enum"},
    }
    body: dict[str, Any] = {
        "contents": {"parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": "-_8="}}]},
        "tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g", "parameters": {"type": "OBJECT"}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}},
        "generationConfig": {
            "maxOutputTokens": 9,
            "responseSchema": schema,
            "thinkingConfig": {"thinkingBudget": 0},
        },
    }
    post(http, "c-told", body)
    told = wire.asked("c-told")[0].body
    assert told["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,+/8="
    assert [one["function"] for one in told["tools"]] == [{"name": "g", "parameters": {"type": "object"}}]
    assert told["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert (told["max_tokens"], told["reasoning_effort"]) == (9, "none")
    assert told["response_format"]["json_schema"]["schema"] == {
        "type": "array",
        "minItems": 2,
        "items": {"type": ["string", "null"]},
    }


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        ("g", {"contents": []}, "contents"),
        ("g", {"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ("g", {"contents": [{"parts": [{"inlineData": {"data": "x"}}]}]}, "mimeType"),
        ("g", {"contents": [{"parts": [{"functionCall": {"name": "f"}}]}]}, "role model"),
        ("g", {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]}, "waits for an answer"),
        ("g", {"generationConfig": {"candidateCount": 3}}, "candidateCount"),
        ("g", {"generationConfig": {"maxOutputTokens": "many"}}, "maxOutputTokens"),
        ("g", {"generationConfig": {"responseSchema": []}}, "responseSchema"),
        ("g", {"toolConfig": {"functionCallingConfig": {"mode": "SOMETIMES"}}}, "SOMETIMES"),
        ("g", {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "ANY needs a function"),
        ("g", {"tools": [{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]}, "declared twice"),
        ("g", {"frobnicate": True}, "frobnicate"),
        ("g", {"onehop": {"limit": {}}}, "onehop"),
        ("c", {"tools": [{"urlContext": {}}]}, "tools[0].urlContext"),
        ("c", {"cachedContent": "cachedContents/x"}, "cachedContent"),
        ("c", {"safetySettings": [{"category": "x", "threshold": "BLOCK_ONLY_HIGH"}]}, "safetySettings"),
        ("c", {"generationConfig": {"responseModalities": ["IMAGE"]}}, "responseModalities"),
        ("c", {"generationConfig": {"responseMimeType": "text/x.enum"}}, "responseMimeType"),
        ("c", {"contents": [{"parts": [{"fileData": {"fileUri": "https://x/files/1", "mimeType": "video/mp4"}}]}]}, "part"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named(
    http: httpx2.Client, model: str, change: dict[str, Any], said: str
) -> None:
    answer = http.post(f"/{model}-code:generateContent", json={**HELLO, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert said in error["message"]


def test_other_refusals(wire: Wire, http: httpx2.Client) -> None:
    assert http.post("/g-code:embedContent", json=HELLO).json()["error"]["status"] == "NOT_FOUND"
    assert (
        http.post(
            "/g-code:generateContent", content=b"{", headers={"content-type": "application/json"}
        ).status_code
        == 400
    )
    assert http.post("/g-code:generateContent", content=b"{}").status_code == 400
    for name in ("g%2F..%2F..%2Ffiles", "g%2F%2Fx"):  # it would be another place of the upstream's
        climbing = http.post(f"/{name}:generateContent", json=HELLO)
        assert climbing.json()["error"]["status"] == "NOT_FOUND"
    assert http.post("/g-code:streamGenerateContent?alt=xml", json=HELLO).status_code == 400
    container = {"onehop": {"container": "cntr_00000000000000000000000000000000"}}
    wire.script.scripts["container"] = [[python("1")]]
    gone = http.post("/g-container:generateContent", json={**HELLO, **CODE, **container}).json()["error"]
    assert (gone["code"], gone["details"][0]["reason"]) == (404, "SESSION_NOT_FOUND")


def test_a_client_that_goes_stops_the_upstream(wire: Wire, http: httpx2.Client) -> None:
    gate = Gate()
    wire.script.scripts["gone"] = [[Text("one two"), Pause(gate), Text("never")]]
    with http.stream("POST", "/g-gone:streamGenerateContent?alt=sse", json=HELLO) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
        assert gate.reached.wait(10)
    assert wire.asked("g-gone")[0].gone.wait(10)


def test_the_sdk_takes_an_empty_line_for_nothing(wire: Wire) -> None:
    """And our ping is one: a comment, as others use it, the SDK would take for an answer that is no JSON."""
    event = b'data: {"candidates": [{"content": {"parts": [{"text": "x"}], "role": "model"}}]}\r\n\r\n'
    stream = [Chunks.ping, event, Chunks.ping, Chunks.ping, event, Chunks.ping]
    response = httpx2.Response(200, stream=_Bytes(stream))
    assert len(list(HttpResponse({}, response).segments())) == 2


class _Bytes(httpx2.SyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks


def test_limits_of_a_request(wire: Wire, http: httpx2.Client) -> None:
    wire.script.scripts["ever"] = [[python(f"print({number})")] for number in range(20)]
    answer = post(http, "g-ever", {**HELLO, **CODE, "onehop": {"limits": {"turns": 2}}})
    candidate = answer["candidates"][0]
    assert candidate["finishReason"] == "TOO_MANY_TOOL_CALLS"
    assert "2 times" in candidate["finishMessage"]
    assert answer["usageMetadata"]["onehop"]["end"] == "max_turns"
    assert answer["usageMetadata"]["onehop"]["turns"] == 2


WEATHER = {"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}


def test_a_function_after_two_turns_with_code(wire: Wire, http: httpx2.Client) -> None:
    """What the client was shown and sends back is said to the model once."""
    wire.script.scripts["turns"] = [
        [Text("One."), python("print(1)")],
        [Text("Two."), python("print(2)"), Call("weather", {"city": "Rome"})],
        [Text("Done.")],
    ]
    extra = {"tools": [{"functionDeclarations": [WEATHER]}, {"codeExecution": {}}]}
    first = post(http, "g-turns", {**HELLO, **extra})
    response = {"functionResponse": {"name": "weather", "response": {"result": "rain"}}}
    contents = [*HELLO["contents"], first["candidates"][0]["content"], {"parts": [response]}]
    assert parts(post(http, "g-turns", {"contents": contents, **extra})) == [{"text": "Done."}]
    _, second, third = wire.asked("g-turns")
    said = third.body["contents"]
    assert [one["role"] for one in said] == ["user", "model", "user", "model", "user"]
    assert said[:3] == second.body["contents"]
    assert [next(iter(part)) for part in said[3]["parts"]] == ["text", "functionCall", "functionCall"]
    names = [part["functionResponse"]["name"] for part in said[4]["parts"]]
    assert names == ["python", "weather"]


def test_code_calls_a_function_of_the_client(wire: Wire, http: httpx2.Client) -> None:
    """The code waits, alive, from one request to the next."""
    program = "before = 40\nprint(before + tools.weather(city='Rome'))"
    wire.script.scripts["callable"] = [[Text("Now."), python(program)], [Text("It is 42.")]]
    tools = [{"functionDeclarations": [WEATHER]}, {"codeExecution": {}}]
    extra = {"tools": tools, "onehop": {"code_callable": ["weather"]}}
    first = post(http, "g-callable", {**HELLO, **extra})
    _, code, call = parts(first)
    assert code["executableCode"]["code"] == program
    assert (call["functionCall"]["name"], call["functionCall"]["args"]) == ("weather", {"city": "Rome"})
    response = {"functionResponse": {"name": "weather", "response": {"result": 2}}}
    contents = [*HELLO["contents"], first["candidates"][0]["content"], {"parts": [response]}]
    second = post(http, "g-callable", {"contents": contents, **extra})
    result, answer = parts(second)
    assert result["codeExecutionResult"]["outcome"] == "OUTCOME_OK"
    assert result["codeExecutionResult"]["output"] == "42"
    assert result["codeExecutionResult"]["id"] == code["executableCode"]["id"]
    assert answer == {"text": "It is 42."}
    _, told = wire.asked("g-callable")
    assert [one["role"] for one in told.body["contents"]] == ["user", "model", "user"]
    contents += [second["candidates"][0]["content"], {"parts": [{"text": "sure?"}]}]
    post(http, "g-callable", {"contents": contents, **extra})
    assert wire.asked("g-callable")[2].body["contents"][:3] == told.body["contents"]


def test_an_upstreams_own_interpreter_by_choice(wire: Wire, http: httpx2.Client) -> None:
    own: list[dict[str, Any]] = [
        {"executableCode": {"language": "PYTHON", "code": "1+1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2\n"}},
    ]
    event = {"candidates": [{"content": {"parts": own, "role": "model"}, "index": 0}]}
    wire.script.scripts["hosted"] = [[Raw(b"data: " + json.dumps(event).encode() + b"\n\n"), Text("Two.")]]
    answer = post(http, "hosted", HELLO | CODE)
    assert [one for one in parts(answer) if "text" not in one] == own
    assert wire.asked("g-hosted")[0].body["tools"] == [{"codeExecution": {}}]
    contents = [*HELLO["contents"], answer["candidates"][0]["content"], {"parts": [{"text": "sure?"}]}]
    post(http, "hosted", {"contents": contents} | CODE)
    assert [one for one in wire.asked("g-hosted")[1].body["contents"][1]["parts"] if "text" not in one] == own
    assert answer["usageMetadata"]["onehop"]["executions"] == 0


def test_refusals(wire: Wire, http: httpx2.Client) -> None:
    wire.script.scripts["refuses"] = [[Text("So,"), Refusal(" I cannot.")]]
    other = post(http, "c-refuses", HELLO)["candidates"][0]
    assert other["finishReason"] == "SAFETY"
    assert "".join(part["text"] for part in other["content"]["parts"]) == "So, I cannot."
    own = post(http, "g-refuses", HELLO)["candidates"][0]
    assert (own["finishReason"], own["content"]["parts"]) == ("SAFETY", [{"text": "So,"}])
    assert own["safetyRatings"][0]["blocked"] is True
    event = b'data: {"promptFeedback": {"blockReason": "BLOCKLIST"}}\n\n'
    wire.script.scripts["blocked"] = [Turn([Raw(event)], ends=False)]
    blocked = post(http, "g-blocked", HELLO)
    assert blocked["promptFeedback"] == {"blockReason": "BLOCKLIST"}
    assert "candidates" not in blocked


def test_thoughts_are_shown_to_those_who_ask(wire: Wire, http: httpx2.Client) -> None:
    wire.script.scripts["hm"] = [[Reasoning("deep"), Text("ok")]]
    asked = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    shown = [parts(post(http, f"{kind}-hm", {**HELLO, **asked})) for kind in "gc"]
    assert shown == [[{"text": "deep", "thought": True}, {"text": "ok"}]] * 2
    assert [model_of(one) for one in wire.server.requests[-2:]] == ["g-hm", "c-hm"]


def test_keys(wire: Wire) -> None:
    """The gateway asks for keys once there is one: by header, by query, never in the log."""
    with httpx2.Client(base_url=wire.url) as http:
        made = http.post("/api/keys", json={"name": "gemini", "scopes": ["admin", "execute", "read"]})
        assert made.status_code == 201, made.text
        key, name = made.json()["key"], made.json()["id"]
        try:
            path = "/gemini/v1beta/models"
            assert http.get(path).json()["error"]["status"] == "UNAUTHENTICATED"
            assert http.get(path, params={"key": "wrong"}).status_code == 401
            assert http.get(path, headers={"x-goog-api-key": key}).status_code == 200
            assert http.get(path, params={"key": key}).status_code == 200
            failed = http.post(f"{path}/nobody:generateContent", params={"key": key}, json=HELLO)
            assert failed.status_code == 404
            assert key not in failed.text
        finally:
            http.delete(
                f"/api/keys/{name}", headers={"x-goog-api-key": key, "authorization": f"Bearer {key}"}
            )
    assert key not in wire.gateway.log.read_text()
