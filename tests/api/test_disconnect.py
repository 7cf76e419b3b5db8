"""A client that hangs up: by default the code goes on, and a request may ask for the opposite."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import msgspec
import pytest

from tests.api.gateway import Gateway
from tests.api.test_executions import EVENTS

UNTIL_TOLD = "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('done')"
ENDLESS = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.05)"


def busy(client: httpx2.Client, session_id: str) -> list[str]:
    executions: list[str] = client.get(f"/api/sessions/{session_id}").json()["executions"]
    return executions


def hang_up(gateway: Gateway, client: httpx2.Client, session_id: str, body: dict[str, Any]) -> str:
    """Sends the request, waits until it runs, hangs up before the answer; the execution's id."""
    raw = msgspec.json.encode(body)
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(
            f"POST /api/sessions/{session_id}/execute HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
            + raw
        )
        while not (running := busy(client, session_id)):
            pass
        # It runs once its first output is there.
        path = f"/api/executions/{running[0]}/events"
        with client.stream("GET", path) as events:
            next(events.iter_text())
    return running[0]


def ended(client: httpx2.Client, execution: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/api/executions/{execution}", params={"wait_s": 20}).json()
    return answer


def test_the_code_goes_on(gateway: Gateway, client: httpx2.Client, session_id: str) -> None:
    execution = hang_up(gateway, client, session_id, {"code": UNTIL_TOLD})
    headers = {"content-type": "application/octet-stream"}
    assert client.put(f"/api/sessions/{session_id}/files/go", content=b"", headers=headers).is_success
    answer = ended(client, execution)
    assert (answer["status"], answer["stdout"]) == ("ok", "begun\ndone\n")


def test_or_is_interrupted(gateway: Gateway, client: httpx2.Client, session_id: str) -> None:
    body = {"code": ENDLESS, "on_disconnect": "interrupt"}
    answer = ended(client, hang_up(gateway, client, session_id, body))
    assert (answer["status"], answer["variables"]) == ("interrupted", "kept")


@pytest.mark.parametrize(
    ("choice", "timeout_s", "status"), [("continue", 1.5, "timeout"), ("interrupt", 30, "interrupted")]
)
def test_a_reader_of_events(
    client: httpx2.Client, session_id: str, choice: str, timeout_s: float, status: str
) -> None:
    path = f"/api/sessions/{session_id}/execute"
    body = {"code": ENDLESS, "on_disconnect": choice, "timeout_s": timeout_s}
    with client.stream("POST", path, json=body, headers=EVENTS) as response:
        next(response.iter_text())
        execution = response.headers["onehop-execution-id"]
    assert ended(client, execution)["status"] == status


def test_alone_it_is_killed(client: httpx2.Client) -> None:
    body = {"code": ENDLESS, "on_disconnect": "interrupt"}
    with client.stream("POST", "/api/execute", json=body, headers=EVENTS) as response:
        next(response.iter_text())
        execution = response.headers["onehop-execution-id"]
    assert ended(client, execution)["status"] == "killed"


def test_one_who_stays_gets_the_answer(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/execute"
    answer = client.post(path, json={"code": "6 * 7", "on_disconnect": "interrupt"}).json()
    assert answer["results"][-1]["text/plain"] == "42"
    assert client.post(path, json={"code": "_"}).json()["results"][-1]["text/plain"] == "42"


def test_waiting_for_an_answer_ends(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/execute"
    with client.stream("POST", path, json={"code": ENDLESS}, headers=EVENTS) as response:
        next(response.iter_text())
        execution = response.headers["onehop-execution-id"]
        assert client.get(f"/api/executions/{execution}", params={"wait_s": 1}).json()["status"] == "running"
        client.post(f"/api/sessions/{session_id}/interrupt", json={})
    assert ended(client, execution)["status"] == "interrupted"
