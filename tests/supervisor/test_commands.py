"""Shell commands in a sandbox: how they end, what they read and write, what they share with its kernels."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from onehop.errors import CommandNotFoundError, ConflictError, InvalidRequestError, TooManyError
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.commands import MAX_ENDED, MAX_SHOWN
from onehop.supervisor.messages import ExecutionSpec, decode_end
from onehop.supervisor.spawn import SupervisorHandle
from onehop.supervisor.surroundings import descendants
from tests.driver import Driver, Session, Started
from tests.kernel.reading import value
from tests.supervisor.machine import eventually, gone, supervisor_pid
from tests.supervisor.test_following import Follower

ENDS = {
    "true": ("ok", 0, ""),
    "exit 3": ("error", 3, ""),
    "exit 255": ("error", 255, ""),
    "nosuchprogram": ("error", 127, ""),
    "kill -TERM $$": ("error", None, "the command was ended by SIGTERM"),
    "kill -KILL $$": ("error", None, "the command was ended by SIGKILL"),
    "kill -SEGV $$": ("error", None, "the command was ended by SIGSEGV"),
    "kill -40 $$": ("error", None, "the command was ended by signal 40"),
    "sh -c 'kill -9 $$'; exit $?": ("error", 137, ""),
    "kill -PIPE $$": ("error", None, "the command was ended by SIGPIPE"),
}


@pytest.mark.parametrize("command", ENDS)
def test_how_a_command_ends(session: Session, command: str) -> None:
    end = session.command(command).end
    assert (end.status, end.exit_code, end.reason) == ENDS[command]
    assert (end.variables, end.session) == ("kept", "alive")


def test_bash_runs_it_in_the_workspace_with_text_of_any_language(session: Session) -> None:
    outcome = session.command("[[ a == a ]] && pwd && echo 'grüße 漢 😀' && echo warn >&2 && echo ${0##*/}")
    assert (outcome.status, outcome.stderr) == ("ok", "warn\n")
    assert outcome.stdout == "/workspace\ngrüße 漢 😀\nbash\n"


def test_numbered_events_without_gaps_in_the_order_of_writing(session: Session) -> None:
    started = session.begin_command(
        "for i in 1 2 3; do echo out$i; read; echo err$i >&2; read; done", stdin_open=True
    )
    for number in (1, 2, 3):
        started.until(f"out{number}\n")
        session.feed(started, b"\n")
        eventually(lambda text=f"err{number}\n": text in started.output("stderr"))  # type: ignore[misc]
        session.feed(started, b"\n")
    outcome = started.wait()
    assert [event.number for event in outcome.events] == list(range(1, 8))
    assert [event.kind for event in outcome.events] == ["stdout", "stderr"] * 3 + ["end"]


def test_what_is_written_in_the_first_moment_is_not_lost(session: Session) -> None:
    """Before the supervisor has been told that there is a process at all."""

    async def many() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(12)))

    async def one(number: int) -> str:
        follower = Follower()
        spec = ExecutionSpec(id=session.driver.new_id(), code=f"echo {number}", timeout_s=20)
        client = session.driver.client
        await client.command(session.id, spec, follower, cwd="", stdin_open=False, background=False)
        events = await follower.wait()
        client.acknowledge(spec.id)
        return b"".join(event.payload for event in events if event.kind == "stdout").decode()

    for _ in range(5):
        assert session.driver.wait(many()) == [f"{number}\n" for number in range(12)]


def test_usage_is_measured(session: Session) -> None:
    usage = session.command("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").end.usage
    assert usage.wall_ms >= usage.cpu_ms * 0.4 > 0
    assert usage.peak_memory_bytes > 0


# --- output ---------------------------------------------------------------------------------------------


def test_a_flood_goes_to_a_file(session: Session) -> None:
    outcome = session.command("seq 1 200000; exit 4", output_bytes=10_000)
    end = outcome.end
    assert (end.status, end.exit_code, end.truncated) == ("error", 4, True)
    assert len(outcome.stdout) == 10_000
    whole = "".join(f"{i}\n" for i in range(1, 200_001))
    assert value(session.run(f"open({end.spill_file!r}).read()")) == repr(whole[10_000:])
    assert end.spilled_bytes == len(whole) - 10_000


@pytest.mark.parametrize("ignoring", ["", "trap '' TERM; "])
def test_a_flood_over_the_quota_ends_the_command(driver: Driver, ignoring: str) -> None:
    with driver.session(workspace_bytes=4 << 20) as session:
        outcome = session.command(f"{ignoring}yes", grace_s=0.5)
        assert (outcome.status, outcome.end.session) == ("output_limit", "alive")
        assert value(session.run("1 + 1")) == "2"


def test_a_flood_where_no_file_can_be_made(driver: Driver) -> None:
    with driver.session() as session:
        session.run(
            "n = 0\ntry:\n    while True:\n        open(f'f{n}', 'w').close(); n += 1\nexcept OSError: pass"
        )
        for command in ("yes", "seq 1 100000"):
            assert session.command(command, output_bytes=1000, grace_s=0.5).status == "output_limit"
        assert session.command("echo fine").stdout == "fine\n"


# --- being stopped ----------------------------------------------------------------------------------------


def test_sigterm_at_the_deadline_and_time_to_tidy_up(session: Session) -> None:
    outcome = session.command(
        "trap 'echo tidy; exit 5' TERM; echo on; while :; do sleep 0.01; done", timeout_s=2.0
    )
    assert (outcome.status, outcome.end.exit_code, outcome.stdout) == ("timeout", 5, "on\ntidy\n")


def test_sigkill_after_the_grace_for_what_ignores_everything(
    session: Session, supervisor: SupervisorHandle
) -> None:
    ignoring = (
        "import signal,time; [signal.signal(n, signal.SIG_IGN) for n in signal.valid_signals() - {9, 19}]"
    )
    command = f'python3 -c "{ignoring}; print(1, flush=True); time.sleep(60)" & trap "" TERM INT HUP; wait; sleep 60'
    outcome = session.command(command, timeout_s=1.0, grace_s=0.3)
    assert (outcome.status, outcome.end.exit_code) == ("timeout", None)
    assert 1300 <= outcome.end.usage.wall_ms < 15_000
    eventually(lambda: not processes_with(supervisor, "time.sleep(60)"))


def processes_with(supervisor: SupervisorHandle, text: str) -> list[int]:
    """As the host sees them; commands cannot see each other."""
    found = []
    for pid in descendants(supervisor_pid(supervisor)):
        try:
            if text.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_a_stopped_command_meets_its_deadline(session: Session) -> None:
    assert session.command("kill -STOP $$", timeout_s=0.3, grace_s=0.2).status == "timeout"


def test_cpu_time(session: Session) -> None:
    outcome = session.command("while :; do :; done", cpu_s=0.5, grace_s=0.5)
    assert outcome.status == "timeout"
    assert "CPU" in outcome.end.reason


def test_signals_to_the_group(session: Session) -> None:
    started = session.begin_command(
        "(trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.01; done) & trap 'echo own; wait; exit 7' USR1; "
        "while :; do sleep 0.01; done"
    )
    started.until("ready")
    session.signal(started, signal.SIGUSR1)
    outcome = started.wait()
    assert (set(outcome.stdout.split()), outcome.end.exit_code) == ({"ready", "child", "own"}, 7)
    with pytest.raises(ConflictError):
        session.signal(started, signal.SIGTERM)
    with pytest.raises(CommandNotFoundError):
        session.driver.wait(session.driver.client.signal(session.id, "nosuch", 15))
    for number in (0, -1, 65, 1 << 20):
        with pytest.raises(InvalidRequestError):
            session.signal(started, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_a_signal_in_the_very_first_moment(session: Session, number: int) -> None:
    """Between the fork and bash there is no process group yet, and it is still our own code that runs."""

    async def both(started: Started) -> None:
        spec = ExecutionSpec(id=started.id, code="exec sleep 60", timeout_s=30)
        client = session.driver.client
        await client.command(session.id, spec, started, cwd="", stdin_open=False, background=False)
        await client.signal(session.id, spec.id, number)

    for _ in range(8):
        started = Started(session.driver, session.driver.new_id())
        session.driver.wait(both(started))
        end = started.wait(10).end
        name = signal.Signals(number).name
        expected = (
            ("killed", "it was killed") if number == 9 else ("error", f"the command was ended by {name}")
        )
        assert (end.status, end.reason, end.exit_code) == (*expected, None)


def test_interrupting_a_command(session: Session) -> None:
    started = session.begin_command("trap 'echo bye; exit 0' TERM; echo on; while :; do sleep 0.01; done")
    started.until("on")
    assert session.interrupt("!" + started.id)
    assert started.wait().status == "ok"  # it came to its own end
    started = session.begin_command("echo on; sleep 60")
    started.until("on")
    assert session.interrupt("!" + started.id)
    assert started.wait().status == "interrupted"


# --- in the background ---------------------------------------------------------------------------------------


def test_the_list_tells_of_running_and_ended_ones(session: Session) -> None:
    waiting = session.begin_command("read; exit 3", stdin_open=True, background=True, timeout_s=0)
    ended = session.begin_command("kill -9 $$")
    ended.wait()
    long = session.begin_command("#" + "x" * 5000)
    long.wait()
    listed = session.commands()
    assert list(listed) == [waiting.id, ended.id, long.id]
    one = listed[waiting.id]
    assert (one.status, one.exit_code, one.background, one.stdin_open) == ("running", None, True, True)
    assert one.started_at > 0
    assert one.ended_at == 0
    assert one.pid > 1
    other = listed[ended.id]
    assert (other.status, other.exit_code, other.background) == ("error", None, False)
    assert other.ended_at >= other.started_at
    assert len(listed[long.id].command) == MAX_SHOWN
    session.feed(waiting, b"\n")
    waiting.wait()
    one = session.commands()[waiting.id]
    assert (one.status, one.exit_code) == ("error", 3)


def test_old_ones_are_forgotten_and_running_ones_never(session: Session) -> None:
    kept = session.begin_command("sleep 60", background=True, timeout_s=0)
    for _ in range(MAX_ENDED // 10 + 1):
        for one in [session.begin_command(":") for _ in range(10)]:
            one.wait()
    listed = session.commands()
    assert len(listed) == MAX_ENDED + 1
    assert listed[kept.id].status == "running"


def test_one_id_is_used_once(session: Session) -> None:
    async def twice() -> list[object]:
        client = session.driver.client
        spec = ExecutionSpec(id="twice", code="sleep 60", timeout_s=30)
        other = await SupervisorClient.connect(client.path)
        options = {"cwd": "", "stdin_open": False, "background": True}
        found = await asyncio.gather(
            client.command(session.id, spec, Follower(), **options),  # type: ignore[arg-type]
            other.command(session.id, spec, Follower(), **options),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        await other.close()
        client.acknowledge("twice")
        return list(found)

    found = session.driver.wait(twice())
    assert sorted(type(one).__name__ for one in found) == ["InvalidRequestError", "NoneType"]
    assert len(session.commands()) == 1


def test_a_server_left_behind_goes_on_and_is_heard_out(session: Session) -> None:
    """Its pipes must be read to no purpose: a full one, or a closed one, would stop it at its next line of log."""
    server = "import socket; s = socket.create_server(('127.0.0.1', 7777)); open('up', 'w').close()\n"
    server += (
        "while True:\n    c, _ = s.accept(); print('x' * 300000, flush=True); c.sendall(b'served'); c.close()"
    )
    session.run(f"open('server.py', 'w').write({server!r})")
    outcome = session.command("python3 -I server.py & while [ ! -e up ]; do sleep 0.01; done; echo started")
    assert (outcome.status, outcome.stdout) == ("ok", "started\n")
    fetch = "import socket; socket.create_connection(('127.0.0.1', 7777)).recv(100)"
    for _ in range(5):
        assert value(session.run(fetch)) == "b'served'"
    assert session.command("echo only mine").stdout == "only mine\n"


def test_a_flood_left_behind_is_read_slowly(session: Session, supervisor: SupervisorHandle) -> None:
    session.command("yes & echo started")
    pid = supervisor_pid(supervisor)

    def spent_ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before, began_s = spent_ticks(), time.monotonic()
    session.command("sleep 2")
    spent_s = (spent_ticks() - before) / os.sysconf("SC_CLK_TCK")
    share = spent_s / (time.monotonic() - began_s)
    assert share < 0.1, "more than a tenth of a processor, for reading what nobody wants"


def test_daemons_end_with_the_sandbox(driver: Driver, supervisor: SupervisorHandle) -> None:
    with driver.session() as session:
        session.command(
            "setsid -f sleep 7654.321; (setsid sleep 7654.321 &) ; nohup sleep 7654.321 >/dev/null 2>&1 &"
        )
        eventually(lambda: len(processes_with(supervisor, "7654.321")) == 3)
        daemons = processes_with(supervisor, "7654.321")
    assert all(gone(pid) for pid in daemons)


def test_running_commands_end_with_the_sandbox(driver: Driver) -> None:
    with driver.session() as session:
        started = session.begin_command("trap '' TERM; echo on; sleep 60", background=True, timeout_s=0)
        started.until("on")
    outcome = started.wait()
    assert (outcome.status, outcome.end.session) == ("killed", "ended")


def test_many_at_once_beside_code(session: Session) -> None:
    cell = session.begin("import time, os\nwhile not os.path.exists('go'): time.sleep(0.005)\n'cell'")
    many = [
        session.begin_command(f"while [ ! -e go ]; do sleep 0.01; done; echo {i}; exit {i}")
        for i in range(10)
    ]
    session.command("touch go")
    assert [one.wait().end.exit_code for one in many] == list(range(10))
    assert [one.output() for one in many] == [f"{i}\n" for i in range(10)]
    assert value(cell.wait()) == "'cell'"


def test_a_new_client_reads_it_all_again_and_feeds_it(session: Session, supervisor: SupervisorHandle) -> None:
    async def work() -> None:
        first = await SupervisorClient.connect(supervisor.path)
        early = Follower()
        code = "while read line; do echo got $line; done; exit 9"
        spec = ExecutionSpec(id="again", code=code, timeout_s=0, stdin="one\n")
        await first.command(session.id, spec, early, cwd="", stdin_open=True, background=True)
        await first.close()  # as a killed gateway does
        second = await SupervisorClient.connect(supervisor.path)
        await second.feed(session.id, "again", b"two\n", close=True)
        (box,) = [one for one in await second.sandboxes() if one.id == session.id]
        assert box.places["again"] == "!again"
        follower = Follower()
        await second.attach("again", follower)
        events = await follower.wait()
        assert b"".join(one.payload for one in events if one.kind == "stdout") == b"got one\ngot two\n"
        assert decode_end(events[-1].payload).exit_code == 9
        for after in range(len(events)):
            later = Follower()
            await second.attach("again", later, after=after)
            assert await later.wait() == events[after:]
        second.acknowledge("again")
        await second.close()

    session.driver.wait(work())


# --- limits shared with the kernels -----------------------------------------------------------------------------


def test_a_fork_bomb_leaves_the_kernel_alone(driver: Driver) -> None:
    with driver.session(processes=24) as session:
        session.run("kept = 5")
        started = session.begin_command(
            "b() { b | b & }; b; sleep 60", background=True, timeout_s=5, grace_s=0.2
        )
        eventually(lambda: "fork" in started.output("stderr"), what="it meets no limit")
        assert value(session.run("kept")) == "5"
        started.wait()
        assert value(session.run("kept + 1")) == "6"


@pytest.mark.root_only  # control groups
def test_no_process_left_for_a_command(driver: Driver) -> None:
    if driver.wait(driver.client.describe())["isolation"]["pids"] != "cgroup":
        pytest.skip("only a control group counts what init forks")
    with driver.session(processes=8) as session:
        full = session.run("""
import subprocess
kept = []
try:
    while True: kept.append(subprocess.Popen(['sleep', '60']))
except OSError as error: print(error.errno)
""")
        assert full.stdout == "11\n"
        first = session.begin_command("exec sleep 60")  # in the one place that the rlimit leaves to init
        with pytest.raises(TooManyError, match="no process left"):
            session.begin_command("exec sleep 60")
        session.run("for one in kept: one.kill(); one.wait()")
        session.signal(first, 9)
        first.wait()
        assert session.command("echo there is room").stdout == "there is room\n"


def test_out_of_memory_in_a_command_ends_the_session_and_says_so(driver: Driver) -> None:
    eat = "python3 -I -c 'x = [bytearray(1 << 20) for i in range(4000)]; print(len(x))'"
    for command in (f"exec {eat}", f"{eat}; echo survived $?"):
        with driver.session(memory_bytes=256 << 20) as session:
            outcome = session.command(command)
            assert (outcome.status, outcome.end.session) == ("out_of_memory", "ended"), outcome.document()
