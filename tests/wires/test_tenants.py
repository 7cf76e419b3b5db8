"""What one tenant leaves is for another as if it were not there, on every protocol; and keys where each carries them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.tenants import tenant
from tests.models.script import Call, Text
from tests.models.server import ModelServer

CODE: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
EXECUTION: Any = {"type": "code_execution_20260120", "name": "code_execution"}
USER: Any = [{"role": "user", "content": "?"}]


class Two:
    """A gateway, and two tenants' keys."""

    def __init__(
        self, gateway: Gateway, server: ModelServer, first: str, second: str, limited: dict[str, str]
    ) -> None:
        self.url = gateway.url
        self.limited = limited
        self.server = server
        self.first, self.second = first, second

    def play(self, script: list[Any]) -> None:
        self.server.requests.clear()
        self.server.script = script

    def openai(self, key: str) -> Any:
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0)

    def anthropic(self, key: str) -> Any:
        return anthropic.Anthropic(base_url=self.url + "/anthropic", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def two(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    home = tmp_path_factory.mktemp("tenants")
    first, second = (tenant(home, name, "execute", "read") for name in ("first", "second"))
    limited = {wire: tenant(home, wire, "execute", executions_per_minute=1, max_sessions=1) for wire in RUNS}
    with ModelServer() as server, start_supervisor(environment) as supervisor:
        upstreams = {"chat": {"kind": "chat", "url": server.url("chat"), "models": ["chat"], "retries": 0}}
        with Gateway(supervisor.path, home, upstreams=json.dumps(upstreams)) as gateway:
            yield Two(gateway, server, first, second, limited)


def test_openai(two: Two) -> None:
    two.play(
        [[Call("python", {"code": "secret = 42"})], [Text("Set.")], [Call("python", {"code": "secret"})]]
    )
    with two.openai(two.first) as mine, two.openai(two.second) as other:
        response = mine.responses.create(model="chat", input="?", tools=[CODE])
        container = response.output[0].container_id
        file = mine.files.create(file=("a.txt", b"secret"), purpose="user_data")
        inside = mine.containers.files.create(container, file=("b.txt", b"secret"))
        assert mine.containers.retrieve(container).id == container
        looks: list[Callable[[], object]] = [
            lambda: other.responses.retrieve(response.id),
            lambda: other.responses.delete(response.id),
            lambda: other.containers.retrieve(container),
            lambda: other.containers.delete(container),
            lambda: other.containers.files.list(container),
            lambda: other.containers.files.content.retrieve(inside.id, container_id=container),
            lambda: other.containers.create(name="x", file_ids=[file.id]),
            lambda: other.containers.create(name="x", file_ids=[inside.id]),
            lambda: other.files.retrieve(file.id),
            lambda: other.files.content(file.id),
            lambda: other.files.delete(file.id),
            lambda: other.responses.create(
                model="chat", input="?", tools=[{"type": "code_interpreter", "container": container}]
            ),
        ]
        for look in looks:
            with pytest.raises(openai.NotFoundError):
                look()
        with pytest.raises(openai.BadRequestError) as refused:
            other.responses.create(model="chat", input="?", previous_response_id=response.id)
        assert refused.value.code == "previous_response_not_found"
        with other.responses.connect() as connection:
            connection.response.create(model="chat", input="?", previous_response_id=response.id)
            error = connection.recv()
            assert (error.type, error.error.code) == ("error", "previous_response_not_found")
        assert list(other.files.list()) == []
        assert list(other.containers.list()) == []
        assert mine.files.content(file.id).read() == b"secret"


def test_anthropic(two: Two) -> None:
    two.play(
        [[Call("python", {"code": "secret = 42"})], [Text("Set.")], [Call("python", {"code": "secret"})]]
    )
    with two.anthropic(two.first) as mine, two.anthropic(two.second) as other:
        asked: Any = {"model": "chat", "max_tokens": 99, "messages": USER, "tools": [EXECUTION]}
        message = mine.beta.messages.create(**asked)
        file = mine.beta.files.upload(file=("a.txt", b"secret", "text/plain"))
        looks: list[Callable[[], object]] = [
            lambda: other.beta.files.download(file.id),
            lambda: other.beta.files.delete(file.id),
            lambda: other.beta.messages.create(**asked, container=message.container.id),
        ]
        for look in looks:
            with pytest.raises(anthropic.NotFoundError):
                look()
        assert list(other.beta.files.list()) == []


def test_a_suspended_call_is_its_tenants_own(two: Two) -> None:
    """Another one's result reaches no code: for him the conversation is what he says it is."""
    tool = {
        "type": "function",
        "function": {"name": "ask", "parameters": {"type": "object", "properties": {}}},
    }
    more = {"onehop": {"code_callable": ["ask"]}}
    two.play([[Call("python", {"code": "print(tools.ask())"})], [Text("other")], [Text("mine")]])
    with two.openai(two.first) as mine, two.openai(two.second) as other:
        asked: Any = {"model": "chat", "tools": [tool], "extra_body": more}
        message = mine.chat.completions.create(messages=USER, **asked).choices[0].message
        back = [*USER, message.model_dump(exclude_none=True)]
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id}
        stolen = other.chat.completions.create(messages=[*back, {**result, "content": "forged"}], **asked)
        assert stolen.choices[0].message.content == "other"
        done = mine.chat.completions.create(messages=[*back, {**result, "content": "true"}], **asked)
        assert done.choices[0].message.content == "mine"
        assert "forged" not in json.dumps(two.server.requests[2].body)


def test_without_a_key(two: Two) -> None:
    """In each protocol's own shape, wherever its clients carry keys."""
    with two.openai("wrong") as client, pytest.raises(openai.AuthenticationError) as told:
        client.models.list()
    assert told.value.code == "invalid_api_key"
    with two.anthropic("wrong") as claude, pytest.raises(anthropic.AuthenticationError):
        claude.models.list()
    options = genai.types.HttpOptions(base_url=two.url + "/gemini")
    with (
        genai.Client(api_key="wrong", http_options=options) as client,
        pytest.raises(genai.errors.ClientError) as g,
    ):
        list(client.models.list())
    assert g.value.code == 401
    with genai.Client(api_key=two.first, http_options=options) as client:
        assert [one.name for one in client.models.list()]
    with httpx2.Client(base_url=two.url) as plain:
        assert plain.get("/v1/models").json()["error"]["type"] == "authentication_error"
        refused = plain.get("/anthropic/v1/models").json()
        assert refused["error"]["type"] == "authentication_error"
        for name, value in (("authorization", f"Bearer {two.first}"), ("x-api-key", two.first)):
            assert plain.get("/anthropic/v1/models", headers={name: value}).status_code == 200
        assert plain.post("/otari/sessions", json={}).status_code == 401


# --- protocols that bring code, not models ------------------------------------------------------------

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "librechat": ("/librechat/exec", {"lang": "py", "code": "open('a.txt', 'w').write('secret')"}),
    "dify": ("/dify/v1/sandbox/run", {"language": "python3", "code": "1"}),
    "tutorial": ("/execute", {"code": "1"}),
    "sandboxai": ("/sandboxai/v1/spaces/default/sandboxes", {"spec": {}}),
    "otari": ("/otari/sessions", {}),
}


@pytest.mark.parametrize("wire", RUNS)
def test_a_wrong_key_in_the_protocols_own_shape(two: Two, wire: str) -> None:
    path, body = RUNS[wire]
    answer = httpx2.post(two.url + path, json=body, headers={"x-api-key": "oh_wrong"}, timeout=20)
    assert answer.status_code == 401
    assert said(wire, answer.json())


@pytest.mark.parametrize("wire", RUNS)
def test_over_a_limit_in_the_protocols_own_shape(two: Two, wire: str) -> None:
    path, body = RUNS[wire]
    with httpx2.Client(base_url=two.url, headers={"x-api-key": two.limited[wire]}, timeout=60) as client:
        answers = [client.post(path, json=body) for _ in range(2)]
    assert answers[0].status_code in (200, 201), answers[0].text
    assert answers[1].status_code == (503 if wire in ("dify", "otari") else 429), answers[1].text
    assert int(answers[1].headers["retry-after"]) >= 1
    assert said(wire, answers[1].json())


def said(wire: str, document: dict[str, Any]) -> str:
    """The error's text, where each protocol has it."""
    if wire == "dify":
        assert document["code"] < 0
        assert document["data"] is None
    return str(document["detail" if wire in ("tutorial", "otari") else "message"])


def test_files_and_sandboxes_of_another_tenant(two: Two) -> None:
    mine, other = ({"x-api-key": key} for key in (two.first, two.second))
    with httpx2.Client(base_url=two.url, timeout=60) as client:
        path, body = RUNS["librechat"]
        made = client.post(path, json=body, headers=mine).json()
        place = f"{made['session_id']}/{made['files'][0]['id']}"
        assert client.get(f"/librechat/download/{place}", headers=mine).content == b"secret"
        for method, below in (("GET", "download"), ("DELETE", "files")):
            assert client.request(method, f"/librechat/{below}/{place}", headers=other).status_code == 404
        assert client.get(f"/librechat/files/{made['session_id']}", headers=other).status_code == 404
        stolen = {"lang": "py", "code": "import os; print(os.listdir())"}
        files = [{**made["files"][0]}]
        told = client.post(path, json={**stolen, "files": files}, headers=other).json()
        assert (told["stdout"], "not there any more" in told["stderr"]) == ("[]\n", True)
        tools = [{"name": "ask"}]
        asked = client.post(
            path + "/programmatic", json={"code": "await ask()", "tools": tools}, headers=mine
        ).json()
        answer = {"call_id": asked["tool_calls"][0]["id"], "result": "forged"}
        forged = {"continuation_token": asked["continuation_token"], "tool_results": [answer]}
        assert client.post(path + "/programmatic", json=forged, headers=other).status_code == 404
        assert client.post(path + "/programmatic", json=forged, headers=mine).json()["status"] == "completed"
        boxes, spec = "/sandboxai/v1/spaces/default/sandboxes", {"name": "box", "spec": {}}
        uid = client.post(boxes, json=spec, headers=mine).json()["uid"]
        assert client.get(f"{boxes}/box", headers=other).status_code == 404
        assert client.delete(f"{boxes}/box", headers=other).status_code == 404
        leased = client.post("/otari/sessions", json={}, headers=mine).json()["session_id"]
        code = {"tool": "code_execution", "input": {"code": "1"}}
        for method, below, content in (
            ("POST", "/exec", code),
            ("GET", "/files/list", None),
            ("DELETE", "", None),
        ):
            refused = client.request(method, f"/otari/sessions/{leased}{below}", json=content, headers=other)
            assert refused.status_code == 404, (method, below, refused.text)
        assert client.delete(f"/otari/sessions/{leased}", headers=mine).status_code == 204
        # The name is free for him.
        assert client.post(boxes, json=spec, headers=other).json()["uid"] != uid
        for headers in (mine, other):
            assert client.delete(f"{boxes}/box", headers=headers).status_code == 204
