"""A shell command and a second context are jailed exactly as the first kernel: the same probes, run in them.

The tests imported here see another `driver`: what they run in a sandbox runs in a command, and in a second context.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onehop.supervisor.spawn import SupervisorHandle
from onehop.supervisor.surroundings import descendants
from tests.driver import Driver, Session
from tests.kernel.reading import value
from tests.security.places import PLACES
from tests.security.probes import NUMBERS, PRELUDE, outside
from tests.security.test_filesystem import (  # noqa: F401 - run again, in other places
    test_an_own_set_user_id_file_gains_nothing,
    test_landlock_alone,
    test_landlock_refuses_device_ioctls,
    test_nothing_of_the_server_is_visible,
    test_our_source_is_nowhere_in_the_tree,
    test_proc_is_restricted_where_user_code_sees_it,
    test_read_only_mounts,
    test_the_environment_is_read_only,
    test_the_mount_table_is_exactly_this,
    test_the_root_and_its_own_directories_are_exactly_these,
    test_the_servers_socket_cannot_be_connected_to,
    test_what_user_code_may_do_with_files,
)
from tests.security.test_processes import (  # noqa: F401
    test_another_process_is_out_of_reach,
    test_no_variable_of_the_server_is_visible,
    test_proc_holds_the_own_process_and_nothing_else,
    test_the_dangerous_files_of_proc_do_not_exist,
    test_the_hosts_loopback_is_not_reached,
    test_there_is_no_network_but_a_loopback,
)
from tests.security.test_syscalls import (  # noqa: F401
    test_a_call_that_works_outside_is_refused_by_the_filter,
    test_every_call_that_is_not_open_gets_the_filters_errno,
    test_every_other_socket_family_gets_the_filters_errno,
    test_memory_that_only_a_cgroup_can_see,
    test_no_capability_no_new_privileges_no_group,
    test_the_half_open_calls_are_open_where_programs_need_them,
)
from tests.supervisor.machine import descriptors, supervisor_pid


@pytest.fixture(scope="session")
def engine(supervisor: SupervisorHandle) -> Iterator[Driver]:
    """The real driver, which the tests above do not see."""
    engine = Driver(supervisor.path)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def isolation(engine: Driver) -> dict[str, str]:
    found: dict[str, str] = engine.wait(engine.client.describe())["isolation"]
    return found


@pytest.fixture
def session(engine: Driver) -> Iterator[Session]:
    with engine.session() as session:
        yield session


@pytest.fixture(params=PLACES)
def driver(request: pytest.FixtureRequest, session: Session) -> Driver:
    return PLACES[request.param](session)


DESCRIPTORS = """
links = {}
for fd in range(4096):
    try:
        links[fd] = os.readlink(f'/proc/self/fd/{fd}').split(':')[0]
    except FileNotFoundError:
        pass
print(json.dumps(links))
"""


def test_a_command_has_exactly_three_descriptors(session: Session) -> None:
    """Bash puts none of its own between: it has replaced itself before the probe runs."""
    for options in ({}, {"stdin": "x"}, {"stdin_open": True}):
        outcome = session.command(f'exec python3 -I -c "import json, os\n{DESCRIPTORS}"', **options)
        assert json.loads(outcome.stdout) == {"0": "pipe", "1": "pipe", "2": "pipe"}


def test_a_second_context_has_exactly_four_descriptors(session: Session) -> None:
    session.create_context("second")
    outcome = session.begin(f"import json, os\n{DESCRIPTORS}", context="second").wait()
    assert json.loads(outcome.stdout) == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket"}


def test_what_the_supervisor_gave_is_gone_from_everywhere(
    session: Session, supervisor: SupervisorHandle
) -> None:
    """Neither the file with the command nor a pipe's end stays open in the supervisor, the init or the command."""
    pid = supervisor_pid(supervisor)
    session.command(":")
    before = descriptors(pid)
    for _ in range(20):
        session.command("echo x; echo y >&2", stdin="z")
    started = session.begin_command("echo on; exec sleep 60", background=True)
    started.until("on")
    if os.geteuid() == 0:  # an init is not dumpable: its files are closed to its own user
        opened = [
            os.readlink(entry)
            for one in descendants(pid)
            for entry in Path(f"/proc/{one}/fd").iterdir()
            if entry.is_symlink()
        ]
        assert any("pipe:" in link for link in opened), "the control"
        assert [link for link in opened if "memfd:command" in link] == []
    session.signal(started, 9)
    started.wait()
    assert descriptors(pid) <= before + 1


def test_refused_commands_leave_nothing(session: Session, supervisor: SupervisorHandle) -> None:
    pid = supervisor_pid(supervisor)
    session.command(":")
    before = descriptors(pid)
    for _ in range(20):
        with pytest.raises(Exception, match="no folder"):
            session.begin_command(":", cwd="nosuch")
    assert descriptors(pid) <= before
    assert session.commands().keys() == {next(iter(session.commands()))}


def test_the_environment_is_that_of_the_first_kernel(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was passed to one command is not in the next."""
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    first = json.loads(session.run(show).stdout)
    session.command(":", env={"SECRET_OF_ANOTHER": "x"})
    found = json.loads(session.command(f'exec python3 -I -c "{show}"').stdout)
    assert found.keys() - first.keys() <= {"_", "SHLVL", "OLDPWD", "PWD"}
    assert {name: found[name] for name in found.keys() & first.keys() - {"_", "SHLVL", "PWD"}} == {
        name: first[name] for name in found.keys() & first.keys() - {"_", "SHLVL", "PWD"}
    }


REACH = {
    "signal": "attempt(os.kill, pid, 9)",
    "null signal": "attempt(os.kill, pid, 0)",
    "trace": "call(NR['ptrace'], 0x4206, pid, 0, 0)",
    "memory": "attempt(open, f'/proc/{pid}/mem', 'rb')",
    "environment": "attempt(open, f'/proc/{pid}/environ', 'rb')",
    "descriptors": "attempt(os.listdir, f'/proc/{pid}/fd')",
    "folder": "attempt(os.listdir, f'/proc/{pid}/cwd/')",
}
CONTROL = "pid = os.fork() or time.sleep(60)\nfound['it'] = {action}\nattempt(os.kill, pid, 9)"


@pytest.mark.parametrize("name", REACH)
def test_kernels_and_commands_do_not_reach_each_other(
    session: Session, name: str, landlock_scopes: bool
) -> None:
    """One that takes over another's memory would answer in its place."""
    assert outside(CONTROL.format(action=REACH[name]))["it"] == "through", "the positive control"
    session.create_context("second")
    session.run("kept = 1\nimport os")
    victim = session.begin_command("exec sleep 60", background=True)
    targets = [
        int(value(session.run("os.getpid()"))),
        int(value(session.begin("import os; os.getpid()", context="second").wait())),
        session.commands()[victim.id].pid,
    ]
    walls = {"signal": "EPERM", "null signal": "EPERM", "trace": "EPERM"}
    probe = f"NR = {NUMBERS!r}\n{PRELUDE}"
    if not landlock_scopes and "signal" in name:
        pytest.skip("Landlock keeps signals apart from ABI 6 on")
    for number, pid in enumerate(targets):
        code = f"{probe}pid = {pid}\nprint({REACH[name]})"
        answers = [] if number == 0 else [session.run(code).stdout]
        answers += [] if number == 1 else [session.begin(code, context="second").wait().stdout]
        answers += [session.command("exec python3 -I -", stdin=code).stdout]
        assert {answer.strip() for answer in answers} == {walls.get(name, "ENOENT")}, number
    assert victim.running
    assert value(session.run("kept")) == "1"
    session.signal(victim, 9)
    victim.wait()


def test_signals_to_everything_from_a_command_reach_only_itself(
    session: Session, landlock_scopes: bool
) -> None:
    if not landlock_scopes:
        pytest.skip("Landlock keeps signals apart from ABI 6 on")
    session.create_context("second")
    session.run("kept = 1")
    session.begin("kept = 2", context="second").wait()
    beside = session.begin_command("sleep 60", background=True)
    for number in ("STOP", "TERM", "KILL"):
        # Bash's own group is itself; -1 is everybody that it may signal, without itself.
        session.command(f"kill -{number} -1; kill -{number} 1; echo on", timeout_s=10)
    assert beside.running
    assert value(session.run("kept")) == "1"
    assert value(session.begin("kept", context="second").wait()) == "2"
    session.signal(beside, 9)
    beside.wait()


@pytest.mark.root_only
def test_a_command_has_the_host_uid_of_its_sandbox(session: Session, supervisor: SupervisorHandle) -> None:
    session.begin_command("exec sleep 8765.432", background=True)
    session.create_context("second")
    session.begin("1", context="second").wait()
    uids = set()
    for pid in descendants(supervisor_pid(supervisor)):
        try:
            if b"8765.432" in Path(f"/proc/{pid}/cmdline").read_bytes():
                status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
    line = next(line for line in status.splitlines() if line.startswith("Uid:"))
    uids = {int(uid) for uid in line.split()[1:]}
    assert len(uids) == 1
    assert 1_900_000_000 < uids.pop() < 1_900_065_536


def test_a_server_of_a_command_is_for_its_session_alone(engine: Driver, session: Session) -> None:
    serve = "import socket; s = socket.create_server(('127.0.0.1', 8123)); open('up', 'w').close()\nwhile True: s.accept()"
    started = session.begin_command("exec python3 -I -", stdin=serve, background=True)
    session.command("while [ ! -e up ]; do sleep 0.01; done")
    reach = "import socket; socket.create_connection(('127.0.0.1', 8123), 5) and 1"
    assert value(session.run(reach)) == "1"
    with engine.session() as other:
        outcome = other.run(reach)
        assert outcome.error is not None
        assert outcome.error["name"] == "ConnectionRefusedError"
    session.signal(started, 9)
    started.wait()
