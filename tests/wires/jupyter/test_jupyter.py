"""The kernels API by jupyter_kernel_client, by what smolagents and Open WebUI send, and message by message."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import websocket
import websockets
from jupyter_kernel_client import JupyterKernelClient
from smolagents.remote_executors import _create_kernel_http, _websocket_run_code_raise_errors
from websockets.asyncio.client import ClientConnection, connect

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.tenants import tenant


class Channel:
    """A client's side of one websocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, kind: str, content: dict[str, Any] | None = None, channel: str = "shell") -> str:
        name = uuid.uuid4().hex
        await self.socket.send(json.dumps({
            "header": {"msg_id": name, "msg_type": kind, "username": "u", "session": "s", "version": "5.3"},
            "parent_header": {}, "metadata": {}, "content": content or {}, "channel": channel,
        }))  # fmt: skip
        return name

    async def until(self, name: str, kind: str) -> list[dict[str, Any]]:
        """Messages that answer a request, up to the one of that type."""
        found: list[dict[str, Any]] = []
        while not found or found[-1]["header"]["msg_type"] != kind:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), 30))
            if message["parent_header"].get("msg_id") == name:
                found.append(message)
        return found

    async def ask(
        self, kind: str, content: dict[str, Any] | None = None, channel: str = "shell"
    ) -> dict[str, Any]:
        """The content of the reply; what follows it is read, too."""
        name = await self.send(kind, content, channel)
        found = await self.until(name, kind.replace("request", "reply"))
        idle = await self.until(name, "status")
        assert idle[-1]["content"] == {"execution_state": "idle"}
        return dict(found[-1]["content"])

    async def run(self, code: str) -> list[dict[str, Any]]:
        """All that a cell says, from busy to idle."""
        name = await self.send("execute_request", {"code": code, "silent": False})
        found = await self.until(name, "execute_reply")
        return [*found, *await self.until(name, "status")]


@pytest.fixture
def kernel(gateway: Gateway) -> Iterator[str]:
    with httpx2.Client(base_url=gateway.url + "/jupyter", timeout=30) as client:
        made = client.post("/api/kernels", json={"name": "python3"})
        assert made.status_code == 201
        assert made.headers["location"].endswith(made.json()["id"])
        yield made.json()["id"]
        client.delete(f"/api/kernels/{made.json()['id']}")


def channels(gateway: Gateway, kernel: str) -> str:
    return gateway.url.replace("http", "ws") + f"/jupyter/api/kernels/{kernel}/channels"


def over(gateway: Gateway, kernel: str, flow: Any) -> None:
    async def run() -> None:
        async with connect(channels(gateway, kernel), proxy=None) as socket:
            await asyncio.wait_for(flow(Channel(socket)), 90)

    asyncio.run(run())


@pytest.mark.compat("Jupyter", "jupyter_kernel_client: execute, interrupt, restart, variables, list")
def test_jupyter_kernel_client(gateway: Gateway) -> None:
    with JupyterKernelClient(server_url=gateway.url + "/jupyter", token="any") as kernel:
        done = kernel.execute("x = 6\nprint('hi')\nx * 7")
        assert done["status"] == "ok"
        assert [one["output_type"] for one in done["outputs"]] == ["stream", "execute_result"]
        assert done["outputs"][0]["text"] == "hi\n"
        assert done["outputs"][1]["data"]["text/plain"] == "42"
        failed = kernel.execute("1 / 0")
        assert failed["status"] == "error"
        assert failed["outputs"][0]["ename"] == "ZeroDivisionError"
        figure = kernel.execute("import matplotlib.pyplot as plt; plt.plot([1]); plt.show()")
        assert figure["outputs"][0]["data"]["image/png"].startswith("iVBOR")
        assert kernel.is_alive()
        assert kernel.id in [one["id"] for one in kernel.list_kernels()]
        stop = threading.Timer(0.5, kernel.interrupt)
        stop.start()
        broken = kernel.execute("while True: pass", timeout=30)
        assert broken["outputs"][0]["ename"] == "KeyboardInterrupt"
        assert kernel.execute("x")["outputs"][0]["data"]["text/plain"] == "6"
        kernel.restart()
        assert kernel.execute("'x' in globals()")["outputs"][0]["data"]["text/plain"] == "False"
        name = kernel.id
    with httpx2.Client(base_url=gateway.url + "/jupyter", timeout=30) as client:
        assert client.get(f"/api/kernels/{name}").status_code == 404


@pytest.mark.compat("Jupyter", "what smolagents' remote executors send")
def test_smolagents(gateway: Gateway) -> None:
    class Logger:
        def log(self, *_: Any, **__: Any) -> None:
            pass

        log_error = log

    base = gateway.url + "/jupyter"
    assert httpx2.get(base + "/api/kernelspecs?token=any", timeout=20).status_code == 200
    kernel = _create_kernel_http(base + "/api/kernels?token=any", Logger())
    socket = websocket.create_connection(channels(gateway, kernel) + "?token=any", timeout=30)
    try:
        done = _websocket_run_code_raise_errors("print('a')\nx = 1\nx + 1", socket, Logger())
        assert (done.output, done.logs) == ("2", "a\n")
        with pytest.raises(Exception, match="ZeroDivisionError"):
            _websocket_run_code_raise_errors("1 / 0", socket, Logger())
        again = _websocket_run_code_raise_errors("x", socket, Logger())
        assert again.output == "1"
    finally:
        socket.close()
    assert httpx2.delete(base + f"/api/kernels/{kernel}", timeout=20).status_code == 204


@pytest.mark.compat("Jupyter", "what Open WebUI sends")
def test_open_webui(gateway: Gateway) -> None:
    """Its code interpreter: a kernel for each run, messages until `idle`, the kernel deleted."""

    async def run() -> tuple[str, str, list[str]]:
        base = gateway.url + "/jupyter/"
        async with httpx2.AsyncClient(timeout=30) as http:
            kernel = (await http.post(base + "api/kernels", params={"token": "any"})).json()["id"]
            stdout, stderr, result = "", "", []
            async with connect(channels(gateway, kernel) + "?token=any", proxy=None) as socket:
                name = uuid.uuid4().hex
                await socket.send(json.dumps({
                    "header": {
                        "msg_id": name, "msg_type": "execute_request", "username": "user",
                        "session": uuid.uuid4().hex, "date": "", "version": "5.3",
                    },
                    "parent_header": {}, "metadata": {}, "channel": "shell",
                    "content": {
                        "code": "print('out'); import sys; print('err', file=sys.stderr); 'value'", "silent": False,
                        "store_history": True, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True,
                    },
                }))  # fmt: skip
                while True:
                    message = json.loads(await asyncio.wait_for(socket.recv(), 30))
                    if message.get("parent_header", {}).get("msg_id") != name:
                        continue
                    match message.get("msg_type"):
                        case "stream" if message["content"]["name"] == "stdout":
                            stdout += message["content"]["text"]
                        case "stream":
                            stderr += message["content"]["text"]
                        case "execute_result" | "display_data":
                            result.append(message["content"]["data"]["text/plain"])
                        case "status" if message["content"]["execution_state"] == "idle":
                            break
            assert (
                await http.delete(base + f"api/kernels/{kernel}", params={"token": "any"})
            ).status_code == 204
        return stdout, stderr, result

    assert asyncio.run(run()) == ("out\n", "err\n", ["'value'"])


@pytest.mark.compat(
    "Jupyter", "messages: execute, complete, inspect, is_complete, kernel_info, interrupt, shutdown"
)
def test_messages(gateway: Gateway, kernel: str) -> None:
    async def flow(channel: Channel) -> None:
        said = await channel.run("print('a')\n1 + 1")
        assert [one["header"]["msg_type"] for one in said] == [
            "status", "execute_input", "stream", "execute_result", "execute_reply", "status",
        ]  # fmt: skip
        assert {one["channel"] for one in said if one["header"]["msg_type"] != "execute_reply"} == {"iopub"}
        assert said[3]["content"]["execution_count"] == said[4]["content"]["execution_count"] == 1
        assert said[4]["content"]["status"] == "ok"
        failed = await channel.run("def f():\n    raise ValueError('no')\nf()")
        assert failed[-2]["content"]["ename"] == "ValueError"
        assert any("raise ValueError" in line for line in failed[-2]["content"]["traceback"])
        document = await channel.run("from IPython.display import JSON, display; display(JSON({'a': [1]}))")
        assert document[2]["content"]["data"]["application/json"] == {"a": [1]}
        quiet = await channel.send("execute_request", {"code": "y = 5; print('unheard')", "silent": True})
        kinds = [one["header"]["msg_type"] for one in await channel.until(quiet, "execute_reply")]
        assert kinds == ["status", "execute_reply"]
        info = await channel.ask("kernel_info_request")
        assert (info["protocol_version"], info["language_info"]["name"]) == ("5.3", "python")
        await channel.run("import os")
        completed = await channel.ask("complete_request", {"code": "import os\nos.getcw", "cursor_pos": 17})
        assert "getcwd" in "".join(completed["matches"])
        assert (completed["cursor_start"] >= 10, completed["cursor_end"]) == (True, 17)
        found = await channel.ask("inspect_request", {"code": "len", "cursor_pos": 3, "detail_level": 0})
        assert found["found"]
        assert "number of items" in found["data"]["text/plain"]
        assert not (await channel.ask("inspect_request", {"code": "nothing_here", "cursor_pos": 5}))["found"]
        assert (await channel.ask("is_complete_request", {"code": "for x in y:"}))["status"] == "incomplete"
        assert (await channel.ask("is_complete_request", {"code": "1 +"}))["status"] == "invalid"
        assert (await channel.ask("is_complete_request", {"code": "1"}))["status"] == "complete"
        assert (await channel.ask("history_request"))["history"] == []
        assert (await channel.ask("comm_info_request"))["comms"] == {}
        endless = await channel.send("execute_request", {"code": "while True: pass"})
        after = await channel.send("execute_request", {"code": "y"})
        await channel.until(endless, "execute_input")
        assert (await channel.ask("interrupt_request", channel="control"))["status"] == "ok"
        reply = await channel.until(after, "execute_reply")
        assert [one["content"]["data"]["text/plain"] for one in reply if "data" in one["content"]] == ["5"]
        assert (await channel.ask("shutdown_request", {"restart": True}, "control"))["restart"]
        gone = await channel.run("y")
        assert gone[-2]["content"]["ename"] == "NameError"
        assert (await channel.ask("shutdown_request", {"restart": False}, "control"))["status"] == "ok"
        dead = await channel.run("1")
        assert dead[-2]["content"]["status"] == "error"

    over(gateway, kernel, flow)


def test_a_client_that_goes_leaves_the_code(gateway: Gateway, kernel: str) -> None:
    async def first(channel: Channel) -> None:
        name = await channel.send("execute_request", {"code": "import time; time.sleep(0.5); done = 1"})
        await channel.until(name, "execute_input")

    async def second(channel: Channel) -> None:
        said = await channel.run("done")
        assert said[2]["content"]["data"]["text/plain"] == "1"

    over(gateway, kernel, first)
    over(gateway, kernel, second)


@pytest.mark.parametrize(
    "raw", ["", "{", "[]", "5", '{"header": 5}', b"\xff\x00", '{"content": {}}', "[" * 100_000]
)
def test_what_is_no_message(gateway: Gateway, kernel: str, raw: str | bytes) -> None:
    async def flow(channel: Channel) -> None:
        await channel.socket.send(raw)
        with pytest.raises(websockets.ConnectionClosed) as told:
            await channel.socket.recv()
        assert told.value.rcvd is not None
        assert told.value.rcvd.code == 1003

    over(gateway, kernel, flow)


def test_requests_that_are_odd(gateway: Gateway, kernel: str) -> None:
    async def flow(channel: Channel) -> None:
        await channel.send("nothing_request", {})
        too_long = await channel.run("x" * 3_000_000)
        assert too_long[-2]["content"]["status"] == "error"
        assert (await channel.ask("complete_request", {"code": "", "cursor_pos": 99}))["status"] == "ok"
        assert (await channel.ask("inspect_request", {"code": "len", "cursor_pos": -5}))["status"] == "ok"
        assert (await channel.run(""))[-2]["content"]["status"] == "ok"

    over(gateway, kernel, flow)


def test_more_requests_than_are_kept(gateway: Gateway, kernel: str) -> None:
    async def flow(channel: Channel) -> None:
        name = await channel.send("execute_request", {"code": "import time; time.sleep(30)"})
        await channel.until(name, "execute_input")

        async def flood() -> None:
            while True:
                await channel.send("execute_request", {"code": "1"})

        with pytest.raises(websockets.ConnectionClosed):
            await flood()

    over(gateway, kernel, flow)


def test_rest_errors(gateway: Gateway) -> None:
    with httpx2.Client(base_url=gateway.url + "/jupyter", timeout=30) as client:
        assert client.get("/api").json()["version"]
        assert client.get("/api/status").json()["kernels"] >= 0
        assert client.post("/api/kernels", json={"name": "julia"}).status_code == 400
        assert client.post("/api/kernels", content=b"{").status_code == 400
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/interrupt"), ("POST", "/restart")):
            assert client.request(method, f"/api/kernels/ses_none{path}").status_code == 404
        session = client.post(gateway.url + "/api/sessions", json={}).json()["id"]
        assert client.get(f"/api/kernels/{session}").status_code == 404, (
            "a session of another kind is no kernel"
        )
        client.delete(gateway.url + f"/api/sessions/{session}")


@pytest.fixture(scope="module")
def keyed(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, list[str]]]:
    home = tmp_path_factory.mktemp("jupyter")
    keys = [tenant(home, name, "execute", "read") for name in ("first", "second")]
    keys += [tenant(home, "third", "read"), tenant(home, "fourth", "execute", "read", max_sessions=1)]
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, home) as gateway:
        yield gateway, keys


def refused(url: str, **headers: str) -> int:
    """The status of a websocket that is not opened."""

    async def run() -> int:
        with pytest.raises(websockets.InvalidStatus) as told:
            async with connect(url, proxy=None, additional_headers=headers):
                pass
        return told.value.response.status_code

    return asyncio.run(run())


@pytest.mark.compat("Jupyter", "keys: ?token=, Authorization: token, Bearer")
def test_keys(keyed: tuple[Gateway, list[str]]) -> None:
    gateway, (first, second, reader, limited) = keyed
    base = gateway.url + "/jupyter/api/kernels"
    for wrong in ({}, {"authorization": "token oh_wrong"}):
        answer = httpx2.post(base, headers=wrong, timeout=20)
        assert (answer.status_code, "key" in answer.json()["message"]) == (403, True)
    kernel = httpx2.post(base, params={"token": first}, timeout=20).json()["id"]
    url = channels(gateway, kernel)

    async def works(address: str, **headers: str) -> None:
        async with connect(address, proxy=None, additional_headers=headers) as socket:
            said = await Channel(socket).run("6 * 7")
            assert said[2]["content"]["data"]["text/plain"] == "42"

    asyncio.run(works(f"{url}?token={first}"))
    asyncio.run(works(url, authorization=f"token {first}"))
    asyncio.run(works(url, authorization=f"Bearer {first}"))
    for address in (url, f"{url}?token=oh_wrong", f"{url}?token={second}", f"{url}?token={reader}"):
        assert refused(address) == 403
    assert refused(f"{url}?token={first}", origin="https://evil.example") == 403, "a page of another site"
    assert refused(gateway.url.replace("http", "ws") + f"/api/sessions?token={first}") == 403
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/interrupt"), ("POST", "/restart")):
        answer = httpx2.request(method, f"{base}/{kernel}{path}", params={"token": second}, timeout=20)
        assert answer.status_code == 404
    assert httpx2.get(base, params={"token": second}, timeout=20).json() == []
    assert httpx2.post(base, params={"token": limited}, timeout=20).status_code == 201
    again = httpx2.post(base, params={"token": limited}, timeout=20)
    assert (again.status_code, int(again.headers["retry-after"]) >= 1) == (429, True)
    assert first not in gateway.log.read_text()
    httpx2.delete(f"{base}/{kernel}", params={"token": first}, timeout=20)


def test_a_gateway_that_ends_closes_its_websockets(environment: Environment, tmp_path: Any) -> None:
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, tmp_path) as gateway:
        kernel = httpx2.post(gateway.url + "/jupyter/api/kernels", timeout=30).json()["id"]

        async def flow() -> float:
            async with connect(channels(gateway, kernel), proxy=None) as socket:
                await Channel(socket).ask("kernel_info_request")
                began_s = time.monotonic()
                stopping = asyncio.create_task(asyncio.to_thread(gateway.stop))
                with pytest.raises(websockets.ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 60)
                assert await stopping == 0
                return time.monotonic() - began_s

        assert asyncio.run(flow()) < 30


def test_the_page(gateway: Gateway) -> None:
    """The example of docs/wires/jupyter.md, at this server."""
    page = (Path(__file__).parents[3] / "docs" / "wires" / "jupyter.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example.replace("http://127.0.0.1:8000", gateway.url)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "42\n", done.stderr
