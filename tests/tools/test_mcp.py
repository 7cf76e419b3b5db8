"""Servers of MCP over stdio: what their tools, annotations and results become."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

from tests.tools.conftest import until
from tests.tools.remote import HOSTILE, error, hostile, tools, worker


async def test_somebody_elses_server() -> None:
    command = [sys.executable, "-m", "mcp_server_time", "--local-timezone", "Europe/Oslo"]
    async with worker("mcp", {"command": command}) as api:
        found = tools(api)
        assert set(found) == {"get_current_time", "convert_time"}
        assert found["get_current_time"].parameters["required"] == ["timezone"]
        assert found["get_current_time"].description
        now = await api.call("get_current_time", {"timezone": "Asia/Tokyo"})
        assert now["timezone"] == "Asia/Tokyo" and now["datetime"].endswith("+09:00")
        there = {"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "UTC"}
        assert "T03:00:00" in (await api.call("convert_time", there))["target"]["datetime"]
        assert "'timezone' is a required" in error(await api.call("get_current_time"), "bad_arguments")
        assert "Atlantis" in error(await api.call("get_current_time", {"timezone": "Atlantis"}), "failed")
        both = [api.call("get_current_time", {"timezone": zone}) for zone in ("UTC", "Europe/Paris") * 20]
        assert [one["timezone"] for one in await asyncio.gather(*both)] == ["UTC", "Europe/Paris"] * 20


async def test_annotations_become_policy() -> None:
    async with hostile() as api:
        found = tools(api)
        assert (found["die"].read_only, found["die"].idempotent) == (True, True)
        assert (found["echo"].read_only, found["echo"].idempotent) == (False, True)
        assert (found["noop"].read_only, found["noop"].idempotent) == (False, False)
        assert {name for name, one in found.items() if one.requires_approval} == {"delete_all"}
    async with hostile(approval="writes", offer=["noop", "d*", "append"]) as api:
        found = tools(api)
        assert set(found) == {"noop", "die", "die_writing", "delete_all", "append"}
        assert {name for name, one in found.items() if one.requires_approval} == {
            "noop",
            "die_writing",
            "delete_all",
        }
    async with hostile(approval="never") as api:
        assert not any(one.requires_approval for one in api.catalogues[-1])


async def test_results() -> None:
    async with hostile() as api:
        assert await api.call("noop") == "ok"
        assert await api.call("echo", {"a": [1, None]}) == {"a": [1, None]}
        value, files = await api.call("blocks")
        assert value[0] == "one" and value[2] == "a note"
        assert files[value[1]] == b"\x89PNG\r\n\x1a\n" and value[1].endswith(".png")
        assert files[value[3]] == b"\x00\x01\x02" and value[3].endswith("-data.bin")
        assert value[4] == {"type": "resource_link", "uri": "file:///b", "name": "b"}
        assert await api.call("json") == '{"a": [1, 2]}'
        assert error(await api.call("error"), "failed") == "it is raining"
        assert error(await api.call("refuse"), "bad_arguments") == "n is missing"
        assert "no base64" in error(await api.call("badimage"), "bad_result")
        assert "answer is no JSON" in error(await api.call("nan"), "bad_result")
        assert "none of MCP" in error(await api.call("nonsense"), "bad_result")
        assert await api.call("garbage") == "after garbage"
        assert await api.call("shuffled") == "ok"
    async with hostile(parse_json=True) as api:
        assert await api.call("json") == {"a": [1, 2]}
        assert await api.call("noop") == "ok"


async def test_promises_about_results(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "onehop.tools")
    async with hostile() as api:
        promised = tools(api)["promised"].returns
        assert promised is not None and promised["required"] == ["n"]
        assert await api.call("promised") == {"n": 1}
        assert await api.call("texted") == {"n": 2}
        assert await api.call("broken") == {"n": "one"}
        await until(lambda: "broken: its result does not match its output schema (n: 'one'" in caplog.text)
        assert await api.call("unstructured") == "two"
        await until(lambda: "unstructured: it has an output schema but sent no structured" in caplog.text)
        assert tools(api)["badschema"].parameters == {"type": "object"}
        assert tools(api)["badschema"].returns is None
        assert await api.call("badschema", {"a": 1}) == "ok"
        assert await api.call("elsewhere", {"n": 1}) == "ok"  # no reference to another place is followed
        assert "'n' is a required property" in error(await api.call("wants"), "bad_arguments")


async def test_what_the_server_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMED", "named")
    monkeypatch.setenv("NOT_NAMED", "secret")
    async with hostile(secrets=("NAMED",), env={"MODE": "test"}) as api:
        seen = await api.call("variables")
    assert seen["NAMED"] == "named" and seen["MODE"] == "test"
    inherited = {
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    }
    assert set(seen) - inherited - {"NAMED", "MODE", "PYTHONDONTWRITEBYTECODE"} == set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": ["/nowhere/server"]}, "/nowhere/server cannot be started"),
        ({"command": [*HOSTILE, "quits"]}, "the server ended with exit code 1: I do not want to"),
        ({"command": [*HOSTILE, "badlist"]}, "no list of its tools: tools.0."),
        ({"command": [*HOSTILE, "pages"]}, "more than 200 pages"),
        ({"command": [sys.executable, "-c", "pass"]}, "the server ended with exit code 0"),
        ({"url": "http://127.0.0.1:1/mcp"}, "it cannot be reached"),
        ({"command": ["x"], "url": "http://x/"}, "either `command`"),
        ({}, "either `command`"),
        ({"command": ["x"], "auth": {"bearer": "X"}}, "auth is for a server with a `url`"),
        ({"url": "ftp://x/"}, "no URL of HTTP"),
    ],
)
async def test_a_source_that_cannot_be_used_says_why(options: dict[str, Any], said: str) -> None:
    async with worker("mcp", options, readable=(HOSTILE[1],)) as api:
        assert said in error(await api.call("x"), "unavailable")
        assert api.catalogues == []


if os.geteuid() == 0:

    async def test_the_server_has_the_workers_user() -> None:
        async with hostile() as api:
            pid = int(await api.call("pid"))
            assert os.stat(f"/proc/{pid}").st_uid != 0
