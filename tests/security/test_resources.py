"""Attacks on memory, processes, disk and CPU, always with a second tenant watching."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from onehop.supervisor.messages import SandboxSpec
from tests.driver import Driver, Session

MIB = 1 << 20
MEMORY_BYTES = 256 * MIB
Watched = Callable[[], AbstractContextManager[None]]

# Each takes much more than MEMORY_BYTES, in pieces that are written to.
BOMBS = {
    "heap": "hold = []\nwhile True: hold.append(b'x' * (4 << 20))",
    "mapped": "import mmap; hold = []\nwhile True:\n    m = mmap.mmap(-1, 4 << 20); m.write(b'x' * (4 << 20)); hold.append(m)",
    "children": "import os, time\nfor n in range(30):\n    if os.fork() == 0:\n        hold = b'x' * (40 << 20); time.sleep(60)\ntime.sleep(30)",
    "programs": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', \"h = []\\nwhile True: h.append(b'x' * (4 << 20))\"]); import time; time.sleep(30)",
    "many small programs": "import subprocess, sys, time\nhold = [subprocess.Popen([sys.executable, '-c', \"h = b'x' * (30 << 20); import time; time.sleep(60)\"]) for n in range(30)]\ntime.sleep(30)",
    "shared": "import mmap; m = mmap.mmap(-1, 1 << 30)\nwhile True: m.write(b'x' * (4 << 20))",
}  # fmt: skip
# Memory that belongs to no process: only a cgroup sees it.
UNOWNED = {
    "/tmp": "with open('/tmp/fill', 'wb') as f:\n    while True: f.write(b'x' * MIB)",
    "/dev/shm": "import os\nfor n in range(4):\n    with open(f'/dev/shm/{n}', 'wb') as f: f.write(b'x' * (15 << 20))\nhold = b'x' * (220 << 20)",
    "memfd": "import os; fd = os.memfd_create('fill')\nwhile True: os.write(fd, b'x' * MIB)",
    "pipes": """
import fcntl, os, time
for n in range(60):
    if os.fork() == 0:
        hold = []
        try:
            while True:
                r, w = os.pipe2(os.O_NONBLOCK); hold.append((r, w))
                try: fcntl.fcntl(w, 1031, MIB)
                except OSError: pass
                try:
                    while True: os.write(w, b'x' * 65536)
                except BlockingIOError: pass
        except OSError: time.sleep(60)
time.sleep(30)
""",
    "unix sockets": """
import os, socket, time
for n in range(60):
    if os.fork() == 0:
        hold = []
        try:
            while True:
                pair = socket.socketpair(); hold.append(pair)
                for s in pair:
                    s.setblocking(False)
                    try:
                        while True: s.send(b'x' * 60000)
                    except BlockingIOError: pass
        except OSError: time.sleep(60)
time.sleep(30)
""",
}  # fmt: skip


def alive(driver: Driver) -> None:
    """The supervisor still answers, and a fresh sandbox works."""
    assert driver.run_once("1+1").status == "ok"


@pytest.mark.parametrize("name", BOMBS)
def test_a_memory_bomb_ends_its_session_and_says_so(driver: Driver, watched: Watched, name: str) -> None:
    with watched(), driver.session(memory_bytes=MEMORY_BYTES) as session:
        outcome = session.run(BOMBS[name], timeout_s=25)
        assert (outcome.status, outcome.end.variables, outcome.end.session) == (
            "out_of_memory",
            "lost",
            "ended",
        )
        assert "256 MiB" in outcome.end.reason
    alive(driver)


@pytest.mark.parametrize("name", UNOWNED)
def test_memory_that_belongs_to_no_process_counts_too(
    driver: Driver, watched: Watched, counted: bool, name: str
) -> None:
    memory_bytes = 64 * MIB if name == "pipes" else MEMORY_BYTES
    with watched(), driver.session(memory_bytes=memory_bytes) as session:
        outcome = session.run(f"MIB = 1 << 20\n{UNOWNED[name]}", timeout_s=25 if counted else 3)
        if counted:
            assert (outcome.status, outcome.end.session) == ("out_of_memory", "ended"), outcome.document()
        elif name == "memfd":
            assert outcome.error is not None
            assert outcome.error["name"] == "PermissionError"
        elif name == "/tmp":
            assert outcome.error is not None
            assert "No space left" in outcome.error["value"] or "File too large" in outcome.error["value"]
        else:
            # Polled: bounded by descriptors, pipe-user-pages-soft and the size of /dev/shm, not by memory_bytes.
            assert outcome.status in ("ok", "timeout", "out_of_memory")
    alive(driver)


SOCKETS = """
import os, socket, time
for n in range(20):
    if os.fork() == 0:
        hold = []
        try:
            while True:
                {make}
        except OSError:
            time.sleep(60)
time.sleep(4)
"""
TCP = """
                l = socket.create_server(('127.0.0.1', 0)); c = socket.socket()
                c.setsockopt(1, 7, 1 << 26); c.connect(l.getsockname()); a, _ = l.accept(); l.close()
                c.setblocking(False); hold.append((c, a))
                try:
                    while True: c.send(b'x' * 65536)
                except BlockingIOError: pass
"""
UDP = """
                s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0)); s.connect(s.getsockname())
                s.setsockopt(1, 8, 1 << 26); s.setblocking(False); hold.append(s)
                try:
                    for n in range(100): s.send(b'x' * 60000)
                except OSError: pass
"""


def _socket_pages(kind: str) -> int:
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            words = line.split()
            return int(words[words.index("mem") + 1])
    raise AssertionError(f"no {kind} line")


@pytest.mark.parametrize(("kind", "make"), [("TCP", TCP), ("UDP", UDP)])
def test_buffers_of_inet_sockets_do_not_eat_the_hosts(
    driver: Driver, watched: Watched, counted: bool, kind: str, make: str
) -> None:
    """TCP and UDP have one allowance for the whole machine, whatever the network namespace."""
    if not counted:
        return  # holds only with a cgroup: THREATS.md says so
    before = _socket_pages(kind)
    most = 0
    with watched(), driver.session(memory_bytes=MEMORY_BYTES) as session:
        running = driver.submit(session.start(SOCKETS.format(make=make.strip()), timeout_s=10))
        while not running.done():
            most = max(most, _socket_pages(kind) - before)
        running.result()
    assert most * 4096 < MEMORY_BYTES // 2
    alive(driver)


COUNT = """
import os, time
made = []
try:
    while True:
        pid = os.fork()
        if pid == 0:
            time.sleep(60); os._exit(0)
        made.append(pid)
except OSError as error:
    print(len(made), error.errno)
for pid in made:
    os.kill(pid, 9); os.waitpid(pid, 0)
"""


def test_processes_end_at_the_limit(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session(processes=32) as session:
        outcome = session.run(COUNT)
        count, number = map(int, outcome.stdout.split())
        assert number == 11  # EAGAIN
        assert 24 <= count <= 33
        assert session.run("1+1").status == "ok", "and all is well when they have ended"


def test_threads_end_at_the_limit(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session(processes=32) as session:
        outcome = session.run("""
import threading
wait = threading.Event(); made = 0
try:
    while True:
        threading.Thread(target=wait.wait, daemon=True).start(); made += 1
except RuntimeError as error:
    print(made)
wait.set()
""")
        assert 24 <= int(outcome.stdout) <= 33
        assert session.run("1+1").status == "ok"


FORK_BOMB = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""
DETACHED_BOMB = """
import os, signal
def go():
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError: pass
if os.fork() == 0:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    go()
"""


def test_a_fork_bomb_ends_at_its_deadline(driver: Driver, watched: Watched) -> None:
    with watched():
        outcome = driver.run_once(FORK_BOMB, timeout_s=1.5)
        assert outcome.status == "timeout"
    alive(driver)


def test_a_fork_bomb_that_detaches_ends_with_its_session(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session() as session:
        session.run(DETACHED_BOMB, timeout_s=2, grace_s=0.2)
        # Its own kernel competes with it; only the answers' being typed and in time is promised.
        later = session.run("1+1", timeout_s=2, grace_s=0.2)
        assert later.status in ("ok", "timeout", "kernel_died", "killed"), later.document()
    alive(driver)


def test_the_workspace_has_hard_quotas(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session(workspace_bytes=8 * MIB, workspace_inodes=100) as session:
        outcome = session.run("""
import errno, os
def fill(action):
    try:
        n = 0
        while True:
            action(n); n += 1
    except OSError as error:
        return n, errno.errorcode[error.errno]
with open('big', 'wb', 0) as big:
    print(*fill(lambda n: big.write(b'x' * 65536) == 65536 or os.write(big.fileno(), b'x')))
os.unlink('big')
print(*fill(lambda n: open(f'file{n}', 'w').close()))
for name in os.listdir('.'): os.unlink(name)
print(*fill(lambda n: os.symlink('x' * 4000, f'link{n}')))
""")
        assert outcome.status == "ok", outcome.document()
        sizes, files, links = (line.split() for line in outcome.stdout.splitlines())
        assert (int(sizes[0]), sizes[1]) == (128, "ENOSPC")
        assert files[1] == links[1] == "ENOSPC"
        assert 90 <= int(files[0]) <= 100
        assert int(links[0]) <= 100


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_the_other_writable_places_have_quotas_too(driver: Driver, place: str) -> None:
    outcome = driver.run_once(f"""
import errno, os
s = os.statvfs({place!r})
print(s.f_blocks * s.f_frsize, s.f_files)
try:
    n = 0
    while True:
        os.mkdir(f'{place}/{{n}}'); n += 1
except OSError as error:
    print(n, errno.errorcode[error.errno])
""")
    size, inodes, made, wall = outcome.stdout.split()
    assert 0 < int(size) <= 256 * MIB
    assert int(made) <= int(inodes) <= 16384
    assert wall == "ENOSPC"


def test_a_sparse_file_of_a_pebibyte(driver: Driver) -> None:
    outcome = driver.run_once("""
import errno, os
for grow in (lambda fd: os.ftruncate(fd, 1 << 50), lambda fd: os.posix_fallocate(fd, 0, 1 << 50)):
    fd = os.open('sparse', os.O_RDWR | os.O_CREAT)
    try: grow(fd)
    except OSError as error: print(errno.errorcode[error.errno])
print(os.fstat(fd).st_size)
""")
    assert outcome.stdout.split() == ["EFBIG", "EFBIG", "0"]


def test_a_thousand_directories_deep_leave_nothing(driver: Driver, watched: Watched) -> None:
    async def listing(session: Session) -> tuple[int, bool]:
        async with await driver.client.open_porter(session.id) as porter:
            entries, truncated = await porter.list()
            return len(entries), truncated

    with watched(), driver.session() as session:
        outcome = session.run("""
import os
for n in range(1000):
    os.mkdir('d' * 200); os.chdir('d' * 200)
open('deep', 'w').write('x')
os.chdir('/workspace')
""")
        assert outcome.status == "ok", outcome.document()
        assert driver.wait(listing(session)) == (0, True)
    alive(driver)


def test_descriptors_end_at_the_limit(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session() as session:
        outcome = session.run("""
import errno, os
held = []
try:
    while True: held.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    print(len(held), errno.errorcode[error.errno])
for fd in held: os.close(fd)
""")
        count, wall = outcome.stdout.split()
        assert wall == "EMFILE"
        assert 200 <= int(count) <= 256
        assert session.run("1+1").status == "ok"


def test_descriptors_in_flight_do_not_stop_the_others(driver: Driver, watched: Watched) -> None:
    """They are counted by host user, and the supervisor sends descriptors, too (ETOOMANYREFS)."""
    with watched(), driver.session() as session:
        outcome = session.run("""
import array, errno, os, socket
pairs = [socket.socketpair() for _ in range(60)]
many = array.array('i', [0] * 250)
sent = 0
try:
    for a, b in pairs:
        a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)]); sent += 250
except OSError as error:
    print(sent, errno.errorcode[error.errno])
""")
        sent, wall = outcome.stdout.split()
        assert wall == "ETOOMANYREFS"
        assert int(sent) <= 1000
        for _ in range(5):
            alive(driver)


def test_spinning_on_every_processor(driver: Driver, watched: Watched) -> None:
    with watched():
        code = "import os\nfor n in range(20):\n    if os.fork() == 0: break\nwhile True: pass"
        assert driver.run_once(code, timeout_s=2).status == "timeout"


def test_cpu_time_has_a_limit_of_its_own(driver: Driver) -> None:
    outcome = driver.run_once("while True: pass", timeout_s=15, cpu_s=0.5)
    assert outcome.status == "timeout"
    assert "0.5 s of CPU time" in outcome.end.reason
    assert outcome.end.usage.wall_ms < 8000


def test_zombies(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session(processes=32) as session:
        outcome = session.run("""
import os
made = 0
try:
    while made < 1000:
        if os.fork() == 0: os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(made)
""")
        assert 24 <= int(outcome.stdout) <= 33, "a zombie counts until its parent has waited for it"
        reaped = "while True:\n    try: os.wait()\n    except ChildProcessError: break\n"
        assert session.run(reaped).status == "ok"
        # Orphans are the init's, which reaps them: three hundred in a row never meet the limit.
        orphans = """
for n in range(300):
    for again in range(1000):
        try: pid = os.fork(); break
        except BlockingIOError: os.sched_yield()
    if pid == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
print('done')
"""
        outcome = session.run(orphans, timeout_s=30)
        assert outcome.stdout == "done\n", outcome.document()


def test_the_reported_isolation_is_what_holds(driver: Driver, isolation: dict[str, str]) -> None:
    info = driver.wait(driver.client.create_sandbox(SandboxSpec()))
    driver.wait(driver.client.destroy_sandbox(info.id))
    assert info.isolation == isolation
    assert set(isolation) == {"level", "memory", "pids", "network"}
    assert isolation["memory"] in ("cgroup", "polled", "none")
    if os.geteuid() == 0 and Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        assert isolation["memory"] == "cgroup"
