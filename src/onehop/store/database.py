"""Opens the database and brings its tables up to date. What is in a row is none of its business."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from onehop.errors import ConfigurationError
from onehop.store.migrations import HEAD

BUSY_TIMEOUT_S = 5.0
FILE = "onehop.db"
INCREMENTAL = 2
"""The value of sqlite's `PRAGMA auto_vacuum`."""


def open_database(url: str, state: Path) -> Engine:
    """An engine whose tables are those of today.

    Args:
        url: an SQLAlchemy URL; empty for SQLite in the folder `state`, which is made if it is not there.

    Raises:
        ConfigurationError: the database cannot be opened, or a newer onehop has changed it.
    """
    try:
        if not url:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = state / FILE
            # Results of others' code: for this user only, from the first byte on.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            url = f"sqlite:///{path}"
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
        with engine.connect() as connection:
            _migrate(connection)
    except (OSError, SQLAlchemyError, ImportError) as error:
        raise ConfigurationError(f"database_url: the database cannot be opened: {error}") from error
    return engine


def is_full(error: DBAPIError) -> bool:
    """The database has no room on its disk (SQLite: SQLITE_FULL; PostgreSQL: 53100, disk_full)."""
    original: Any = error.orig
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return getattr(original, "sqlstate", "") == "53100"


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
        # Only before the first table, so it comes first. It writes each time, and on a full disk no gateway
        # could be started again.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL")
    # In WAL mode a power cut may cost the last commits, never the file; the supervisor's log dies with
    # the machine anyway.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")


def _migrate(connection: Connection) -> None:
    found = None
    if inspect(connection).has_table("alembic_version"):
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"database_url: the database is at version {found!r}, which this onehop does not know: {error}"
        ) from error
    connection.commit()
