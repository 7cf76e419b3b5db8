"""The folder of `onehop run`: only what a run wrote is replaced, and nothing is written outside of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onehop.cli.folder import MANIFEST, Folder
from onehop.cli.terminal import printable, visible
from onehop.errors import EngineError


async def content(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


def names(path: Path, pattern: str = "*") -> list[str]:
    return sorted(found.name for found in path.glob(pattern))


async def run_that_writes(path: Path, **files: str) -> list[str]:
    folder = Folder(path)
    for name, text in files.items():
        await folder.write(name.replace("_", "."), content(text))
    return folder.listing()


async def test_a_file_of_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    await run_that_writes(tmp_path / "out", a_csv="old")
    listing = await run_that_writes(tmp_path / "out", a_csv="newer")
    assert (tmp_path / "out/a.csv").read_text() == "newer"
    assert listing == [f"onehop: written to {tmp_path}/out/", "  a.csv        5 B"]


async def test_a_file_that_somebody_changed_since_is_kept(tmp_path: Path) -> None:
    await run_that_writes(tmp_path, a_csv="old")
    (tmp_path / "a.csv").write_text("my notes")
    listing = await run_that_writes(tmp_path, a_csv="new")
    assert (tmp_path / "a.csv").read_text() == "my notes"
    assert (tmp_path / "a-1.csv").read_text() == "new"
    assert listing[1].endswith("(instead of a.csv, which is there and not from a run)")


async def test_a_file_that_no_run_wrote_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    (tmp_path / "a-1.csv").write_text("mine too")
    for _ in range(2):
        await run_that_writes(tmp_path, a_csv="new")
    assert names(tmp_path, "a*") == ["a-1.csv", "a-2.csv", "a.csv"]
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert (tmp_path / "a-2.csv").read_text() == "new"


async def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "target").write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.csv").symlink_to(outside / "target")
    (out / "dir").symlink_to(outside)
    folder = Folder(out)
    await folder.write("a.csv", content("new"))
    await folder.write("dir/target", content("new"))
    assert (outside / "target").read_text() == "precious"
    assert names(outside) == ["target"]
    assert (out / "dir-1/target").read_text() == "new"


async def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    folder = Folder(tmp_path)
    await folder.write("a/b/c.txt", content("new"))
    assert (tmp_path / "a-1/b/c.txt").read_text() == "new"
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a\0b", "a//b"])
async def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(EngineError):
        await Folder(tmp_path / "out").write(path, content("new"))
    assert names(tmp_path) == []


async def test_the_manifest_cannot_be_written_by_the_code(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.write(MANIFEST, content('{"precious": [1, 2]}'))
    assert "precious" not in (tmp_path / MANIFEST).read_text()


async def test_a_transfer_that_breaks_leaves_the_old_file(tmp_path: Path) -> None:
    await run_that_writes(tmp_path, a_csv="old")

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise EngineError("the sandbox ended")

    with pytest.raises(EngineError):
        await Folder(tmp_path).write("a.csv", broken())
    assert (tmp_path / "a.csv").read_text() == "old"
    assert names(tmp_path) == [MANIFEST, "a.csv"]


async def test_a_name_cannot_forge_lines_of_the_listing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.write("a\n  b.csv\x1b[2J", content("x"))
    assert folder.listing()[1].startswith("  a\\n  b.csv\\x1b[2J  ")
    assert printable("Zürich\u202e.csv") == "Zürich\\u202e.csv"


def test_a_terminal_gets_colours_and_no_other_sequence() -> None:
    assert visible("\x1b[31mred\x1b[0m\tä\n") == "\x1b[31mred\x1b[0m\tä\n"
    assert visible("\x1b]52;c;aGk=\x07") == "\\x1b]52;c;aGk=\\x07"
    assert visible("\x1b[2J\x9b1A") == "\\x1b[2J\\x9b1A"
