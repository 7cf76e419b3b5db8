"""`onehop models`, and a whole server whose keys of models nobody sees but the models' servers."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import certifi
import pytest

from tests.cli.processes import Server, onehop
from tests.models.script import HangUp, Status, Text
from tests.models.server import ModelServer

SECRET = "sk-secret-of-the-operator-17"


def models(
    *arguments: str, server: ModelServer, cwd: Path, code: int = 0, key: str = SECRET, **more: str
) -> tuple[str, str]:
    given = ("--home", str(cwd / "home"), "--upstreams", f"up=chat+{server.url('chat')}")
    done = onehop("models", *arguments, *given, cwd=cwd, code=code, UP_API_KEY=key, **more)
    assert SECRET not in done.stdout + done.stderr
    return done.stdout, done.stderr


def test_list(tmp_path: Path) -> None:
    with ModelServer(models=["alpha", "beta"], key=SECRET) as server:
        text, _ = models("list", "--models", "fast=up:alpha+up:beta", server=server, cwd=tmp_path)
        assert [line.split() for line in text.splitlines()] == [
            ["MODEL", "KIND", "SERVED", "BY"],
            ["fast", "chat", "up:alpha", "+", "up:beta"],
            ["alpha", "chat", "up:alpha"],
            ["beta", "chat", "up:beta"],
        ]
        found = json.loads(models("list", "--json", server=server, cwd=tmp_path)[0])
        assert [one["name"] for one in found["models"]] == ["alpha", "beta"]
        text, _ = models("list", server=server, cwd=tmp_path, code=1, key="wrong")
        assert "up: gives no list: the upstream 'up' refused the operator's key (HTTP 401)" in text


def test_check(tmp_path: Path) -> None:
    with ModelServer([[Text("ready")], [Status(400, f"bad {SECRET}")]], key=SECRET) as server:
        text, _ = models("check", server=server, cwd=tmp_path)
        assert text.startswith("up (chat, with a key): ready: 1 models, ")
        assert not server.requests
        text, _ = models("check", "scripted", server=server, cwd=tmp_path)
        assert "model scripted: answers: first word after " in text
        assert server.requests[0].body["messages"][0]["role"] == "user"
        found = json.loads(models("check", "scripted", "--json", server=server, cwd=tmp_path, code=1)[0])
        assert found["upstreams"][0]["problem"] == ""
        assert found["models"][0]["problem"] == "bad ***"
        text, _ = models("check", server=server, cwd=tmp_path, code=1, key="")
        assert text.startswith("up (chat, without a key): failed: the upstream 'up' refused")


def test_check_of_one_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    flags = ("--home", str(tmp_path), "--upstreams", f"up=http://127.0.0.1:{port}/v1")
    done = onehop("models", "check", *flags, cwd=tmp_path, code=1)
    assert (
        done.stdout
        == "up (chat, without a key): failed: the upstream 'up' cannot be reached: Connection refused\n"
    )
    with ModelServer([[HangUp()]], models=[]) as server:
        text, _ = models("check", "m", server=server, cwd=tmp_path, code=1)
        assert "model m: failed: the upstream 'up' hung up before it answered" in text


@pytest.mark.parametrize(
    "command", [("models", "list"), ("models", "check"), ("doctor",), ("serve", "--port", "0")]
)
def test_a_configuration_that_is_wrong_is_one_line(home: Path, command: tuple[str, ...]) -> None:
    (home / "config.toml").write_text('[upstreams.up]\nurl = "https://h/v1"\nkey_env = "NOT_SET_ANYWHERE"\n')
    code = 2
    done = onehop(*command, "--home", str(home), cwd=home, code=code)
    said = done.stdout if command == ("doctor",) else done.stderr
    assert "upstreams.up: there is no variable NOT_SET_ANYWHERE in the environment" in said


def test_without_any(tmp_path: Path) -> None:
    done = onehop("models", "list", "--home", str(tmp_path), cwd=tmp_path, code=2)
    assert "no server of models is configured" in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_names_them(home: Path) -> None:
    flags = ("--home", str(home), "--upstreams", "up=http://127.0.0.1:9/v1", "--json")
    weaker = 0 if os.geteuid() == 0 else 1
    found = json.loads(onehop("doctor", *flags, cwd=home, code=weaker, UP_API_KEY=SECRET).stdout)
    assert found["upstreams"] == [
        {"name": "up", "kind": "chat", "url": "http://127.0.0.1:9/v1", "key": "$UP_API_KEY"}
    ]


def test_a_whole_server_with_keys(home: Path, tmp_path: Path) -> None:
    """One key from a file that only its owner can read, one from a variable; neither is anywhere to be found."""
    file_key, variable_key = SECRET + "-file", SECRET + "-variable"
    (home / "key").write_text(file_key)
    (home / "key").chmod(0o600)
    with (
        ModelServer(models=["alpha"], key=file_key) as one,
        ModelServer(models=["beta"], key=variable_key) as two,
    ):
        (home / "config.toml").write_text(
            f'[upstreams.one]\nurl = "{one.url("chat")}"\nkey_file = "key"\n'
            f'[upstreams.two]\nurl = "{two.url("chat")}"\nkey_env = "TWO_KEY"\n'
            '[upstreams.safe]\nurl = "https://127.0.0.1:9/v1"\nmodels = []\n'
        )
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        authorities = Path(shutil.copy(certifi.where(), closed))  # without them the gateway does not start
        server = Server(home, tmp_path, TWO_KEY=variable_key, SSL_CERT_FILE=str(authorities))
        try:
            server.wait_for_screen()
            assert "models       from one, safe, two" in server.screen
            assert _names(server) == ["alpha", "beta"]
            assert server.call("GET", "/v1/models/beta")["owned_by"] == "two"
            gateway = server.gateway()
            assert SECRET not in json.dumps(server.call("GET", "/api/info"))
            code = "import os, pathlib\nprint(os.environ, [p for p in pathlib.Path('/').glob('key*')])"
            assert SECRET not in server.call("POST", "/api/execute", {"code": code})["stdout"]
            if os.geteuid() == 0:
                assert SECRET.encode() not in Path(f"/proc/{gateway}/environ").read_bytes()
                opened = [os.readlink(path) for path in Path(f"/proc/{gateway}/fd").iterdir()]
                assert not [path for path in opened if "onehop-keys" in path]
            os.kill(gateway, 9)
            assert _names_again(server) == ["alpha", "beta"], "a gateway that was started again has its keys"
        finally:
            server.close()
        assert SECRET not in server.said()


def _names(server: Server) -> list[str]:
    listed: dict[str, Any] = server.call("GET", "/v1/models")
    return [one["id"] for one in listed["data"]]


def _names_again(server: Server) -> list[str]:
    """The listening socket stays open while a gateway is started anew: at most the first connection breaks."""
    try:
        return _names(server)
    except OSError:
        return _names(server)
