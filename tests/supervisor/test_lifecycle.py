"""Starting, dying, and leaving nothing behind."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from onehop.errors import EngineError, SessionNotFoundError, TooManyError, UnknownEnvironmentError
from onehop.supervisor.messages import SandboxSpec
from onehop.supervisor.spawn import SupervisorHandle
from onehop.supervisor.surroundings import descendants
from tests.driver import Driver, Session
from tests.kernel.reading import value
from tests.supervisor.conftest import Start
from tests.supervisor.machine import (
    descriptors,
    eventually,
    gone,
    groups,
    inside_sandboxes,
    seed_pid,
    supervisor_pid,
    zygote_pid,
)


def test_the_report(supervisor: SupervisorHandle) -> None:
    report = supervisor.report
    assert report["isolation"]["level"] == "process"
    assert {row["state"] for row in report["protections"]} <= {"active", "weaker", "missing"}
    assert report["self_test"]["internet"] not in ("through", "not tried")
    zygote = report["environments"]["default"]["zygote"]
    assert zygote["missing"] == []
    assert zygote["unknown_threads"] == []


def test_a_stopped_supervisor_leaves_nothing(start_supervisor: Start) -> None:
    handle, driver = start_supervisor()
    with driver.session() as session:
        session.run("import subprocess; subprocess.Popen(['sleep', '1000'])")
        processes = [handle.process.pid, *descendants(handle.process.pid)]
        assert len(processes) > 4
        started = time.monotonic()
        os.kill(handle.process.pid, signal.SIGTERM)
        handle.process.wait(15)
        assert time.monotonic() - started < 10
        assert handle.process.returncode == 0
        eventually(lambda: all(map(gone, processes)), what="processes are left")
        assert not os.path.exists(handle.runtime)
        assert not groups(handle.token)
        with pytest.raises(EngineError):
            session.run("1")
        session.delete = lambda: None  # type: ignore[method-assign]


@pytest.mark.parametrize("victim", ["supervisor", "shim"])
def test_a_killed_supervisor_takes_everything_with_it(start_supervisor: Start, victim: str) -> None:
    handle, driver = start_supervisor()
    session = Session(driver, driver.wait(driver.client.create_sandbox(SandboxSpec())))
    session.run("import os, subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
                "if os.fork() == 0:\n    os.setsid()\n    while True: pass\n")  # fmt: skip
    processes = descendants(handle.process.pid)
    os.kill(supervisor_pid(handle) if victim == "supervisor" else handle.process.pid, signal.SIGKILL)
    handle.process.wait(15)
    eventually(lambda: all(map(gone, processes)), what="processes are left")
    with pytest.raises(EngineError):
        driver.wait(driver.client.describe(), 30)
    if victim == "supervisor":
        assert not os.path.exists(handle.runtime)
        eventually(lambda: not groups(handle.token), what="control groups are left")
    else:  # nobody is left to clean up, so the next one does
        start_supervisor()[0].stop()
        assert not groups(handle.token)


def test_sandboxes_leave_nothing(start_supervisor: Start) -> None:
    handle, driver = start_supervisor(pool_min=1, pool_max=1)
    supervisor = supervisor_pid(handle)

    def cycle() -> None:
        with driver.session() as session:
            session.run("import os, subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
                        "open('big', 'wb').write(bytes(1 << 20)); print('x' * 100)", output_bytes=10)  # fmt: skip

    def settled() -> tuple[int, int, int]:
        eventually(lambda: (now := driver.wait(driver.client.describe())["environments"]["default"])["starting"] == 0
                   and now["ready"] == now["target"] and now.get("warm", now["ready"]) == now["ready"],
                   what="the pool does not settle")  # fmt: skip
        return descriptors(supervisor), len(descendants(supervisor)), len(groups(handle.token))

    for _ in range(5):
        cycle()
    before = settled()
    for _ in range(50):
        cycle()
    # The last sandbox may still be on its way out; what leaks, leaks fifty times.
    eventually(lambda: all(now <= then for now, then in zip(settled(), before, strict=True)), what="it grows")
    about = driver.wait(driver.client.describe())
    assert about["assigned"] == 0
    assert about["executions"] == 0


def test_memory_of_the_supervisor_does_not_grow_with_what_kernels_send(
    session: Session, supervisor: SupervisorHandle
) -> None:
    def resident() -> int:
        with open(f"/proc/{supervisor_pid(supervisor)}/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    session.run("import os\nfor _ in range(64): os.write(1, b'x' * (1 << 20))", timeout_s=60)
    session.run("class B:\n    def __repr__(self): return 'x' * (1 << 28)\nB()", timeout_s=60)
    session.run("for _ in range(20): display('x' * 3_000_000)", timeout_s=60, results_bytes=1 << 20)
    assert resident() - before < 64 << 20


def test_a_killed_zygote_costs_no_request(start_supervisor: Start) -> None:
    handle, driver = start_supervisor(pool_min=1, pool_max=2)
    before = zygote_pid(handle)

    async def several() -> list[str]:
        import asyncio

        async def one() -> str:
            info = await driver.client.create_sandbox(SandboxSpec())
            outcome = await Session(driver, info).start("6 * 7")
            await driver.client.destroy_sandbox(info.id)
            return value(outcome)

        tasks = [asyncio.create_task(one()) for _ in range(8)]
        os.kill(before, signal.SIGKILL)
        return list(await asyncio.gather(*tasks))

    assert driver.wait(several()) == ["42"] * 8
    eventually(lambda: zygote_pid(handle) != before)
    assert driver.wait(driver.client.describe())["environments"]["default"]["zygote_restarts"] == 1


def test_sandboxes_live_on_when_their_zygote_dies(start_supervisor: Start) -> None:
    handle, driver = start_supervisor()
    with driver.session() as session:
        session.run("kept = 1; open('f', 'w').close()")
        os.kill(zygote_pid(handle), signal.SIGKILL)
        assert value(session.run("kept")) == "1"
        assert session.run("import os; os._exit(0)").status == "kernel_died"
        assert value(session.run("import os; os.listdir()")) == "['f']"


def test_a_killed_seed_is_replaced_and_its_sandboxes_live_on(start_supervisor: Start) -> None:
    handle, driver = start_supervisor()
    with driver.session() as session:
        session.run("kept = 1")
        before = zygote_pid(handle)
        os.kill(seed_pid(handle), signal.SIGKILL)
        assert value(session.run("kept")) == "1"
        eventually(lambda: gone(before), what="a zygote that cannot be replaced later does not stay")
        with driver.session() as another:
            assert value(another.run("1 + 1")) == "2"
        assert value(session.run("kept")) == "1"


def test_a_kernel_of_a_dead_zygote_tells_its_end_and_frees_its_sandbox(start_supervisor: Start) -> None:
    handle, driver = start_supervisor()
    with driver.session() as session:
        os.kill(zygote_pid(handle), signal.SIGKILL)
        eventually(
            lambda: driver.wait(driver.client.describe())["environments"]["default"]["zygote_restarts"] == 1
        )
        outcome = session.run("import os; os.kill(os.getpid(), 11)")
        assert outcome.status == "kernel_died"
        assert "SIGSEGV" in outcome.end.reason


def test_every_process_of_a_sandbox_is_in_its_control_groups(start_supervisor: Start) -> None:
    handle, driver = start_supervisor(pool_min=1, pool_max=1)
    with driver.session() as session:
        session.run("import subprocess; child = subprocess.Popen(['sleep', '100'])")
        session.run("import os; os._exit(0)")  # the next kernel enters a sandbox that exists
        session.run("import subprocess; child = subprocess.Popen(['sleep', '101'])")

        def all_entered() -> bool:
            inside = inside_sandboxes(handle)
            assert len(inside) >= 4
            wanted = len({Path(path).parent for path in groups(handle.token) if "/sbx" in path})
            try:
                memberships = [Path(f"/proc/{pid}/cgroup").read_text() for pid in inside]
            except OSError:
                return False  # one of them has just ended
            found = [re.findall(rf"{handle.token}/(sbx\d+)$", text, re.M) for text in memberships]
            return all(len(entered) == wanted and len(set(entered)) <= 1 for entered in found)

        # The pool makes a further sandbox at this moment, whose first process is still on its way in.
        eventually(all_entered)


def test_the_most_sandboxes(start_supervisor: Start) -> None:
    _, driver = start_supervisor(max_sandboxes=4, pool_min=1, pool_max=2)
    sessions = [Session(driver, driver.wait(driver.client.create_sandbox(SandboxSpec()))) for _ in range(4)]
    with pytest.raises(TooManyError):
        driver.wait(driver.client.create_sandbox(SandboxSpec()))
    assert [value(session.run("1 + 1")) for session in sessions] == ["2"] * 4
    sessions.pop().delete()
    sessions.append(Session(driver, driver.wait(driver.client.create_sandbox(SandboxSpec()))))
    assert value(sessions[-1].run("2 + 2")) == "4"
    for session in sessions:
        session.delete()


def test_the_pool_grows_with_demand_and_stays_within_its_bounds(start_supervisor: Start) -> None:
    _, driver = start_supervisor(pool_min=2, pool_max=4)
    seen = []
    for _ in range(30):
        driver.run_once("1")
        seen.append(driver.wait(driver.client.describe())["environments"]["default"])
    assert all(2 <= one["target"] <= 4 for one in seen)
    assert all(one["ready"] <= 4 for one in seen)
    assert seen[-1]["taken"] >= 30


def test_unknown_things(driver: Driver, session: Session) -> None:
    with pytest.raises(UnknownEnvironmentError, match="default"):
        driver.wait(driver.client.create_sandbox(SandboxSpec(environment="nosuch")))
    with pytest.raises(SessionNotFoundError):
        driver.wait(driver.client.interrupt("nosuch"))
    driver.wait(driver.client.destroy_sandbox("nosuch"))
    with driver.session() as other:
        pass
    for _ in range(2):
        with pytest.raises(SessionNotFoundError):
            other.run("1")
    assert value(session.run("1 + 1")) == "2"


def test_deleting_while_code_runs(driver: Driver) -> None:
    with driver.session() as session:
        running = driver.submit(session.start("import time; time.sleep(100)"))
        eventually(lambda: any(info.id == session.id and info.executions
                               for info in driver.wait(driver.client.sandboxes())))  # fmt: skip
        session.delete()
        outcome = running.result(10)
        assert (outcome.status, outcome.end.session) == ("killed", "ended")
