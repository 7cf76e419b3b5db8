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

    def __init__(self, gateway: Gateway, server: ModelServer, first: str, second: str) -> None:
        self.url = gateway.url
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
    with ModelServer() as server, start_supervisor(environment) as supervisor:
        upstreams = {"chat": {"kind": "chat", "url": server.url("chat"), "models": ["chat"], "retries": 0}}
        with Gateway(supervisor.path, home, upstreams=json.dumps(upstreams)) as gateway:
            yield Two(gateway, server, first, second)


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
            lambda: other.responses.create(model="chat", input="?", previous_response_id=response.id),
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
