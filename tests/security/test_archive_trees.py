"""What archives carry: usual ones in, trees out, and what happens beside a racing program."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from onehop import errors, protocol
from onehop.supervisor.porter import Porter
from tests.driver import Driver, Session
from tests.security.carrying import (
    MIB,
    STATE,
    UNPACK_S,
    contents,
    gz,
    header,
    pack,
    pax,
    pieces,
    plain_tar,
    plain_zip,
    tar,
    unpack,
    with_porter,
)
from tests.security.test_porter import RACER

# --- what is carried ---------------------------------------------------------------------------------

TREE = {
    "a.txt": b"one\n",
    "d/b.bin": bytes(range(256)) * 3000,
    "d/e/ä é.txt": b"",
    "d/e/" + "n" * 150: b"long",
}
FORMATS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "ustar": ("tar", lambda: plain_tar({k: v for k, v in TREE.items() if len(k) < 100}, form=tarfile.USTAR_FORMAT)),
    "pax": ("tar", lambda: plain_tar(TREE)),
    "GNU": ("tar", lambda: plain_tar(TREE, form=tarfile.GNU_FORMAT)),
    "tar.gz": ("tar.gz", lambda: gz(plain_tar(TREE))),
    "tar.gz of several members": (
        "tar.gz", lambda: gz(plain_tar(TREE)[:1000]) + gz(plain_tar(TREE)[1000:]) + bytes(512)),
    "zip": ("zip", lambda: plain_zip(TREE)),
    "stored zip": ("zip", lambda: plain_zip(TREE, zipfile.ZIP_STORED)),
    "streamed zip": ("zip", lambda: _streamed(TREE)),
    "zip with 64-bit sizes": ("zip", lambda: _streamed(TREE, large=True)),
    "empty tar": ("tar", lambda: plain_tar({})),
    "empty zip": ("zip", lambda: plain_zip({})),
}  # fmt: skip


class _Forward(io.RawIOBase):
    """A file without a way back, as a socket is one."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.written += piece
        return len(piece)


def _streamed(tree: dict[str, bytes], *, large: bool = False) -> bytes:
    out = _Forward()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            with archive.open(name, "w", force_zip64=large) as entry:
                entry.write(content)
    return bytes(out.written)


@pytest.mark.parametrize("name", FORMATS)
def test_usual_archives_are_unpacked(driver: Driver, session: Session, name: str) -> None:
    form, make = FORMATS[name]
    archive = make()
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            wanted = sorted(opened.namelist())
    else:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tarred:
            wanted = sorted(tarred.getnames())
    session.run(
        "import os; os.makedirs('to/d'); open('to/d/b.bin', 'w').write('old'); open('to/kept', 'w').close()"
    )
    assert sorted(unpack(driver, session, form, archive, "to")) == ["to/" + path for path in wanted]
    for path in wanted:
        outcome = session.run(
            f"import hashlib; hashlib.sha256(open({'to/' + path!r}, 'rb').read()).hexdigest()"
        )
        assert outcome.results == [{"text/plain": repr(hashlib.sha256(TREE[path]).hexdigest())}]
    outcome = session.run(
        "[n for f, d, ns in os.walk('.') for n in [*d, *ns] if n.startswith('.')], os.listdir()"
    )
    assert outcome.results == [{"text/plain": "([], ['to'])"}]
    assert session.run("os.path.exists('to/kept'), os.stat('to/kept').st_uid").stdout == ""


def test_modes_and_times(driver: Driver, session: Session) -> None:
    archive = tar(
        header(b"tool", kind=b"0", mode=b"0004755\0"), header(b"plain"), pax({"mtime": b"99999999999.5"}), header(b"late")
    )  # fmt: skip
    assert unpack(driver, session, "tar", archive) == ["tool", "plain", "late"]
    outcome = session.run(
        "import os; [(oct(os.stat(n).st_mode), int(os.stat(n).st_mtime)) for n in ('tool', 'plain', 'late')]"
    )
    assert outcome.results == [
        {"text/plain": "[('0o100755', 1000000000), ('0o100644', 1000000000), ('0o100644', 8589934592)]"}
    ]


@pytest.mark.parametrize(
    ("there", "archive"),
    [
        ("os.symlink('/etc', 'd')", {"a": b"new", "d/x": b"new"}),
        ("os.symlink('/etc/passwd', 'z')", {"a": b"new", "z": b"new"}),
        ("os.mkdir('z')", {"a": b"new", "z": b"new"}),
        ("open('d', 'w').close()", {"a": b"new", "d/x": b"new"}),
        ("os.mkfifo('z')", {"a": b"new", "z": b"new"}),
    ],
)
def test_what_is_in_the_way_undoes_everything(
    driver: Driver, session: Session, there: str, archive: dict[str, bytes]
) -> None:
    """`a` is replaced and comes back: the conflict is found after it."""
    session.run(STATE + f"open('a', 'w').write('old'); {there}; s = state()")
    with pytest.raises(errors.ConflictError):
        unpack(driver, session, "tar", plain_tar(archive))
    assert session.run("state() == s").results == [{"text/plain": "True"}]


@pytest.mark.parametrize("form", protocol.ARCHIVE_FORMATS)
def test_a_tree_goes_out_and_in_again(driver: Driver, session: Session, form: str) -> None:
    session.run(f"""
import os
for path, content in {TREE!r}.items():
    os.makedirs('t/' + os.path.dirname(path), exist_ok=True); open('t/' + path, 'wb').write(content)
os.mkdir('t/empty'); os.chmod('t/a.txt', 0o755); os.utime('t/a.txt', (1e9, 1e9))
open('t/big', 'wb').write(os.urandom(3 << 20))
big = open('t/big', 'rb').read()
""")
    reply, archive = pack(driver, session, form, "t")
    assert (reply.left_out, reply.left_out_names) == (0, [])
    names = [*TREE, "big", "d/", "d/e/", "empty/"]
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            assert opened.testzip() is None
            assert sorted(opened.namelist()) == sorted(names)
            assert opened.read("d/b.bin") == TREE["d/b.bin"]
            assert opened.getinfo("a.txt").external_attr >> 16 == 0o100755
            assert opened.getinfo("a.txt").date_time == (2001, 9, 9, 1, 46, 40)
    else:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tarred:
            members = {member.name + "/" * member.isdir(): member for member in tarred}
            assert sorted(members) == sorted(names)
            read = tarred.extractfile("d/b.bin")
            assert read is not None
            assert read.read() == TREE["d/b.bin"]
            assert (members["a.txt"].mode, members["a.txt"].mtime) == (0o755, 1_000_000_000)
    unpack(driver, session, form, archive, "u")
    assert session.run(
        "[open('u/' + p, 'rb').read() == open('t/' + p, 'rb').read() for p in ('a.txt', 'd/b.bin', 'big')], os.path.isdir('u/empty')"
    ).results == [{"text/plain": "([True, True, True], True)"}]


@pytest.mark.parametrize("form", protocol.ARCHIVE_FORMATS)
def test_only_regular_files_are_packed_and_the_rest_is_named(
    driver: Driver, session: Session, form: str
) -> None:
    session.run("""
import os, socket
os.makedirs('d'); open('d/good', 'w').write('good')
os.symlink('/etc/passwd', 'd/link'); os.symlink('/etc', 'folder'); os.mkfifo('fifo')
open('one', 'w').write('1'); os.link('one', 'two')
s = socket.socket(socket.AF_UNIX); s.bind('socket')
os.close(os.open(b'bad\\xff', os.O_CREAT)); os.mkdir('closed'); os.chmod('closed', 0)
path = 'deep'
for _ in range(40): os.mkdir(path); path += '/x'
""")
    reply, archive = pack(driver, session, form)
    # Below the 33rd folder of deep everything is left out with it.
    assert reply.left_out == 9
    assert {"d/link", "folder", "fifo", "one", "two", "socket", "bad\ufffd", "closed"} < set(
        reply.left_out_names
    )
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            names = opened.namelist()
    else:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tarred:
            names = tarred.getnames()
    assert [name for name in names if not name.startswith("deep")] == [
        "d/" if form == "zip" else "d",
        "d/good",
    ]
    assert b"root:" not in archive


@pytest.mark.parametrize("path", ["link", "link/in", "../etc", "/etc", "nothing", "file"])
def test_only_folders_of_the_workspace_are_packed_and_unpacked_into(
    driver: Driver, session: Session, path: str
) -> None:
    session.run("import os; os.symlink('/etc', 'link'); open('file', 'w').close()")
    typed = (errors.InvalidPathError, errors.ConflictError, errors.FileNotFoundInWorkspaceError)
    with pytest.raises(typed):
        pack(driver, session, "tar", path)
    if path != "nothing":
        with pytest.raises(typed):
            unpack(driver, session, "tar", plain_tar({"x": b"x"}), path)
    assert contents(session) == "['file', 'link']"


def test_a_file_that_shrinks_gives_the_archive_up(driver: Driver, session: Session) -> None:
    session.run("open('file', 'wb').write(bytes(64 << 20))")

    async def work(porter: Porter) -> None:
        _, chunks = await porter.pack("", "tar")
        await anext(chunks)
        outcome = await session.start("open('file', 'wb').close()")
        assert outcome.status == "ok"
        with pytest.raises(errors.ConflictError, match="became shorter"):
            async for _ in chunks:
                pass

    with_porter(driver, session, work)


# --- while hostile code runs beside ------------------------------------------------------------------


def test_a_racer_while_packing_and_unpacking(driver: Driver, session: Session) -> None:
    """Renames and symlinks beside; what is packed is only what the racer itself wrote in the workspace."""
    inward = plain_tar({"d/passwd": b"new", "d/target": b"new", "d/secret": b"new"})
    running = driver.submit(session.start(RACER.format(seconds=5), timeout_s=40))
    packed = unpacked = 0

    async def work(porter: Porter) -> None:
        nonlocal packed, unpacked
        while not running.done():
            for form in ("tar", "zip"):
                with contextlib.suppress(errors.ConflictError, errors.NotFoundError):
                    _, chunks = await porter.pack("", form)
                    archive = b"".join([chunk async for chunk in chunks])
                    for content in _contents(form, archive):
                        assert content in (b"", b"mine", b"new"), "it packed something outside"
                    packed += 1
            with contextlib.suppress(errors.ConflictError, errors.NotFoundError):
                await porter.unpack("", "tar", pieces(inward), timeout_s=UNPACK_S)
                unpacked += 1

    with_porter(driver, session, work)
    outcome = running.result()
    assert outcome.status == "ok", outcome.document()
    assert outcome.stdout == "[] outside\n", "something was written outside the workspace"
    assert packed > 10
    assert unpacked > 0


def _contents(form: str, archive: bytes) -> list[bytes]:
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            return [opened.read(name) for name in opened.namelist() if not name.endswith("/")]
    with tarfile.open(fileobj=io.BytesIO(archive)) as tarred:
        found = [tarred.extractfile(member) for member in tarred if member.isfile()]
        return [one.read() for one in found if one is not None]


def test_a_sender_that_is_cut_off_in_an_archive_leaves_nothing(driver: Driver, session: Session) -> None:
    for form, archive in (
        ("tar", plain_tar({"f": bytes(4 * MIB)})),
        ("zip", plain_zip({"f": os.urandom(4 * MIB)})),
    ):

        async def broken(archive: bytes = archive) -> AsyncIterator[bytes]:
            yield archive[: 2 * MIB]
            raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            with_porter(driver, session, functools.partial(_unpack_from, form, broken()))
        _wait_until_empty(session)


async def _unpack_from(form: str, content: AsyncIterator[bytes], porter: Porter) -> None:
    await porter.unpack("n/m", form, content, timeout_s=9)


def test_a_reader_that_hangs_up_ends_the_porter(driver: Driver, session: Session) -> None:
    session.run("import os; open('file', 'wb').write(os.urandom(32 << 20))")
    for form in protocol.ARCHIVE_FORMATS:

        async def work(porter: Porter, form: str = form) -> None:
            _, chunks = await porter.pack("", form)
            await anext(chunks)

        with_porter(driver, session, work)
    session.run("os.unlink('file')")
    _wait_until_empty(session)
    wait = """
import os, time
end = time.monotonic() + 10
others = lambda: [n for n in os.listdir('/proc') if n.isdigit() and int(n) != os.getpid()]
while len(others()) > 1 and time.monotonic() < end: time.sleep(0.01)
len(others()) <= 1
"""
    assert session.run(wait).results == [{"text/plain": "True"}]


def _wait_until_empty(session: Session) -> None:
    wait = "import os, time\nend = time.monotonic() + 10\nfree = lambda: os.statvfs('.').f_blocks - os.statvfs('.').f_bfree\nwhile (os.listdir() or free()) and time.monotonic() < end: time.sleep(0.01)\nos.listdir(), free()"
    assert session.run(wait).results == [{"text/plain": "([], 0)"}]
