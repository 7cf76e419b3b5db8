"""Archives in and out of a workspace: a hostile one is refused by name, and nothing of it stays.

Each hostile archive that aims outside has a control: unpacked without care it does harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from onehop import errors
from onehop.supervisor.porter import Porter
from tests.driver import Driver, Session
from tests.security.carrying import (
    MIB,
    STATE,
    UNPACK_S,
    contents,
    file,
    gz,
    header,
    pax,
    pieces,
    plain_tar,
    plain_zip,
    tar,
    unpack,
    with_porter,
    zip_of,
)

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
    "tar: endless pax": ("tar", tar(header(b"Pax", 1 << 32, kind=b"x")), "longer than"),
    "tar: two pax headers": ("tar", tar(pax({"path": b"a"}), pax({"path": b"b"}), file(b"c")), "follow each other"),
    "tar: broken pax": ("tar", tar(file(b"P", b"999 path=a\n", kind=b"x"), file(b"c")), "broken"),
    "tar: a header hidden by a pax size": (
        "tar", tar(pax({"size": b"0"}), file(b"a", header(b"../escaped", 8) + b"hostile\n")), "contains '..'"),
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
    "zip: two records for one entry": ("zip", zip_of({"name": b"a"}, {"name": b"b", "offset": 0}), "different names"),
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
        trusting: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}
        opened.extractall(folder, **trusting)


ESCAPES = {
    "tar: parent": "escaped",
    "tar: parent by prefix": "escaped",
    "tar: parent by pax": "escaped",
    "tar: parent by GNU long name": "x" * 120,
    "tar: a header hidden by a pax size": "escaped",
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
    "large files in a zip": ("zip", lambda: plain_zip({f"f{n}": bytes(3 * MIB) for n in range(20)})),
}  # fmt: skip


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
                await asyncio.sleep(0.01)

        async def work(porter: Porter) -> Any:
            return await porter.unpack("", "tar", slowly(), timeout_s=UNPACK_S)

        with pytest.raises(errors.QuotaExceededError):
            with_porter(driver, session, work)
        assert running.result().stdout == "full\n"
        assert contents(session) == "['mine']"
