"""Several kernels in one sandbox: side by side, each with its own variables, over one workspace."""

from __future__ import annotations

import asyncio

import pytest

from onehop.errors import ConflictError, ContextNotFoundError, SessionBusyError, TooManyError
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import ExecutionSpec, decode_end
from onehop.supervisor.spawn import SupervisorHandle
from onehop.supervisor.surroundings import descendants
from tests.driver import Driver, Session
from tests.kernel.reading import value
from tests.supervisor.machine import eventually, supervisor_pid
from tests.supervisor.test_following import Follower

WAIT = "import os, time\nopen('{name}-on', 'w').close()\nwhile not os.path.exists('{name}-go'): time.sleep(0.005)\n'{name}'"


def at_work(session: Session, name: str, context: str) -> None:
    """Waits until `WAIT` runs in the context."""
    eventually(lambda: session.command(f"ls {name}-on").status == "ok", what=f"{context} does not run")
    assert session.contexts()[context].status == "busy"


def in_context(session: Session, code: str, context: str) -> str:
    found: str = value(session.begin(code, context=context).wait())
    return found


def test_own_variables_and_one_workspace(session: Session) -> None:
    made = session.create_context("other")
    assert (made.name, made.cwd, made.status) == ("other", "", "starting")
    session.run("shared = 'main'; open('file', 'w').write('from main')")
    session.begin("shared = 'other'", context="other").wait()
    assert value(session.run("shared")) == "'main'"
    assert in_context(session, "shared, open('file').read()", "other") == "('other', 'from main')"
    session.command("echo changed > file")
    assert value(session.run("open('file').read()")) == in_context(session, "open('file').read()", "other")
    assert value(session.run("import os; os.getpid()")) != in_context(
        session, "import os; os.getpid()", "other"
    )


def test_side_by_side_but_one_at_a_time_in_each(session: Session) -> None:
    names = ["main", "a", "b"]
    for name in names[1:]:
        session.create_context(name)
    started = {name: session.begin(WAIT.format(name=name), context=name) for name in names}
    for name in names:
        at_work(session, name, name)
        with pytest.raises(SessionBusyError):
            session.begin("1", context=name)
    for name in reversed(names):
        session.command(f"touch {name}-go")
        assert value(started[name].wait()) == f"'{name}'"
        eventually(lambda name=name: session.contexts()[name].status == "idle")  # type: ignore[misc]


def test_an_execution_waits_for_a_context_that_starts(session: Session) -> None:
    for number in range(5):
        name = f"new{number}"
        session.create_context(name)
        assert in_context(session, f"{number} * 2", name) == str(number * 2)


def test_an_execution_that_ended_while_it_waited_is_never_run(session: Session) -> None:
    """Its deadline, or an interrupt, comes before the kernel does; what runs later must not be disturbed by it."""
    touch = "open('ran', 'w').close()"
    for number in range(6):
        name = f"w{number}"
        if number % 2:
            session.create_context(name)
            ended = session.begin(touch, context=name, timeout_s=0.0001, grace_s=0.0).wait().status
            assert ended in ("timeout", "ok")
        else:
            ended = session.driver.wait(_interrupted_at_once(session, name, touch))
            assert ended in ("interrupted", "ok")
        assert in_context(session, "6 * 7", name) == "42"
    assert value(session.run("1 + 1")) == "2"


async def _interrupted_at_once(session: Session, name: str, code: str) -> str:
    client, follower = session.driver.client, Follower()
    await client.create_context(session.id, name, cwd="", most=8)
    spec = ExecutionSpec(id=session.driver.new_id(), code=code, timeout_s=20, grace_s=2)
    await client.execute(session.id, spec, follower, kernel=name)
    assert await client.interrupt(session.id, kernel=name) in (True, False)
    end = decode_end((await follower.wait())[-1].payload)
    assert end.variables == "kept"
    client.acknowledge(spec.id)
    return end.status


def test_one_dies_alone(session: Session) -> None:
    session.create_context("other")
    session.run("kept = 1")
    dead = session.begin("import os; os._exit(3)", context="other").wait()
    assert (dead.status, dead.end.session, dead.end.variables) == ("kernel_died", "alive", "lost")
    assert "code 3" in dead.end.reason
    assert value(session.run("kept")) == "1"
    assert in_context(session, "'again'", "other") == "'again'"
    session.run("import os; os._exit(4)")
    session.begin("mine = 2", context="other").wait()
    session.begin("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").wait()
    assert in_context(session, "mine", "other") == "2"


def test_interrupting_one_keeps_the_other(session: Session) -> None:
    session.create_context("other")
    session.begin("kept = 3", context="other").wait()
    here = session.begin(WAIT.format(name="here"))
    there = session.begin(WAIT.format(name="there"), context="other")
    at_work(session, "here", "main")
    at_work(session, "there", "other")
    assert session.interrupt("other")
    assert there.wait().status == "interrupted"
    assert here.running
    session.command("touch here-go")
    assert value(here.wait()) == "'here'"
    assert in_context(session, "kept", "other") == "3"
    assert not session.interrupt("other")
    with pytest.raises(ContextNotFoundError):
        session.interrupt("nosuch")


def test_a_deadline_in_one_keeps_the_other(session: Session) -> None:
    session.create_context("other")
    session.run("kept = 4")
    stuck = session.begin(
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [2])\nwhile True: pass",
        context="other", timeout_s=2.0, grace_s=0.2,
    )  # fmt: skip
    assert value(session.run("kept")) == "4"
    end = stuck.wait().end
    assert (end.status, end.variables, end.session) == ("timeout", "lost", "alive")
    assert value(session.run("kept")) == "4"
    assert in_context(session, "5", "other") == "5"


def test_restart_takes_variables_and_what_runs_and_keeps_files_and_folder(session: Session) -> None:
    session.command("mkdir -p work/place")
    assert session.create_context("other", cwd="work/place").cwd == "work/place"
    assert in_context(session, "import os; v = 1; open('f', 'w').close(); os.getcwd()", "other") == (
        "'/workspace/work/place'"
    )
    running = session.begin("import time; time.sleep(60)", context="other")
    session.run("kept = 6")
    assert session.restart_context("other").status == "starting"
    end = running.wait().end
    assert (end.status, end.variables, end.session) == ("killed", "lost", "alive")
    assert in_context(session, "import os; os.getcwd(), os.listdir(), 'v' in globals()", "other") == (
        "('/workspace/work/place', ['f'], False)"
    )
    assert value(session.run("kept")) == "6"
    session.restart_context("main")
    assert value(session.run("'kept' in globals()")) == "False"


def test_a_folder_that_is_gone_at_a_restart_is_not_missed(session: Session) -> None:
    session.command("mkdir -p gone")
    session.create_context("other", cwd="gone")
    assert in_context(session, "import os; os.getcwd()", "other") == "'/workspace/gone'"
    session.command("rmdir gone")
    session.restart_context("other")
    assert in_context(session, "import os; os.getcwd()", "other") == "'/workspace'"


def test_restarts_without_a_pause(session: Session) -> None:
    """Kernels that were asked for and are not wanted any more must not take the place of the newest."""
    session.create_context("other")
    for _ in range(10):
        session.restart_context("other")
    assert in_context(session, "1 + 1", "other") == "2"
    for _ in range(5):
        session.delete_context("other")
        session.create_context("other")
    session.begin("v = 7", context="other").wait()
    assert in_context(session, "v", "other") == "7"
    assert session.interrupt("other") is False


def test_no_process_is_left_of_kernels_that_are_not_wanted(
    session: Session, supervisor: SupervisorHandle
) -> None:
    pid = supervisor_pid(supervisor)
    session.create_context("other")
    in_context(session, "1", "other")
    before = len(descendants(pid))
    for _ in range(10):
        session.restart_context("other")
    in_context(session, "1", "other")
    session.delete_context("other")
    eventually(lambda: len(descendants(pid)) <= before, what="kernels are left")


def test_delete(session: Session) -> None:
    session.create_context("other")
    running = session.begin("import time; time.sleep(60)", context="other")
    session.delete_context("other")
    assert (running.wait().status, set(session.contexts())) == ("killed", {"main"})
    for refused in (session.delete_context, session.restart_context):
        with pytest.raises(ContextNotFoundError):
            refused("other")
    with pytest.raises(ContextNotFoundError):
        session.begin("1", context="other")
    with pytest.raises(ConflictError, match="main"):
        session.delete_context("main")
    session.create_context("other")
    assert in_context(session, "'running' in globals()", "other") == "False"


def test_names_and_numbers(session: Session) -> None:
    session.create_context("a", most=3)
    with pytest.raises(ConflictError, match="already"):
        session.create_context("a", most=3)
    with pytest.raises(ConflictError, match="already"):
        session.create_context("main", most=3)
    session.create_context("b", most=3)
    with pytest.raises(TooManyError, match="3 contexts"):
        session.create_context("c", most=3)
    assert list(session.contexts()) == ["main", "a", "b"]
    created = [one.created_at for one in session.contexts().values()]
    assert created == sorted(created)


def test_a_command_is_no_context(session: Session) -> None:
    started = session.begin_command("sleep 60")
    for use in (session.restart_context, session.delete_context):
        with pytest.raises(ContextNotFoundError):
            use("!" + started.id)
    with pytest.raises(ContextNotFoundError):
        session.begin("1", context="!" + started.id)
    session.signal(started, 9)
    started.wait()


def test_late_output_stays_in_its_context(session: Session) -> None:
    session.create_context("other")
    late = (
        "import threading, time, os\ndef later():\n    while not os.path.exists('say'): time.sleep(0.005)\n"
    )
    late += "    os.write(1, b'late'); open('said', 'w').close()\nthreading.Thread(target=later).start()"
    session.begin(late, context="other").wait()
    session.command("touch say; while [ ! -e said ]; do sleep 0.01; done")
    assert session.run("1").stdout == ""
    assert session.begin("1", context="other").wait().stdout == "late"


def test_out_of_memory_in_one_ends_the_session(driver: Driver) -> None:
    with driver.session(memory_bytes=256 << 20) as session:
        session.create_context("other")
        beside = session.begin("import time; time.sleep(60)")
        outcome = session.begin("x = [bytearray(1 << 20) for i in range(4000)]", context="other").wait()
        assert (outcome.status, outcome.end.session) == ("out_of_memory", "ended")
        assert beside.wait().status == "out_of_memory"


def test_a_kernel_that_breaks_the_protocol_ends_the_session(session: Session) -> None:
    session.create_context("other")
    beside = session.begin("import time; time.sleep(60)")
    outcome = session.begin("import os; os.write(3, b'\\xff' * 100)", context="other").wait()
    assert (outcome.status, outcome.end.session) == ("protocol_error", "ended")
    assert (beside.wait().status, beside.wait().end.session) == ("protocol_error", "ended")


def test_all_ends_with_the_sandbox(driver: Driver) -> None:
    with driver.session() as session:
        session.create_context("other")
        session.create_context("starting")
        started = [
            session.begin("import time; time.sleep(60)", context=name)
            for name in ("main", "other", "starting")
        ]
    for one in started:
        assert (one.wait().status, one.wait().end.session) == ("killed", "ended")


def test_a_new_client_finds_what_runs_and_where(session: Session, supervisor: SupervisorHandle) -> None:
    async def work() -> None:
        first = await SupervisorClient.connect(supervisor.path)
        await first.create_context(session.id, "other", cwd="", most=8)
        spec = ExecutionSpec(id="found", code=WAIT.format(name="f"), timeout_s=30)
        await first.execute(session.id, spec, Follower(), kernel="other")
        await first.close()  # as a killed gateway does
        second = await SupervisorClient.connect(supervisor.path)
        (box,) = [one for one in await second.sandboxes() if one.id == session.id]
        assert (box.places["found"], box.running) == ("other", ["found"])
        assert [one.name for one in await second.contexts(session.id)] == ["main", "other"]
        follower, ended = Follower(), Follower()
        await second.attach("found", follower)
        touch = ExecutionSpec(id="touch", code="touch f-go")
        await second.command(session.id, touch, ended, cwd="", stdin_open=False, background=False)
        async with asyncio.timeout(20):
            assert decode_end((await follower.wait())[-1].payload).status == "ok"
            await ended.wait()
        second.acknowledge("found")
        second.acknowledge("touch")
        await second.close()

    session.driver.wait(work())


@pytest.mark.root_only  # control groups
def test_usage_of_one_is_not_below_what_it_needed(session: Session) -> None:
    """Others that begin beside it must not make the measured peak of what runs forget what it has used."""
    if session.info.isolation["memory"] != "cgroup":
        pytest.skip("the peak of a control group is shared")
    big = session.begin(
        "import os, time\nx = b'x' * (150 << 20); del x\nopen('used', 'w').close()\n"
        "while not os.path.exists('go'): time.sleep(0.005)"
    )
    eventually(lambda: session.command("ls used").status == "ok")
    session.command("touch go")
    assert big.wait().end.usage.peak_memory_bytes > 140 << 20
