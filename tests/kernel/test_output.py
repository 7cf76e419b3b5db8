"""Text: everything that is written, in its order, as it happens, whoever writes it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import pytest

from onehop.supervisor.messages import Event
from tests.driver import Driver, Session
from tests.kernel.reading import parts, plain, value

C = "import ctypes, os, subprocess, sys\nlibc = ctypes.CDLL(None)\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('print("a"); subprocess.run(["echo", "b"]); print("c")', "a\nb\nc\n"),
        ('print("a", end=""); subprocess.run(["echo", "b"]); print("c")', "ab\nc\n"),
        ('print("a", end=""); subprocess.run(["/bin/echo", "b"], close_fds=False); print("c")', "ab\nc\n"),
        ('print("a", end=""); os.system("echo b"); print("c")', "ab\nc\n"),
        ('print("a", end="")\n!echo b\nprint("c")', "ab\nc\n"),
        ('print("a", end="")\nprint(os.popen("echo b").read(), end="")', "ab\n"),
        ('print("a"); os.write(1, b"b\\n"); print("c")', "a\nb\nc\n"),
        ('print("a"); libc.puts(b"b"); libc.fflush(None); print("c")', "a\nb\nc\n"),
        ('print("a"); libc.puts(b"b"); print("c")', "a\nb\nc\n"),
        ('libc.printf(b"no newline")', "no newline"),
        ('print("a"); sys.stdout.buffer.write(b"b\\n"); print("c")', "a\nb\nc\n"),
        ('sys.stdout.write("no newline")', "no newline"),
        ('print("x", flush=True, end=""); print("é漢🙂")', "xé漢🙂\n"),
        (
            'pid = os.fork()\nif pid == 0:\n    print("child"); sys.exit()\nos.waitpid(pid, 0); print("parent")',
            "child\nparent\n",
        ),
        (
            'print("once", end="")\npid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0);',
            "once",
        ),
    ],
)
def test_standard_output_is_in_order(session: Session, code: str, expected: str) -> None:
    outcome = session.run(C + code)
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", expected, "")


def test_order_across_streams_and_results(session: Session) -> None:
    outcome = session.run(
        C + 'print("1"); print("2", file=sys.stderr); print("3", end=""); display("D4")\n'
        'sys.stderr.write("5"); print("6"); display("D7"); subprocess.run(["echo", "8"]); "last"'
    )
    assert parts(outcome) == [
        ("stdout", "1\n"), ("stderr", "2\n"), ("stdout", "3"), ("result", "'D4'"), ("stderr", "5"),
        ("stdout", "6\n"), ("result", "'D7'"), ("stdout", "8\n"), ("result", "'last'"),
    ]  # fmt: skip


def test_output_comes_as_it_happens(driver: Driver, session: Session) -> None:
    arrived = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "stdout" and b"before" in event.payload:
            arrived.set()

    code = (
        "import os, time\nprint('before')\nwhile not os.path.exists('go'): time.sleep(0.005)\nprint('after')"
    )
    running = driver.submit(session.start(code, on_event=listen, timeout_s=20))
    assert arrived.wait(10), "the line was held back until the cell ended"
    assert not running.done()

    async def release() -> None:
        async with await driver.client.open_porter(session.id) as porter:

            async def content() -> AsyncIterator[bytes]:
                yield b"x"

            await porter.write("go", content())

    driver.wait(release())
    outcome = running.result(20)
    assert outcome.stdout == "before\nafter\n"


def test_events_are_numbered_from_one_without_gaps(session: Session) -> None:
    outcome = session.run("import sys\nfor i in range(20):\n    print(i); print(i, file=sys.stderr)\n1")
    assert [event.number for event in outcome.events] == list(range(1, len(outcome.events) + 1))
    assert outcome.events[-1].kind == "end"


def test_many_prints(session: Session) -> None:
    outcome = session.run("for i in range(100_000): print(i)", timeout_s=30)
    assert outcome.status == "ok"
    assert outcome.stdout == "".join(f"{i}\n" for i in range(100_000))
    assert outcome.end.usage.wall_ms < 20_000


def test_bytes_that_are_not_text_pass_unchanged(session: Session) -> None:
    outcome = session.run("import sys; sys.stdout.buffer.write(bytes(range(256))); print('\\ud800')")
    raw = b"".join(event.payload for event in outcome.events if event.kind == "stdout")
    assert raw == bytes(range(256)) + b"\\ud800\n"


def test_output_over_the_limit_goes_to_a_file(session: Session) -> None:
    outcome = session.run("print('x' * 5_000_000)", output_bytes=1000)
    assert outcome.end.truncated
    assert len(outcome.stdout) == 1000
    assert outcome.end.spill_file.startswith("output-")
    kept = session.run(f"import os; os.path.getsize({outcome.end.spill_file!r})")
    assert int(value(kept)) == 5_000_001 - 1000 == outcome.end.spilled_bytes


def test_results_over_the_limit_are_left_out(session: Session) -> None:
    outcome = session.run("display('a' * 100); display('b' * 5000); 7", results_bytes=1000)
    assert plain(outcome) == [repr("a" * 100), "7"]
    assert outcome.end.truncated


def test_a_giant_value_harms_nobody(session: Session) -> None:
    code = "class Big:\n    def __repr__(self): return 'x' * (400 << 20)\nBig()"
    outcome = session.run(code, timeout_s=60)
    assert outcome.status == "ok"
    assert len(value(outcome)) < 16 << 20
    assert value(session.run("1 + 1")) == "2"


def test_output_after_the_cell_comes_with_the_next(session: Session) -> None:
    first = session.run(
        "import threading, os\n"
        "def late():\n    go.wait(10); print('late thread'); os.system('echo late child'); said.set()\n"
        "go, said = threading.Event(), threading.Event()\nthreading.Thread(target=late).start()\nprint('now')"
    )
    assert first.stdout == "now\n"
    assert session.run("go.set(); said.wait(10)").stdout == "late thread\nlate child\n"


@pytest.mark.parametrize(
    "damage",
    [
        "import io, sys; sys.stdout = io.StringIO()",
        "import sys; sys.stdout = sys.stderr = None",
        "import sys; sys.stdout.close()",
        "import sys; del sys.stdout",
        "import sys; sys.stdout = 5",
        "import sys\nclass Bad:\n    def write(self, t): raise ValueError\n    def flush(self): raise ValueError\n"
        "sys.stdout = Bad()",
        "import sys; sys.stdout.detach(); sys.stderr.detach(); sys.stdin.detach()",
        "import sys; sys.stdin.close()",
        "import sys; sys.stdin = None",
    ],
)
def test_a_replaced_stream_is_restored_for_the_next_cell(session: Session, damage: str) -> None:
    session.run(damage)
    outcome = session.run("print('heard'); 5")
    assert (outcome.status, outcome.stdout, plain(outcome)) == ("ok", "heard\n", ["5"])
    assert session.run("input()", stdin="line\n").status == "ok"


def test_replaced_print_and_closed_descriptors_leave_the_kernel_alive(session: Session) -> None:
    session.run("import builtins, os; said = []; builtins.print = lambda *a, **k: said.append(a)")
    assert value(session.run("print(1); said")) == "[(1,)]"
    session.run("kept = 3; os.close(1); os.close(2)")
    assert value(session.run("kept + 1")) == "4"


def test_redirections_work(session: Session) -> None:
    outcome = session.run(
        "import contextlib, io, os\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text: print('caught')\n"
        "print('free', repr(text.getvalue()))\n"
        "kept = os.dup(1); f = open('out.txt', 'w'); os.dup2(f.fileno(), 1)\n"
        "os.system('echo to file'); os.dup2(kept, 1); os.close(kept); f.close()\n"
        "print(open('out.txt').read(), end='')"
    )
    assert outcome.stdout == "free 'caught\\n'\nto file\n"


def test_progress_bars_logging_warnings_and_rich(session: Session) -> None:
    outcome = session.run("from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass")
    assert "3/3" in outcome.stderr
    assert "\n3/3" not in outcome.stderr
    outcome = session.run("import logging; logging.warning('careful'); logging.getLogger('a').error('wrong')")
    assert outcome.stderr == "WARNING:root:careful\nERROR:a:wrong\n"
    outcome = session.run("import warnings\ndef f():\n    warnings.warn('old')\nf(); f()")
    assert outcome.stderr == "<cell 3>:3: UserWarning: old\n  warnings.warn('old')\n"
    outcome = session.run("from rich import print as show; show('[bold]hi[/bold]')")
    assert (outcome.stdout, outcome.stderr) == ("hi\n", "")
    outcome = session.run("import faulthandler; faulthandler.enable(); faulthandler.dump_traceback()")
    assert "<cell 5>" in outcome.stderr
