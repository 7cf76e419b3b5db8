"""`onehop repl` on a terminal and on a pipe, against a real server."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import END_S, Server, onehop, wait_until
from tests.cli.terminals import Terminal


@pytest.fixture
def terminal(shared_server: Server, tmp_path: Path) -> Iterator[Terminal]:
    with Terminal("repl", cwd=tmp_path, **surroundings(shared_server, tmp_path)) as one:
        one.expect(">>> ")
        yield one


def surroundings(server: Server, folder: Path) -> dict[str, Any]:
    return {"ONEHOP_URL": server.url, "XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(folder)}


def sessions(server: Server) -> int:
    return len(server.call("GET", "/api/sessions")["sessions"])


def test_lines_blocks_values_errors_and_the_end(
    terminal: Terminal, shared_server: Server, tmp_path: Path
) -> None:
    assert "Ctrl-D leaves" in terminal.seen
    terminal.type("x = 20\n")
    terminal.expect(">>> ")
    terminal.type("def f(n):\n")
    terminal.expect(r"\.\.\. ")
    terminal.type("    return n + 1\n\n")
    terminal.expect(">>> ")
    terminal.type("f(x) * 2\n")
    assert "42" in terminal.expect(">>> ")
    terminal.type("import time; print('fir' + 'st'); time.sleep(0.5); print('second')\n")
    terminal.expect("first")
    terminal.expect("second")
    terminal.expect(">>> ")
    terminal.type("1 / 0\n")
    terminal.expect(re.escape("\x1b[31mZeroDivisionError\x1b[0m: division by zero"))
    terminal.expect(">>> ")
    terminal.type("await __import__('asyncio').sleep(0, 'awai' + 'ted')\n")
    terminal.expect("'awaited'")
    terminal.expect(">>> ")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.wait() == 0
    assert sessions(shared_server) == 0
    history = tmp_path / "state" / "onehop" / "repl_history"
    assert "f(x) * 2" in history.read_text().splitlines()
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_interrupts_and_keeps_the_variables(terminal: Terminal) -> None:
    terminal.type("kept = 'ke' + 'pt'\n")
    terminal.expect(">>> ")
    terminal.type("print('beg' + 'un'); import time; time.sleep(600)\n")
    terminal.expect("begun")
    terminal.type("\x03")
    terminal.expect("KeyboardInterrupt")
    terminal.expect(">>> ")
    terminal.type("half a line")
    terminal.expect("half a line")
    terminal.type("\x03")
    terminal.expect(">>> ")
    terminal.type("kept\n")
    terminal.expect("'kept'")


def test_tab_asks_the_kernel(terminal: Terminal) -> None:
    terminal.type("remarkable_name = {'a': 1}\n")
    terminal.expect(">>> ")
    terminal.type("remarkab\t.setdef\t('b', 41 + 1)\n")
    terminal.expect(r"remarkable_name\.setdefault")
    terminal.expect("42")
    terminal.expect(">>> ")


def test_files_and_pictures(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    terminal.type("%upload in.csv data.csv\n")
    terminal.expect(r"\[data\.csv, 8 B\]")
    terminal.type("open('out.txt', 'w').write(open('data.csv').read() * 2)\n")
    terminal.expect(r"\[wrote out\.txt\]")
    terminal.type("%download out.txt got.txt\n")
    terminal.expect(r"\[got\.txt, 16 B\]")
    assert (tmp_path / "got.txt").read_text() == "a,b\n1,2\n" * 2
    terminal.type("%files\n")
    terminal.expect(r"8 B .*data\.csv\s+16 B .*out\.txt")
    terminal.type("%upload\n")
    terminal.expect("%upload: missing a required argument: 'path'; see %help")
    terminal.type("%upload absent.csv\n")
    terminal.expect("absent.csv: No such file")
    terminal.type("import matplotlib.pyplot as plt; plt.plot([1, 2]);\n")
    found = terminal.expect(r"\[picture saved as [^\]]+\]")
    path = found.rpartition("saved as ")[2].rstrip("]").replace("\r\n", "")
    assert Path(path).read_bytes().startswith(b"\x89PNG")


def test_a_terminal_that_can_shows_the_picture(shared_server: Server, tmp_path: Path) -> None:
    more = surroundings(shared_server, tmp_path) | {"KITTY_WINDOW_ID": "1"}
    with Terminal("repl", cwd=tmp_path, **more) as terminal:
        terminal.expect(">>> ")
        terminal.type("import matplotlib.pyplot as plt; plt.plot([1, 2]);\n")
        terminal.expect(re.escape("\x1b_Ga=T,f=100"))
        terminal.expect(">>> ")
        terminal.type("print('\\x1b]52;c;aGk=\\x07')\n")
        terminal.expect(re.escape("\\x1b]52;c;aGk=\\x07"))


def test_a_named_session_lives_on(shared_server: Server, tmp_path: Path) -> None:
    session = shared_server.call("POST", "/api/sessions", {})["id"]
    shared_server.execute(session, "there = 41")
    done = onehop(
        "repl",
        "--session",
        session[:14],
        cwd=tmp_path,
        stdin="there + 1\n",
        **surroundings(shared_server, tmp_path),
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
    assert sessions(shared_server) == 1
    shared_server.call("DELETE", f"/api/sessions/{session}")


def test_a_pipe_is_run_piece_by_piece(shared_server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("given")
    more = surroundings(shared_server, tmp_path)
    code = "for i in range(2):\n    print(i)\n\nopen('in.txt').read()\nif True:\n    1 / 0"
    done = onehop("repl", "--file", "in.txt", cwd=tmp_path, stdin=code, code=1, **more)
    assert done.stdout == "0\n1\n'given'\n"
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert sessions(shared_server) == 0
    assert "no environment 'absent'" in onehop("repl", "--env", "absent", cwd=tmp_path, code=3, **more).stderr


def test_a_closed_terminal_ends_the_session(shared_server: Server, tmp_path: Path) -> None:
    with Terminal("repl", cwd=tmp_path, **surroundings(shared_server, tmp_path)) as terminal:
        terminal.expect(">>> ")
        assert sessions(shared_server) == 1
        os.kill(terminal.process.pid, signal.SIGHUP)
        assert terminal.wait() == 128 + signal.SIGHUP
    wait_until(lambda: sessions(shared_server) == 0, END_S, "the session has ended")


def test_without_a_server_it_has_an_engine_of_its_own(home: Path, tmp_path: Path) -> None:
    started_s = time.monotonic()
    done = onehop("repl", "--home", str(home), cwd=tmp_path, stdin="6 * 7\n", TMPDIR=str(tmp_path))
    assert done.stdout == "42\n"
    assert time.monotonic() - started_s < 60
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("onehop-")]
