"""The processes of sources: calls of every kind, deaths, what a worker sees, and what outlives it (nothing)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from onehop.tools.model import ErrorFrame
from tests.tools.conftest import Started, until

TOOLS = """
    import asyncio, os, signal, subprocess, sys, threading, time

    def add(a: int, b: int = 2) -> int:
        return a + b

    def nap(s: float) -> float:
        time.sleep(s)
        return s

    async def anap(s: float) -> float:
        await asyncio.sleep(s)
        return s

    def thread() -> int:
        return threading.get_ident()

    def pid() -> int:
        return os.getpid()

    def variables() -> dict[str, str]:
        return dict(os.environ)

    def die(how: str, mark: str = "") -> str:
        if mark:
            if os.path.exists(mark):
                return "the second time"
            open(mark, "w").close()
        os._exit(7) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)

    def fork() -> int:
        os.fork()
        return os.getpid()

    def leave_child() -> int:
        return subprocess.Popen(["sleep", "1000"]).pid

    def leave_daemon() -> int:
        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

    def shout(lines: int) -> int:
        for n in range(lines):
            print("line", n)
        os.system("echo from a process; echo from its stderr >&2")
        return lines

    def read(path: str) -> str:
        return open(path).read()

    def huge(mib: int) -> str:
        return "x" * (mib << 20)

    def spin() -> None:
        while True:
            pass
"""


def about(pid: int) -> dict[str, str]:
    """What the kernel says about a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


async def test_calls_are_answered(started: Started) -> None:
    async with started(TOOLS) as source:
        assert await source.call("add", {"a": 1}) == 3
        assert await source.call("add", {"a": 1, "b": 5}) == 6
        assert await source.call("anap", {"s": 0}) == 0
        answers = await asyncio.gather(*(source.call("add", {"a": n}) for n in range(500)))
        assert answers == [n + 2 for n in range(500)]
        missing = await source.call("nothing")
        assert (missing.kind, "nothing" in missing.message) == ("not_found", True)


async def test_quick_calls_stay_in_the_thread_that_reads(started: Started) -> None:
    async with started(TOOLS) as source:
        assert len({await source.call("thread") for _ in range(200)}) <= 2


@pytest.mark.parametrize("tool", ["nap", "anap"])
async def test_calls_that_wait_run_side_by_side(started: Started, tool: str) -> None:
    async with started(TOOLS) as source:
        await source.call(tool, {"s": 0.05})
        before_s = time.monotonic()
        await asyncio.gather(*(source.call(tool, {"s": 0.5}) for _ in range(60)))
        assert time.monotonic() - before_s < 10, "one after another they take 30 s"


async def test_a_call_that_lasts_does_not_hold_up_others(started: Started) -> None:
    async with started(TOOLS) as source:
        long = asyncio.ensure_future(source.call("nap", {"s": 20}))
        assert await source.call("add", {"a": 1}, timeout_s=19) == 3
        assert not long.done()
        long.cancel()


@pytest.mark.parametrize("last", ["anap", "nap"])
async def test_results_do_not_wait_for_what_came_with_them(started: Started, last: str) -> None:
    async with started(TOOLS) as source:
        # In one turn of the loop, and so in one piece; the first time `nap` is not known to be slow.
        quick = [asyncio.ensure_future(source.call("add", {"a": n})) for n in range(20)]
        long = asyncio.ensure_future(source.call(last, {"s": 4}))
        async with asyncio.timeout(3.5):
            assert await asyncio.gather(*quick) == [n + 2 for n in range(20)]
        assert not long.done()
        assert await long == 4


async def test_a_call_that_never_ends_is_a_timeout(started: Started) -> None:
    async with started(TOOLS) as source:
        for tool, arguments in (("nap", {"s": 1000}), ("anap", {"s": 1000}), ("spin", {})):
            answer = await source.call(tool, arguments, timeout_s=0.3)
            assert isinstance(answer, ErrorFrame)
            assert (answer.kind, "0.3 s" in answer.message) == ("timeout", True)
        assert await source.call("add", {"a": 1}) == 3


async def test_a_worker_full_of_stuck_calls_is_replaced(started: Started) -> None:
    async with started(TOOLS) as source:
        before = await source.call("pid")
        long = asyncio.ensure_future(source.call("nap", {"s": 1.5}))
        stuck = (source.call("nap", {"s": 1000}, timeout_s=0.2) for _ in range(20))
        assert {answer.kind for answer in await asyncio.gather(*stuck)} == {"timeout"}
        await until(lambda: len(source.catalogues) == 2)
        assert await source.call("pid") != before
        assert await long == 1.5, "what still ran has ended well"
        await until(lambda: not Path(f"/proc/{before}").exists())


@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 7"), ("signal", "killed by SIGKILL")])
async def test_death_amid_a_call(started: Started, how: str, said: str) -> None:
    async with started(TOOLS) as source:
        waiting = asyncio.ensure_future(source.call("anap", {"s": 1000}))
        answer = await source.call("die", {"how": how})
        assert (answer.kind, said in answer.message) == ("unavailable", True), answer
        assert (await waiting).kind == "unavailable"
        assert await source.call("add", {"a": 1}) == 3, "it was started again, and calls wait for that"


async def test_what_is_idempotent_runs_once_more(started: Started, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    async with started(TOOLS) as source:
        mark = str(tmp_path / "mark")
        if os.geteuid() == 0:
            mark = "/tmp/onehop-test-mark-" + str(os.getpid())
        try:
            assert await source.call("die", {"how": "exit", "mark": mark}, again=True) == "the second time"
        finally:
            remove(mark)
        answer = await source.call("die", {"how": "exit"}, again=True)
        assert answer.kind == "unavailable", "twice, and no more"


async def test_a_tool_that_forks_answers_once(started: Started) -> None:
    async with started(TOOLS) as source:
        parent = await source.call("pid")
        for _ in range(5):
            assert await source.call("fork") == parent
        assert await source.call("add", {"a": 1}) == 3


async def test_nothing_outlives_the_gateways_end(started: Started) -> None:
    async with started(TOOLS) as source:
        pids = [await source.call(name) for name in ("pid", "leave_child", "leave_daemon")]
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def test_nothing_outlives_the_launcher(started: Started) -> None:
    async with started(TOOLS) as source:
        pid = await source.call("pid")
        os.kill(int(about(pid)["PPid"]), signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{pid}").exists())
        answer = await source.call("add", {"a": 1})
        assert (answer.kind, "launcher" in answer.message) == ("unavailable", True)


async def test_output_goes_to_the_log_and_is_bounded(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "onehop.tools")
    async with started(TOOLS) as source:
        assert await source.call("shout", {"lines": 2}) == 2
        await until(lambda: "from its stderr" in caplog.text)
        assert "mine: line 1" in caplog.text
        assert "mine: from a process" in caplog.text
        caplog.clear()
        assert await source.call("shout", {"lines": 20_000}) == 20_000
        assert await source.call("add", {"a": 1}) == 3
        assert len(caplog.records) < 2000


async def test_only_the_secrets_named_for_it(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_TOKEN", "wt-1")
    monkeypatch.setenv("OTHER_TOKEN", "ot-2")
    async with started(TOOLS, secrets=("WEATHER_TOKEN",)) as source:
        variables = await source.call("variables")
        assert variables["WEATHER_TOKEN"] == "wt-1"
        assert "OTHER_TOKEN" not in variables
        assert not [name for name in variables if name.startswith("ONEHOP_")]
        assert not any("ot-2" in value for value in variables.values())
        # Nor by way of /proc: the launcher has them all.
        answer = await source.call("read", {"path": f"/proc/{await source.call('pid')}/environ"})
        assert answer.kind == "failed"


@pytest.mark.root_only
async def test_a_user_of_its_own_that_sees_no_home(started: Started, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    async with started(TOOLS) as source:
        pid = await source.call("pid")
        status = about(pid)
        assert status["Uid"].split() == ["1900070000"] * 4
        assert (status["CapEff"], status["NoNewPrivs"]) == ("0000000000000000", "1")
        for path in (str(secret), "/etc/shadow", "/root/.bashrc"):
            answer = await source.call("read", {"path": path})
            assert (answer.kind, "Error" in answer.message) == ("failed", True), path


async def test_a_changed_module_replaces_the_worker(
    started: Started, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(TOOLS) as source:
        running = asyncio.ensure_future(source.call("nap", {"s": 2.5}))
        path = tmp_path / "mine.py"
        path.write_text("def other() -> str:\n    return 'new'\n")
        await until(lambda: len(source.catalogues) == 2)
        assert [tool.name for tool in source.catalogues[1]] == ["other"]
        assert await source.call("other") == "new"
        assert await running == 2.5
        path.write_text("def broken(:\n")
        await until(lambda: "the old one goes on" in caplog.text)
        assert "mine.py, line 1: SyntaxError" in caplog.text
        assert await source.call("other") == "new"


async def test_a_result_that_is_too_large(started: Started) -> None:
    async with started(TOOLS) as source:
        answer = await source.call("huge", {"mib": 100})
        assert answer.kind == "bad_result"
        assert len(await source.call("huge", {"mib": 20})) == 20 << 20


async def test_a_module_that_cannot_be_imported(started: Started) -> None:
    async with started("import os\nraise RuntimeError('no database')\n") as source:
        answer = await source.call("add", {"a": 1})
        assert answer.kind == "unavailable"
        assert "mine.py, line 2: RuntimeError: no database" in answer.message
