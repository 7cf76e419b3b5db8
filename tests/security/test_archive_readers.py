"""The readers of archives, fed with damage: they read or refuse, in one way, and never hold more than they should."""

from __future__ import annotations

import io
import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from onehop.zygote import untar, unzip
from onehop.zygote.untar import Member
from onehop.zygote.workspace import Refused
from tests.security.carrying import file, gz, header, pax, plain_tar, plain_zip, tar
from tests.security.test_archive_trees import FORMATS, TREE
from tests.security.test_archives import HOSTILE

SEEDS = [(form, make()) for form, make in FORMATS.values()] + [
    (form, archive) for form, archive, _ in HOSTILE.values() if len(archive) < 100_000
]
ROUNDS = 4000


def members(form: str, archive: bytes, folder: Path) -> Iterator[Member]:
    if form == "zip":
        path = folder / "archive"
        path.write_bytes(archive)
        fd = os.open(path, os.O_RDONLY)
        try:
            yield from unzip.members(fd)
        finally:
            os.close(fd)
        return
    read = io.BytesIO(archive).read
    opened = untar.Gunzipped(read) if form == "tar.gz" else read
    yield from untar.members(opened)
    untar.finish(opened)


def read_all(form: str, archive: bytes, folder: Path) -> dict[str, bytes]:
    found = {}
    for member in members(form, archive, folder):
        assert member.size_bytes >= 0
        content = b"".join(member.content)
        assert len(content) == member.size_bytes
        found[member.path] = content
    return found


def damaged(archive: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, cut, doubled or moved; often with values that mean something."""
    raw = bytearray(archive)
    for _ in range(chance.randint(1, 4)):
        if not raw:
            break
        # The ends are where headers and directories stand.
        place = chance.choice([chance.randrange(len(raw)), chance.randrange(min(len(raw), 600)),
                               len(raw) - 1 - chance.randrange(min(len(raw), 400))])  # fmt: skip
        match chance.randrange(6):
            case 0:
                raw[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, 0x2F, 0x2E, chance.randrange(256)])
            case 1:
                raw[place : place + 4] = chance.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"]
                )
            case 2:
                del raw[place:]
            case 3:
                del raw[place : place + chance.choice([1, 2, 512])]
            case 4:
                raw[place:place] = raw[place : place + chance.choice([1, 22, 46, 512])]
            case 5:
                raw[place : place + 8] = b"%08o" % chance.randrange(1 << 24)
    return bytes(raw)


def resealed(archive: bytes) -> bytes:
    """Tar headers with true checksums again: otherwise most damage would stop there."""
    blocks = [archive[start : start + 512] for start in range(0, len(archive), 512)]
    return b"".join(
        block[:148] + b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:]) + block[156:]
        if len(block) == 512 and any(block)
        else block
        for block in blocks
    )


def test_damage_is_read_or_refused_in_one_way(tmp_path: Path) -> None:
    chance = random.Random(20261122)
    refusals = []
    for _ in range(ROUNDS):
        form, archive = chance.choice(SEEDS)
        broken = damaged(archive, chance)
        if form == "tar" and chance.random() < 0.7:
            broken = resealed(broken)
        if form == "tar.gz" and chance.random() < 0.5:
            broken = gz(resealed(damaged(plain_tar(TREE), chance)))
        try:
            read_all(form, broken, tmp_path)
        except Refused as error:
            refusals.append(error)
    assert {error.error for error in refusals} == {"bad_archive"}
    assert max(len(str(error)) for error in refusals) < 1000
    assert len(refusals) > ROUNDS // 4


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_whole_is_read(tmp_path: Path, name: str) -> None:
    """The control: without damage they read what was packed."""
    form, make = FORMATS[name]
    found = read_all(form, make(), tmp_path)
    assert {path: TREE[path] for path in found} == found


GREEDY = {
    "gzip bomb": ("tar.gz", gz(plain_tar({"zeros": bytes(64 << 20)}))),
    "zip bomb": ("zip", plain_zip({"zeros": bytes(64 << 20)})),
    "a long name of 64 MiB": ("tar", tar(file(b"L", b"x" * (64 << 20), kind=b"L"), file(b"a"))),
    "a pax header of 64 MiB": ("tar", tar(pax({"comment": b"x" * (64 << 20)}), file(b"a"))),
    "a file of 64 MiB": ("tar", plain_tar({"zeros": bytes(64 << 20)})),
    "30 000 folders": ("tar", tar(header(b"d/", kind=b"5") * 30_000)),
    "20 000 entries": ("zip", plain_zip({str(n): b"" for n in range(20_000)})),
}


@pytest.mark.parametrize("name", GREEDY)
def test_no_archive_makes_a_reader_greedy(tmp_path: Path, name: str) -> None:
    form, archive = GREEDY[name]
    reading = members(form, archive, tmp_path)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            for member in reading:
                for _ in member.content:
                    pass
        except Refused:
            pass
        assert tracemalloc.get_traced_memory()[1] - before < 4 << 20
    finally:
        tracemalloc.stop()
