"""Calls of registered tools as items of a batch: each one an execution of its own, under the rules of any call."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from tests.api.test_bad_input import assert_problem
from tests.tools.test_code import client, gateway  # noqa: F401 - fixtures


def answers(client: httpx2.Client, *items: dict[str, Any], **headers: str) -> list[Any]:  # noqa: F811
    response = client.post("/api/batch", json={"items": items}, headers=headers)
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["answers"]
    return found


def test_values_errors_files_and_the_record(client: httpx2.Client) -> None:  # noqa: F811
    added, point, failed, image, code = answers(
        client,
        {"tool": "mine.add", "arguments": {"a": 40}},
        {"tool": "mine.point", "arguments": {"x": 3}},
        {"tool": "mine.fails", "arguments": {"text": "ünglück"}},
        {"tool": "mine.image"},
        {"execute": {"code": "tools.mine.add(1)", "tools": ["mine.add"]}},
    )
    assert (added["status"], json.loads(added["stdout"])) == ("ok", 42)
    assert json.loads(point["stdout"]) == {"x": 3, "y": 1.5}
    assert (failed["status"], failed["error"]["name"]) == ("error", "ToolFailedError")
    assert "ünglück" in failed["error"]["value"]
    (file,) = image["files"]
    assert json.loads(image["stdout"])["data"] == file["path"]
    assert (file["bytes"], "base64" in file) == (1006, True)
    assert code["results"] == [{"text/plain": "3"}]
    record = client.get(f"/api/executions/{added['id']}/tool_calls").json()["tool_calls"]
    assert [(one["name"], one["status"]) for one in record] == [("mine.add", "ok")]


def test_writes_are_approved_each_by_its_suspension(client: httpx2.Client) -> None:  # noqa: F811
    items = [{"tool": "mine.delete", "arguments": {"name": name}} for name in ("a", "b")]
    waiting = answers(client, *items)
    assert [one["status"] for one in waiting] == ["tool_call_required"] * 2
    for one, approve, status in zip(waiting, (True, False), ("ok", "error"), strict=True):
        (call,) = one["tool_calls"]
        assert call["needs"] == "approval"
        results = {"results": [{"id": call["id"], "approve": approve}]}
        path = f"/api/executions/{one['id']}/tool_results"
        assert client.post(path, json=results).json()["status"] in (status, "running")
        last = client.get(f"/api/executions/{one['id']}?wait_s=20").json()
        assert last["status"] == status
    assert json.loads(client.get(f"/api/executions/{waiting[0]['id']}").json()["stdout"]) == "a is gone"


def test_the_same_key_calls_no_tool_twice(client: httpx2.Client) -> None:  # noqa: F811
    item = {"tool": "mine.add", "arguments": {"a": 1}}
    first = answers(client, item, item, **{"Idempotency-Key": "tools-once"})
    assert len({one["id"] for one in first}) == 2
    assert answers(client, item, item, **{"Idempotency-Key": "tools-once"}) == first


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"tool": "mine.ad"}, "items[0].tools"),
        ({"tool": "mine.*"}, "items[0].tool"),
        ({"tool": "*"}, "items[0].tool"),
        ({"tool": "mine.add", "execute": {"code": "1"}}, "items[0]"),
        ({"tool": "mine.add", "session": "ses_a", "arguments": {"a": 1}}, "items[0].session"),
        ({"tool": "mine.add", "arguments": [1]}, "items[0].arguments"),
        ({"execute": {"code": "1"}, "arguments": {}}, "items[0].arguments"),
        ({"arguments": {}}, "items[0]"),
    ],
)
def test_what_is_no_call(client: httpx2.Client, item: Any, field: str) -> None:  # noqa: F811
    response = client.post("/api/batch", json={"items": [item]})
    assert_problem(response, 422, "invalid-request", field=field)


def test_wrong_or_long_arguments(client: httpx2.Client) -> None:  # noqa: F811
    item = {"tool": "mine.add", "arguments": {"a": "x" * 2_000_000}}
    assert_problem(client.post("/api/batch", json={"items": [item]}), 413, "too-large")
    # The worker of a Python tool checks them itself, with better words.
    (answer,) = answers(client, {"tool": "mine.add", "arguments": {"c": 1}})
    assert answer["error"]["name"] == "ToolArgumentError"
