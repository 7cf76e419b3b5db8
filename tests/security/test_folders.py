"""Folders are listed, moved and deleted while hostile code runs beside: nothing outside is reached."""

from __future__ import annotations

import contextlib

import pytest

from onehop import errors
from onehop.supervisor.porter import Porter
from tests.driver import Driver, Session
from tests.security.carrying import (
    STATE,
    with_porter,
)
from tests.security.test_porter import RACER

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
        ("file", "link/x", errors.ConflictError),
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
