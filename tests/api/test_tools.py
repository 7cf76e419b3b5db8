"""Registered tools over HTTP, and what a key's allowlist hides and refuses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from onehop.environments import Environment
from tests.api import tenants
from tests.api.gateway import Gateway
from tests.tools.servers import gateway_with, run

TOOLS = """
    def add(a: int, b: int = 2) -> int:
        "Adds."
        return a + b

    def drop(name: str) -> str:
        return name
"""


@pytest.fixture(scope="module")
def gateway(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("tools")
    (home / "broken.py").write_text("import nowhere_at_all\n")
    tenants.tenant(home, "somebody")  # from its start on, this server wants keys
    tools = f"{home}/mine.py,{home}/broken.py"
    with gateway_with(environment, home, TOOLS, tools=tools) as gateway:
        yield gateway


@contextmanager
def caller(gateway: Gateway, tools: tuple[str, ...] | None, *scopes: str) -> Iterator[httpx2.Client]:
    """Whoever has a new key with that list, once the gateway knows it."""
    with tenants.client(
        gateway.url, tenants.tenant(gateway.log.parent, "alice", *scopes, tools=tools)
    ) as client:
        tenants.until(lambda: client.get("/api/sessions").status_code == 200)
        yield client


def test_what_there_is(gateway: Gateway) -> None:
    with caller(gateway, None) as client:
        found = client.get("/api/tools").json()
    assert [one["name"] for one in found["tools"]] == ["mine.add", "mine.drop"]
    assert found["tools"][0]["parameters"]["required"] == ["a"]
    broken, mine = found["sources"]
    assert (mine["name"], mine["kind"], mine["state"], mine["tools"]) == ("mine", "python", "ready", 2)
    assert (broken["state"], broken["problem"]) == ("failed", ""), "where it is, is the operator's business"
    with caller(gateway, None, "admin") as client:
        broken, _ = client.get("/api/tools").json()["sources"]
    assert "nowhere_at_all" in broken["problem"]


def test_stubs(gateway: Gateway) -> None:
    with caller(gateway, None) as client:
        response = client.get("/api/tools", params={"format": "python"})
        assert response.headers["content-type"] == "text/x-python; charset=utf-8"
        ast.parse(response.text)
        assert "def add(a: int, b: int = 2) -> int:" in response.text
        assert client.get("/api/tools", params={"format": "python"}).content == response.content
        wrong = client.get("/api/tools", params={"format": "perl"})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "format")


def test_a_key_sees_and_calls_what_its_list_has(gateway: Gateway) -> None:
    with caller(gateway, ("mine.add",)) as client:
        found = client.get("/api/tools").json()
        assert [one["name"] for one in found["tools"]] == ["mine.add"]
        assert [(one["name"], one["tools"]) for one in found["sources"]] == [("mine", 1)]
        assert "drop" not in client.get("/api/tools", params={"format": "python"}).text
        assert run(client, "tools.mine.add(1)", tools=["mine.*"])["results"] == [{"text/plain": "3"}]
        for code in ("tools.mine.drop('x')", "tools.mine.add(1); tools.mine.drop('x')"):
            answer = run(client, code, tools=["*"])
            assert answer["status"] == "error"
        refused = {}
        for name in ("mine.drop", "mine.nothing"):
            response = client.post("/api/execute", json={"code": "1", "tools": [name]})
            assert response.status_code == 403, response.text
            refused[name] = response.json()["detail"].replace(name, "NAME")
        assert refused["mine.drop"] == refused["mine.nothing"], "what is not allowed is not told apart"
        session = client.post("/api/sessions", json={"tools": ["mine.drop"]})
        assert session.status_code == 403


def test_a_key_without_tools(gateway: Gateway) -> None:
    with caller(gateway, ()) as client:
        assert client.get("/api/tools").json() == {"tools": [], "sources": []}
        assert run(client, "1 + 1", tools=["*"])["results"] == [{"text/plain": "2"}]
        assert client.post("/api/execute", json={"code": "1", "tools": ["mine.add"]}).status_code == 403


def test_the_list_of_a_key_is_told(gateway: Gateway) -> None:
    with caller(gateway, None, "admin") as client:
        made = client.post("/api/keys", json={"limits": {"tools": ["mine.*"]}})
        assert made.status_code == 201
        assert made.json()["limits"]["tools"] == ["mine.*"]
        wrong = client.post("/api/keys", json={"limits": {"tools": ["a b"]}})
        assert (wrong.status_code, wrong.json()["field"][:12]) == (422, "limits.tools")


def test_tools_of_a_client_beside_registered_ones(gateway: Gateway) -> None:
    ask = {"name": "ask", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}
    with caller(gateway, None) as client:
        answer = run(client, "tools.mine.add(1), tools.ask(q='x')", tools=["mine.add", ask])
        assert answer["status"] == "tool_call_required"
        (pending,) = answer["tool_calls"]
        done = client.post(
            f"/api/executions/{answer['id']}/tool_results",
            json={"results": [{"id": pending["id"], "result": 5}]},
        )
        assert done.json()["results"] == [{"text/plain": "(3, 5)"}]
        wrong = run(client, "tools.ask(q=5)", tools=["mine.add", ask])
        assert wrong["error"]["name"] == "ToolArgumentError"
        for tools, words in (
            ([{"name": "mine.add"}, "mine.add"], "two of the name"),
            ([ask, ask], "two of the name"),
            ([{"name": "f", "parameters": {"type": "string"}}], "parameters"),
            ([{"name": "f", "parameters": {"$ref": "http://127.0.0.1:1/"}}], "parameters"),
        ):
            response = client.post("/api/execute", json={"code": "1", "tools": tools})
            assert (response.status_code, response.json()["field"][:5]) == (422, "tools"), response.text
            assert words in response.json()["detail"]
