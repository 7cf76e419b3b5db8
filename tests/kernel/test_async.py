"""Top-level await, and event loops in cells that have none."""

from __future__ import annotations

import pytest

from tests.driver import Session
from tests.kernel.reading import traceback, value

IMPORT = "import asyncio\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("await asyncio.sleep(0, 'slept')", "'slept'"),
        ("async def f():\n    for i in range(3): yield i\n[x async for x in f()]", "[0, 1, 2]"),
        ("async with asyncio.timeout(5):\n    y = await asyncio.sleep(0, 3)\ny", "3"),
        ("async def f(): return 7\nasyncio.run(f())", "7"),
        ("async def f(): return 7\nawait asyncio.gather(f(), f())", "[7, 7]"),
        ("asyncio.new_event_loop().run_until_complete(asyncio.sleep(0, 1))", "1"),
        (
            "async with asyncio.TaskGroup() as group:\n    t = group.create_task(asyncio.sleep(0, 5))\nt.result()",
            "5",
        ),
        ("(await asyncio.to_thread(sum, [1, 2]))", "3"),
        (
            "p = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)\n(await p.communicate())[0]",
            "b'x\\n'",
        ),
    ],
)
def test_values(session: Session, code: str, expected: str) -> None:
    assert value(session.run(IMPORT + code)) == expected
    assert value(session.run(IMPORT + code)) == expected, "the second time"


def test_background_tasks_go_on_while_something_is_awaited(session: Session) -> None:
    session.run(IMPORT + "go, done = asyncio.Event(), asyncio.Event()\nasync def f():\n"
                "    await go.wait(); print('in the background'); done.set()\n"
                "await asyncio.sleep(0)\nt = asyncio.create_task(f())")  # fmt: skip
    assert session.run("go.set(); await done.wait()").stdout == "in the background\n"
    assert value(session.run("t.done()")) == "True"


def test_errors(session: Session) -> None:
    outcome = session.run(IMPORT + "async def f():\n    raise ValueError('inside')\nawait f()")
    assert outcome.status == "error"
    assert traceback(outcome).splitlines()[1:] == [
        '  File "<cell 1>", line 4, in <module>', "    await f()",
        '  File "<cell 1>", line 3, in f', "    raise ValueError('inside')", "ValueError: inside",
    ]  # fmt: skip
    outcome = session.run("asyncio.create_task(f()); await asyncio.sleep(0); import gc; gc.collect();")
    assert "Task exception was never retrieved" in outcome.stderr
    assert session.run("await 5").error == {
        "name": "TypeError", "value": "object int can't be used in 'await' expression",
        "traceback": traceback(session.run("await 5")).replace("<cell 4>", "<cell 3>"),
    }  # fmt: skip


def test_a_cancelled_cell_is_an_error(session: Session) -> None:
    outcome = session.run(IMPORT + "asyncio.current_task().cancel(); await asyncio.sleep(1)")
    assert outcome.status == "error"
    assert outcome.error is not None
    assert outcome.error["name"] == "CancelledError"
    assert value(session.run("await asyncio.sleep(0, 1)")) == "1"
