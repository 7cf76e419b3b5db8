"""The logic without input and output: events from any pieces, problems of any type, trees that are not trusted."""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onehop import errors
from onehop.client import transfers
from onehop.client.events import Parser
from onehop.client.requests import check, path_of
from onehop.client.steps import Reply

STREAM = b": keep-alive\n\n" + b"".join(
    b"id: %d\nevent: stdout\ndata: %b\n\n" % (number, json.dumps({"text": text}).encode())
    for number, text in enumerate(("a", "ü\u2028\r", "x" * 300, ""), 1)
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_events_come_out_of_any_pieces(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = Parser()
    events = [event for start, end in itertools.pairwise(edges) for event in parser.feed(STREAM[start:end])]
    assert events == [(n, "stdout", {"text": t}) for n, t in enumerate(("a", "ü\u2028\r", "x" * 300, ""), 1)]


def problem(status: int, kind: str, **more: object) -> Reply:
    document = {
        "type": f"urn:onehop:problem:{kind}",
        "title": "Title",
        "status": status,
        "detail": "why",
        **more,
    }
    return Reply(status, {"retry-after": "7"}, json.dumps(document).encode())


@pytest.mark.parametrize("known", errors.PROBLEMS, ids=lambda one: one.type)
def test_every_problem_is_its_exception(known: type[errors.ProblemError]) -> None:
    with pytest.raises(known, match="why") as caught:
        check(problem(known.status, known.type, field="x"))
    assert type(caught.value) is known
    assert (caught.value.extra, caught.value.retry_after_s) == ({"field": "x"}, 7)


def test_an_unknown_problem_is_the_nearest_exception() -> None:
    with pytest.raises(errors.NotFoundError) as caught:
        check(problem(404, "teapot-not-found", pot=1))
    assert (caught.value.type, caught.value.title, caught.value.extra) == (
        "teapot-not-found",
        "Title",
        {"pot": 1},
    )
    assert caught.value.document()["type"] == "urn:onehop:problem:teapot-not-found"
    with pytest.raises(errors.ProblemError) as strange:
        check(problem(418, "teapot"))
    assert (type(strange.value), strange.value.status) == (errors.ProblemError, 418)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"type": 5}', b'"x"', b"\xff"])
def test_what_is_no_problem_document_is_said(body: bytes) -> None:
    with pytest.raises(errors.UnreachableError, match="no server of onehop"):
        check(Reply(500, {}, body))


def test_dots_and_odd_characters_reach_the_server() -> None:
    assert (
        path_of("sessions", "s", "files", "../a b#?/.\n") == "/api/sessions/s/files/%2E%2E/a%20b%23%3F/.%0A"
    )


def tar_of(**members: tuple[bytes, bytes]) -> io.BytesIO:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, (kind, content) in members.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            archive.addfile(info, io.BytesIO(content))
    raw.seek(0)
    return raw


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "link/out"])
def test_an_archive_cannot_write_outside(tmp_path: Path, name: str) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "link").symlink_to(outside)
    with pytest.raises(errors.InvalidPathError):
        transfers.unpack(tar_of(**{name: (tarfile.REGTYPE, b"x")}), target)
    assert os.listdir(outside) == []
    assert not (tmp_path / "out").exists()


def test_an_archive_makes_files_and_folders_only(tmp_path: Path) -> None:
    archive = tar_of(
        **{
            "s": (tarfile.SYMTYPE, b"/etc"),
            "s/passwd": (tarfile.REGTYPE, b"x"),
            "h": (tarfile.LNKTYPE, b"s/passwd"),
            "d": (tarfile.DIRTYPE, b""),
            "p": (tarfile.FIFOTYPE, b""),
        }
    )
    made = transfers.unpack(archive, tmp_path / "t")
    assert made == [tmp_path / "t/s/passwd"]
    assert sorted(os.listdir(tmp_path / "t")) == ["d", "s"]
    assert (tmp_path / "t/s/passwd").read_bytes() == b"x"


def test_a_tree_is_packed_in_pieces(tmp_path: Path) -> None:
    big = os.urandom(3 * transfers.CHUNK_BYTES + 11)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/big").write_bytes(big)
    (tmp_path / ("n" * 200)).write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a/b/big", tmp_path / "hard")
    source = transfers.tree(tmp_path)
    pieces = list(source.open())
    assert max(map(len, pieces)) <= transfers.CHUNK_BYTES + 20_480
    assert b"".join(source.open()) == b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.getnames() == ["a", "hard", "n" * 200, "a/b", "a/b/big"]
        for name in ("hard", "a/b/big"):
            content = archive.extractfile(name)
            assert content is not None
            assert content.read() == big
