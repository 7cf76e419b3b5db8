"""Limits per sandbox and execution, measured and enforced from outside."""

from __future__ import annotations

import time
from typing import Any

import pytest

from onehop.supervisor.messages import SandboxSpec
from tests.driver import Driver
from tests.kernel.reading import value
from tests.timing import soonest_s

MIB = 1 << 20


def test_memory(driver: Driver) -> None:
    with driver.session(memory_bytes=128 * MIB) as session:
        assert session.run("x = bytearray(20 << 20); len(x)").status == "ok"
        outcome = session.run("y = [bytearray(1 << 20) for _ in range(1000)]")
        assert (outcome.status, outcome.end.session, outcome.end.variables) == (
            "out_of_memory",
            "ended",
            "lost",
        )
        assert "128 MiB" in outcome.end.reason
    with driver.session(memory_bytes=600 * MIB) as session:
        assert value(session.run("y = [bytearray(1 << 20) for _ in range(300)]; len(y)")) == "300"


def test_memory_of_children_counts_too(driver: Driver) -> None:
    code = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = bytearray(400 << 20); input()'])"
    )
    with driver.session(memory_bytes=128 * MIB) as session:
        assert session.run(code).status == "out_of_memory"


def test_processes(driver: Driver) -> None:
    code = ("import subprocess\nrunning = []\ntry:\n    for _ in range(100): running.append(subprocess.Popen(['sleep', '100']))\n"
            "except OSError as e: print(type(e).__name__)\nlen(running)")  # fmt: skip
    with driver.session(processes=10) as session:
        outcome = session.run(code)
        assert outcome.stdout == "BlockingIOError\n"
        assert 5 <= int(value(outcome)) <= 10
        assert value(session.run("for p in running: p.kill(); p.wait()\n1")) == "1"
    with driver.session(processes=40) as session:
        assert 35 <= int(value(session.run(code))) <= 40


def test_memory_spread_over_children(driver: Driver) -> None:
    code = ("import subprocess, sys\nkids = [subprocess.Popen([sys.executable, '-c', 'x = bytearray(b\"x\") * (60 << 20); input()'],"
            " stdin=-1) for _ in range(8)]\nfor k in kids: k.wait()")  # fmt: skip
    with driver.session(memory_bytes=256 * MIB) as session:
        assert session.run(code, timeout_s=30).status == "out_of_memory"


def test_more_than_the_default(driver: Driver) -> None:
    """Kernels wait in the pool with the default limits; hard limits cannot be raised by everybody."""
    code = ("import resource as r, subprocess\nrunning = [subprocess.Popen(['sleep', '100']) for _ in range(80)]\n"
            "f = open('big', 'wb'); f.truncate(300 << 20)\nr.getrlimit(r.RLIMIT_FSIZE)[1] >> 20, len(running)")  # fmt: skip
    spec: dict[str, Any] = {"processes": 100, "workspace_bytes": 400 * MIB, "memory_bytes": 2 << 30}
    with driver.session(**spec) as session:
        assert value(session.run(code)) == "(400, 80)"
    once = driver.run_once(code, sandbox=SandboxSpec(one_shot=True, **spec))
    assert value(once) == "(400, 80)"


def test_workspace_bytes(driver: Driver) -> None:
    with driver.session(workspace_bytes=4 * MIB) as session:
        outcome = session.run("f = open('big', 'wb', 0)\nwhile True: f.write(bytes(1 << 16))")
        assert outcome.error is not None
        assert (outcome.error["name"], outcome.error["value"]) == (
            "OSError",
            "[Errno 28] No space left on device",
        )
        assert 3 * MIB <= int(value(session.run("import os; os.path.getsize('big')"))) <= 4 * MIB
        assert session.run("f.close(); os.remove('big'); open('small', 'w').write('x')").status == "ok"


def test_workspace_inodes(driver: Driver) -> None:
    with driver.session(workspace_inodes=50) as session:
        outcome = session.run("for n in range(100): open(str(n), 'w').close()")
        assert outcome.error is not None
        assert outcome.error["value"].startswith("[Errno 28]")
        assert 40 <= int(value(session.run("import os; len(os.listdir())"))) <= 50


def test_cpu_seconds(driver: Driver) -> None:
    with driver.session() as session:
        session.run("kept = 1")
        started = time.monotonic()
        outcome = session.run("while True: pass", cpu_s=0.3, timeout_s=30, grace_s=5)
        assert outcome.status == "timeout"
        assert "0.3 s of CPU" in outcome.end.reason
        assert time.monotonic() - started < 10
        assert value(session.run("import time; time.sleep(0.5); kept", cpu_s=0.3)) == "1", (
            "sleeping is no CPU time"
        )


def test_cpus(driver: Driver) -> None:
    if driver.wait(driver.client.describe())["isolation"]["memory"] != "cgroup":
        return  # without a cgroup the share of a processor is left to the scheduler, and `protections` says so
    with driver.session(cpus=0.2) as session:
        outcome = session.run("import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass")
        usage = outcome.end.usage
        assert usage.wall_ms >= 1000
        assert usage.cpu_ms < 0.5 * usage.wall_ms


def test_deadlines_hold(driver: Driver) -> None:
    for code in ("import time; time.sleep(100)", "while True: pass", "import os; os.system('sleep 100')",
                 "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
                 "import os\nwhile True: os.write(1, b'x' * 65536)", "print('a' * (1 << 30))",
                 "import os\nfor _ in range(30):\n    if os.fork() == 0:\n        while True: pass\nos.wait()"):  # fmt: skip

        def took_s(code: str = code) -> float:
            end = driver.run_once(code, timeout_s=0.3).end
            assert (end.status, end.session) in (("timeout", "ended"), ("output_limit", "ended")), (code, end)
            return end.usage.wall_ms / 1000

        assert soonest_s(took_s, 1.5) < 1.5, code


def test_usage(driver: Driver) -> None:
    with driver.session() as session:
        started_s = time.monotonic()
        usage = session.run("import time; time.sleep(0.2)").end.usage
        assert 200 <= usage.wall_ms <= (time.monotonic() - started_s) * 1000
        assert 0 <= usage.cpu_ms < 150
        usage = session.run(
            "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
        ).end.usage
        assert usage.cpu_ms >= 200
        usage = session.run("x = bytearray(100 << 20); x[::4096] = b'x' * len(x[::4096]); del x").end.usage
        if driver.wait(driver.client.describe())["isolation"]["memory"] == "cgroup":
            assert usage.peak_memory_bytes > 90 * MIB
            assert session.run("1").end.usage.peak_memory_bytes < 90 * MIB
        else:  # what the kernel shares with its zygote is only estimated
            assert usage.peak_memory_bytes > 30 * MIB


def test_the_workspace_says_whether_it_is_used(driver: Driver) -> None:
    with driver.session() as session:
        assert session.run("1").end.workspace_used is False
        assert session.run("open('f', 'w').close()").end.workspace_used is True
        assert session.run("import os; os.remove('f')").end.workspace_used is False


@pytest.mark.parametrize("spec", [{"memory_bytes": 64 * MIB}, {"processes": 3}, {"workspace_bytes": 1}, {"cpus": 0.05},
                                  {"workspace_inodes": 1}])  # fmt: skip
def test_small_limits_still_give_an_answer(driver: Driver, spec: dict[str, float]) -> None:
    outcome = driver.run_once("1 + 1", sandbox=SandboxSpec(one_shot=True, **spec))  # type: ignore[arg-type]
    assert outcome.status in ("ok", "out_of_memory")


def test_a_flood_in_one_sandbox_leaves_time_for_the_others(driver: Driver) -> None:
    with driver.session() as noisy, driver.session() as quiet:
        flood = driver.submit(noisy.start("import os\nwhile True: os.write(1, b'x' * 65536)", timeout_s=3.0,
                                          output_bytes=1000))  # fmt: skip
        times = [quiet.run("1 + 1").end.usage.wall_ms for _ in range(20)]
        assert sorted(times)[10] < 500
        assert flood.result(30).status in ("timeout", "output_limit")
