"""The gateway's process while its supervisor starts, and when it is lost before it was ready."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onehop import config
from onehop.cli.gateway import SUPERVISOR_LOST_EXIT
from onehop.cli.processes import Gateway, listen, wait
from tests.cli.processes import START_S


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[str, Gateway, socket.socket]]:
    """URL and process of a gateway whose supervisor's socket takes connections and answers nothing yet."""
    settings = config.load({"home": tmp_path / "home"}, {})
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as supervisor, listen("127.0.0.1", 0) as listener:
        supervisor.bind(str(path))
        os.chmod(path, 0o666)
        supervisor.listen()
        gateway = Gateway.start(settings, listener=listener, supervisor=str(path))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", gateway, supervisor
        finally:
            gateway.end(timeout_s=10)


def ask(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=START_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_is_healthy_while_the_supervisor_starts(waiting: tuple[str, Gateway, socket.socket]) -> None:
    url, gateway, _ = waiting
    assert ask(f"{url}/healthz") == (200, {"status": "starting"})
    assert gateway.row()["name"] == "gateway"
    gateway.end(timeout_s=10)
    assert gateway.code == 0


def test_a_supervisor_lost_before_it_was_ready(waiting: tuple[str, Gateway, socket.socket]) -> None:
    url, gateway, supervisor = waiting
    client = http.client.HTTPConnection(url.removeprefix("http://"), timeout=START_S)
    with contextlib.closing(client):
        client.request("GET", "/api/sessions")
        # Its connection comes later, so when this is answered the request above is waiting inside.
        assert ask(f"{url}/healthz")[0] == 200
        connection, _ = supervisor.accept()
        connection.close()
        response = client.getresponse()
        assert response.status == 503
        assert json.load(response)["type"] == "urn:onehop:problem:unavailable"
    wait(gateway, timeout_s=START_S)
    assert gateway.code == SUPERVISOR_LOST_EXIT
