"""A session's life through the SDK: made once, shared, changed, ended, and what is said afterwards."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytest

import onehop
from onehop import errors
from tests.client.faces import Face


async def test_it_is_made_at_its_first_use_and_once(face: Face, url: str, client: Any) -> None:
    before = {one.id for one in await client.sessions()}
    session = face.session(url, metadata={"who": "me"})
    assert session.id == ""
    await asyncio.gather(session.info(), session.info(), session.info())
    found = {one.id: one for one in await client.sessions()}
    assert found.keys() - before == {session.id}
    assert found[session.id].metadata == {"who": "me"}
    await session.close()
    assert session.id not in {one.id for one in await client.sessions()}


async def test_an_ended_session_says_why(face: Face, url: str, client: Any) -> None:
    session = face.session(url, idle_timeout_s=0.1)
    async with session:
        while session.id in {one.id for one in await client.sessions()}:
            await asyncio.sleep(0.05)
        with pytest.raises(errors.SessionEndedError) as caught:
            await session.info()
    assert caught.value.status == 410
    assert caught.value.extra["reason"]


async def test_options_and_what_the_server_says(face: Face, url: str) -> None:
    async with face.session(url, memory_mb=256, idle_timeout_s=100, max_age_s=1000, pinned=True) as session:
        info = await session.info()
    assert info.id == session.id
    assert (info.status, info.pinned, info.limits["memory_mb"]) == ("idle", True, 256)
    assert (info.idle_timeout_s, info.max_age_s) == (100, 1000)
    assert info.created_at.tzinfo is not None


async def test_lifetimes_can_be_changed(session: Any) -> None:
    soon = await session.extend(500)
    left = soon.expires_at - datetime.datetime.now(datetime.UTC)
    assert 400 < left.total_seconds() <= 501
    assert (await session.pin()).pinned is True
    assert (await session.pin(False)).pinned is False
    changed = await session.change(idle_timeout_s=77, metadata={"a": "b"})
    assert (changed.idle_timeout_s, changed.metadata) == (77, {"a": "b"})


async def test_attached_it_lives_on(face: Face, url: str, session: Any, client: Any) -> None:
    await session.run("x = 5")
    async with face.attach(session.id, url) as other:
        assert (await other.run("x")).text == "5"
    shared = client.attach(session.id)
    assert (await shared.run("x + 1")).text == "6"
    await client.attach(session.id).close()
    with pytest.raises(errors.SessionEndedError):
        await session.run("x")


async def test_a_client_shares_its_connections(client: Any) -> None:
    async with client.session() as one, client.session() as two:
        results = await asyncio.gather(one.run("a = 1; 'a' in dir()"), two.run("'a' in dir()"))
        assert [result.text for result in results] == ["True", "False"]
    assert (await client.info())["version"] == onehop.__version__


async def test_files(session: Any, tmp_path: Path) -> None:
    files = session.files
    assert (await files.write("a/b ü?#%.txt", "tëxt")).bytes == 5
    assert await files.read("a/b ü?#%.txt") == "tëxt".encode()
    local = tmp_path / "big.bin"
    local.write_bytes(bytes(range(256)) * 8192)
    assert (await files.upload(local)).path == "big.bin"
    assert (await files.upload(local, "c/other.bin")).bytes == 2 << 20
    with local.open("rb") as opened:
        assert (await files.write("opened.bin", opened)).bytes == 2 << 20
    assert (await files.write("pieces", iter([b"a", b"b"]))).bytes == 2
    listed = await files.list()
    assert [one.path for one in listed] == ["a/b ü?#%.txt", "big.bin", "c/other.bin", "opened.bin", "pieces"]
    assert listed.truncated is False
    got = await files.download("c/other.bin", tmp_path)
    assert got == tmp_path / "other.bin"
    assert got.read_bytes() == local.read_bytes()
    assert (await files.download("pieces", tmp_path / "named")).read_bytes() == b"ab"
    await files.delete("pieces")
    with pytest.raises(errors.FileNotFoundInWorkspaceError):
        await files.download("pieces", tmp_path / "never")
    assert sorted(os.listdir(tmp_path)) == ["big.bin", "named", "other.bin"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a/./b", "", "a//b"])
async def test_a_bad_path_is_refused_by_the_server(session: Any, path: str) -> None:
    with pytest.raises(errors.ProblemError) as caught:
        await session.files.write(path, "x")
    assert caught.value.status in (404, 405, 422)
    assert await session.files.list() == []


async def test_a_text_file_is_refused(session: Any, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a")
    with (tmp_path / "t").open() as opened:
        with pytest.raises(TypeError, match="binary"):
            await session.files.write("t", opened)


async def test_folders(session: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "a.txt").write_text("a")
    (source / "deep" / "er" / "b.bin").write_bytes(bytes(range(256)) * 3000)
    (source / "link").symlink_to("/etc/passwd")
    files = session.files
    sent = await files.upload_tree(source, "in")
    assert [one.path for one in sent] == ["in/a.txt", "in/deep/er/b.bin"]
    listed = await files.list("in/deep")
    assert [(one.path, one.bytes) for one in listed] == [("in/deep/er/b.bin", 768_000)]
    assert abs(listed[0].modified_at.timestamp() - time.time()) < 600
    assert (await files.move("in/deep", "out")).path == "out"
    got = await files.download_tree(tmp_path / "back", "out")
    assert got == [tmp_path / "back/er/b.bin"]
    assert got[0].read_bytes() == (source / "deep/er/b.bin").read_bytes()
    await files.write("taken", "x")
    with pytest.raises(errors.ConflictError):
        await files.move("taken", "in/a.txt")
    await files.move("taken", "in/a.txt", overwrite=True)
    with pytest.raises(errors.ProblemError):
        await files.delete("in")
    await files.delete("in", recursive=True)
    whole = await files.download_tree(tmp_path / "all")
    assert [path.relative_to(tmp_path / "all").as_posix() for path in whole] == ["out/er/b.bin"]


async def test_environments(client: Any) -> None:
    (default,) = [one for one in await client.environments() if one.default]
    assert (default.name, default.ready) == ("default", True)
    assert "pandas" in default.packages


async def test_import_rules(face: Face, url: str, client: Any) -> None:
    async with face.session(url, imports={"allow": ["json"]}) as session:
        assert (await session.run("import json; 1")).text == "1"
        assert "imports.allow" in (await session.run("import os")).error.value
    assert "imports.deny" in (await client.run("import os", imports={"deny": ["os"]})).error.value
