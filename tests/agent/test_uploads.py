"""Uploaded files: whole or not at all, owners apart, limits, and what a gateway that died leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onehop import config
from onehop.agent.uploads import Uploads
from onehop.config import MIB
from onehop.errors import InvalidRequestError, QuotaExceededError, TooLargeError, UploadNotFoundError
from onehop.sessions.caller import Caller
from onehop.store import Store

A, B = Caller(owner="a"), Caller(owner="b")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open("", tmp_path / "state")
    yield store
    store.close()


@pytest.fixture
async def uploads(store: Store, tmp_path: Path) -> AsyncIterator[Uploads]:
    settings = dataclasses.replace(config.load(environ={}), home=tmp_path, upload_mb=1, uploads_mb=2)
    async with Uploads(settings, store) as uploads:
        yield uploads


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def content(uploads: Uploads, caller: Caller, upload: str) -> bytes:
    async with uploads.read(caller, upload) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


def files(tmp_path: Path) -> list[str]:
    return [one.name for one in (tmp_path / "state" / "uploads").iterdir()]


async def test_a_file_comes_back(uploads: Uploads, tmp_path: Path) -> None:
    row = await uploads.create(A, "data.csv", pieces(b"a,b\n", b"1,2\n"), purpose="user_data")
    assert (row.name, row.bytes, row.purpose) == ("data.csv", 8, "user_data")
    assert await uploads.get(A, row.id) == row
    assert await uploads.list(A) == [row]
    assert await content(uploads, A, row.id) == b"a,b\n1,2\n"
    assert files(tmp_path) == [row.id]
    await uploads.delete(A, row.id)
    assert files(tmp_path) == []
    with pytest.raises(UploadNotFoundError):
        await uploads.get(A, row.id)


async def test_another_owner_sees_nothing(uploads: Uploads) -> None:
    row = await uploads.create(A, "data.csv", pieces(b"secret"))
    assert await uploads.list(B) == []
    with pytest.raises(UploadNotFoundError):
        await uploads.get(B, row.id)
    with pytest.raises(UploadNotFoundError):
        await content(uploads, B, row.id)
    with pytest.raises(UploadNotFoundError):
        await uploads.delete(B, row.id)
    assert await content(uploads, A, row.id) == b"secret"


@pytest.mark.parametrize("upload", ["../onehop.db", "file_x/../../onehop.db", "", "\0"])
async def test_an_id_is_no_path(uploads: Uploads, upload: str) -> None:
    with pytest.raises(UploadNotFoundError):
        await content(uploads, A, upload)
    with pytest.raises(UploadNotFoundError):
        await uploads.delete(A, upload)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("a" * 300 + ".csv", "a" * 251 + ".csv"),
        ("bericht.csv", "bericht.csv"),
    ],
)
async def test_names_lose_their_folders(uploads: Uploads, given: str, name: str) -> None:
    assert (await uploads.create(A, given, pieces(b"x"))).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "a/", "a\nb", "a\0b", "\ud800"])
async def test_what_is_no_name(uploads: Uploads, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        await uploads.create(A, name, pieces(b"x"))
    assert files(tmp_path) == []


async def test_limits_leave_nothing_behind(uploads: Uploads, tmp_path: Path) -> None:
    with pytest.raises(TooLargeError):
        await uploads.create(A, "big", pieces(bytes(MIB), b"x"))
    first = await uploads.create(A, "one", pieces(bytes(MIB)))
    await uploads.create(A, "two", pieces(bytes(MIB - 10)))
    with pytest.raises(QuotaExceededError):
        await uploads.create(A, "three", pieces(bytes(5), bytes(6)))
    await uploads.create(B, "other", pieces(bytes(100)))
    await uploads.create(A, "three", pieces(bytes(10)))
    assert len(files(tmp_path)) == 4
    await uploads.delete(A, first.id)
    await uploads.create(A, "four", pieces(bytes(MIB)))


async def test_a_client_that_goes_away_leaves_nothing(uploads: Uploads, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(QuotaExceededError):  # as any OSError
        await uploads.create(A, "half", broken())
    assert files(tmp_path) == []
    assert uploads._receiving == {}


async def test_leftovers_and_expired_files_are_removed(uploads: Uploads, tmp_path: Path) -> None:
    kept = await uploads.create(A, "kept", pieces(b"x"))
    short = await uploads.create(A, "short", pieces(b"x"), ttl_s=0.0)
    (tmp_path / "state" / "uploads" / "file_of_a_dead_gateway").write_bytes(b"half")
    with pytest.raises(UploadNotFoundError):
        await uploads.get(A, short.id)
    assert [row.id for row in await uploads.list(A)] == [kept.id]
    await uploads._tidy()
    assert files(tmp_path) == [kept.id]
