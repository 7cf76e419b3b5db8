"""Code in a sandbox calls functions of the operator: loops, gather, threads, and tools that behave badly."""

from __future__ import annotations

import concurrent.futures
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments import Environment
from tests.api.gateway import Gateway
from tests.tools.servers import gateway_with, run

TOOLS = """
    import asyncio, datetime, os, subprocess, sys, time
    from dataclasses import dataclass
    import onehop

    SEEN = []

    @dataclass
    class Point:
        x: int
        y: float

    @onehop.tool(read_only=True)
    def add(a: int, b: int = 2) -> int:
        '''Adds two numbers.

        Args:
            a: the first
            b: the second
        '''
        return a + b

    @onehop.tool
    async def nap(s: float) -> float:
        await asyncio.sleep(s)
        return s

    @onehop.tool
    def block(s: float) -> float:
        time.sleep(s)
        return s

    @onehop.tool(timeout_s=0.3)
    def forever() -> None:
        while True:
            time.sleep(1)

    @onehop.tool
    def point(x: int) -> Point:
        return Point(x, 1.5)

    @onehop.tool
    def when() -> datetime.datetime:
        return datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)

    @onehop.tool
    def image() -> dict:
        return {"kind": "png", "data": b"\\x89PNG\\r\\n" + bytes(1000)}

    @onehop.tool
    def nan() -> list[float]:
        return [1.0, float("nan")]

    @onehop.tool
    def huge(mib: int) -> str:
        return "x" * (mib << 20)

    @onehop.tool
    def nothing_plain() -> object:
        return object()

    @onehop.tool
    def fails(text: str) -> None:
        raise RuntimeError(text)

    @onehop.tool
    def exits() -> None:
        os._exit(9)

    @onehop.tool(idempotent=True)
    def exits_once(mark: str) -> str:
        if os.path.exists(mark):
            return "the second time"
        open(mark, "w").close()
        os._exit(9)

    @onehop.tool
    def forks() -> str:
        os.fork()
        return "forked"

    @onehop.tool
    def floods() -> int:
        for n in range(50_000):
            print("flood", n)
        return n

    @onehop.tool
    def secret() -> int:
        return len(os.environ["TOOL_TOKEN"])

    @onehop.tool
    def home() -> str:
        return os.environ["HOME"]

    @onehop.tool(requires_approval=True)
    def delete(name: str) -> str:
        return f"{name} is gone"
"""


@pytest.fixture(scope="module")
def gateway(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("tools")
    module = home / "mine.py"
    (home / "config.toml").write_text(
        f'[tools.mine]\nkind = "python"\nmodule = "{module.name}"\nsecrets = ["TOOL_TOKEN"]\n'
    )
    os.environ["TOOL_TOKEN"] = "tt-secret-1"
    os.environ["OTHER_TOKEN"] = "ot-secret-2"
    try:
        with gateway_with(environment, home, TOOLS, tools=None) as gateway:
            yield gateway
    finally:
        del os.environ["TOOL_TOKEN"], os.environ["OTHER_TOKEN"]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def test_in_a_loop(client: httpx2.Client) -> None:
    answer = run(client, "total = 0\nfor n in range(300):\n    total = tools.mine.add(total, b=n)\ntotal")
    assert answer["status"] == "ok"
    assert answer["results"] == [{"text/plain": str(sum(range(300)))}]
    assert len(answer["tool_calls"]) == 300
    assert {(one["name"], one["status"]) for one in answer["tool_calls"]} == {("mine.add", "ok")}


def test_in_gather(client: httpx2.Client) -> None:
    code = """
        import asyncio
        from tools import mine
        found = await asyncio.gather(*(mine.nap(0.5) for _ in range(60)), *(mine.add(n) for n in range(60)))
        found == [0.5] * 60 + [n + 2 for n in range(60)]
    """
    before_s = time.monotonic()
    answer = run(client, code)
    assert answer["results"] == [{"text/plain": "True"}], answer
    assert time.monotonic() - before_s < 15, "one after another they take 30 s"


def test_in_threads(client: httpx2.Client) -> None:
    code = """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(20) as pool:
            print(list(pool.map(tools.mine.block, [0.1] * 40)) == [0.1] * 40)
            print(sorted(pool.map(tools.mine.add, range(200))) == list(range(2, 202)))
    """
    answer = run(client, code)
    assert answer["stdout"] == "True\nTrue\n", answer


def test_typed_results(client: httpx2.Client) -> None:
    code = "print(tools.mine.point(3), tools.mine.when(), tools.mine.image())"
    answer = run(client, code)
    (file,) = answer["files"]
    assert answer["stdout"] == (
        f"{{'x': 3, 'y': 1.5}} 2026-01-02T00:00:00+00:00 {{'kind': 'png', 'data': '{file['path']}'}}\n"
    )
    assert (file["bytes"], file["path"].endswith(".png")) == (1006, True)


def test_help_and_signatures(client: httpx2.Client) -> None:
    answer = run(client, "import inspect\nprint(inspect.signature(tools.mine.add))\nhelp(tools.mine.add)")
    assert "a: int, b: int = 2" in answer["stdout"].splitlines()[0]
    assert "Adds two numbers." in answer["stdout"]
    assert "the second" in answer["stdout"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("add('x')", "ToolArgumentError", ["a: input should be a valid integer", "a, b"]),
        ("add()", "ToolArgumentError", ["a"]),
        ("add(1, c=3)", "ToolArgumentError", ["c"]),
        ("fails('no such city')", "ToolFailedError", ["RuntimeError: no such city"]),
        ("forever()", "ToolTimeoutError", ["0.3 s"]),
        ("nan()", "ToolResultError", ["the result[1] is nan"]),
        ("huge(100)", "ToolResultError", ["bytes"]),
        ("nothing_plain()", "ToolResultError", ["of the type object"]),
        ("exits()", "ToolUnavailableError", ["exit code 9"]),
    ],
)
def test_errors_that_name_what_was_wrong(
    client: httpx2.Client, call: str, error: str, words: list[str]
) -> None:
    answer = run(client, f"tools.mine.{call}")
    assert (answer["status"], answer["error"]["name"]) == ("error", error)
    assert all(word in answer["error"]["value"] for word in words), answer["error"]["value"]
    caught = run(
        client,
        f"import tools\ntry:\n    tools.mine.{call}\nexcept tools.{error} as error:\n    print(error.tool)",
    )
    assert caught["stdout"] == "mine.{}\n".format(call.partition("(")[0])


def test_a_neighbour_of_a_worker_that_dies(client: httpx2.Client) -> None:
    """Another session's calls: those that run are lost with the worker, typed; all others go well."""
    code = """
        import asyncio, tools
        good = lost = 0
        for n in range(300):
            try:
                assert await tools.mine.add(n) == n + 2
                good += 1
            except tools.ToolUnavailableError:
                lost += 1
            await asyncio.sleep(0.005)
        print(good + lost, good > 250)
    """
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        neighbour = pool.submit(run, client, code)
        for _ in range(3):
            assert run(client, "tools.mine.exits()")["error"]["name"] == "ToolUnavailableError"
        assert neighbour.result()["stdout"] == "300 True\n"


def test_what_is_idempotent_is_run_again(client: httpx2.Client) -> None:
    mark = f"/tmp/onehop-test-code-{os.getpid()}"
    try:
        answer = run(client, f"print(tools.mine.exits_once({mark!r}))")
        assert answer["stdout"] == "the second time\n", answer
        assert [one["status"] for one in answer["tool_calls"]] == ["ok"]
    finally:
        Path(mark).unlink(missing_ok=True)


def test_forks_and_floods(client: httpx2.Client, gateway: Gateway) -> None:
    assert (
        run(client, "print([tools.mine.forks() for _ in range(5)])")["stdout"] == str(["forked"] * 5) + "\n"
    )
    before = len(gateway.log.read_bytes())
    assert run(client, "print(tools.mine.floods(), tools.mine.add(1))")["stdout"] == "49999 3\n"
    assert len(gateway.log.read_bytes()) - before < 1_000_000


def test_secrets_stay_outside(client: httpx2.Client) -> None:
    code = """
        import os, subprocess
        print(tools.mine.secret())
        print("TOOL_TOKEN" in os.environ, "tt-secret-1" in str(os.environ))
        found = subprocess.run("cat /proc/*/environ 2>/dev/null; grep -rl tt-secret-1 / --include=*.py 2>/dev/null",
                               shell=True, capture_output=True).stdout
        print(b"tt-secret-1" in found, b"ot-secret-2" in found)
    """
    assert run(client, code, timeout_s=50)["stdout"] == "11\nFalse False\nFalse False\n"
    stubs = client.get("/api/tools", params={"format": "python"}).text
    assert "tt-secret" not in stubs


def test_tools_are_only_those_of_the_request(client: httpx2.Client) -> None:
    answer = run(client, "tools.mine.nap(0)", tools=["mine.add"])
    assert answer["status"] == "error"
    assert answer["error"]["name"] in ("ToolNotFoundError", "AttributeError")
    answer = run(client, "tools.mine.add(1)", tools=[])
    assert answer["error"]["name"] == "NameError"
    forged = """
        import tools, types
        try:
            made = tools.mine.add
            made._name = made.name = "mine.delete"
        except Exception:
            pass
        tools.mine.add(1)
    """
    assert "gone" not in str(run(client, forged, tools=["mine.add"]))


def test_a_tool_that_wants_an_approval(client: httpx2.Client) -> None:
    answer = run(client, "[tools.mine.delete('a')]")
    assert answer["status"] == "tool_call_required"
    (call,) = answer["tool_calls"]
    assert (call["needs"], call["name"], call["arguments"]) == ("approval", "mine.delete", {"name": "a"})
    results = client.post(
        f"/api/executions/{answer['id']}/tool_results",
        json={"results": [{"id": call["id"], "approve": True}]},
    )
    assert results.json()["results"] == [{"text/plain": "['a is gone']"}]
    wrong = run(client, "tools.mine.delete(5)")
    assert wrong["error"]["name"] == "ToolArgumentError", "nobody is asked for a call that cannot be made"


def test_a_batch_of_writes_is_approved_at_once(client: httpx2.Client) -> None:
    code = """
        import asyncio
        names = ("a", "b", "c")
        found = await asyncio.gather(*(tools.mine.delete(name) for name in names), return_exceptions=True)
        [one if isinstance(one, str) else type(one).__name__ + ": " + one.message for one in found]
    """
    answer = run(client, code)
    assert [call["arguments"] for call in answer["tool_calls"]] == [{"name": name} for name in "abc"]
    first, second, third = (call["id"] for call in answer["tool_calls"])
    results = [
        {"id": first, "approve": True},
        {"id": second, "approve": False, "reason": "keep that one"},
        {"id": third, "approve": True},
    ]
    path = f"/api/executions/{answer['id']}/tool_results"
    done = client.post(path, json={"results": results}).json()
    assert done["results"] == [{"text/plain": "['a is gone', 'ToolDeniedError: keep that one', 'c is gone']"}]
    ended = {call["id"]: call["status"] for call in done["tool_calls"]}
    assert ended == {first: "ok", second: "denied", third: "ok"}


def test_the_worker_sees_neither_database_nor_supervisor(client: httpx2.Client) -> None:
    answer = run(client, "print(tools.mine.home())")
    assert "onehop-mine-" in answer["stdout"]


def test_unknown_names_are_refused_before_anything_runs(client: httpx2.Client) -> None:
    for names, words in (
        (["mine.ad"], "mine.add"),
        (["mine"], "mine.*"),
        (["other.*"], "there is no tool"),
        (["x" * 5000], "there is no tool"),
    ):
        response = client.post("/api/execute", json={"code": "1", "tools": names})
        assert response.status_code == 422, response.text
        assert response.json()["field"] == "tools"
        assert words in response.json()["detail"]
        assert len(response.text) < 2000


def test_after_a_restart_of_the_gateway_the_stubs_are_the_same(
    environment: Environment, tmp_path: Path
) -> None:
    found = []
    for _ in range(2):
        with gateway_with(environment, tmp_path, TOOLS) as gateway:
            found.append(httpx2.get(f"{gateway.url}/api/tools", params={"format": "python"}).content)
    assert found[0] == found[1]
    compile(found[0], "stubs", "exec")
