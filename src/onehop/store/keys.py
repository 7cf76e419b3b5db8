"""Keys in the database: plain statements on a connection, for the gateway and for the command line.

A key is made and revoked by committing its row; a gateway that runs meanwhile sees that by the
highest revision. No key itself must ever come in here, only its digest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, ScalarSelect, bindparam, func, insert, select, update

from onehop.store.records import KeyRow
from onehop.store.tables import keys


def add(connection: Connection, row: KeyRow) -> None:
    """Inserts a key; its `revision` is chosen here. To be committed by the caller."""
    _alone(connection)
    values = asdict(row) | {"scopes": ",".join(row.scopes), "revision": _next()}
    connection.execute(insert(keys).values(values))


def revoke(connection: Connection, key: str) -> bool:
    """Revokes the key of that id; False when there is none that was not revoked before."""
    _alone(connection)
    found = connection.execute(
        update(keys)
        .where(keys.c.id == key, keys.c.revoked_at.is_(None))
        .values(revoked_at=time.time(), revision=_next())
    )
    return bool(found.rowcount)


def changed(connection: Connection, since: int) -> list[KeyRow]:
    """Keys made or revoked after revision `since`; all of them from 0 on. Cheap when there are none."""
    newest = connection.execute(select(func.max(keys.c.revision))).scalar()
    if newest is None or newest <= since:
        return []
    found = connection.execute(select(keys).where(keys.c.revision > since).order_by(keys.c.revision))
    return [_row(row) for row in found.mappings()]


def used(connection: Connection, times: Mapping[str, float]) -> None:
    """Writes down when keys were used last, by id."""
    statement = update(keys).where(keys.c.id == bindparam("key")).values(last_used_at=bindparam("at"))
    connection.execute(statement, [{"key": key, "at": at} for key, at in times.items()])


def _alone(connection: Connection) -> None:
    """Two changes at once must not take the same revision. SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE")


def _next() -> ScalarSelect[Any]:
    other = keys.alias()
    return select(func.coalesce(func.max(other.c.revision), 0) + 1).scalar_subquery()


def _row(row: RowMapping) -> KeyRow:
    return KeyRow(**{**row, "scopes": tuple(row["scopes"].split(","))})
