"""Websockets of every wire last no longer than the key that opened them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.models.script import Text
from tests.models.server import ModelServer

WAIT_S = 20.0
CREATE = json.dumps({"type": "response.create", "model": "chat", "input": "?"})
HEADER = {"msg_id": "1", "session": "1", "username": "", "version": "5.3", "msg_type": "kernel_info_request"}
INFO = json.dumps({"header": HEADER, "parent_header": {}, "metadata": {}, "content": {}, "channel": "shell"})


def ask(socket: ClientConnection, message: str, last: str) -> None:
    """Until something has come that contains `last`."""
    socket.send(message)
    while last not in str(socket.recv(WAIT_S)):
        pass


def ask_for_ever(socket: ClientConnection, message: str, last: str) -> None:
    while True:
        ask(socket, message, last)


def test_a_revoked_key_closes_its_websockets(environment: Environment, tmp_path: Path) -> None:
    with (
        ModelServer() as server,
        start_supervisor(environment) as supervisor,
        Gateway(
            supervisor.path,
            tmp_path,
            upstreams=json.dumps({"chat": {"kind": "chat", "url": server.url("chat"), "models": ["chat"]}}),
        ) as gateway,
        httpx2.Client(base_url=gateway.url, timeout=30) as client,
    ):
        server.script = lambda request: [Text("Yes.")]
        address = f"ws{gateway.url.removeprefix('http')}"
        with connect(f"{address}/v1/responses") as before:  # while nobody needs a key
            ask(before, CREATE, "response.completed")
            admin = client.post("/api/keys", json={"scopes": ["admin"]}).json()["key"]
            with pytest.raises(ConnectionClosed) as closed:
                ask_for_ever(before, CREATE, "response.completed")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
        client.headers["x-api-key"] = admin
        made = client.post("/api/keys", json={"scopes": ["execute", "read"]}).json()
        own = {"Authorization": f"Bearer {made['key']}"}
        kernel: Any = client.post("/jupyter/api/kernels", headers={"x-api-key": made["key"]}).json()
        channels = f"{address}/jupyter/api/kernels/{kernel['id']}/channels"
        with (
            connect(f"{address}/v1/responses", additional_headers=own) as responses,
            connect(channels, additional_headers=own) as cells,
        ):
            asked = [(responses, CREATE, "response.completed"), (cells, INFO, '"idle"')]
            for socket, message, last in asked:
                ask(socket, message, last)
            assert client.delete(f"/api/keys/{made['id']}").status_code == 204
            for socket, message, last in asked:
                with pytest.raises(ConnectionClosed) as closed:
                    ask_for_ever(socket, message, last)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
        for path in (f"{address}/v1/responses", channels):
            with pytest.raises(InvalidStatus) as refused:
                connect(path, additional_headers=own).__enter__()
            assert refused.value.response.status_code in (401, 403)
