"""The model loop's memory: plain statements on a connection. An owner's rows are nobody else's."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, delete, func, insert, select, update

from onehop.store.records import MemoryRow
from onehop.store.tables import memory

MOST_NAMES = 500
"""In one statement; databases have a limit of parameters."""


def put(connection: Connection, row: MemoryRow) -> None:
    """Stores it; one of the same name is replaced."""
    values = asdict(row) | {"bytes": len(row.data)}
    one = (memory.c.owner == row.owner, memory.c.kind == row.kind, memory.c.id == row.id)
    if not connection.execute(update(memory).where(*one).values(values)).rowcount:
        connection.execute(insert(memory).values(values))


def find(connection: Connection, owner: str, kind: str, name: str, now: float) -> MemoryRow | None:
    """One that has not expired."""
    query = _ROW.where(memory.c.owner == owner, memory.c.kind == kind, memory.c.id == name)
    row = connection.execute(query.where(memory.c.expires_at > now)).mappings().one_or_none()
    return None if row is None else MemoryRow(**row)


def several(connection: Connection, owner: str, kind: str, names: list[str], now: float) -> list[MemoryRow]:
    """Those of these names that have not expired."""
    mine = _ROW.where(memory.c.owner == owner, memory.c.kind == kind, memory.c.expires_at > now)
    found: list[MemoryRow] = []
    for at in range(0, len(names), MOST_NAMES):
        some = mine.where(memory.c.id.in_(names[at : at + MOST_NAMES]))
        found += [MemoryRow(**row) for row in connection.execute(some).mappings()]
    return found


def page(connection: Connection, owner: str, kind: str, after: str, most: int, now: float) -> list[MemoryRow]:
    """Newest first, those older than `after` if that is there."""
    mine = (memory.c.owner == owner, memory.c.kind == kind, memory.c.expires_at > now)
    query = _ROW.where(*mine).order_by(memory.c.created_at.desc(), memory.c.id.desc()).limit(most)
    if after:
        pivot = select(memory.c.created_at).where(*mine[:2], memory.c.id == after).scalar_subquery()
        query = query.where(
            (memory.c.created_at < pivot) | ((memory.c.created_at == pivot) & (memory.c.id < after))
        )
    return [MemoryRow(**row) for row in connection.execute(query).mappings()]


def remove(connection: Connection, owner: str, kind: str, name: str) -> bool:
    """False when there is none."""
    one = (memory.c.owner == owner, memory.c.kind == kind, memory.c.id == name)
    return bool(connection.execute(delete(memory).where(*one)).rowcount)


def shrink(connection: Connection, owner: str, now: float, most_rows: int, most_bytes: int) -> None:
    """Forgets what has expired, and the owner's oldest rows beyond these bounds."""
    connection.execute(delete(memory).where(memory.c.expires_at <= now))
    mine = memory.c.owner == owner
    totals = select(func.count(), func.coalesce(func.sum(memory.c.bytes), 0)).where(mine)
    rows, size = connection.execute(totals).one()
    while rows > most_rows or size > most_bytes:
        oldest = (
            select(memory.c.kind, memory.c.id, memory.c.bytes)
            .where(mine)
            .order_by(memory.c.created_at)
            .limit(100)
        )
        found = connection.execute(oldest).all()
        if not found:
            return
        for kind, name, one_bytes in found:
            if rows <= most_rows and size <= most_bytes:
                break
            remove(connection, owner, kind, name)
            rows -= 1
            size -= one_bytes


_ROW = select(
    memory.c.owner, memory.c.kind, memory.c.id, memory.c.data, memory.c.created_at, memory.c.expires_at
)
