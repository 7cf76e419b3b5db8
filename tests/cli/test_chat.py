"""`onehop chat` on a terminal and on a pipe, against a real server and a scripted model."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import Server, onehop, wait_until
from tests.cli.terminals import Terminal
from tests.models.script import Call, Gate, Pause, Reply, Script, Status, Text, Turn
from tests.models.server import ModelServer

PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer(models=["alpha", "beta"]) as server:
        yield server


@pytest.fixture(scope="module")
def server(models: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("chat")
    tools = folder / "mytools.py"
    tools.write_text('def add(a: int, b: int) -> int:\n    """Adds."""\n    return a + b\n')
    flags = ("--upstreams", f"up=chat+{models.url('chat')}", "--tools", str(tools))
    server = Server(folder / "home", folder, flags)
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()


def play(models: ModelServer, script: list[Reply] | Script) -> None:
    models.requests.clear()
    models.script = script


def python(code: str) -> Call:
    return Call("python", {"code": code})


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Iterator[Terminal]:
    with Terminal("chat", "alpha", cwd=tmp_path, ONEHOP_URL=server.url) as one:
        one.expect("Ctrl-D leaves")
        one.expect("> ")
        yield one


def sessions(server: Server) -> int:
    return len(server.call("GET", "/api/sessions")["sessions"])


def test_an_answer_with_code_and_the_end(
    terminal: Terminal, server: Server, models: ModelServer, tmp_path: Path
) -> None:
    code = "print('out' + 'put')\nopen('made.txt', 'w').write('x' * 7)\ntools.mytools.add(a=40, b=2)"
    play(
        models,
        [Turn([Text("Let me see."), python(code)]), [Text("It is 42.")], [python(PLOT)], [Text("A line.")]],
    )
    terminal.type("What is it?\n")
    terminal.expect(r"Let me see\.")
    terminal.expect("── python")
    terminal.expect("open\\('made.txt'")
    terminal.expect("output")
    terminal.expect("42")
    terminal.expect(r"\[file: onehop-chat/made\.txt\]")
    terminal.expect(r"It is 42\.")
    terminal.expect(r"\[2 turns, 1 pieces of code, 30 tokens, .* s\]")
    terminal.expect("> ")
    assert (tmp_path / "onehop-chat" / "made.txt").read_text() == "x" * 7
    assert sessions(server) == 1
    terminal.type("Plot it.\n")
    terminal.expect(r"\[picture: onehop-chat/picture-1\.png\]")
    terminal.expect(r"A line\.")
    terminal.expect("> ")
    assert (tmp_path / "onehop-chat" / "picture-1.png").read_bytes().startswith(b"\x89PNG")
    # The model knows what it ran before.
    roles = [one["role"] for one in models.requests[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert sessions(server) == 0


def test_commands(terminal: Terminal, server: Server, models: ModelServer) -> None:
    play(models, [[python("x = open('a.txt', 'w').write('abc')")], [Text("Done.")], [Text("I am another.")]])
    terminal.type("/files\n")
    terminal.expect("no code has run yet")
    terminal.type("Write.\n")
    terminal.expect(r"Done\.")
    terminal.type("/files\n")
    terminal.expect(r"a\.txt  3 B")
    terminal.type("/mod\tbe\t\n")
    terminal.expect("beta goes on")
    terminal.type("/tools\n")
    terminal.expect(r"mytools\.add  Adds\.")
    terminal.expect(r"code may call: \*")
    terminal.type("/tools none\n")
    terminal.expect("code may call: none")
    terminal.type("/nothing\n")
    terminal.expect("there is no /nothing")
    terminal.type("Who?\n")
    terminal.expect("I am another")
    assert (models.requests[2].body["model"], len(models.requests[2].body["messages"])) == ("beta", 5)
    terminal.type("/reset\n")
    terminal.expect("a new conversation")
    assert sessions(server) == 0
    terminal.type("/help\n")
    terminal.expect("/exit")
    terminal.type("/exit\n")
    assert terminal.wait() == 0


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(terminal: Terminal, models: ModelServer) -> None:
    gate = Gate()
    play(models, [[Text("Once upon"), Pause(gate)], [Text("Still here.")]])
    terminal.type("A story.\n")
    terminal.expect("Once upon")
    terminal.type("\x03")
    terminal.expect(r"\[stopped\]")
    assert models.requests[0].gone.wait(20)
    terminal.type("Are you?\n")
    terminal.expect(r"Still here\.")
    told = [one["content"] for one in models.requests[1].body["messages"]]
    assert told == ["A story.", "Once upon", "Are you?"]


def test_a_closed_terminal_ends_the_session(terminal: Terminal, server: Server, models: ModelServer) -> None:
    gate = Gate()
    play(models, [[python("x = 1")], [Text("Still"), Pause(gate)]])
    terminal.type("Go.\n")
    terminal.expect("Still")
    assert sessions(server) == 1
    os.kill(terminal.process.pid, signal.SIGHUP)
    assert terminal.wait() == 128 + signal.SIGHUP
    wait_until(lambda: sessions(server) == 0, 20, "the session has ended")


def test_one_question(server: Server, models: ModelServer, tmp_path: Path) -> None:
    play(models, [[python("6 * 7")], [Text("It is 42.")]])
    done = onehop("chat", "--ask", "What?", cwd=tmp_path, ONEHOP_URL=server.url)
    assert "6 * 7" in done.stdout
    assert "It is 42." in done.stdout
    assert sessions(server) == 0


def test_one_question_as_json(server: Server, models: ModelServer, tmp_path: Path) -> None:
    play(models, [[python("6 * 7")], [Text("It is 42.")]])
    done = json.loads(onehop("chat", "--json", "--ask", "What?", cwd=tmp_path, ONEHOP_URL=server.url).stdout)
    assert (done["model"], done["answer"], done["usage"]["total_tokens"]) == ("alpha", "It is 42.", 30)
    assert [one["data"] for one in done["work"] if one["type"] == "result"] == [{"text/plain": "42"}]
    assert not (tmp_path / "onehop-chat").exists()


def test_what_cannot_be(server: Server, models: ModelServer, tmp_path: Path) -> None:
    play(models, [[Status(400, "the model is asleep")]])
    refused = onehop("chat", "--ask", "?", cwd=tmp_path, code=3, ONEHOP_URL=server.url)
    assert "the model is asleep" in refused.stderr
    none = onehop("chat", "--ask", "?", cwd=tmp_path, code=2, ONEHOP_HOME=str(tmp_path))
    assert "--upstreams" in none.stderr
    given = ("--ask", "?", "--upstreams", "up=http://127.0.0.1:9/v1")
    both = onehop("chat", *given, cwd=tmp_path, code=2, ONEHOP_URL=server.url)
    assert "leave out --url" in both.stderr
    empty = onehop("chat", "--ask", " ", cwd=tmp_path, code=2, ONEHOP_URL=server.url)
    assert "no question" in empty.stderr
    nobody = onehop("chat", "--ask", "?", cwd=tmp_path, code=3, ONEHOP_URL="http://127.0.0.1:9")
    assert "does not answer" in nobody.stderr


def test_an_engine_of_its_own(models: ModelServer, tmp_path: Path) -> None:
    play(models, [[python("6 * 7")], [Text("It is 42.")]])
    given: dict[str, Any] = {"cwd": tmp_path, "ONEHOP_HOME": os.environ.get("ONEHOP_HOME", "")}
    if not given["ONEHOP_HOME"]:
        del given["ONEHOP_HOME"]
    done = onehop("chat", "--ask", "What?", "--upstreams", f"up=chat+{models.url('chat')}", **given)
    assert "It is 42." in done.stdout
