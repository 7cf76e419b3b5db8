"""`onehop tools`, and a whole server with tools: its users, its secrets, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.processes import END_S, Server, Traces, onehop, started, wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "mytools.py"
MODULE = """
import os, socket
def pid() -> int:
    return os.getpid()
def token() -> str:
    return os.environ.get("TOOL_TOKEN", "none")
def opens(path: str) -> str:
    try:
        if "tmp/" in path:
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path).close()
    except OSError as error:
        return type(error).__name__
    return "opened"
def finds(path: str) -> list[str]:
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
def die() -> None:
    os._exit(1)
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MODULE)
    return path


def tools(*arguments: str, cwd: Path, code: int = 0) -> tuple[str, str]:
    done = onehop("tools", *arguments, "--home", str(cwd / "home"), cwd=cwd, code=code)
    return done.stdout, done.stderr


def test_list_check_call_and_stubs(tmp_path: Path) -> None:
    given = ("--tools", str(EXAMPLE))
    text, _ = tools("list", *given, cwd=tmp_path)
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        "mytools.cities",
        "mytools.forecast",
        "mytools.note",
    ]
    assert "read_only" in text
    assert "requires_approval" in text
    listed = json.loads(tools("list", "--json", *given, cwd=tmp_path)[0])
    assert [one["name"] for one in listed["tools"]] == [line.split()[0] for line in text.splitlines()[1:]]
    assert tools("check", *given, cwd=tmp_path)[0] == "mytools (python): ready: 3 tools\n"
    days = json.loads(tools("call", "mytools.forecast", "city=Oslo", "days=2", *given, cwd=tmp_path)[0])
    assert [one["day"] for one in days] == ["2026-01-01", "2026-01-02"]
    same = tools("call", "mytools.forecast", '{"city": "Oslo", "days": 2}', "--json", *given, cwd=tmp_path)[0]
    assert json.loads(same) == {"value": days, "files": []}
    assert "    def forecast(city: str, days: int = 3)" in tools("stubs", *given, cwd=tmp_path)[0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("call", "mytools.forecast", "city=Rome"), 1, "failed: ValueError: no such city; there are Oslo"),
        (("call", "mytools.forecast", "days=x"), 1, "bad_arguments: city is missing"),
        (("call", "mytools.forcast"), 2, "is mytools.forecast meant?"),
        (("call", "mytools.*"), 2, "is not the name of one tool"),
        (("call", "mytools.cities", "x"), 2, "expected KEY=VALUE"),
        (("call", "mytools.cities", "{"), 2, "no JSON"),
    ],
)
def test_what_goes_wrong_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    _, said = tools(*arguments, "--tools", str(EXAMPLE), cwd=tmp_path, code=code)
    assert words in said
    assert said.count("\n") == 1


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    assert "no source of tools is configured" in tools("check", cwd=tmp_path, code=2)[1]
    assert "there is no" in tools("check", "--tools", "nowhere.py", cwd=tmp_path, code=2)[1]
    (tmp_path / "bad.py").write_text("def f(:\n")
    text, _ = tools("check", "--tools", "bad.py", cwd=tmp_path, code=1)
    assert text.startswith("bad (python): failed: ")
    assert "bad.py, line 1: SyntaxError" in text


def test_a_server_with_a_secret_that_is_not_there_does_not_start(home: Path, module: Path) -> None:
    (home / "config.toml").write_text(
        f'[tools.mine]\nkind = "python"\nmodule = "{module}"\nsecrets = ["NOT_SET_ANYWHERE"]\n'
    )
    done = onehop("serve", "--home", str(home), "--port", "0", cwd=home, code=2)
    assert done.stderr == (
        "onehop: tools.mine: there is no variable NOT_SET_ANYWHERE in the environment; set it, or take it out of "
        "`secrets`\n"
    )


def call(server: Server, code: str) -> str:
    answer = server.call("POST", "/api/execute", {"code": f"print({code})", "tools": ["*"]})
    assert answer["status"] == "ok", answer
    return str(answer["stdout"]).strip()


def test_a_whole_server(home: Path, tmp_path: Path, module: Path) -> None:
    """Who a worker is, what it sees, what takes it along, and that nothing is left."""
    (home / "config.toml").write_text(
        f'[tools.mine]\nkind = "python"\nmodule = "{module}"\nsecrets = ["TOOL_TOKEN"]\n'
        f'[tools.other]\nkind = "python"\nmodule = "{module}"\n'
    )
    server = Server(home, tmp_path, TOOL_TOKEN="tt-secret-1")
    try:
        server.wait_for_screen()
        assert "tools        mine, other" in server.screen
        assert call(server, "tools.mine.token(), tools.other.token()") == "tt-secret-1 none"
        environ = Path(f"/proc/{server.gateway()}/environ").read_bytes() if os.geteuid() == 0 else b""
        assert b"tt-secret-1" not in environ

        mine, other = (int(call(server, f"tools.{name}.pid()")) for name in ("mine", "other"))
        for name, pid in (("other", mine), ("other", server.gateway()), ("mine", other)):
            assert call(server, f"tools.{name}.opens('/proc/{pid}/environ')") == "PermissionError"
        if os.geteuid() == 0:
            uids = {int(_status(pid)["Uid"].split()[0]) for pid in (mine, other)}
            assert uids == {1_900_065_536, 1_900_065_537}
            assert server.gateway() not in uids
            assert call(server, f"tools.mine.finds({str(home / 'state')!r})") == "[]"
            sockets = [path for path in server.temporary.rglob("*") if path.is_socket()]
            assert sockets, "where is the supervisor's?"
            for path in sockets:
                assert call(server, f"tools.mine.opens({str(path)!r})") != "opened"

        before = started(mine)
        os.kill(server.gateway(), signal.SIGKILL)
        wait_until(lambda: started(mine) != before, END_S, "the worker ends with the gateway")
        assert int(call(server, "tools.mine.pid()")) != mine
        assert call(server, "tools.mine.token()") == "tt-secret-1"

        traces = Traces(server)
        assert len([one for one in traces.processes if _line(one[0]).startswith("onehop.tools.")]) == 3
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not traces.left(), END_S, "nothing is left")
    finally:
        server.close()


def test_a_stopped_server_leaves_nothing(serve: Callable[..., Server], module: Path) -> None:
    server = serve("--tools", str(module))
    assert int(call(server, "tools.mine.pid()")) > 0
    traces = Traces(server)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(END_S) == 0
    assert traces.left() == []


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _line(pid: int) -> str:
    """The module that a process runs."""
    try:
        parts = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return ""
    return parts[parts.index("-m") + 1] if "-m" in parts else ""
