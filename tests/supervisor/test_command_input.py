"""What a shell command reads and where it starts: its stdin, its environment, its folder."""

from __future__ import annotations

import hashlib
import signal

import pytest

from onehop.errors import CommandNotFoundError, ConflictError, InvalidRequestError, TooManyError
from onehop.supervisor.command import MAX_UNREAD_BYTES
from tests.driver import Session
from tests.supervisor.machine import eventually


def test_stdin_is_empty_given_or_fed(session: Session) -> None:
    assert session.command("cat").stdout == ""
    assert session.command("cat", stdin="lines\nof text").stdout == "lines\nof text"
    started = session.begin_command(
        "while read line; do echo got $line; done", stdin="one\n", stdin_open=True
    )
    started.until("got one")
    session.feed(started, b"two\nth")
    started.until("got two")
    session.feed(started, b"ree\n")
    started.until("got three")
    session.feed(started, b"four\n", close=True)
    assert started.wait().stdout.endswith("got four\n")


def test_a_megabyte_of_stdin_arrives_whole(session: Session) -> None:
    text = "0123456789abcde\n" * (MAX_UNREAD_BYTES // 16)
    assert session.command("sleep 0.1; md5sum; wc -c < /dev/null", stdin=text).stdout.split()[0] == _md5(text)
    started = session.begin_command("md5sum", stdin_open=True)
    for _ in range(3):
        session.feed(started, b"")
    session.feed(started, text.encode())
    session.feed(started, b"", close=True)
    assert started.wait().stdout.split()[0] == _md5(text)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def test_a_command_that_does_not_read_is_not_fed_without_end(session: Session) -> None:
    started = session.begin_command("sleep 60", stdin_open=True)
    session.feed(started, bytes(MAX_UNREAD_BYTES))  # 64 KiB of it are in the pipe now
    session.feed(started, bytes(65536))
    with pytest.raises(TooManyError, match="to read yet"):
        session.feed(started, b"x")
    session.signal(started, signal.SIGKILL)
    assert started.wait().status == "killed"


def test_feeding_what_cannot_be_fed(session: Session) -> None:
    closed = session.begin_command("sleep 60")
    with pytest.raises(ConflictError, match="stdin_open"):
        session.feed(closed, b"x")
    opened = session.begin_command("cat; sleep 60", stdin_open=True)
    session.feed(opened, b"x", close=True)
    with pytest.raises(ConflictError, match="stdin is closed"):
        session.feed(opened, b"y")
    deaf = session.begin_command("exec <&-; echo deaf; sleep 60", stdin_open=True)
    deaf.until("deaf")
    session.feed(deaf, b"x")  # found out by writing
    with pytest.raises(ConflictError, match="stdin is closed"):
        session.feed(deaf, b"y")
    for started in (closed, opened, deaf):
        session.signal(started, signal.SIGKILL)
        started.wait()
        with pytest.raises(ConflictError, match="has ended"):
            session.feed(started, b"x")
    with pytest.raises(CommandNotFoundError):
        session.driver.wait(session.driver.client.feed(session.id, "nosuch", b"x", close=False))
    running = session.begin("import time; time.sleep(60)")
    with pytest.raises(CommandNotFoundError):
        session.feed(running, b"x")
    session.interrupt()
    running.wait()


# --- where and with what -------------------------------------------------------------------------------


def test_environment(session: Session) -> None:
    outcome = session.command("echo $A-$PATH-$HOME; echo $B", env={"A": "1 2", "B": "ü", "HOME": "/tmp"})
    assert outcome.stdout.startswith("1 2-/opt/env/bin:/usr/bin:/bin-/tmp\n")
    assert outcome.stdout.endswith("ü\n")
    assert session.command("echo $A").stdout == "\n"
    assert session.command("python3 -c 'import pandas; print(1)'").stdout == "1\n"


def test_where_it_starts(session: Session) -> None:
    session.run("""
import os
os.makedirs('a/b c'); os.symlink('/etc', 'out'); os.symlink('a', 'in'); os.symlink('..', 'up')
open('file', 'w').write('x'); os.mkdir('closed', 0)
""")
    assert session.command("pwd; echo $PWD", cwd="a/b c").stdout == "/workspace/a/b c\n" * 2
    assert session.command("pwd", cwd="a/../a").stdout == "/workspace/a\n"
    for cwd in ("nosuch", "file", "out", "in", "up", "..", "a/../..", "/etc", "/workspace", "/proc/self/root",
                "a/b c/../../../etc", "x" * 300, "x/" * 3000, "a\0b", "\0"):  # fmt: skip
        with pytest.raises(InvalidRequestError, match="no"):
            session.begin_command("pwd", cwd=cwd)
        with pytest.raises(InvalidRequestError, match="no"):
            session.create_context("other", cwd=cwd)
    assert session.command("echo alive").stdout == "alive\n"
    assert set(session.contexts()) == {"main"}


def test_a_folder_that_is_swapped_all_the_time_is_never_left(session: Session) -> None:
    racer = session.begin(
        """
import os, threading
os.mkdir('d'); os.mkdir('e'); os.symlink('/tmp', 'l')
open('ready', 'w').close()
while not os.path.exists('stop'):
    os.rename('d', 'x'); os.rename('l', 'd'); os.rename('d', 'l'); os.rename('x', 'd')
""",
        timeout_s=60,
    )
    eventually(lambda: session.command("ls").stdout.count("ready") > 0)
    found = set()
    for _ in range(60):
        try:
            found.add(session.command("readlink /proc/self/cwd", cwd="d").stdout.strip())
        except InvalidRequestError:
            found.add("refused")
    session.command("touch stop")
    assert racer.wait().status == "ok"
    assert found <= {"/workspace/d", "/workspace/x", "refused"}, found


def test_a_command_too_long_for_a_program_says_so(session: Session) -> None:
    end = session.begin_command(": " + "x" * 140_000).wait()
    assert (end.status, end.end.exit_code) == ("error", 126)
    assert "the command cannot be started" in end.stderr
