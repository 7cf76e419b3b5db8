"""A gateway that dies while a registered tool is called: at most once, unless it may be repeated; and what is bounded."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.tools.servers import gateway_with, run

TOOLS = """
    import asyncio, socket
    import onehop

    def _ask(port: int, word: str) -> str:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(word.encode())
            return connection.recv(100).decode()

    @onehop.tool
    def once(port: int) -> str:
        return _ask(port, "once")

    @onehop.tool(idempotent=True)
    def again(port: int) -> str:
        return _ask(port, "again")

    now = most = 0

    @onehop.tool
    async def crowd() -> int:
        global now, most
        now += 1
        most = max(now, most)
        await asyncio.sleep(0.1)
        now -= 1
        return most

    @onehop.tool
    def long(text: str = "", bytes: int = 0) -> str:
        return "x" * bytes
"""
CODE = """
    import os, time
    while not os.path.exists("go"): time.sleep(0.01)
    print("begun")
    try:
        print(tools.mine.{tool}(port={port}))
    except tools.ToolError as error:
        print(type(error).__name__)
"""


class Listener:
    """Counts the calls that reach a tool, and answers when it is told to."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(60)
        self.port: int = self.socket.getsockname()[1]

    def accept(self) -> tuple[socket.socket, str]:
        connection, _ = self.socket.accept()
        connection.settimeout(60)
        return connection, connection.recv(100).decode()

    def nobody_came(self) -> bool:
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            self.socket.accept()[0].close()
            return False
        return True


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    with listener.socket:
        yield listener


@pytest.fixture(scope="module")
def supervisor_of_deaths(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


@contextlib.contextmanager
def gateway_on(supervisor: SupervisorHandle, place: Path, **settings: Any) -> Iterator[Gateway]:
    module = place / "mine.py"
    place.mkdir(exist_ok=True)
    module.write_text(dedent(TOOLS))
    gateway = Gateway(supervisor.path, place, tools=module, **settings)
    try:
        yield gateway
        assert gateway.process.poll() is not None or gateway.stop() == 0, gateway.log.read_text()
    finally:
        gateway.kill()


def begin(gateway: Gateway, code: str) -> str:
    """Starts it in a session, since nobody waits for the answer of a gateway that dies; the execution's id."""
    with httpx2.Client(base_url=gateway.url, timeout=30) as client:
        session = client.post("/api/sessions", json={"tools": ["*"]}).json()["id"]
        path = f"/api/sessions/{session}/execute"

        def post() -> None:
            with contextlib.suppress(httpx2.TransportError):
                httpx2.post(gateway.url + path, json={"code": dedent(code)}, timeout=30)

        threading.Thread(target=post, daemon=True).start()
        running: list[str] = []
        while not running:
            running = client.get(f"/api/sessions/{session}").json()["executions"]
        with contextlib.suppress(httpx2.TransportError):  # the first call may be the gateway's end
            client.put(
                f"/api/sessions/{session}/files/go", headers={"content-type": "application/octet-stream"}
            )
    return running[0]


def outcome(gateway: Gateway, execution: str) -> dict[str, Any]:
    with httpx2.Client(base_url=gateway.url, timeout=30) as client:
        answer: dict[str, Any] = {"status": "running"}
        while answer["status"] == "running":
            answer = client.get(f"/api/executions/{execution}", params={"wait_s": 20}).json()
        return answer


def test_a_call_that_may_not_be_repeated_is_not(
    supervisor_of_deaths: SupervisorHandle,
    place: Path,
    listener: Listener,
) -> None:
    with gateway_on(supervisor_of_deaths, place) as gateway:
        execution = begin(gateway, CODE.format(tool="once", port=listener.port))
        connection, word = listener.accept()
        assert word == "once"
        gateway.kill()
    connection.close()
    with gateway_on(supervisor_of_deaths, place) as gateway:
        answer = outcome(gateway, execution)
        assert answer["stdout"] == "begun\nToolOutcomeUnknownError\n"
        assert [call["status"] for call in answer["tool_calls"]] == ["outcome_unknown"]
    assert listener.nobody_came()


def test_a_call_that_may_be_repeated_is(
    supervisor_of_deaths: SupervisorHandle,
    place: Path,
    listener: Listener,
) -> None:
    with gateway_on(supervisor_of_deaths, place) as gateway:
        execution = begin(gateway, CODE.format(tool="again", port=listener.port))
        connection, _ = listener.accept()
        gateway.kill()
    connection.close()
    with gateway_on(supervisor_of_deaths, place) as gateway:
        connection, word = listener.accept()
        with connection:
            connection.sendall(b"answered")
        assert word == "again"
        answer = outcome(gateway, execution)
        assert answer["stdout"] == "begun\nanswered\n"
        assert [call["status"] for call in answer["tool_calls"]] == ["ok"]


@pytest.mark.parametrize(("tool", "printed"), [("once", "ToolOutcomeUnknownError"), ("again", "answered")])
def test_a_gateway_that_dies_before_it_calls(
    supervisor_of_deaths: SupervisorHandle, place: Path, listener: Listener, tool: str, printed: str
) -> None:
    """Nobody can know that the call had not left: one that may not be repeated stays unknown."""
    with gateway_on(supervisor_of_deaths, place, crash_at="call-dispatched") as gateway:
        execution = begin(gateway, CODE.format(tool=tool, port=listener.port))
        gateway.process.wait(60)
    with gateway_on(supervisor_of_deaths, place) as gateway:
        if tool == "again":
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"answered")
        assert outcome(gateway, execution)["stdout"] == f"begun\n{printed}\n"
    assert listener.nobody_came()


def test_calls_beyond_the_bound_wait_in_their_order(environment: Environment, place: Path) -> None:
    with (
        gateway_with(environment, place, TOOLS, max_parallel_calls=2, tool_bytes_mb=1) as gateway,
        httpx2.Client(base_url=gateway.url, timeout=30) as client,
    ):
        code = "import asyncio\nawait asyncio.gather(*(tools.mine.crowd() for _ in range(7)))"
        answer = run(client, code)
        assert answer["status"] == "ok", answer
        assert answer["results"][0]["text/plain"].strip("[]").split(", ")[-1] == "2"
        assert [call["id"] for call in answer["tool_calls"]] == [f"call_{n}" for n in range(2, 9)]

        budget = """
            done = []
            for n in range(4):
                try: done.append(len(tools.mine.long({arguments})))
                except tools.ToolBudgetError: done.append('over')
            done
        """
        results = run(client, budget.format(arguments="bytes=400_000"))
        assert results["results"][0]["text/plain"] == "[400000, 400000, 'over', 'over']"
        arguments = run(client, budget.format(arguments="text='x' * 400_000"))
        assert arguments["results"][0]["text/plain"] == "[0, 0, 'over', 'over']"
