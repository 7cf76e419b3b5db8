"""What one request of the model loop leaves for a later one: stored responses, turns that wait for their client.

Kept in the database, so that it survives the gateway; owners see their own rows only. It must never say that
something is kept before it is.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from sqlalchemy import Connection

from onehop.errors import TooLargeError
from onehop.store import Store, memory
from onehop.store.records import MemoryRow

MAX_BYTES = 32 * 1024 * 1024
"""Of one row."""
MAX_ROWS = 20_000
MAX_OWNER_BYTES = 512 * 1024 * 1024
"""Of one owner; the oldest rows go first."""
SHRINK_EVERY = 64
"""Rows written between two looks at what an owner has."""
CACHED_BYTES = 32 * 1024 * 1024


class Memory:
    """Args:
    store: the engine's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: OrderedDict[tuple[str, str, str], MemoryRow] = OrderedDict()
        self._cached_bytes = 0
        self._written: dict[str, int] = {}

    async def put(self, owner: str, kind: str, name: str, data: bytes, ttl_s: float) -> None:
        """Keeps it for `ttl_s` seconds; returns when that is certain. What had the name before is replaced.

        Raises:
            TooLargeError: it has more than MAX_BYTES.
            QuotaExceededError, UnavailableError: it is not kept.
        """
        if len(data) > MAX_BYTES:
            raise TooLargeError(
                f"there are {len(data)} bytes to be kept for a later request, more than the {MAX_BYTES} allowed",
                limit_bytes=MAX_BYTES,
            )
        now = time.time()
        row = MemoryRow(owner, kind, name, data, now, now + ttl_s)
        count = self._written[owner] = self._written.get(owner, SHRINK_EVERY - 1) + 1
        shrinks = count % SHRINK_EVERY == 0

        def write(connection: Connection) -> None:
            memory.put(connection, row)
            if shrinks:
                memory.shrink(connection, owner, now, MAX_ROWS, MAX_OWNER_BYTES)

        self._forget(owner, kind, name)
        await self._store.commit(write)
        self._remember(row)

    async def get(self, owner: str, kind: str, name: str) -> bytes | None:
        """What is kept under that name, if the owner has it. Raises UnavailableError."""
        now = time.time()
        row = self._cached.get((owner, kind, name))
        if row is None:
            row = await self._store.read(lambda connection: memory.find(connection, owner, kind, name, now))
            if row is None:
                return None
            self._remember(row)
        return row.data if row.expires_at > now else None

    async def several(self, owner: str, kind: str, names: list[str]) -> dict[str, bytes]:
        """Those of these names that the owner has, in one read. Raises UnavailableError."""
        now = time.time()
        found: dict[str, bytes] = {}
        unknown: list[str] = []
        for name in names:
            row = self._cached.get((owner, kind, name))
            if row is None:
                unknown.append(name)
            elif row.expires_at > now:
                found[name] = row.data
        if unknown:
            rows = await self._store.read(
                lambda connection: memory.several(connection, owner, kind, unknown, now)
            )
            for row in rows:
                self._remember(row)
                found[row.id] = row.data
        return found

    async def delete(self, owner: str, kind: str, name: str) -> bool:
        """False when there was none. Raises QuotaExceededError, UnavailableError."""
        self._forget(owner, kind, name)
        found = await self._store.commit(lambda connection: memory.remove(connection, owner, kind, name))
        self._forget(owner, kind, name)  # who read it meanwhile may have got it
        return found

    async def list(self, owner: str, kind: str, after: str = "", limit: int = 20) -> list[tuple[str, bytes]]:
        """Names and data, newest first, from the one after `after` on. Raises UnavailableError."""
        now = time.time()
        rows = await self._store.read(
            lambda connection: memory.page(connection, owner, kind, after, limit, now)
        )
        return [(row.id, row.data) for row in rows]

    def _remember(self, row: MemoryRow) -> None:
        self._forget(row.owner, row.kind, row.id)
        self._cached[row.owner, row.kind, row.id] = row
        self._cached_bytes += len(row.data)
        while self._cached_bytes > CACHED_BYTES:
            _, oldest = self._cached.popitem(last=False)
            self._cached_bytes -= len(oldest.data)

    def _forget(self, owner: str, kind: str, name: str) -> None:
        row = self._cached.pop((owner, kind, name), None)
        if row is not None:
            self._cached_bytes -= len(row.data)
