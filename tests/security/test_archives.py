"""Archives in and out of a workspace: a hostile one is refused by name, and nothing of it stays.

Each hostile archive that aims outside has a control: unpacked without care it does harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from onehop import errors, protocol
from onehop.supervisor.porter import Porter
from tests.driver import Driver, Session
from tests.security import archives
from tests.security.archives import file, gz, header, pax, plain_tar, plain_zip, tar, zip_of
from tests.security.test_porter import RACER, with_porter

MIB = 1 << 20
UNPACK_S = 60.0

STATE = """
import hashlib, os
def state():
    found = []
    for folder, _, names in os.walk('.'):
        for name in [folder, *(os.path.join(folder, name) for name in names)]:
            status = os.lstat(name)
            content = hashlib.sha256(open(name, 'rb').read()).hexdigest() if os.path.isfile(name) else ''
            found.append((name, oct(status.st_mode), status.st_ino, status.st_size if content else 0, content))
    return sorted(found)
"""
"""User code's own look at its workspace: everything, also what listings do not show."""


async def pieces(archive: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(archive), size):
        yield archive[start : start + size]


def unpack(driver: Driver, session: Session, form: str, archive: bytes, folder: str = "") -> list[str]:
    """Paths of the files that were unpacked."""
    entries, _ = with_porter(
        driver, session, lambda porter: porter.unpack(folder, form, pieces(archive), timeout_s=UNPACK_S)
    )
    return [entry.path for entry in entries]


def pack(driver: Driver, session: Session, form: str, folder: str = "") -> tuple[protocol.PorterReply, bytes]:
    async def work(porter: Porter) -> tuple[protocol.PorterReply, bytes]:
        reply, chunks = await porter.pack(folder, form)
        return reply, b"".join([chunk async for chunk in chunks])

    found: tuple[protocol.PorterReply, bytes] = with_porter(driver, session, work)
    return found


def contents(session: Session) -> str:
    outcome = session.run(
        "import os\nsorted(os.path.join(f, n)[2:] for f, d, ns in os.walk('.') for n in [*d, *ns])"
    )
    return outcome.results[0]["text/plain"]


# --- what is refused -----------------------------------------------------------------------------

LONG = b"GNU longname"

# name: (format, archive, what the refusal says)
HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "tar: parent": ("tar", tar(file(b"ok"), file(b"../escaped")), "contains '..'"),
    "tar: parent inside": ("tar", tar(file(b"a/../../escaped")), "contains '..'"),
    "tar: absolute": ("tar", tar(file(b"/escaped")), "is absolute"),
    "tar: parent by prefix": ("tar", tar(file(b"escaped", prefix=b"..")), "contains '..'"),
    "tar: parent by pax": ("tar", tar(pax({"path": b"../escaped"}), file(b"ok")), "contains '..'"),
    "tar: NUL by pax": ("tar", tar(pax({"path": b"a\0b"}), file(b"ok")), "NUL"),
    "tar: pax twice a path": (
        "tar", tar(file(b"P", b"12 path=abc\n16 path=../evil\n", kind=b"x"), file(b"ok")), "two times"),
    "tar: global pax path": ("tar", tar(pax({"path": b"../escaped"}, b"g"), file(b"ok")), "global header"),
    "tar: parent by GNU long name": (
        "tar", tar(file(b"././@LongLink", b"../" + b"x" * 120 + b"\0", kind=b"L"), file(b"ok")), "contains '..'"),
    "tar: endless long name": ("tar", tar(header(b"././@LongLink", 1 << 30, kind=b"L")), "longer than"),
    "tar: endless pax": ("tar", tar(header(b"Pax", 1 << 40, kind=b"x")), "longer than"),
    "tar: two pax headers": ("tar", tar(pax({"path": b"a"}), pax({"path": b"b"}), file(b"c")), "follow each other"),
    "tar: broken pax": ("tar", tar(file(b"P", b"999 path=a\n", kind=b"x"), file(b"c")), "broken"),
    "tar: pax size lies": ("tar", tar(pax({"size": b"512"}), file(b"a", b"x")), "checksum"),
    "tar: pax size is no number": ("tar", tar(pax({"size": b"-1"}), file(b"a")), "no number"),
    "tar: symlink": ("tar", tar(header(b"link", kind=b"2", link=b"/etc"), file(b"link/escaped")), "a symlink"),
    "tar: hard link": ("tar", tar(header(b"hard", kind=b"1", link=b"/etc/passwd")), "a hard link"),
    "tar: character device": ("tar", tar(header(b"null", kind=b"3")), "a device"),
    "tar: block device": ("tar", tar(header(b"disk", kind=b"4")), "a device"),
    "tar: FIFO": ("tar", tar(header(b"fifo", kind=b"6")), "a FIFO"),
    "tar: sparse, old GNU": ("tar", tar(header(b"sparse", 512, kind=b"S") + bytes(512)), "a sparse file"),
    "tar: sparse, pax": (
        "tar", tar(pax({"GNU.sparse.major": b"1", "GNU.sparse.realsize": b"1125899906842624"}), file(b"s")), "sparse"),
    "tar: unknown type": ("tar", tar(header(b"what", kind=b"Z")), "not known"),
    "tar: twice the same file": ("tar", tar(file(b"a"), file(b"./a")), "twice"),
    "tar: file, then below it": ("tar", tar(file(b"a"), file(b"a/b")), "twice"),
    "tar: folder, then a file": ("tar", tar(header(b"a/", kind=b"5"), file(b"a")), "twice"),
    "tar: a file, then a folder": ("tar", tar(file(b"a"), header(b"a/", kind=b"5")), "twice"),
    "tar: a folder with content": ("tar", tar(file(b"a/", kind=b"5")), "has content"),
    "tar: no UTF-8": ("tar", tar(file(b"bad\xff")), "UTF-8"),
    "tar: no UTF-8 by pax": ("tar", tar(pax({"path": b"bad\xff"}), file(b"ok")), "UTF-8"),
    "tar: negative size": ("tar", tar(header(b"a", b"\xff" * 12)), "no number"),
    "tar: a size of letters": ("tar", tar(header(b"a", b"12345678abc\0")), "no number"),
    "tar: no checksum": ("tar", tar(file(b"a")[:148] + bytes(8) + file(b"a")[156:]), "checksum"),
    "tar: no archive": ("tar", b"hello, this is text" * 100, "no tar archive"),
    "tar: empty body": ("tar", b"", "its end is missing"),
    "tar: cut off in a header": ("tar", file(b"a") + file(b"b")[:300], "cut off"),
    "tar: cut off in a file": ("tar", file(b"a") + file(b"b", b"x" * 5000)[:3000], "cut off"),
    "tar: no end": ("tar", file(b"a"), "its end is missing"),
    "tar: a very deep path": ("tar", tar(file(b"/".join([b"d"] * 40))), "folders deep"),
    "tar: a long component": ("tar", tar(pax({"path": b"x" * 300}), file(b"a")), "longer than 255"),
    "tar.gz: parent": ("tar.gz", gz(tar(file(b"../escaped"))), "contains '..'"),
    "tar.gz: cut off": ("tar.gz", gz(tar(file(b"a", os.urandom(50_000))))[:-9000], "cut off"),
    "tar.gz: checksum": ("tar.gz", gz(tar(file(b"a")))[:-8] + bytes(8), "damaged"),
    "tar.gz: without its end": ("tar.gz", gz(tar(file(b"a")))[:-4], "cut off"),
    "tar.gz: something else": ("tar.gz", tar(file(b"a")), "no gzip"),
    "tar.gz: junk behind it": ("tar.gz", gz(tar(file(b"a"))) + b"junk", "no gzip"),
    "tar.gz: a bomb behind its end": ("tar.gz", gz(tar(file(b"a")) + bytes(64 * MIB)), "too much follows"),
    "zip: parent": ("zip", zip_of({"name": b"ok"}, {"name": b"../escaped"}), "contains '..'"),
    "zip: absolute": ("zip", zip_of({"name": b"/escaped"}), "is absolute"),
    "zip: backslash": ("zip", zip_of({"name": b"..\\escaped"}), "backslash"),
    "zip: NUL": ("zip", zip_of({"name": b"a\0b"}), "NUL"),
    "zip: symlink": ("zip", zip_of({"name": b"l", "content": b"/etc", "mode": stat.S_IFLNK | 0o777}), "a link"),
    "zip: FIFO": ("zip", zip_of({"name": b"f", "content": b"", "mode": stat.S_IFIFO | 0o644}), "special file"),
    "zip: device": ("zip", zip_of({"name": b"d", "content": b"", "mode": stat.S_IFCHR | 0o644}), "special file"),
    "zip: twice the same file": ("zip", zip_of({"name": b"a"}, {"name": b"a"}), "twice"),
    "zip: another name in the directory": (
        "zip", zip_of({"name": b"safe.txt", "central_name": b"evil.txt"}), "different names"),
    "zip: says too small a size": ("zip", zip_of({"name": b"a", "content": b"x" * 5000, "size": 10}), "does not have"),
    "zip: says too large a size": ("zip", zip_of({"name": b"a", "size": 5000}), "does not have"),
    "zip: says too small a packed size": (
        "zip", zip_of({"name": b"a", "content": os.urandom(5000), "packed_size": 100}), "cut off"),
    "zip: says too large a packed size": ("zip", zip_of({"name": b"a", "packed_size": 5000}), "outside"),
    "zip: packed data that goes on": (
        "zip", zip_of({"name": b"a", "packed_size": 60}, {"name": b"b", "content": os.urandom(500)}), "longer"),
    "zip: checksum": ("zip", zip_of({"name": b"a", "crc": 1}), "checksum"),
    "zip: encrypted": ("zip", zip_of({"name": b"a", "flags": 1}), "encrypted"),
    "zip: strongly encrypted": ("zip", zip_of({"name": b"a", "flags": 0x41}), "encrypted"),
    "zip: another method": ("zip", zip_of({"name": b"a", "method": 14}), "method 14"),
    "zip: invalid UTF-8": ("zip", zip_of({"name": b"bad\xff", "flags": 0x800}), "UTF-8"),
    "zip: a folder with content": ("zip", zip_of({"name": b"a/"}), "has content"),
    "zip: more entries than there are": ("zip", zip_of({"name": b"a"}, count=3), "damaged"),
    "zip: fewer entries than there are": ("zip", zip_of({"name": b"a"}, {"name": b"b"}, count=1), "longer than"),
    "zip: offset outside": ("zip", zip_of({"name": b"a", "offset": 1 << 31}), "damaged"),
    "zip: something before it": ("zip", b"#!/bin/sh\n" + zip_of({"name": b"a"}), "before it"),
    "zip: cut off": ("zip", plain_zip({"a": os.urandom(5000)})[:-30], "no zip"),
    "zip: no archive": ("zip", b"hello" * 1000, "no zip"),
    "zip: empty body": ("zip", b"", "no zip"),
    "zip: damaged data": (
        "zip", zip_of({"name": b"a", "content": b"x" * 5000}).replace(b"\xed\xc1", b"\xff\xff", 1), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_of_it_stays(
    driver: Driver, session: Session, name: str
) -> None:
    form, archive, reason = HOSTILE[name]
    before = session.run(
        STATE
        + "os.makedirs('d'); open('a', 'w').write('old'); open('d/kept', 'w').write('k'); s = state(); s"
    )
    for folder in ("", "d", "new/below"):
        with pytest.raises(errors.InvalidArchiveError) as refused:
            unpack(driver, session, form, archive, folder)
        assert reason in refused.value.detail, refused.value.detail
    after = session.run("state() == s, state()").results[0]["text/plain"]
    assert after.startswith("(True"), f"{before.results} became {after}"
    outside = session.run(
        "import os; [p for p in ('/escaped', '/tmp/escaped', '../escaped') if os.path.lexists(p)]"
    )
    assert outside.results == [{"text/plain": "[]"}]


# --- the controls ----------------------------------------------------------------------------------


def naively(form: str, archive: bytes, folder: Path) -> None:
    """What a careless server does."""
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            for info in opened.infolist():
                target = os.path.join(folder, info.filename)
                if stat.S_ISLNK(info.external_attr >> 16):
                    os.symlink(opened.read(info), target)
                else:
                    Path(target).write_bytes(opened.read(info))
        return
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|*") as opened:
        opened.extractall(folder, filter="fully_trusted")


ESCAPES = {
    "tar: parent": "escaped",
    "tar: parent by prefix": "escaped",
    "tar: parent by pax": "escaped",
    "tar: parent by GNU long name": "x" * 120,
    "tar: global pax path": "escaped",
    "tar.gz: parent": "escaped",
    "zip: parent": "escaped",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_unpacked_without_care_it_escapes(tmp_path: Path, name: str) -> None:
    form, archive, _ = HOSTILE[name]
    inner = tmp_path / "outside" / "inner"
    inner.mkdir(parents=True)
    naively(form, archive, inner)
    assert (tmp_path / "outside" / ESCAPES[name]).read_bytes() == b"hostile\n"


def test_unpacked_without_care_links_are_followed(tmp_path: Path) -> None:
    target, inner = tmp_path / "target", tmp_path / "inner"
    target.mkdir()
    inner.mkdir()
    where = os.fsencode(target)
    naively("tar", tar(header(b"link", kind=b"2", link=where), file(b"link/escaped")), inner)
    assert (target / "escaped").read_bytes() == b"hostile\n"
    (target / "secret").write_text("secret")
    naively("tar", tar(header(b"hard", kind=b"1", link=where + b"/secret")), inner)
    assert (inner / "hard").read_text() == "secret"
    naively("zip", zip_of({"name": b"l", "content": where + b"/secret", "mode": stat.S_IFLNK | 0o777}), inner)
    assert (inner / "l").read_text() == "secret"
    naively("tar", tar(header(b"fifo", kind=b"6")), inner)
    assert stat.S_ISFIFO((inner / "fifo").lstat().st_mode)


@pytest.mark.root_only
def test_unpacked_without_care_devices_are_made(tmp_path: Path) -> None:
    with contextlib.suppress(PermissionError):  # in a container without CAP_MKNOD
        naively("tar", tar(header(b"null", kind=b"3")), tmp_path)
        assert stat.S_ISCHR((tmp_path / "null").lstat().st_mode)


# --- quotas ----------------------------------------------------------------------------------------

BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zip bomb": ("zip", lambda: plain_zip({"zeros": bytes(64 * MIB)})),
    "gzip bomb": ("tar.gz", lambda: gz(plain_tar({"zeros": bytes(64 * MIB)}))),
    "large tar": ("tar", lambda: plain_tar({f"f{n}": bytes(MIB) for n in range(16)})),
    "a size of 8 EiB": ("tar", lambda: tar(header(b"a", b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7))),
    "a pax size of 8 EiB": ("tar", lambda: tar(pax({"size": b"9223372036854775807"}), file(b"a"))),
    "many small files": ("tar.gz", lambda: gz(plain_tar({f"f{n}": b"" for n in range(3000)}))),
    "many folders": (
        "tar.gz", lambda: gz(tar(*(header(b"d%d/" % n, kind=b"5") for n in range(3000))))),
    "the same folder for ever": ("tar.gz", lambda: gz(tar(header(b"d/", kind=b"5") * 30_000))),
    "many files in a zip": ("zip", lambda: plain_zip({f"f{n}": b"" for n in range(3000)})),
    "a zip larger than the workspace": ("zip", lambda: plain_zip({"a": os.urandom(10 * MIB)})),
    "overlapping entries": (
        "zip",
        lambda: _overlapping(bytes(3 * MIB), 20)),
}  # fmt: skip


def _overlapping(content: bytes, count: int) -> bytes:
    """Many records for one entry: a name of every length cannot be had, so only the first is true."""
    return zip_of({"name": b"first", "content": content}, *({"name": b"n%d" % n, "content": content} for n in range(count)))  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("existing", [False, True])
def test_what_does_not_fit_is_refused_and_takes_no_room(driver: Driver, name: str, existing: bool) -> None:
    form, make = BOMBS[name]
    with driver.session(workspace_bytes=8 * MIB, workspace_inodes=1000) as session:
        if existing:
            session.run("open('zeros', 'w').write('old'); open('f0', 'w').write('old')")
        session.run(STATE + "s = state()\nu = os.statvfs('.')")
        with pytest.raises(errors.QuotaExceededError):
            unpack(driver, session, form, make(), "deep/folder")
        outcome = session.run(
            "v = os.statvfs('.'); state() == s, (u.f_bfree, u.f_ffree) == (v.f_bfree, v.f_ffree)"
        )
        assert outcome.results == [{"text/plain": "(True, True)"}]
        assert unpack(driver, session, "tar", plain_tar({"fits": bytes(4 * MIB)})) == ["fits"]


def test_a_workspace_that_user_code_fills_meanwhile(driver: Driver) -> None:
    archive = plain_tar({f"f{n}": bytes(MIB) for n in range(24)})
    filler = """
import os, time
end = time.monotonic() + 20
while not any(n.startswith('.onehop-') for n in os.listdir()) and time.monotonic() < end: pass
f = open('mine', 'wb')
try:
    while True: f.write(bytes(65536)); f.flush()
except OSError: print('full')
"""
    with driver.session(workspace_bytes=32 * MIB) as session:
        running = driver.submit(session.start(filler, timeout_s=30, grace_s=2))

        async def slowly() -> AsyncIterator[bytes]:
            async for piece in pieces(archive, MIB):
                yield piece
            # The last piece waits until the quota is used up.
            while not running.done():
                await asyncio_sleep()

        async def work(porter: Porter) -> Any:
            return await porter.unpack("", "tar", slowly(), timeout_s=UNPACK_S)

        with pytest.raises(errors.QuotaExceededError):
            with_porter(driver, session, work)
        assert running.result().stdout == "full\n"
        assert contents(session) == "['mine']"


async def asyncio_sleep() -> None:
    import asyncio

    await asyncio.sleep(0.01)


# --- what is carried ---------------------------------------------------------------------------------

TREE = {
    "a.txt": b"one\n",
    "d/b.bin": bytes(range(256)) * 3000,
    "d/e/ä é.txt": b"",
    "d/e/" + "n" * 150: b"long",
}
FORMATS = {
    "ustar": ("tar", lambda: plain_tar({k: v for k, v in TREE.items() if k.isascii()}, form=tarfile.USTAR_FORMAT)),
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
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, content in tree.items():
            with archive.open(name, "w", force_zip64=large) as entry:
                entry.write(content)
    return bytes(out.written)


@pytest.mark.parametrize("name", FORMATS)
def test_usual_archives_are_unpacked(driver: Driver, session: Session, name: str) -> None:
    form, make = FORMATS[name]
    archive = make()
    opened: Any = (
        zipfile.ZipFile(io.BytesIO(archive)) if form == "zip" else tarfile.open(fileobj=io.BytesIO(archive))
    )
    with opened:
        wanted = sorted(opened.namelist() if form == "zip" else opened.getnames())
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
            with_porter(
                driver, session, lambda porter, form=form: porter.unpack("n/m", form, broken(), timeout_s=9)
            )
        _wait_until_empty(session)


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


# --- delete and move ---------------------------------------------------------------------------------


def test_a_folder_is_deleted_however_deep_and_closed_it_is(driver: Driver, session: Session) -> None:
    session.run("""
import os
os.makedirs('keep'); open('keep/file', 'w').write('k'); os.makedirs('top/a'); top = os.getcwd()
os.chdir('top/a')
for n in range(1000):
    open('f', 'w').close(); os.mkdir('d' * 50); os.chdir('d' * 50)
os.chdir(top)
os.symlink('../keep', 'top/link'); os.mkfifo('top/fifo'); os.link('keep/file', 'top/hard')
os.makedirs('top/closed/inner'); open('top/closed/inner/x', 'w').close()
os.chmod('top/closed/inner', 0o500); os.chmod('top/closed', 0)
""")
    with pytest.raises(errors.NotARegularFileError, match="recursive"):
        with_porter(driver, session, lambda porter: porter.delete("top"))
    with_porter(driver, session, lambda porter: porter.delete("top", recursive=True))
    assert session.run("os.listdir(), open('keep/file').read()").results == [
        {"text/plain": "(['keep'], 'k')"}
    ]


def test_delete_with_a_racer_reaches_nothing_outside(driver: Driver, session: Session) -> None:
    running = driver.submit(session.start(RACER.format(seconds=3), timeout_s=40))

    async def work(porter: Porter) -> None:
        while not running.done():
            with contextlib.suppress(errors.ConflictError, errors.NotFoundError):
                await porter.delete("d", recursive=True)
            with contextlib.suppress(errors.ConflictError, errors.NotFoundError):
                await porter.move("d", "elsewhere/d")
            with contextlib.suppress(errors.ConflictError, errors.NotFoundError):
                await porter.move("elsewhere/d/passwd", "d/moved", overwrite=True)

    with_porter(driver, session, work)
    outcome = running.result()
    assert (outcome.status, outcome.stdout) == ("ok", "[] outside\n")


@pytest.mark.parametrize(
    ("path", "target", "error"),
    [
        ("../etc", "x", errors.InvalidPathError),
        ("file", "../x", errors.InvalidPathError),
        ("file", "/tmp/x", errors.InvalidPathError),
        ("file", "", errors.InvalidPathError),
        ("nothing", "new/x", errors.FileNotFoundInWorkspaceError),
        ("link", "new/x", errors.NotARegularFileError),
        ("hard", "new/x", errors.NotARegularFileError),
        ("fifo", "new/x", errors.NotARegularFileError),
        ("file", "folder", errors.ConflictError),
        ("file", "other", errors.ConflictError),
        ("file", "link", errors.ConflictError),
        ("file", "link/x", errors.NotARegularFileError),
        ("file", "other/x", errors.ProblemError),
        ("folder", "folder/new/x", errors.ConflictError),
        ("folder", "full", errors.ConflictError),
        ("folder", "file", errors.ConflictError),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_move_that_cannot_be_changes_nothing(
    driver: Driver, session: Session, path: str, target: str, error: type[Exception], overwrite: bool
) -> None:
    session.run(
        STATE
        + """
for name in ('file', 'other', 'hard'): open(name, 'w').write(name)
os.mkdir('folder'); os.makedirs('full'); open('full/x', 'w').close()
os.symlink('/etc', 'link'); os.mkfifo('fifo'); os.link('hard', 'hard2'); s = state()
"""
    )
    if (target, overwrite) == ("other", True):
        with_porter(driver, session, lambda porter: porter.move(path, target, overwrite=True))
        assert session.run("open('other').read()").results == [{"text/plain": "'file'"}]
        return
    with pytest.raises(error):
        with_porter(driver, session, lambda porter: porter.move(path, target, overwrite=overwrite))
    assert session.run("state() == s").results == [{"text/plain": "True"}]


def test_a_file_with_any_time_is_listed(driver: Driver, session: Session) -> None:
    session.run("""
import os
for name, when in (('past', -(1 << 62)), ('future', 1 << 62), ('zero', 0)):
    open(name, 'w').close()
    try: os.utime(name, (when, when))
    except OSError: pass
""")
    entries, _ = with_porter(driver, session, lambda porter: porter.list())
    assert [entry.path for entry in entries] == ["future", "past", "zero"]


def test_a_listing_of_one_folder_and_of_very_long_names(driver: Driver) -> None:
    with driver.session() as session:
        session.run(
            """
import os
folder = '/'.join(['é' * 100] * 4)
os.makedirs(folder); os.makedirs('other'); open('other/x', 'w').close()
for n in range(9900): open(f'{folder}/{n:0100}', 'w').close()
""",
            timeout_s=60,
        )
        entries, truncated = with_porter(driver, session, lambda porter: porter.list("other"))
        assert ([entry.path for entry in entries], truncated) == (["other/x"], False)
        entries, truncated = with_porter(driver, session, lambda porter: porter.list())
        assert truncated
        assert 1000 < len(entries) < 9901


def test_the_reader_and_zipfile_agree(tmp_path: Path) -> None:
    """The archives of this file are what they claim: the standard library reads those that are whole."""
    for name, (form, make) in FORMATS.items():
        path = tmp_path / "archive"
        path.write_bytes(make())
        assert (
            (zipfile.is_zipfile(path), name)
            if form == "zip"
            else (tarfile.is_tarfile(path), name) == (True, name)
        )
    assert archives.END == bytes(1024)
