"""The writers of archives: other programs read what they write, also beyond the first formats' bounds."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from onehop import protocol
from onehop.zygote import makezip, pack

TREE = {
    "a.txt": b"one\n",
    "empty": b"",
    "d/" + "x" * 95: b"short enough",
    "d/e/" + "y" * 200: b"long",
    "ä/é" + "ö" * 60: b"not ascii",
    "big": os.urandom(700_000),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in TREE.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.utime(tmp_path / "tree" / "empty", (1e9, 1e9))
    os.chmod(tmp_path / "tree" / "empty", 0o750)
    (tmp_path / "tree" / "nothing in it").mkdir()
    return tmp_path / "tree"


def packed(folder: Path, form: str) -> bytes:
    pieces: list[bytes] = []
    fd = os.open(folder, os.O_RDONLY)
    try:
        pack.pack(fd, form, pieces.append)
    finally:
        os.close(fd)
    assert all(len(piece) == protocol.PORTER_CHUNK_BYTES for piece in pieces[:-1])
    return b"".join(pieces)


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_tarfile_and_tar_read_it(folder: Path, tmp_path: Path, form: str) -> None:
    archive = packed(folder, form)
    assert form != "tar" or len(archive) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = {member.name: member for member in opened}
        assert found["nothing in it"].isdir()
        assert (found["empty"].mtime, found["empty"].mode) == (1_000_000_000, 0o750)
        for name, content in TREE.items():
            file = opened.extractfile(name)
            assert file is not None
            assert file.read() == content
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-x", *(["-z"] if form == "tar.gz" else [])], input=archive, cwd=out, check=True)
    assert (out / "nothing in it").is_dir()
    assert {name: (out / name).read_bytes() for name in TREE} == TREE


# Bounds so low that everything is large: the fields of 64 bits then hold small numbers.
BOUNDS: dict[str, dict[str, int]] = {
    "usual": {},
    "large files": {"LARGE_FILE_BYTES": 1},
    "large values in the directory": {"LARGE": 3},
    "many entries": {"MANY": 2},
    "everything": {"LARGE_FILE_BYTES": 0, "LARGE": 0, "MANY": 0},
}


@pytest.mark.parametrize("name", BOUNDS)
def test_zipfile_and_unzip_read_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for bound, value in BOUNDS[name].items():
        monkeypatch.setattr(makezip, bound, value)
    path = tmp_path / "archive.zip"
    path.write_bytes(packed(folder, "zip"))
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert {one for one in opened.namelist() if not one.endswith("/")} == set(TREE)
        assert "nothing in it/" in opened.namelist()
        assert {one: opened.read(one) for one in TREE} == TREE
        info = opened.getinfo("empty")
        assert (info.date_time, info.external_attr >> 16) == ((2001, 9, 9, 1, 46, 40), 0o100750)
    unzip = shutil.which("unzip")
    if unzip is not None:
        done = subprocess.run([unzip, "-tqq", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_more_entries_than_16_bits_count(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(66_000):
        (tree / str(number)).touch()
    with zipfile.ZipFile(io.BytesIO(packed(tree, "zip"))) as opened:
        assert len(opened.namelist()) == 66_000


@pytest.mark.parametrize("size_bytes", [8**11 - 1, 8**11, 1 << 50])
@pytest.mark.parametrize("modified_s", [0, 8**11])
def test_numbers_that_no_ustar_header_holds(size_bytes: int, modified_s: int) -> None:
    header = pack.tar_header("huge", b"0", size_bytes, 0o644, modified_s)
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024)), mode="r|") as opened:
        member = opened.next()
        assert member is not None
        assert (member.name, member.size, member.mtime) == ("huge", size_bytes, modified_s)


@pytest.mark.parametrize("length", [1, 99, 100, 101, 255, 500, 980, 1000])
def test_names_of_every_length(length: int) -> None:
    """Around 10, 100 and 1000 bytes the length of a pax record gets a digit more."""
    for name in range(length, length + 12):
        header = pack.tar_header("n" * name, b"0", 0, 0o644, 0)
        with tarfile.open(fileobj=io.BytesIO(header + bytes(1024))) as opened:
            assert opened.getnames() == ["n" * name]
