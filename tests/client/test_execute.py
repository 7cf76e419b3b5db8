"""Running code through the SDK: results, callbacks, events, problems. Both faces, one set of cases."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import onehop
from onehop import errors
from tests.cli.processes import variables, wait_until
from tests.client.faces import Face

PNG = b"\x89PNG\r\n\x1a\n"


async def test_the_parts_of_a_result(session: Any) -> None:
    code = """
import sys, matplotlib.pyplot as plt, pandas as pd
print("out"); print("err", file=sys.stderr)
open("made.txt", "w").write("four")
plt.plot([1, 2]); plt.show()
pd.DataFrame({"a": [1]})
"""
    result = await session.run(code)
    assert (result.status, result.ok, result.error) == ("ok", True, None)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert [bool(one.png) for one in result.results] == [True, False]
    assert result.results[0].png.startswith(PNG)
    assert "<table" in result.results[1].html
    assert result.text == result.results[1].text == "   a\n0  1"
    assert [(file.path, file.bytes) for file in result.files] == [("made.txt", 4)]
    assert result.usage.wall_ms > 0
    assert result.session == session.id
    assert result.raise_for_error() is result


async def test_what_the_code_raised(session: Any) -> None:
    result = await session.run("print('before'); 1 / 0")
    assert (result.status, result.stdout) == ("error", "before\n")
    assert result.error.name == "ZeroDivisionError"
    assert "1 / 0" in result.error.traceback
    with pytest.raises(onehop.ExecutionFailedError, match="ZeroDivisionError: division by zero") as caught:
        result.raise_for_error()
    assert caught.value.result is result


async def test_variables_and_arguments(session: Any, tmp_path: Path) -> None:
    here = tmp_path / "here.bin"
    here.write_bytes(b"\xff\x00")
    result = await session.run(
        "import os; x = 41; (os.environ['NAME'], input(), open('t').read(), open('d/b', 'rb').read(), open('p', 'rb').read())",
        env={"NAME": "value"},
        stdin="line\n",
        files={"t": "tëxt", "d/b": b"\x00\x01", "p": here},
    )
    assert result.text == r"('value', 'line', 'tëxt', b'\x00\x01', b'\xff\x00')"
    assert (await session.run("x + 1")).text == "42"
    limited = await session.run("print('a' * 5000)", output_bytes=1000)
    assert limited.truncated
    assert len(limited.stdout) <= 1000
    assert limited.output_file.bytes > 0
    late = await session.run("while True: pass", timeout_s=0.3)
    assert (late.status, late.variables) == ("timeout", "kept")


async def test_callbacks_come_while_it_runs(session: Any) -> None:
    seen: list[tuple[str, str, float]] = []
    code = """
import sys, time
print("one", flush=True); time.sleep(3); print("two", file=sys.stderr)
display("three")
4
"""
    result = await session.run(
        code,
        on_stdout=lambda text: seen.append(("out", text, time.monotonic())),
        on_stderr=lambda text: seen.append(("err", text, time.monotonic())),
        on_result=lambda output: seen.append(("result", output.text, time.monotonic())),
    )
    ended = time.monotonic()
    assert [one[:2] for one in seen] == [
        ("out", "one\n"),
        ("err", "two\n"),
        ("result", "'three'"),
        ("result", "4"),
    ]
    assert ended - seen[0][2] > 0.4
    assert (result.stdout, result.stderr, result.text) == ("one\n", "two\n", "4")


async def test_a_callback_of_asyncio(url: str) -> None:
    seen: list[str] = []

    async def take(text: str) -> None:
        await asyncio.sleep(0)
        seen.append(text)

    async with onehop.AsyncSession(url=url) as session:
        await session.run("print('a')", on_stdout=take)
    assert seen == ["a\n"]


async def test_a_callback_that_raises_interrupts_the_code(session: Any) -> None:
    def refuse(text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="a"):
        await session.run("x = 1\nprint('a', flush=True)\nwhile True: pass", on_stdout=refuse)
    assert (await session.run("x")).text == "1"


async def test_a_cancelled_call_interrupts_the_code(url: str) -> None:
    began = asyncio.Event()
    code = "y = 2\nprint('on', flush=True)\nwhile True: pass"
    async with onehop.AsyncSession(url=url) as session:
        task = asyncio.create_task(session.run(code, on_stdout=lambda _: began.set()))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await session.run("y")).text == "2"


@pytest.mark.parametrize("callback", ["", ", on_stdout=print"])
def test_ctrl_c_interrupts_the_code(url: str, callback: str) -> None:
    program = f"""
import onehop
with onehop.Session() as session:
    print(session.id, flush=True)
    try:
        session.run("x = 6; open('on', 'w').close()\\nwhile True: pass"{callback})
    except KeyboardInterrupt:
        print(session.run("x").text)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], env=variables(ONEHOP_URL=url), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with onehop.Session.attach(process.stdout.readline().strip(), url=url) as session:
            wait_until(lambda: session.files.list(), 30, "the code runs")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "6\n"
    assert process.returncode == 0


async def test_the_stream_has_everything(session: Any) -> None:
    events = [event async for event in session.stream("print('a')\ndisplay('b')\n1 / 0")]
    assert [event.kind for event in events] == ["stdout", "result", "error", "end"]
    assert [event.number for event in events] == [1, 2, 3, 4]
    assert (events[0].text, events[1].output.text) == ("a\n", "'b'")
    assert "ZeroDivisionError" in events[2].text
    result = events[-1].result
    assert (result.status, result.stdout, result.error.name) == ("error", "a\n", "ZeroDivisionError")
    assert [one.text for one in result.results] == ["'b'"]


async def test_the_same_again(client: Any) -> None:
    first = await client.run("print('x'); 7")
    again = await client.execution(first.id)
    assert again == first
    assert await client.wait(first.id) == first
    events = [event async for event in client.events(first.id)]
    assert events[-1].result == first
    late = [event async for event in client.events(first.id, after=events[0].number)]
    assert late == events[1:]


async def test_an_execution_that_runs_is_waited_for(client: Any) -> None:
    async with client.session() as session:
        code = "print('on', flush=True)\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n5"
        async for event in session.stream(code):
            assert event.kind == "stdout"
            break
        (running,) = (await session.info()).executions
        assert (await client.execution(running)).status == "running"
        await session.files.write("go", b"")
        assert (await client.wait(running)).text == "5"


async def test_one_shots(client: Any) -> None:
    result = await client.run("open('a.bin', 'wb').write(bytes([0, 255])); 1 + 1", return_files=True)
    assert result.text == "2"
    assert [(file.path, file.content) for file in result.files] == [("a.bin", b"\x00\xff")]
    assert result.session is None
    assert (await client.run("'a.bin' in __import__('os').listdir()")).text == "False"


async def test_interrupt_keeps_variables(session: Any) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    code = "z = 3\nprint('on', flush=True)\nwhile True: pass"
    task = asyncio.create_task(session.run(code, on_stdout=lambda _: loop.call_soon_threadsafe(began.set)))
    await began.wait()
    assert await session.interrupt() is True
    result = await task
    assert (result.status, result.variables) == ("interrupted", "kept")
    assert await session.interrupt() is False
    assert (await session.run("z")).text == "3"


async def test_problems_are_the_exceptions_of_the_tree(
    face: Face, session: Any, client: Any, url: str
) -> None:
    with pytest.raises(errors.InvalidRequestError, match="timeout_s") as invalid:
        await session.run("1", timeout_s=1e9)
    assert (invalid.value.status, invalid.value.extra["field"]) == (422, "timeout_s")
    with pytest.raises(errors.ExecutionNotFoundError):
        await client.execution("exe_nobody")
    async with face.attach("ses_nobody", url) as stranger:
        with pytest.raises(errors.SessionNotFoundError):
            await stranger.run("1")
    with pytest.raises(errors.UnknownEnvironmentError):
        await client.run("1", environment="nowhere")
    with pytest.raises(TypeError, match="nonsense"):
        client.session(nonsense=1)
    async for event in session.stream("print(1, flush=True)\nimport time; time.sleep(60)"):
        assert event.kind == "stdout"
        with pytest.raises(errors.SessionBusyError):
            await session.run("1")
        await session.interrupt()
        break


async def test_what_cannot_be_sent_is_refused_by_its_name(session: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match="surrogate"):
        await session.run("'\ud800'")
    with pytest.raises(errors.InvalidRequestError, match="number that JSON"):
        await session.run("1", timeout_s=float("nan"))


async def test_a_batch(client: Any, session: Any) -> None:
    await session.run("x = 20")
    outcomes = await client.batch(
        [
            "1 + 1",
            {"session": session.id, "execute": {"code": "x + 22"}},
            {"execute": {"code": "open('f', 'rb').read()", "files": {"f": b"\xff"}}},
            {"session": session.id, "command": {"command": "exit 3"}},
            {"session": session.id, "command": {"command": "true", "background": True}},
            {"session": "ses_of_nobody", "execute": {"code": "1"}},
            {"lambda": {"code": "lambda x: x + 1", "args": [1]}},
        ],
        parallel=3,
    )
    assert [one.text for one in outcomes[:3]] == ["2", "42", r"b'\xff'"]
    assert (outcomes[3].exit_code, outcomes[3].status) == (3, "error")
    assert isinstance(outcomes[4], onehop.CommandInfo)
    assert isinstance(outcomes[5], errors.SessionNotFoundError)
    assert (outcomes[6].status, outcomes[6].value) == ("ok", 2)
    assert (outcomes[5].status, outcomes[5].type) == (404, "session-not-found")
    with pytest.raises(errors.InvalidRequestError) as caught:
        await client.batch(["1", ""])
    assert caught.value.extra["field"] == "items[1].execute.code"


async def test_a_batch_makes_the_sessions_that_it_names(url: str) -> None:
    async with onehop.AsyncClient(url) as client, client.session() as session:
        (outcome,) = await client.batch([{"session": session, "execute": {"code": "1"}}])
        assert isinstance(outcome, onehop.Result)
        assert outcome.session == session.id
    with onehop.Client(url) as blocking, blocking.session() as other:
        (outcome,) = blocking.batch([{"session": other, "execute": {"code": "1"}}])
        assert isinstance(outcome, onehop.Result)
        assert outcome.session == other.id
