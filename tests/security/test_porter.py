"""Files in and out while hostile code runs beside: the porter reaches nothing outside, and leaves nothing half-done."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

import pytest

from onehop import errors
from onehop.supervisor.porter import Porter
from tests.driver import Driver, Session
from tests.security.carrying import with_porter

Watched = Callable[[], AbstractContextManager[None]]
MIB = 1 << 20


async def content(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def fetch(porter: Porter, path: str) -> bytes:
    _, chunks = await porter.read(path)
    return b"".join([chunk async for chunk in chunks])


def operations(path: str) -> dict[str, Callable[[Porter], Coroutine[Any, Any, Any]]]:
    return {
        "read": lambda porter: fetch(porter, path),
        "stat": lambda porter: porter.stat(path),
        "write": lambda porter: porter.write(path, content(b"new")),
        "delete": lambda porter: porter.delete(path),
    }


def test_a_file_goes_in_and_out(driver: Driver, session: Session) -> None:
    """The control of everything below."""

    async def work(porter: Porter) -> None:
        entry = await porter.write("a/b/c.txt", content(b"one", b"two"))
        assert (entry.path, entry.bytes) == ("a/b/c.txt", 6)
        assert await fetch(porter, "a/b/c.txt") == b"onetwo"
        assert [e.path for e in (await porter.list())[0]] == ["a/b/c.txt"]
        await porter.delete("a/b/c.txt")
        assert (await porter.list())[0] == []

    with_porter(driver, session, work)
    outcome = session.run("import os; os.path.isdir('a/b'), os.stat('a/b').st_uid")
    assert outcome.results == [{"text/plain": "(True, 1000)"}]


BAD_PATHS = {
    "parent": "../etc/passwd",
    "parent inside": "a/../../etc/passwd",
    "parent at the end": "a/..",
    "absolute": "/etc/passwd",
    "NUL": "a\0b",
    "empty component": "a//b",
    "dot": "./a",
    "empty": "",
    "long component": "x" * 256,
    "long path": "/".join(["x" * 100] * 20),
}


@pytest.mark.parametrize("name", BAD_PATHS)
def test_a_bad_path_is_refused_by_every_operation(driver: Driver, session: Session, name: str) -> None:
    for operation in operations(BAD_PATHS[name]).values():
        with pytest.raises(errors.InvalidPathError):
            with_porter(driver, session, operation)


# What user code leaves at "target", and what each operation answers. A refused operation changes nothing.
NOT_REGULAR = {
    "symlink to a file outside": "os.symlink('/etc/passwd', 'target')",
    "symlink to a file inside": "open('real', 'w').write('r'); os.symlink('real', 'target')",
    "dangling symlink": "os.symlink('nowhere', 'target')",
    "symlink to itself": "os.symlink('target', 'target')",
    "magic link": "os.symlink('/proc/self/fd/1', 'target')",
    "FIFO": "os.mkfifo('target')",
    "socket": "import socket; s = socket.socket(socket.AF_UNIX); s.bind('target')",
    "directory": "os.mkdir('target')",
}


@pytest.mark.parametrize("name", NOT_REGULAR)
@pytest.mark.parametrize("operation", ["read", "stat", "write"])
def test_only_regular_files_are_carried(driver: Driver, session: Session, name: str, operation: str) -> None:
    assert session.run(f"import os; {NOT_REGULAR[name]}; before = os.lstat('target')").status == "ok"
    started = time.monotonic()
    with pytest.raises(errors.NotARegularFileError):
        with_porter(driver, session, operations("target")[operation])
    assert time.monotonic() - started < 10, "a FIFO without a reader must not be waited for"
    after = session.run(
        "now = os.lstat('target'); (now.st_ino, now.st_mode) == (before.st_ino, before.st_mode)"
    )
    assert after.results == [{"text/plain": "True"}]


def test_a_symlink_is_deleted_itself_and_not_its_target(driver: Driver, session: Session) -> None:
    session.run("import os; open('real', 'w').write('r'); os.symlink('real', 'target')")
    with_porter(driver, session, operations("target")["delete"])
    assert session.run("os.listdir()").results == [{"text/plain": "['real']"}]


@pytest.mark.parametrize("to", ["/etc", "/tmp", ".", "real", "/proc/self/cwd", "/proc/1/root"])
@pytest.mark.parametrize("operation", ["read", "stat", "write", "delete"])
def test_a_symlink_as_directory_component(driver: Driver, session: Session, to: str, operation: str) -> None:
    session.run(f"""
import os
os.mkdir('real'); open('real/file', 'w').write('r'); open('/tmp/file', 'w').write('t'); os.symlink({to!r}, 'link')
""")
    with pytest.raises((errors.NotARegularFileError, errors.FileNotFoundInWorkspaceError)):
        with_porter(driver, session, operations("link/file")[operation])
    kept = session.run("open('real/file').read(), open('/tmp/file').read(), sorted(os.listdir())")
    assert kept.results == [{"text/plain": "('r', 't', ['link', 'real'])"}]


def test_hard_links(driver: Driver, session: Session) -> None:
    outcome = session.run("""
import errno, os
for target in ('/etc/passwd', '/usr/bin/env', '/tmp/other'):
    open('/tmp/other', 'w').close()
    try: os.link(target, 'hard')
    except OSError as error: print(errno.errorcode[error.errno])
open('one', 'w').write('1'); os.link('one', 'two')
""")
    # Across mounts there is no hard link; within the workspace there is, and it is not carried.
    assert set(outcome.stdout.split()) == {"EXDEV"}
    for name in ("one", "two"):
        with pytest.raises(errors.NotARegularFileError):
            with_porter(driver, session, operations(name)["read"])


def test_names_that_are_no_utf8_are_marked_as_left_out(driver: Driver, session: Session) -> None:
    session.run("import os; os.close(os.open(b'bad\\xff', os.O_CREAT)); open('good', 'w').close()")
    entries, truncated = with_porter(driver, session, lambda porter: porter.list())
    assert ([entry.path for entry in entries], truncated) == (["good"], True)
    for operation in operations("bad\udcff").values():
        with pytest.raises(errors.InvalidPathError):
            with_porter(driver, session, operation)


def test_a_listing_is_bounded(driver: Driver) -> None:
    with driver.session() as session:
        session.run("for n in range(12000): open(f'f{n}', 'w').close()", timeout_s=60)
        entries, truncated = with_porter(driver, session, lambda porter: porter.list(limit=5000))
        assert (len(entries), truncated) == (5000, True)


@pytest.mark.parametrize("existing", [False, True])
def test_a_file_over_quota_changes_nothing(driver: Driver, existing: bool) -> None:
    with driver.session(workspace_bytes=4 * MIB) as session:
        if existing:
            session.run("open('big', 'w').write('old')")
        with pytest.raises(errors.QuotaExceededError):
            with_porter(driver, session, lambda porter: porter.write("big", content(*[bytes(MIB)] * 6)))
        left = session.run("import os; {name: open(name).read() for name in os.listdir()}")
        assert left.results == [{"text/plain": "{'big': 'old'}" if existing else "{}"}]
        # And there is room again.
        with_porter(driver, session, lambda porter: porter.write("fits", content(bytes(3 * MIB))))


def test_no_inode_left(driver: Driver) -> None:
    with driver.session(workspace_inodes=20) as session:
        session.run("import os\ntry:\n    for n in range(50): os.mkdir(str(n))\nexcept OSError: pass")
        with pytest.raises(errors.QuotaExceededError):
            with_porter(driver, session, operations("file")["write"])


def test_a_sender_that_is_cut_off_leaves_nothing(driver: Driver, session: Session) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        with_porter(driver, session, lambda porter: porter.write("file", broken()))
    wait = "import os, time\nend = time.monotonic() + 10\nwhile os.listdir() and time.monotonic() < end: time.sleep(0.01)\nos.listdir()"
    assert session.run(wait).results == [{"text/plain": "[]"}]


SHRINKERS = {"grows": "f.write(b'y' * 100_000)", "shrinks": "f.truncate(0); f.seek(0)"}


@pytest.mark.parametrize("name", SHRINKERS)
def test_a_file_that_changes_while_it_is_read(driver: Driver, session: Session, name: str) -> None:
    session.run("open('file', 'wb').write(b'x' * (20 << 20))")
    running = driver.submit(session.start(
        f"f = open('file', 'r+b', 0)\nimport time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: {SHRINKERS[name]}",
        timeout_s=30, grace_s=2))  # fmt: skip

    async def work(porter: Porter) -> None:
        while not running.done():
            entry, chunks = await porter.read("file")
            assert sum([len(chunk) async for chunk in chunks]) <= entry.bytes

    with_porter(driver, session, work)


RACER = """
import os, shutil, time
os.makedirs('/tmp/outside', exist_ok=True)
open('/tmp/outside/secret', 'w').write('outside')
def attempt(action, *arguments):
    try: action(*arguments)
    except OSError: pass
os.makedirs('d', exist_ok=True)
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    for swap in (lambda: os.symlink('/tmp/outside', 'd'), lambda: os.symlink('/etc', 'd'), lambda: os.mkdir('d'),
                 lambda: os.symlink('..', 'd')):
        attempt(os.rename, 'd', 'aside'); attempt(swap)
        attempt(os.symlink, '/etc/passwd', 'd/target')
        attempt(os.rename, 'd/target', 'd/passwd')
        attempt(os.unlink, 'd'); attempt(shutil.rmtree, 'd', True)
        attempt(os.rename, 'aside', 'd'); attempt(os.unlink, 'aside'); attempt(shutil.rmtree, 'aside', True)
        attempt(os.makedirs, 'd'); attempt(lambda: open('d/passwd', 'w').write('mine'))
wrong = []
for name in os.listdir('/tmp/outside'):
    path = '/tmp/outside/' + name
    if name.startswith('.onehop') or not os.path.islink(path) and open(path).read() == 'new': wrong.append(name)
print(wrong, open('/tmp/outside/secret').read())
"""


def race(driver: Driver, session: Session, seconds: float) -> int:
    """How many transfers got through while the racer ran; none of them reached anything outside."""
    running = driver.submit(session.start(RACER.format(seconds=seconds), timeout_s=seconds + 30))
    through = 0

    async def work(porter: Porter) -> None:
        nonlocal through
        while not running.done():
            for path in ("d/passwd", "d/target", "d/secret"):
                for operation in ("read", "write", "stat", "delete"):
                    try:
                        answer = await operations(path)[operation](porter)
                    except (errors.NotFoundError, errors.ConflictError):
                        continue
                    through += 1
                    if operation == "read":
                        assert answer in (b"", b"mine", b"new"), "it read something outside"

    async def run() -> None:
        async with await driver.client.open_porter(session.id) as porter:
            await work(porter)

    driver.wait(run(), seconds + 60)
    outcome = running.result()
    assert outcome.status == "ok", outcome.document()
    assert outcome.stdout == "[] outside\n", "something was written outside the workspace"
    return through


def test_a_racer_with_renames_and_symlinks(driver: Driver, session: Session, watched: Watched) -> None:
    with watched():
        assert race(driver, session, 5) > 10


if os.environ.get("ONEHOP_SOAK"):

    @pytest.mark.slow
    def test_a_racer_for_a_minute(driver: Driver, session: Session) -> None:
        assert race(driver, session, 60) > 100


def test_user_code_cannot_end_a_porter(driver: Driver, session: Session, landlock_scopes: bool) -> None:
    if not landlock_scopes:
        pytest.skip(
            "signals are held off by Landlock from ABI 6 on; before, the transfer fails with a typed error"
        )

    async def work(porter: Porter) -> None:
        await porter.write("before", content(b"1"))
        outcome = await session.start("""
import os
for pid in [-1, *range(2, 3000)]:
    if pid != os.getpid():
        try: os.kill(pid, 9)
        except OSError: pass
print(sorted(n for n in os.listdir('/proc') if n.isdigit()) == [str(os.getpid())])
""")
        assert (outcome.status, outcome.stdout) == ("ok", "True\n")
        assert await fetch(porter, "before") == b"1"

    with_porter(driver, session, work)


def test_a_porter_whose_sandbox_ends_says_so(driver: Driver) -> None:
    """Typed, whether it is deleted or runs out of memory in the middle of a transfer."""

    async def work(porter: Porter, session: Session) -> None:
        await porter.write("file", content(bytes(MIB)))
        await driver.client.destroy_sandbox(session.id)
        await fetch(porter, "file")

    session = Session(driver, driver.wait(driver.client.create_sandbox(_default())))
    with pytest.raises(errors.UnavailableError):
        with_porter(driver, session, lambda porter: work(porter, session))
    with pytest.raises(errors.SessionNotFoundError):
        with_porter(driver, session, lambda porter: porter.list())


def _default() -> Any:
    from onehop.supervisor.messages import SandboxSpec

    return SandboxSpec()


def test_a_sandbox_full_of_processes_still_hands_out_its_files_or_says_why(
    driver: Driver, watched: Watched
) -> None:
    with watched(), driver.session(processes=16) as session:
        outcome = session.run("""
import os, time
open('file', 'w').write('kept')
try:
    while True:
        if os.fork() == 0:
            os.setsid(); time.sleep(600); os._exit(0)
except BlockingIOError: print('full')
""")
        assert outcome.stdout == "full\n"
        assert with_porter(driver, session, lambda porter: fetch(porter, "file")) == b"kept"
