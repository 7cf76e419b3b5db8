"""64 descriptors for every process of the server: new clients wait, nobody else notices, nothing is lost."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments.model import Environment
from tests.cli.conftest import make_home
from tests.cli.processes import ONEHOP, wait_until
from tests.faults.clients import connected
from tests.faults.deaths import session, value
from tests.faults.server import FaultServer, post

MOST = 64


class Limited(FaultServer):
    command = ("sh", "-c", f'ulimit -n {MOST}; exec "$@"', "sh", *ONEHOP)


@pytest.fixture
def server(tmp_path: Path, onehop_home: Path, environment: Environment) -> Iterator[FaultServer]:
    server = Limited(make_home(tmp_path, onehop_home), tmp_path, "--pool-min", "1", "--pool-max", "1")
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()
    assert "Traceback" not in server.said(), server.said()


@contextlib.contextmanager
def crowd(server: FaultServer, number: int) -> Iterator[None]:
    """So many clients that are connected and say nothing."""
    held: list[socket.socket] = []
    try:
        for _ in range(number):
            with connected(server) as connection:
                held.append(connection.dup())
        yield
    finally:
        for connection in held:
            connection.close()


def put(client: httpx2.Client, path: str) -> httpx2.Response:
    headers = {"Content-Type": "application/octet-stream"}
    return client.put(f"{path}/files/a", content=b"1", headers=headers)


def test_sixty_four_descriptors_in_the_gateway(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    value(client, path, "kept = 41")
    gateway = server.gateway()
    with crowd(server, 2 * MOST):
        for _ in range(3):
            assert value(client, path, "kept + 1") == "42"
        refused = put(client, path)
        assert refused.status_code in (200, 201, 503), refused.text
        assert client.get("/healthz").json() == {"status": "ok"}
    assert server.gateway() == gateway, "it lived through it"
    with server.client() as another:
        assert value(another, path, "kept") == "41"
        assert put(another, path).status_code in (200, 201)
        assert another.delete(path).status_code == 204


def test_sixty_four_descriptors_in_the_supervisor(server: FaultServer, client: httpx2.Client) -> None:
    """Sessions until there are no more: a typed refusal, those that are there work, and all is well afterwards."""
    paths: list[str] = []
    for _ in range(20):
        made = client.post("/api/sessions", json={}, timeout=60)
        if made.status_code != 201:
            assert made.status_code in (429, 503), made.text
            break
        paths.append(f"/api/sessions/{made.json()['id']}")
    else:
        raise AssertionError("the control failed: the descriptors were enough for everything")
    supervisor = server.supervisor()
    for path in paths:
        assert value(client, path, "6 * 7") == "42"
    for path in paths:
        assert client.delete(path).status_code == 204
    wait_until(lambda: post(client, "/api/execute", {"code": "1"}).status_code == 200, 20, "it works again")
    assert server.supervisor() == supervisor, "it lived through it"


def test_commands_leave_the_supervisor_descriptors_for_what_is_there(
    server: FaultServer, client: httpx2.Client
) -> None:
    path = session(client)
    value(client, path, "kept = 41")
    started: list[str] = []
    for _ in range(16):
        made = post(client, f"{path}/commands", {"command": "sleep 60", "background": True})
        if made.status_code != 202:
            assert (made.status_code, made.json()["title"] != "") == (429, True), made.text
            break
        started.append(f"{path}/commands/{made.json()['id']}")
    else:
        raise AssertionError("the control failed: the descriptors were enough for everything")
    # A sandbox on its way into the pool holds a few more than one that is there: they may have come back.
    others = [post(client, f"{path}/contexts", {}) for _ in range(4)]
    refused = [made for made in others if made.status_code != 201]
    assert refused, "contexts are more than the descriptors left"
    assert {made.status_code for made in refused} == {429}
    assert "open files" in refused[-1].json()["detail"]
    assert post(client, f"{path}/contexts/main/restart", {}).status_code == 200
    assert value(client, path, "6 * 7") == "42"
    assert put(client, path).status_code in (200, 201)
    # Those that were made hold more descriptors than a command: with them there may be no room again.
    made_after_all = [f"{path}/contexts/{made.json()['name']}" for made in others if made.status_code == 201]
    for one in (*started, *made_after_all):
        assert client.delete(one).status_code == 204
    wait_until(
        lambda: post(client, f"{path}/commands", {"command": "true"}).status_code == 200,
        20,
        "there is room again",
    )
    assert client.delete(path).status_code == 204
