"""Tools of a real service with an OpenAPI document, called through their worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tools.remote import error, serving, tools, worker
from tests.tools.shop import TOKEN


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Another origin on the same machine."""
    with serving("shop.py") as url:
        yield url


@pytest.fixture(scope="module")
def shop(elsewhere: str) -> Iterator[str]:
    with serving("shop.py", elsewhere) as url:
        yield url


def options(shop: str, **more: Any) -> dict[str, Any]:
    return {"document": f"{shop}openapi.json", **more}


async def test_the_operations_are_tools(shop: str) -> None:
    async with worker("openapi", options(shop)) as api:
        found = tools(api)
        assert {"createItem", "listItems", "getItem", "deleteItem", "echo", "request"} <= found.keys()
        get, put, post = found["getItem"], found["updateItem"], found["createItem"]
        assert (get.read_only, get.idempotent) == (True, True)
        assert (put.read_only, put.idempotent) == (False, True)
        assert (post.read_only, post.idempotent) == (False, False)
        assert "Puts an item into the shop." in post.description
        assert post.description.endswith("POST /items")
        assert post.parameters["required"] == ["name"]
        assert post.parameters["additionalProperties"] is False
        # an item has parts that are items
        assert post.parameters["properties"]["parts"]["items"] == {"$ref": "#/$defs/Item_Input"}
        assert post.parameters["$defs"]["Item_Input"]["properties"]["parts"]["items"] == {
            "$ref": "#/$defs/Item_Input"
        }
        assert post.returns is not None and "id" in post.returns["$defs"]["Stored"]["properties"]


async def test_calls(shop: str) -> None:
    async with worker("openapi", options(shop)) as api:
        made = await api.call("createItem", {"name": "lamp", "price": 3.5, "size": {"width": 2}})
        assert made["name"] == "lamp" and made["size"] == {"width": 2, "height": None}
        assert await api.call("getItem", {"id": made["id"]}) == made
        assert made in await api.call("listItems", {"limit": 100})
        assert await api.call("deleteItem", {"id": made["id"]}) is None
        missing = await api.call("getItem", {"id": made["id"]})
        assert error(missing, "failed") == f'HTTP 404 Not Found: {{"detail":"there is no item {made["id"]}"}}'
        assert await api.call("sendForm", {"name": "a b", "tags": ["x", "ü"]}) == {
            "name": "a b",
            "tags": ["x", "ü"],
        }


async def test_two_parameters_of_one_name(shop: str) -> None:
    async with worker("openapi", options(shop)) as api:
        parameters = tools(api)["updateItem"].parameters
        assert set(parameters["properties"]) == {"id", "body_id", "name"}
        answer = await api.call("updateItem", {"id": 1, "body_id": 2, "name": "n"})
        assert answer == {"path": 1, "body": 2, "name": "n"}


async def test_arguments_stay_where_they_belong(shop: str) -> None:
    async with worker("openapi", options(shop)) as api:
        one, two = "a/../../b?c#d", "%2e%2e;x y\tz"
        answer = await api.call(
            "echo", {"one": one, "two": two, "q": ["1&r=2", "ü"], "x_trace": "t", "crumb": "a;b=c"}
        )
        assert answer["path"] == "/echo/a%2F..%2F..%2Fb%3Fc%23d/%252e%252e%3Bx%20y%09z"
        assert answer["query"] == [["q", "1&r=2"], ["q", "ü"]]
        assert answer["headers"]["x-trace"] == "t"
        assert answer["cookies"] == {"crumb": "a%3Bb%3Dc"}
        for bad in ("..", ".", ""):
            told = error(await api.call("echo", {"one": bad, "two": "x"}), "bad_arguments")
            assert told.startswith("one: it is a part of the path")
        told = error(
            await api.call("echo", {"one": "a", "two": "b", "x_trace": "t\r\nX: y"}), "bad_arguments"
        )
        assert told.startswith("x_trace: it is sent in a header")


async def test_wrong_arguments_never_leave(shop: str) -> None:
    async with worker("openapi", options(shop)) as api:
        for arguments, said in (
            ({"limit": 0}, "limit: 0 is less than the minimum of 1"),
            ({"limit": "ten"}, "limit: 'ten' is not of type 'integer'"),
            ({"many": 1}, "'many' was unexpected"),
        ):
            assert said in error(await api.call("listItems", arguments), "bad_arguments")
        assert "'name' is a required property" in error(await api.call("createItem"), "bad_arguments")
        assert "no tool 'nothing'" in error(await api.call("nothing"), "not_found")


async def test_secrets_go_to_the_service_and_nowhere_else(
    shop: str, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    auth = {"bearer": "SHOP_TOKEN"}
    async with worker("openapi", options(shop, auth=auth), secrets=("SHOP_TOKEN",)) as api:
        # that it arrived is in the status; what repeats it is blackened
        assert await api.call("secured") == {"said": "Bearer ***"}
        told = error(await api.call("away"), "failed")
        assert told == f"the service redirects to another place, {elsewhere}raw/away, which is not followed"
        assert (await api.call("moved"))["path"] == "/raw/here"
        assert "more than 5 times" in error(await api.call("circle"), "failed")
        for headers in ({"Authorization": "mine"}, {"Host": "evil"}, {"cookie": "a=b"}, {"x\r\ny": "z"}):
            raw = await api.call("request", {"method": "GET", "path": "/raw/x", "headers": headers})
            assert "not yours to set" in error(raw, "bad_arguments")
    async with worker("openapi", options(shop)) as api:
        assert "HTTP 401" in error(await api.call("secured"), "failed")


async def test_other_ways_to_authenticate(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_USER", "ann")
    monkeypatch.setenv("SHOP_PASSWORD", "open:sesame")
    auth = {
        "basic": {"user": "SHOP_USER", "password": "SHOP_PASSWORD"},
        "header": {"X-Key": "SHOP_PASSWORD"},
        "query": {"key": "SHOP_USER"},
    }
    names = ("SHOP_USER", "SHOP_PASSWORD")
    async with worker("openapi", options(shop, auth=auth), secrets=names) as api:
        answer = await api.call("request", {"method": "GET", "path": "/raw/x", "params": {"a": 1}})
        headers = answer["body"]["headers"]
        assert headers["authorization"] == "Basic ***" and headers["x-key"] == "***"
        assert answer["body"]["query"] == [["a", "1"], ["key", "ann"]]


async def test_a_raw_request(shop: str) -> None:
    async with worker("openapi", options(shop)) as api:
        answer = await api.call(
            "request",
            {
                "method": "POST",
                "path": "/raw/a%20b",
                "params": {"x": [1, "&"], "y": True},
                "json": {"k": [1]},
            },
        )
        assert answer["status"] == 200
        assert answer["body"]["path"] == "/raw/a%20b"
        assert answer["body"]["query"] == [["x", "1"], ["x", "&"], ["y", "true"]]
        assert answer["body"]["body"] == '{"k":[1]}'
        await api.call("createItem", {"name": "one"})
        page = await api.call("request", {"method": "GET", "path": "/items"})
        assert page["headers"]["link"].endswith('rel="next"')
        head = await api.call("request", {"method": "HEAD", "path": "/raw/x"})
        assert head["body"] is None and head["headers"]["content-type"] == "application/json"
        for path in (
            "//evil/x",
            "http://evil/",
            "/a/../b",
            "/a/%2e%2E/b",
            "/a?b=c",
            "/a b",
            "/a\\..\\b",
            "x",
        ):
            told = await api.call("request", {"method": "GET", "path": path})
            assert error(told, "bad_arguments").startswith("path: "), path


async def test_chosen_operations(shop: str) -> None:
    async with worker("openapi", options(shop, operations=["listItems", "GET /text"])) as api:
        assert set(tools(api)) == {"listItems", "text"}
        assert "no tool 'request'" in error(
            await api.call("request", {"method": "GET", "path": "/"}), "not_found"
        )


async def test_what_comes_back(shop: str) -> None:
    async with worker("openapi", options(shop)) as api:
        assert await api.call("text") == "grüß Gott"
        path, files = await api.call("picture")
        assert path.startswith("tool_files/") and path.endswith("-map.png") and ".." not in path
        assert files[path] == b"\x89PNG\r\n\x1a\n" + bytes(range(256))
        assert "sends JSON, but" in error(await api.call("liar"), "bad_result")
        assert "sends JSON, but" in error(await api.call("nan"), "bad_result")
        told = error(await api.call("broken"), "failed")
        assert told.startswith("HTTP 500 Internal Server Error: boom boom") and len(told) < 2100
        assert await api.call("cookies") == {} == await api.call("cookies")


async def test_answers_without_end(shop: str) -> None:
    async with worker("openapi", options(shop, max_response_bytes=1 << 20)) as api:
        for tool in ("flood", "bomb"):
            assert "larger than 1048576 bytes" in error(await api.call(tool), "bad_result")
        assert await api.call("text") == "grüß Gott"


async def test_slow_answers(shop: str) -> None:
    async with worker("openapi", options(shop), timeout_s=2.0) as api:
        assert "did not answer within 2 s" in error(await api.call("slow"), "timeout")
        # others do not wait for it
        slow = asyncio.ensure_future(api.call("slow", {"s": 30}))
        assert await api.call("text") == "grüß Gott"
        assert not slow.done()
        error(await slow, "timeout")


async def test_a_service_that_is_not_there(shop: str) -> None:
    with serving("shop.py") as url:
        async with worker("openapi", options(shop, base_url=url)) as api:
            assert await api.call("text") == "grüß Gott"
        gone = url
    async with worker("openapi", options(shop, base_url=gone)) as api:
        assert "cannot be reached" in error(await api.call("text"), "unavailable")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"document": "/nowhere/api.json"}, "/nowhere/api.json"),
        ({"document": "http://127.0.0.1:1/openapi.json"}, "cannot be reached"),
        ({"document": "x", "colour": "red"}, "unknown field `colour`"),
        ({"document": "x", "auth": {"bearer": "NOT_THERE"}}, "the secret NOT_THERE is not there"),
        ({}, "missing required field `document`"),
    ],
)
async def test_a_source_that_cannot_be_used_says_why(options: dict[str, Any], said: str) -> None:
    async with worker("openapi", options) as api:
        assert said in error(await api.call("x"), "unavailable")
        assert api.catalogues == []
