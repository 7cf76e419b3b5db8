"""What is known of uploaded files: plain statements on a connection. Whose they are is always asked for."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select

from onehop.store.records import UploadRow
from onehop.store.tables import uploads


def add(connection: Connection, row: UploadRow) -> None:
    connection.execute(insert(uploads).values(asdict(row)))


def find(connection: Connection, owner: str, name: str, now: float) -> UploadRow | None:
    """One that has not expired."""
    query = select(uploads).where(uploads.c.id == name, uploads.c.owner == owner, _alive(now))
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else UploadRow(**row)


def all_of(connection: Connection, owner: str, now: float) -> list[UploadRow]:
    """Oldest first."""
    query = select(uploads).where(uploads.c.owner == owner, _alive(now))
    query = query.order_by(uploads.c.created_at, uploads.c.id)
    return [UploadRow(**row) for row in connection.execute(query).mappings()]


def used_bytes(connection: Connection, owner: str) -> int:
    query = select(func.coalesce(func.sum(uploads.c.bytes), 0)).where(uploads.c.owner == owner)
    return int(connection.execute(query).scalar_one())


def remove(connection: Connection, owner: str, name: str) -> bool:
    """False when there is none."""
    query = delete(uploads).where(uploads.c.id == name, uploads.c.owner == owner)
    return bool(connection.execute(query).rowcount)


def expire(connection: Connection, now: float) -> list[str]:
    """Forgets what has expired; the ids of everything that is left."""
    connection.execute(delete(uploads).where(uploads.c.expires_at <= now))
    return list(connection.execute(select(uploads.c.id)).scalars())


def _alive(now: float) -> ColumnElement[bool]:
    return or_(uploads.c.expires_at.is_(None), uploads.c.expires_at > now)
