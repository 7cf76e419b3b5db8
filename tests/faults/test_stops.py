"""Processes that are stopped and not dead: SIGSTOP of the supervisor, the gateway, a kernel."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments.model import Environment
from tests.cli.conftest import make_home
from tests.cli.processes import wait_until
from tests.faults.deaths import kernel_of, session, value
from tests.faults.server import FaultServer, post
from tests.faults.stops import supervisor_stopped

STOP_S = 1.5
"""`make soak` stops the supervisor for the promised ten seconds."""
WATCHDOG_S = 6.0
"""So long that a gateway on a machine with other work never stands still for it by itself."""


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, onehop_home: Path, environment: Environment
) -> Iterator[FaultServer]:
    folder = tmp_path_factory.mktemp("stops")
    server = FaultServer(make_home(folder, onehop_home), folder, "--watchdog-s", str(WATCHDOG_S))
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()


def test_a_stopped_supervisor(server: FaultServer, client: httpx2.Client) -> None:
    supervisor, gateway = server.supervisor(), server.gateway()
    supervisor_stopped(server, client, STOP_S)
    assert (server.supervisor(), server.gateway()) == (supervisor, gateway)


def test_a_gateway_killed_while_the_supervisor_is_stopped(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    value(client, path, "kept = 41")
    with server.stopped(server.supervisor()):
        server.kill_gateway()
        wait_until(lambda: server.health() == "starting", 20, "the new gateway waits for the supervisor")
    server.wait_healthy()
    with server.client() as another:
        assert value(another, path, "kept + 1") == "42"
        assert another.delete(path).status_code == 204


def test_a_gateway_that_hangs_is_started_again(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    value(client, path, "kept = 41")
    old = server.gateway()
    os.kill(old, signal.SIGSTOP)
    with server.client() as another:
        assert value(another, path, "kept + 1") == "42"
        assert another.delete(path).status_code == 204
    assert server.gateway() != old
    assert f"the gateway has not moved for {WATCHDOG_S:g} s; ending it" in server.said()


def test_a_stopped_kernel_ends_at_its_deadline(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    os.kill(kernel_of(server, client, path), signal.SIGSTOP)
    told = post(client, f"{path}/execute", {"code": "1", "timeout_s": 0.3}).json()
    assert (told["status"], told["variables"]) == ("timeout", "lost")
    assert value(client, path, "6 * 7") == "42"
    assert client.delete(path).status_code == 204
