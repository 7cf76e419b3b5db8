"""The store: tables as migrated, batches, a full disk, retention."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from onehop.errors import ConfigurationError, QuotaExceededError
from onehop.store import Finished, SessionRow, Store
from onehop.store.database import open_database
from onehop.store.migrations import HEAD
from onehop.store.tables import metadata


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open("", tmp_path)
    yield store
    store.close()


def finished(name: str, size: int = 10, started_at: float | None = None) -> Finished:
    now = time.time() if started_at is None else started_at
    return Finished(name, "", None, "ok", now, now + 1, lambda: (b"d" * size, b"\x90"))


def session_row(name: str) -> SessionRow:
    return SessionRow(name, "", "sbx1", "default", b"{}", time.time())


def test_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    engine = open_database("", tmp_path)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", "onehop.store:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_the_database_is_for_its_user_only(tmp_path: Path) -> None:
    open_database("", tmp_path / "state").dispose()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    for file in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    engine = open_database("", tmp_path)
    with engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    engine.dispose()
    with pytest.raises(ConfigurationError, match="9999"):
        open_database("", tmp_path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "onehop.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        open_database("", tmp_path)


async def test_started_then_finished(store: Store) -> None:
    stored: list[str] = []
    store.on_stored = stored.extend
    store.started("exe_1", "", "ses_1", 1.0)
    await store.flush()
    assert [row.id for row in await store.running()] == ["exe_1"]
    store.finished(finished("exe_1"))
    store.started("exe_2", "", None, 2.0)  # begins and ends within one batch
    store.finished(finished("exe_2"))
    await store.flush()
    assert await store.running() == []
    found = await store.execution("exe_1")
    assert found is not None
    assert (found.status, found.session, found.document, found.events) == ("ok", "ses_1", b"d" * 10, b"\x90")
    assert await store.execution("exe_3") is None
    async with asyncio.timeout(30):
        while stored != ["exe_1", "exe_2"]:  # told on the loop, after the commit
            await asyncio.sleep(0.001)


async def test_results_are_committed_without_anybody_asking(store: Store) -> None:
    committed = asyncio.Event()
    store.on_stored = lambda _: committed.set()
    store.finished(finished("exe_1"))
    async with asyncio.timeout(30):
        await committed.wait()


async def test_withdrawn_before_and_after_the_commit(store: Store) -> None:
    store.started("exe_1", "", None, 1.0)
    store.withdrawn("exe_1")
    store.started("exe_2", "", None, 1.0)
    await store.flush()
    store.withdrawn("exe_2")
    await store.flush()
    assert await store.running() == []
    assert await store.execution("exe_2") is None


async def test_sessions(store: Store) -> None:
    await store.add_session(session_row("ses_1"))
    await store.add_session(session_row("ses_2"))
    store.end_session("ses_1", "deleted")
    store.end_session("ses_1", "expired")  # the first reason stays
    await store.flush()
    assert [row.id for row in await store.live_sessions()] == ["ses_2"]
    ended = await store.session("ses_1")
    assert ended is not None
    assert ended.reason == "deleted"
    assert ended.ended_at is not None


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store.open("", tmp_path)
    store.started("exe_1", "", None, 1.0)
    store.finished(finished("exe_2"))
    store.close()
    store = Store.open("", tmp_path)
    assert [row.id for row in await store.running()] == ["exe_1"]
    assert await store.execution("exe_2") is not None
    store.finished(finished("exe_1"))  # known to be in the database: updated, not inserted again
    await store.flush()
    assert await store.running() == []
    store.close()


async def test_a_full_disk_refuses_new_work_and_loses_nothing(store: Store) -> None:
    stored: asyncio.Queue[str] = asyncio.Queue()
    store.on_stored = lambda names: stored.put_nowait(names[0])
    await store.add_session(session_row("ses_1"))
    connection = store._writer  # the limit of pages is one of the writer's connection
    job = connection.job(lambda one: _limit_pages(one, 30), wait=True)
    connection.wake()
    assert job is not None
    await asyncio.wrap_future(job)
    store.finished(finished("exe_big", size=1_000_000))
    with pytest.raises(QuotaExceededError):
        await store.flush()
    with pytest.raises(QuotaExceededError):
        store.check_writable()
    with pytest.raises(QuotaExceededError):
        await store.add_session(session_row("ses_2"))
    assert [row.id for row in await store.live_sessions()] == ["ses_1"], "reads go on"
    assert stored.empty()
    connection._batch.jobs.append((lambda one: _limit_pages(one, 1_000_000), None))  # room again
    async with asyncio.timeout(10):
        assert await stored.get() == "exe_big"
    store.check_writable()
    found = await store.execution("exe_big")
    assert found is not None
    assert found.document is not None
    assert len(found.document) == 1_000_000


def _limit_pages(connection: object, pages: int) -> None:
    connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # type: ignore[attr-defined]


async def test_old_and_surplus_results_are_forgotten(store: Store) -> None:
    now = time.time()
    store.finished(finished("exe_old", started_at=now - 1000))
    for number in range(5):
        store.finished(finished(f"exe_{number}", size=100, started_at=now + number))
    store.started("exe_running", "", None, now - 2000)
    await store.add_session(session_row("ses_1"))
    store.prune(before=now - 500, limit_bytes=250)
    await store.flush()
    left = [name for name in ("exe_old", *(f"exe_{n}" for n in range(5))) if await store.execution(name)]
    assert left == ["exe_3", "exe_4"]
    assert [row.id for row in await store.running()] == ["exe_running"]
    assert await store.session("ses_1") is not None


async def test_a_waiter_that_goes_away_does_not_stop_the_writer(store: Store) -> None:
    for _ in range(20):
        waiter = asyncio.ensure_future(store.commit(lambda _: 1))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with asyncio.timeout(10):
        assert await store.commit(lambda _: 2) == 2


async def test_a_statement_that_is_wrong_does_not_stop_the_writer(store: Store) -> None:
    def wrong(_: object) -> None:
        raise TypeError("a defect")

    store.finished(finished("exe_1"))
    with pytest.raises(TypeError, match="a defect"):
        await store.commit(wrong)
    async with asyncio.timeout(10):
        await store.flush()
    assert await store.execution("exe_1") is not None
