"""Code in a sandbox calls an HTTP API and servers of MCP, as an operator configures them in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from tests.tools.remote import HOSTILE, serving
from tests.tools.servers import gateway_with, run
from tests.tools.shop import TOKEN

CONFIG = """
[tools.shop]
kind = "openapi"
document = "{shop}openapi.json"
secrets = ["SHOP_TOKEN"]
auth = {{ bearer = "SHOP_TOKEN" }}

[tools.time]
kind = "mcp"
command = ["{python}", "-m", "mcp_server_time", "--local-timezone", "UTC"]

[tools.bad]
kind = "mcp"
command = ["{python}", "{hostile}"]

[tools.gone]
kind = "mcp"
url = "http://127.0.0.1:1/mcp"
"""


@pytest.fixture(scope="module")
def client(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    home = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch, serving("shop.py") as shop:
        patch.setenv("SHOP_TOKEN", TOKEN)
        text = CONFIG.format(shop=shop, python=sys.executable, hostile=HOSTILE[1])
        (home / "config.toml").write_text(text)
        with (
            gateway_with(environment, home, "", tools=None) as gateway,
            httpx2.Client(base_url=gateway.url, timeout=60) as client,
        ):
            yield client


def ok(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["status"] == "ok", answer
    return answer


def test_an_api_in_a_program(client: httpx2.Client) -> None:
    answer = ok(
        run(
            client,
            """
            import asyncio
            from tools import shop
            made = await asyncio.gather(*[shop.createItem(name=f"n{i}", price=i) for i in range(20)])
            found, after = [], 0
            while page := await shop.listItems(after=after, limit=7):
                found += page
                after = page[-1]["id"]
            picture = await shop.picture()
            sum(one["price"] for one in found), len(open(picture, "rb").read()), (await shop.secured())["said"]
            """,
        )
    )
    assert answer["results"][-1]["text/plain"] == "(190.0, 264, 'Bearer ***')"
    assert {one["status"] for one in answer["tool_calls"]} == {"ok"}
    assert TOKEN not in str(answer)


def test_errors_of_an_api(client: httpx2.Client) -> None:
    answer = ok(
        run(
            client,
            """
            import tools
            said = []
            for call in (
                lambda: tools.shop.getItem(id=10**6), lambda: tools.shop.getItem(id="x"), lambda: tools.shop.liar(),
                lambda: tools.shop.request(method="GET", path="//evil/"),
            ):
                try:
                    call()
                except tools.ToolError as error:
                    said.append((type(error).__name__, error.message[:40]))
            said
            """,
        )
    )
    said = answer["results"][-1]["text/plain"]
    for name in ("ToolFailedError", "HTTP 404 Not Found", "ToolArgumentError", "ToolResultError"):
        assert name in said
    assert said.count("ToolArgumentError") == 2


def test_mcp_in_a_program(client: httpx2.Client) -> None:
    answer = ok(
        run(
            client,
            """
            from tools import time
            [time.get_current_time(timezone=zone)["timezone"] for zone in ("UTC", "Asia/Tokyo")]
            """,
        )
    )
    assert answer["results"][-1]["text/plain"] == "['UTC', 'Asia/Tokyo']"


def test_a_server_that_dies_disturbs_no_other(client: httpx2.Client) -> None:
    answer = ok(
        run(
            client,
            """
            import tools
            try:
                tools.bad.die_writing()
            except tools.ToolUnavailableError as error:
                said = error.message
            value = tools.bad.blocks()
            said, tools.time.get_current_time(timezone="UTC")["timezone"], open(value[1], "rb").read(4)
            """,
        )
    )
    told = answer["results"][-1]["text/plain"]
    assert "my last words" in told and "'UTC'" in told and "PNG" in told


def test_what_needs_approval_waits_for_it(client: httpx2.Client) -> None:
    answer = run(client, "tools.bad.delete_all()")
    assert answer["status"] == "tool_call_required"
    (pending,) = answer["tool_calls"]
    assert (pending["name"], pending["needs"]) == ("bad.delete_all", "approval")
    denied = client.post(
        f"/api/executions/{answer['id']}/tool_results",
        json={"results": [{"id": pending["id"], "approve": False, "reason": "not today"}]},
    ).json()
    assert denied["status"] == "error" and "not today" in str(denied["error"])


def test_a_source_that_is_not_there(client: httpx2.Client) -> None:
    response = client.post("/api/execute", json={"code": "1", "tools": ["gone.x"]})
    assert response.status_code == 422 and "cannot be reached" in response.json()["detail"]
