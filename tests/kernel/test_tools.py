"""Tools inside the code, in real kernels; the tests play the gateway."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from onehop.protocol import CALL_ERRORS, CallError, Return
from tests.calls import Answering, Host, entry
from tests.driver import Driver, Outcome, Session
from tests.kernel.reading import plain, traceback, value

TEXT = {"type": "string"}
ENTRIES = [
    entry(
        "weather.forecast",
        "The weather of the coming days in a city.",
        days={"type": "integer", "default": 3},
        city={"type": "string", "description": "its name"},
    ),
    entry("weather.units", "What units there are."),
    entry("echo", "Gives it back.", value={}),
    entry("file", "Gives a file.", path=TEXT),
    entry("fails", "Fails.", kind=TEXT),
    entry("ask", "Asks somebody.", waits=True, question=TEXT),
]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "weather.forecast": lambda city, days=3: {"city": city, "days": days},
    "weather.units": lambda: ["C", "F"],
    "echo": lambda value: value,
    "file": lambda path: Return(value=path, files={path: b"content"}),
    "fails": lambda kind: Return(error=CallError(kind, "it says so", {"kind": TEXT})),
}


@pytest.fixture
def host(driver: Driver) -> Host:
    return Host(driver, ENTRIES, FUNCTIONS)


def give_all(started: Answering, value: Callable[[str], Any]) -> None:
    """Answers what is asked until the code has ended; only when it says that it can do nothing else."""
    seen = 0
    while started.running:
        if started.count("blocked") > seen:
            seen = started.count("blocked")
            for number, call in list(started.pending.items()):
                started.answer(number, value(call.arguments["question"]))
    started.wait()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("tools.weather.forecast(city='Oslo')", "{'city': 'Oslo', 'days': 3}"),
        ("tools.weather.forecast('Oslo', 5)", "{'city': 'Oslo', 'days': 5}"),
        ("from tools import weather\nweather.forecast('Oslo', days=1)['days']", "1"),
        ("from tools.weather import forecast, units\nunits()", "['C', 'F']"),
        ("import tools.weather as w\nw.units()", "['C', 'F']"),
        ("from tools import *\necho(value=7)", "7"),
        ("import tools\ntools.echo({'a': [1, None, 'ä']})", "{'a': [1, None, 'ä']}"),
        ("await tools.echo(2)", "2"),
        ("x = tools.echo(3)\nawait x", "3"),
        ("tools.echo.sync(4) + await tools.echo.aio(5)", "9"),
        ("tools.echo.sync(1)", "1"),
        ("import asyncio\nsum(await asyncio.gather(*[tools.echo(i) for i in range(50)]))", "1225"),
        ("import asyncio\nasync def main():\n    return await tools.echo(6)\nasyncio.run(main())", "6"),
        ("import asyncio\nasyncio.run(tools.echo(7))", "7"),
        (
            "import asyncio\nasync with asyncio.TaskGroup() as g:\n"
            "    made = [g.create_task(tools.echo(n)) for n in range(3)]\n[one.result() for one in made]",
            "[0, 1, 2]",
        ),
        ("import asyncio\nawait asyncio.wait_for(tools.echo(8), 10)", "8"),
        ("import asyncio\nawait asyncio.to_thread(tools.echo, 9)", "9"),
        (
            "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as pool:\n"
            "    found = list(pool.map(tools.echo, range(100)))\nfound == list(range(100))",
            "True",
        ),
        ("list(map(tools.echo, 'abc'))", "['a', 'b', 'c']"),
        ("open(tools.file('new/one.txt')).read()", "'content'"),
        ("import numpy as np\ntools.echo([np.arange(2), np.float64(0.5), np.bool_(True)])", "[[0, 1], 0.5, True]"),
        ("import pandas as pd\ntools.echo(pd.DataFrame({'a': [1, 2]}))", "[{'a': 1}, {'a': 2}]"),
        ("import pandas as pd\npd.Series(['a', 'b']).map(tools.echo).tolist()", "['a', 'b']"),
        ("import pickle\npickle.loads(pickle.dumps(tools.echo))(1)", "1"),
    ],
)  # fmt: skip
def test_a_call_gives_its_value(session: Session, host: Host, code: str, expected: str) -> None:
    outcome = host.run(session, code)
    assert plain(outcome) == [expected], outcome.document()


def test_a_file_decides_for_itself(session: Session, host: Host) -> None:
    """Who calls is the code that has the call in it, not the cell that called that code."""
    session.run("open('plain.py', 'w').write('def get(tools):\\n    return tools.echo(1)\\n')")
    assert value(host.run(session, "import plain\nx = plain.get(tools)\nx + await tools.echo(1)")) == "2"
    host.run(session, "def helper(n): return tools.echo(n)")
    assert value(host.run(session, "helper(1) + await tools.echo(1)")) == "2"


def test_ten_thousand_calls_one_after_the_other(session: Session, host: Host) -> None:
    started = host.begin(session, "sum(tools.echo(i) for i in range(10_000))", timeout_s=120)
    assert value(started.wait(140)) == str(sum(range(10_000)))
    assert sorted(started.calls) == list(range(1, 10_002))  # the first asked for the catalogue


def test_more_calls_at_once_than_may_be_pending(session: Session, host: Host) -> None:
    code = "import asyncio\nfound = await asyncio.gather(*[tools.echo(i) for i in range(6000)])\nfound == list(range(6000))"
    assert value(host.begin(session, code, timeout_s=60).wait(80)) == "True"


def test_two_thousand_calls_of_the_client_in_one_gather(session: Session, host: Host) -> None:
    started = host.begin(
        session, "import asyncio\nlen(set(await asyncio.gather(*[tools.ask(str(i)) for i in range(2000)])))"
    )
    started.until_event("blocked")
    assert len(started.pending) == 2000
    for number in sorted(started.pending, reverse=True):
        started.answer(number, number)
    assert value(started.wait()) == "2000"
    assert started.count("blocked") < 20  # and not one per answer


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CALL_ERRORS)
def test_every_kind_of_error_is_an_exception_of_its_own(session: Session, host: Host, kind: str) -> None:
    code = (
        f"try:\n    tools.fails(kind={kind!r})\nexcept tools.ToolError as error:\n"
        "    found = type(error).__name__, error.kind, error.tool, error.message, list(error.parameters)\nfound"
    )
    name = "Tool" + {"bad_arguments": "Argument", "bad_result": "Result"}.get(
        kind, "".join(part.title() for part in kind.split("_"))
    )
    assert value(host.run(session, code)) == str((f"{name}Error", kind, "fails", "it says so", ["kind"]))


@pytest.mark.parametrize(
    ("code", "name", "says"),
    [
        ("tools.weather.forecast(town='x')", "ToolArgumentError", "no parameter 'town'. Valid parameters: (city: str, days: int = 3)"),
        ("tools.weather.forecast(citi='x')", "ToolArgumentError", "did you mean 'city'?"),
        ("tools.weather.forecast()", "ToolArgumentError", "it needs 'city'"),
        ("tools.weather.forecast('a', city='b')", "ToolArgumentError", "'city' twice"),
        ("tools.weather.forecast('a', 1, 2)", "ToolArgumentError", "at most 2 arguments"),
        ("tools.echo(float('nan'))", "ToolArgumentError", "nan is no JSON number"),
        ("tools.echo({1: 2})", "ToolArgumentError", "keys are text"),
        ("tools.echo(object())", "ToolArgumentError", "an object is no JSON data"),
        ("tools.echo('\\udc80')", "ToolArgumentError", "cannot be sent"),
        ("x = []\nx.append(x)\ntools.echo(x)", "ToolArgumentError", "nested too deeply"),
        ("tools.echo('x' * (5 << 20))", "ToolArgumentError", "more than 4194304"),
        ("tools.echo(tools.echo.aio(1))", "ToolArgumentError", "await it"),
        ("tools.file('../x')", "ToolResultError", "contains '..'"),
        ("tools.wether", "AttributeError", "did you mean 'weather'?"),
        ("tools.weather.forcast(1)", "AttributeError", "did you mean 'forecast'?"),
        ("from tools import weathr", "ImportError", "weathr"),
        ("tools.describe('weather.forcast')", "ToolNotFoundError", "did you mean 'weather.forecast' or 'weather.units'?"),
        ("x = tools.echo.aio(1)\nx['a']", "TypeError", "await tools.echo(…)"),
        ("x = tools.echo.aio(1)\nx.upper()", "AttributeError", "await tools.echo(…)"),
        ("len(tools.echo.aio(1))", "TypeError", "await tools.echo(…)"),
        ("for x in tools.echo.aio(1): pass", "TypeError", "await tools.echo(…)"),
        ("if tools.echo.aio(1): pass", "TypeError", "await tools.echo(…)"),
        ("await tools.fails('denied')", "ToolDeniedError", "it says so"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(session: Session, host: Host, code: str, name: str, says: str) -> None:
    outcome = host.run(session, code)
    assert outcome.error is not None, outcome.document()
    assert outcome.error["name"] == name
    assert says in outcome.error["value"]
    assert "onehop" not in traceback(outcome)
    assert value(host.run(session, "tools.echo('as before')")) == "'as before'"


def test_a_full_workspace_is_an_error_of_the_result(driver: Driver, host: Host) -> None:
    host.functions = {**FUNCTIONS, "file": lambda path: Return(value=path, files={path: bytes(8 << 20)})}
    with driver.session(workspace_bytes=4 << 20) as session:
        outcome = host.run(session, "tools.file('big')")
        assert outcome.error is not None
        assert outcome.error["name"] == "ToolResultError", outcome.document()
        assert value(host.run(session, "tools.echo(1)")) == "1"


# --- help ------------------------------------------------------------------------------------------


def test_help_signature_and_completion(session: Session, host: Host) -> None:
    code = """
import inspect
help(tools.weather.forecast)
print(inspect.signature(tools.weather.forecast), tools.weather.forecast.__doc__)
print(dir(tools.weather), 'weather' in dir(tools), 'ToolError' in dir(tools))
print(get_ipython().complete('tools.wea')[1], get_ipython().complete('tools.weather.fo')[1])
print(tools.search('weather forecast', 1), len(tools.search()))
print(tools.describe(tools.weather.forecast) == tools.describe('weather.forecast'))
print(tools.weather.forecast, tools.weather)
"""
    shown = host.run(session, code).stdout
    assert "tools.weather.forecast(city: str, days: int = 3)" in shown
    assert "The weather of the coming days in a city." in shown
    assert "city: its name" in shown
    assert "['forecast', 'units'] True True" in shown
    assert "['.weather'] ['.forecast']" in shown
    assert "[{'name': 'weather.forecast', 'signature': " in shown
    assert f" {len(ENTRIES)}\nTrue\n" in shown
    assert "\n<tool tools.weather.forecast(" in shown


# --- what stays and what goes -------------------------------------------------------------------------


def test_without_tools_the_name_is_the_users(session: Session, host: Host) -> None:
    host.run(session, "kept = tools.echo")
    assert "NameError" in traceback(session.run("tools"))
    assert "ModuleNotFoundError" in traceback(session.run("import tools"))
    assert "no execution with tools" in traceback(session.run("kept(1)"))
    session.run("open('tools.py', 'w').write('mine = 5')")
    assert value(session.run("import tools\ntools.mine")) == "5"
    assert value(host.run(session, "tools.mine, kept(2)")) == "(5, 2)"  # the variable is the user's
    assert value(host.run(session, "import tools\ntools.echo(1)")) == "1"
    assert value(session.run("import tools\ntools.mine")) == "5"


def test_another_catalogue_has_other_tools(session: Session, host: Host, driver: Driver) -> None:
    host.run(session, "old = tools.echo\nfrom tools import weather")
    other = Host(
        driver, [entry("echo", value={}, loud={"type": "boolean", "default": False})], {"echo": lambda **a: a}
    )
    code = "tools.echo(1, loud=True), old(2, loud=True), hasattr(tools, 'weather')"
    assert value(other.run(session, code, catalogue="catalogue-2")) == (
        "({'value': 1, 'loud': True}, {'value': 2, 'loud': True}, False)"
    )
    again = host.begin(session, "tools.weather.units()")
    assert value(again.wait()) == "['C', 'F']"
    assert [call.name for call in again.calls.values()] == ["weather.units"]  # it knew the catalogue


def test_a_call_nobody_awaits_is_told_about_and_given_up(session: Session, host: Host) -> None:
    started = host.begin(session, "late = tools.ask.aio('x')\nawait tools.echo(1)")
    outcome = started.wait()
    assert "never awaited: tools.ask" in outcome.stderr
    later = host.run(
        session, "try:\n    await late\nexcept tools.ToolUnavailableError as error: print(error)"
    )
    assert "its execution ended" in later.stdout, later.document()


def test_answers_of_a_former_execution_are_dropped(session: Session, host: Host) -> None:
    first = host.begin(session, "call = tools.ask.aio('x')\n1")
    first.wait()
    first.answer(next(iter(first.pending)), "late")
    assert value(host.run(session, "[tools.echo(n) for n in range(5)]")) == "[0, 1, 2, 3, 4]"


def test_a_cancelled_call_is_given_up(session: Session, host: Host) -> None:
    code = """
import asyncio
try:
    await asyncio.wait_for(tools.ask('never answered'), 0.05)
except TimeoutError:
    print('gave up')
first, second = asyncio.ensure_future(tools.ask('x')), asyncio.create_task(tools.ask('y'))
await asyncio.sleep(0)
first.cancel(); second.cancel()
print(await asyncio.gather(first, second, return_exceptions=True))
await tools.echo('goes on')
"""
    started = host.begin(session, code)
    outcome = started.wait()
    assert value(outcome) == "'goes on'"
    assert outcome.stdout.count("CancelledError") == 2
    assert "never awaited" not in outcome.stderr
    assert started.count("blocked") == 0


@pytest.mark.parametrize(
    "code",
    ["tools.ask('x')", "await tools.ask('x')", "import asyncio\nawait asyncio.gather(tools.ask('x'), tools.ask('y'))",
     "import asyncio\nasyncio.run(tools.ask('x'))", "import threading\nt = threading.Thread(target=tools.ask, args=['x'])\nt.start(); t.join()"],
)  # fmt: skip
def test_an_interrupt_ends_the_wait_and_keeps_the_variables(session: Session, host: Host, code: str) -> None:
    host.run(session, "kept = 41")
    started = host.begin(session, code)
    started.until_event("blocked")
    started.suspend()
    assert session.interrupt()
    outcome = started.wait()
    assert (outcome.status, outcome.end.variables) == ("interrupted", "kept"), outcome.document()
    assert value(host.run(session, "tools.echo(kept + 1)")) == "42"


def test_interrupts_at_any_moment_leave_the_channel_whole(session: Session, host: Host) -> None:
    """A frame that was half sent or half read would end the session."""
    code = "print('started', flush=True)\nwhile True:\n    tools.echo('x' * 20_000)\n    display(1)"
    for _ in range(12):
        started = host.begin(session, code)
        started.until("started")
        assert session.interrupt()
        assert started.wait().status == "interrupted"
    assert value(host.run(session, "tools.echo(1)")) == "1"


def test_a_forked_process_may_not_call(session: Session, host: Host) -> None:
    code = """
import multiprocessing, os
def child(n):
    try:
        return tools.echo(n)
    except tools.ToolUnavailableError as error:
        return str(error)
with multiprocessing.get_context('fork').Pool(2) as pool:
    print(pool.map(child, [1, 2]))
tools.echo('parent')
"""
    outcome = host.run(session, code)
    assert outcome.stdout.count("only the one that was forked from may call tools") == 2, outcome.document()
    assert value(outcome) == "'parent'"


def test_a_fork_with_calls_under_way(session: Session, host: Host) -> None:
    code = """
import os
call = tools.ask.aio('x')
await tools.echo(0)
pid = os.fork()
if pid == 0:
    try:
        await call
    except tools.ToolUnavailableError as error:
        print('child:', error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
await call
"""
    started = host.begin(session, code)
    give_all(started, lambda question: "for the parent")
    assert "child: tools.ask: the code forked" in started.output()
    assert value(_outcome(started)) == "'for the parent'"


def _outcome(started: Answering) -> Outcome:
    return started.wait()


def test_threads_event_loops_and_output_at_once(session: Session, host: Host) -> None:
    """SYNC and its answer live with calls of other threads: stdout and stderr in turns, displays, calls."""
    code = """
import asyncio, sys, threading
def shout(name):
    for n in range(30):
        print(name, n); print(name, n, file=sys.stderr); assert tools.echo(n) == n
async def calm():
    for n in range(30):
        assert await asyncio.gather(tools.echo.aio(n), tools.echo.aio(-n)) == [n, -n]
threads = [threading.Thread(target=shout, args=[name]) for name in 'ab']
threads.append(threading.Thread(target=lambda: asyncio.run(calm())))
for one in threads: one.start()
for n in range(30):
    display(n); assert await tools.echo(n) == n
for one in threads: await asyncio.to_thread(one.join)
'done'
"""
    host.run(session, "def unused(): pass")
    code = code.replace("def shout", "def shout_")  # its calls block: its own cell names no asyncio
    host.run(
        session,
        "import sys\ndef shout(name):\n    for n in range(30):\n"
        "        print(name, n); print(name, n, file=sys.stderr); assert tools.echo(n) == n",
    )
    outcome = host.run(session, code)
    assert plain(outcome)[-1] == "'done'", outcome.document()
    assert len(re.findall("[ab] 29\n", outcome.stdout)) == 2
    assert plain(outcome)[:-1] == [str(n) for n in range(30)]


# --- blocked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "tools.ask('a')",
        "[tools.ask(n) for n in 'cba'][-1]",
        "await tools.ask('a')",
        "import asyncio\n(await asyncio.gather(tools.ask('b'), tools.echo(1), tools.ask('a')))[-1]",
        "import asyncio\nasync def main():\n    async with asyncio.TaskGroup() as g:\n        one = g.create_task(tools.ask('a'))\n    return one.result()\nasyncio.run(main())",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as pool: found = list(pool.map(tools.ask, 'cba'))\nfound[-1]",
        "import asyncio\nawait asyncio.to_thread(tools.ask, 'a')",
        "import queue, threading\nq = queue.Queue()\nthreading.Thread(target=lambda: q.put(tools.ask('a'))).start()\nq.get()",
        "import asyncio, threading\nfound = []\nasync def work(): found.append(await tools.ask('a'))\nt = threading.Thread(target=lambda: asyncio.run(work()))\nt.start(); t.join()\nfound[0]",
        "call = tools.ask.aio('a')\nx = tools.echo.sync(1)\nawait call",
    ],
)  # fmt: skip
def test_code_that_only_waits_for_its_client_says_so(session: Session, host: Host, code: str) -> None:
    started = host.begin(session, code)
    give_all(started, lambda question: f"answer to {question}")
    assert value(started.wait()) == "'answer to a'"


def test_what_was_printed_is_there_before_somebody_is_asked(session: Session, host: Host) -> None:
    started = host.begin(session, "print('half a line', end='')\ntools.ask('a')")
    started.until_event("blocked")
    assert started.output() == "half a line"
    started.answer(next(iter(started.pending)), 1)
    assert started.wait().stdout == "half a line"


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nasync def other():\n    await asyncio.sleep(0.5)\n    print('other')\nawait asyncio.gather(tools.ask('x'), other())",
        "import threading, time\ndef other():\n    time.sleep(0.5)\n    print('other')\nthreading.Thread(target=other).start()\ntools.ask('x')",
        "import threading\ndef other():\n    for n in range(10_000_000): pass\n    print('other')\nthreading.Thread(target=other).start()\ntools.ask('x')",
        "import threading\ndef other():\n    threading.Event().wait(0.5)\n    print('other')\nthreading.Thread(target=other).start()\ntools.ask('x')",
        "import asyncio\nasync def other():\n    process = await asyncio.create_subprocess_exec('sleep', '0.5')\n    await process.wait()\n    print('other')\nawait asyncio.gather(tools.ask('x'), other())",
        "import asyncio, subprocess\nasync def other():\n    await asyncio.to_thread(subprocess.run, ['sleep', '0.5'])\n    print('other')\nawait asyncio.gather(tools.ask('x'), other())",
        "import asyncio\ntry: await asyncio.wait_for(tools.ask('x'), 0.5)\nexcept TimeoutError:\n    print('other')\n    await tools.ask('y')",
    ],
    ids=["a timer", "a thread that sleeps", "a thread that works", "a wait with an end", "a process", "a thread with a process", "a time limit"],
)  # fmt: skip
def test_it_is_said_only_when_nothing_else_can_happen(session: Session, host: Host, code: str) -> None:
    started = host.begin(session, code)
    started.until_event("blocked")
    before = started.events[: next(i for i, event in enumerate(started.events) if event.kind == "blocked")]
    assert b"other\n" in b"".join(event.payload for event in before if event.kind == "stdout")
    for number in list(started.pending):
        started.answer(number, 1)
    outcome = started.wait()
    assert outcome.status == "ok", outcome.document()
