"""What a sandbox sees and reaches of other processes: its init, its porters, other sandboxes, the host."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from onehop.supervisor.spawn import SupervisorHandle
from tests.driver import Driver, Session
from tests.security.probes import Case, inside, judge, outside

# PID 1 is the sandbox's init; outside, another process of the same user.
OTHER = "other = 1 if os.path.exists('/workspace') else os.fork() or time.sleep(60)\n"

REACHING = {
    "signal the init": Case(OTHER + "answer = attempt(os.kill, other, 9)", ("EPERM",)),
    "look for the init by a null signal": Case(
        OTHER + "answer = attempt(os.kill, other, 0); os.kill(other, 9) if other > 1 else 0", ("EPERM",)
    ),
    "signal the init by pidfd": Case(
        OTHER + "import signal; answer = attempt(signal.pidfd_send_signal, os.pidfd_open(other), 9)",
        ("EPERM",),
    ),
    "trace the init": Case(
        OTHER + "answer = call(NR['ptrace'], 0x4206, other, 0, 0); os.kill(other, 9) if other > 1 else 0",
        ("EPERM",),
    ),
    "memory of the init": Case(
        OTHER + "answer = attempt(open, f'/proc/{other}/mem', 'rb'); os.kill(other, 9) if other > 1 else 0",
        ("ENOENT",),
    ),
    "environment of the init": Case(
        OTHER
        + "answer = attempt(open, f'/proc/{other}/environ', 'rb'); os.kill(other, 9) if other > 1 else 0",
        ("ENOENT",),
    ),
    "descriptors of the init": Case(
        OTHER + "answer = attempt(os.listdir, f'/proc/{other}/fd'); os.kill(other, 9) if other > 1 else 0",
        ("ENOENT",),
    ),
    "root of the init": Case(
        OTHER + "answer = attempt(os.listdir, f'/proc/{other}/root/'); os.kill(other, 9) if other > 1 else 0",
        ("ENOENT",),
    ),
}


@pytest.mark.parametrize("name", REACHING)
def test_another_process_is_out_of_reach(driver: Driver, name: str, landlock_scopes: bool) -> None:
    case = REACHING[name]
    if not landlock_scopes and "signal" in name:
        # Before Landlock ABI 6 PID 1 is protected by the kernel alone: the signal is taken and has no effect.
        case = Case(case.probe, ("through",))
    judge(driver, case)


def test_signals_to_everything_leave_the_session_as_it_was(session: Session) -> None:
    session.run("kept = 1")
    outcome = session.run("""
import os, signal
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
    for target in (-1, 1):
        try:
            os.kill(target, number)
        except (PermissionError, ProcessLookupError):
            pass
""")
    assert outcome.status == "ok", outcome.document()
    assert session.run("kept").results == [{"text/plain": "1"}]


def test_proc_holds_the_own_process_and_nothing_else(driver: Driver) -> None:
    probe = "found['entries'] = sorted(os.listdir('/proc')); found['pid'] = str(os.getpid())"
    control = outside(probe)["entries"]
    assert {"sys", "meminfo", "1", "kallsyms"} <= set(control)
    found = inside(driver, probe)
    assert set(found["entries"]) == {"self", "thread-self", found["pid"]}


SECRETS = """
for name in ('kcore', 'keys', 'sys', 'sysrq-trigger', 'timer_list', 'kallsyms', 'meminfo', 'mounts', 'net', 'modules'):
    found[name] = attempt(os.lstat, '/proc/' + name)
found['/sys'] = attempt(os.lstat, '/sys')
"""


def test_the_dangerous_files_of_proc_do_not_exist(driver: Driver) -> None:
    control = outside(SECRETS)
    assert {name for name, answer in control.items() if answer == "through"} >= {
        "sys", "kallsyms", "meminfo", "mounts", "net", "/sys",
    }  # fmt: skip
    # `mounts` and `net` are links to self/…, which subset=pid leaves out as well.
    assert set(inside(driver, SECRETS).values()) == {"ENOENT"}


def test_the_first_cell_has_exactly_four_descriptors(session: Session) -> None:
    outcome = session.run("""
import os
links = {}
for fd in range(4096):
    try:
        links[fd] = os.readlink(f'/proc/self/fd/{fd}').split(':')[0]
    except FileNotFoundError:
        pass
links
""")
    assert outcome.status == "ok", outcome.document()
    assert outcome.results == [{"text/plain": "{0: '/dev/null', 1: 'pipe', 2: 'pipe', 3: 'socket'}"}]


def test_a_program_that_user_code_starts_inherits_no_channel(session: Session) -> None:
    outcome = session.run("import subprocess; subprocess.check_output(['ls', '/proc/self/fd']).split()")
    # 3 is the directory that ls itself opened.
    assert outcome.results == [{"text/plain": "[b'0', b'1', b'2', b'3']"}]
    outcome = session.run("print(subprocess.check_output(['readlink', '/proc/self/fd/3']))")
    assert outcome.error is not None


@pytest.mark.usefixtures("supervisor")
def test_no_variable_of_the_server_is_visible(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = """
for pid in [n for n in os.listdir('/proc') if n.isdigit()]:
    try:
        for entry in open(f'/proc/{pid}/environ', 'rb').read().split(bytes(1)):
            name, _, value = entry.decode('utf-8', 'replace').partition('=')
            found[name] = value
    except OSError:
        pass
found.update(os.environ)
"""
    monkeypatch.setenv("ONEHOP_SECRET_OF_THE_TEST", "s3cret")
    assert outside(probe)["ONEHOP_SECRET_OF_THE_TEST"] == "s3cret"
    found = inside(driver, probe)
    assert "PATH" in found
    assert [name for name in found if "ONEHOP" in name.upper()] == []
    own = {value for name, value in os.environ.items() if len(value) > 12 and name not in ("PATH", "LANG")}
    assert {name for name, value in found.items() if value in own} == set()


MARKED = "import ctypes; ctypes.CDLL(None).prctl(15, {name!r}.encode(), 0, 0, 0)"


def _host_pid(name: str) -> int:
    """The pid that a process inside has for us; it has named itself."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == name:
                return int(comm.parent.name)
        except OSError:
            continue
    raise AssertionError(f"no process calls itself {name}")


def _uids(pid: int) -> set[int]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return {int(uid) for uid in line.split()[1:]}
    raise AssertionError("no Uid line")


@pytest.mark.root_only
def test_two_sandboxes_have_host_uids_of_their_own(driver: Driver, supervisor: SupervisorHandle) -> None:
    with driver.session() as one, driver.session() as two:
        one.run(MARKED.format(name="probe-one"))
        two.run(MARKED.format(name="probe-two"))
        first, second = _uids(_host_pid("probe-one")), _uids(_host_pid("probe-two"))
    assert len(first) == len(second) == 1
    assert first.isdisjoint(second)
    assert all(1_900_000_000 < uid < 1_900_065_536 for uid in first | second)


@pytest.mark.user_only
def test_as_an_ordinary_user_sandboxes_share_the_uid_and_it_is_said(driver: Driver) -> None:
    with driver.session() as one:
        one.run(MARKED.format(name="probe-one"))
        assert _uids(_host_pid("probe-one")) == {os.geteuid()}
    rows = {row["name"]: row for row in driver.wait(driver.client.describe())["protections"]}
    assert rows["uids"]["state"] == "weaker"


@pytest.mark.root_only
def test_without_the_filter_there_is_still_no_nested_user_namespace(driver: Driver) -> None:
    """The second wall: user.max_user_namespaces is 0 in the sandbox's own user namespace."""
    assert subprocess.run(["unshare", "--user", "true"], timeout=30).returncode == 0, "the positive control"
    with driver.session() as session:
        session.run(MARKED.format(name="probe-nested"))
        enter = [
            "nsenter",
            "--target",
            str(_host_pid("probe-nested")),
            "--user",
            "--setuid",
            "1000",
            "--setgid",
            "1000",
        ]
        plain = subprocess.run([*enter, "true"], capture_output=True, text=True, timeout=30)
        assert plain.returncode == 0, plain.stderr
        done = subprocess.run(
            [*enter, "unshare", "--user", "true"], capture_output=True, text=True, timeout=30
        )
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


TALK = {
    "abstract unix socket": (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind(chr(0) + 'probe'); s.listen()",
        "attempt(socket.socket(socket.AF_UNIX).connect, chr(0) + 'probe')",
        "ECONNREFUSED",
    ),
    "unix socket in /tmp": (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/tmp/probe-socket'); s.listen()",
        "attempt(socket.socket(socket.AF_UNIX).connect, '/tmp/probe-socket')",
        "ENOENT",
    ),
    "loopback": (
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 34567)); s.listen()",
        "attempt(socket.socket().connect, ('127.0.0.1', 34567))",
        "ECONNREFUSED",
    ),
    "POSIX shared memory": (
        "import os; os.close(os.open('/dev/shm/probe-shared', os.O_RDWR | os.O_CREAT))",
        "attempt(os.open, '/dev/shm/probe-shared', os.O_RDWR)",
        "ENOENT",
    ),
}


@pytest.mark.parametrize("name", TALK)
def test_two_sandboxes_do_not_meet(driver: Driver, name: str) -> None:
    offer, reach, wall = TALK[name]
    with driver.session() as one, driver.session() as two:
        assert one.run(offer).status == "ok"
        assert inside_session(one, reach) == "through", "the positive control: within one sandbox it works"
        assert inside_session(two, reach) == wall


def test_two_sandboxes_share_no_sysv_memory(driver: Driver, counted: bool) -> None:
    get = "call(NR['shmget'], 0x5EC, 4096, {flags})"
    with driver.session() as one, driver.session() as two:
        made = inside_session(one, get.format(flags=0o1600))
        assert made == ("through" if counted else "EPERM")
        assert inside_session(one, get.format(flags=0o600)) == made
        assert inside_session(two, get.format(flags=0o600)) == ("ENOENT" if counted else "EPERM")


def inside_session(session: Session, expression: str) -> str:
    """What a probe's expression answers in a live session."""
    from tests.security.probes import NUMBERS, PRELUDE

    outcome = session.run(f"NR = {NUMBERS!r}\n{PRELUDE}print({expression})")
    assert outcome.status == "ok", outcome.document()
    return outcome.stdout.strip()


def test_the_hosts_loopback_is_not_reached(driver: Driver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = (
            f"found['it'] = attempt(socket.create_connection, ('127.0.0.1', {listener.getsockname()[1]}), 5)"
        )
        assert outside(probe)["it"] == "through"
        assert inside(driver, probe)["it"] == "ECONNREFUSED"


def test_there_is_no_network_but_a_loopback(driver: Driver) -> None:
    found = inside(
        driver,
        """
found['interfaces'] = [line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line]
found['internet'] = attempt(socket.socket().connect, ('192.0.2.1', 80))
found['v6'] = attempt(socket.socket(socket.AF_INET6).connect, ('2001:db8::1', 80))
found['metadata'] = attempt(socket.socket().connect, ('169.254.169.254', 80))
""",
    )
    assert found["interfaces"] == ["lo"]
    assert {found[name] for name in ("internet", "metadata")} == {"ENETUNREACH"}
    assert found["v6"] in ("ENETUNREACH", "EADDRNOTAVAIL")
    control = outside(
        "found['interfaces'] = [l.split(':')[0].strip() for l in open('/proc/self/net/dev') if ':' in l]"
    )
    assert set(control["interfaces"]) - {"lo"}, "the host has a network"
