"""Stored functions: plain statements on a connection. An owner's functions are nobody else's."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, delete, func, insert, select, update

from onehop.store.records import FunctionRow
from onehop.store.tables import functions


def put(connection: Connection, row: FunctionRow, most: int) -> bool | None:
    """Stores it. True when it is new, False when it replaced one, None when the owner has `most` already."""
    mine = functions.c.owner == row.owner
    values = {"code": row.code, "routed": row.routed, "updated_at": row.updated_at}
    if connection.execute(
        update(functions).where(mine, functions.c.name == row.name).values(values)
    ).rowcount:
        return False
    if connection.execute(select(func.count()).select_from(functions).where(mine)).scalar_one() >= most:
        return None
    connection.execute(insert(functions).values(asdict(row)))
    return True


def find(connection: Connection, owner: str, name: str | None = None) -> list[FunctionRow]:
    """The owner's, by name; all of them or the one of that name."""
    query = select(functions).where(functions.c.owner == owner).order_by(functions.c.name)
    if name is not None:
        query = query.where(functions.c.name == name)
    return [FunctionRow(**row) for row in connection.execute(query).mappings()]


def remove(connection: Connection, owner: str, name: str) -> bool:
    """False when there is none."""
    found = connection.execute(delete(functions).where(functions.c.owner == owner, functions.c.name == name))
    return bool(found.rowcount)
