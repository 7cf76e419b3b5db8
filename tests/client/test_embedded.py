"""The engine of a process of its own: started once, shared, and gone with the process, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onehop.environments import Environment
from tests.cli.processes import END_S, START_S, Traces, children, variables, wait_until

PROGRAM = """
import onehop
session = onehop.Session()
print(session.run("x = 20; x + 1").text, flush=True)
"""


class Program:
    """A Python program that uses the SDK with no server named; temporary files go into a folder of its own."""

    def __init__(self, code: str, folder: Path, home: Path, **more: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=variables(TMPDIR=str(self.temporary), ONEHOP_HOME=str(home), **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def engine(self) -> int:
        (pid,) = children(self.process.pid)
        return pid

    def end(self, stdin: str = "") -> tuple[int, str, str]:
        out, err = self.process.communicate(stdin, timeout=START_S)
        return self.process.returncode, out, err

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def home(onehop_home: Path, environment: Environment) -> Path:
    return onehop_home


@pytest.fixture
def waiting(tmp_path: Path, home: Path) -> Iterator[Program]:
    """Has used its engine, and waits for its standard input to end."""
    program = Program(PROGRAM + "import sys; sys.stdin.read()", tmp_path, home)
    try:
        assert program.line() == "21\n", program.end()
        yield program
    finally:
        program.close()


def test_the_end_of_the_program_is_the_end_of_its_engine(waiting: Program) -> None:
    traces = Traces(waiting)
    assert len(traces.processes) > 4
    assert waiting.end() == (0, "", "")
    assert traces.left() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_program_takes_its_engine_along(waiting: Program, number: signal.Signals) -> None:
    traces = Traces(waiting)
    waiting.process.send_signal(number)
    waiting.process.wait(END_S)
    wait_until(lambda: traces.left() == [], END_S, f"nothing is left: {traces.left()}")


def test_a_killed_engine_takes_everything_along_and_is_started_again(tmp_path: Path, home: Path) -> None:
    code = PROGRAM + (
        "import sys; sys.stdin.readline()\n"
        "try: session.run('x')\n"
        "except onehop.UnreachableError as error: print(error, flush=True)\n"
        "print(onehop.run('1 + 2').text, flush=True)\n"
        "sys.stdin.readline()\n"
    )
    program = Program(code, tmp_path, home)
    try:
        assert program.line() == "21\n", program.end()
        traces, engine = Traces(program), program.engine()
        os.kill(engine, signal.SIGKILL)
        ours = {f"process {program.process.pid}", *map(str, program.temporary.glob("onehop-sdk-*"))}
        wait_until(lambda: set(traces.left()) <= ours, END_S, f"only {ours} is left")
        assert program.process.stdin is not None
        program.process.stdin.write("\n")
        program.process.stdin.flush()
        assert (
            program.line()
            == "the engine of this process has ended, and its sessions with it; make a new Session or Client\n"
        )
        assert program.line() == "3\n"
        assert program.end("\n")[0] == 0
        assert list(program.temporary.iterdir()) == []
    finally:
        program.close()


def test_all_of_a_process_share_one_and_a_forked_child_has_its_own(tmp_path: Path, home: Path) -> None:
    code = """
import asyncio, os, onehop
from onehop.client import embed
with onehop.Session() as one, onehop.Client() as client:
    name = client.session(); name.info()
    async def main():
        async with onehop.AsyncSession() as other:
            return sorted([one.id, name.id, other.id]) == sorted(s.id for s in client.sessions())
    print(asyncio.run(main()))
    mine = embed.socket_path()
    pid = os.fork()
    if pid == 0:
        with onehop.Client() as child:
            os._exit(0 if embed.socket_path() != mine and child.sessions() == [] else 1)
    print(os.waitpid(pid, 0)[1], one.run("1").ok)
embed.stop()
print(onehop.run("2").text)
"""
    program = Program(code, tmp_path, home)
    try:
        assert program.end() == (0, "True\n0 True\n2\n", "")
        wait_until(lambda: not list(program.temporary.iterdir()), END_S, "the child's engine is gone")
    finally:
        program.close()


def test_many_threads_start_one(tmp_path: Path, home: Path) -> None:
    code = """
import onehop
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print(sorted(pool.map(lambda n: onehop.run(str(n)).text, range(4))))
"""
    program = Program(code, tmp_path, home)
    try:
        assert program.end() == (0, "['0', '1', '2', '3']\n", "")
    finally:
        program.close()


def test_a_bad_setting_is_said_as_what_it_is(tmp_path: Path, home: Path) -> None:
    code = """
import onehop
from onehop.errors import ConfigurationError
try: onehop.run("1")
except ConfigurationError as error: print(error)
"""
    program = Program(code, tmp_path, home, ONEHOP_MEMORY_MB="lots")
    try:
        status, out, _ = program.end()
        assert (status, out) == (
            0,
            "memory_mb (from the variable ONEHOP_MEMORY_MB): expected a whole number, got 'lots'\n",
        )
    finally:
        program.close()


def test_where_sandboxes_are_impossible_it_says_so(tmp_path: Path, home: Path) -> None:
    code = """
import onehop
from onehop.errors import WeakIsolationError
from tests.supervisor.no_namespaces import refuse_namespaces
refuse_namespaces()
try: onehop.run("1")
except WeakIsolationError as error: print(error)
"""
    program = Program(code, tmp_path, home, PYTHONPATH=str(Path(__file__).parent.parent.parent))
    try:
        status, out, err = program.end()
        assert (status, out.startswith("namespaces are refused here")) == (0, True), (out, err)
        assert list(program.temporary.iterdir()) == []
    finally:
        program.close()
