"""The keys in memory: from the one that a request carries to its caller. No key is ever kept, only digests.

A look-up is a hash and a dict: no request waits for the database. `watch` brings in what was made or
revoked meanwhile, here or by the command line, about a second later.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import time
from dataclasses import replace

from onehop.errors import KeyNotFoundError, UnauthorizedError, UnavailableError
from onehop.sessions.caller import EXECUTE, READ, Caller
from onehop.sessions.keys import effective, limits_of
from onehop.store import KeyRow, Store

POLL_S = 0.5
USED_S = 60.0
"""How often it is written down when keys were used."""

DELEGATED = frozenset({EXECUTE, READ})

log = logging.getLogger("onehop.keys")


class _Known:
    """One key."""

    __slots__ = ("caller", "digest", "expires_at", "row", "used_at", "written_at")

    def __init__(self, row: KeyRow) -> None:
        self.row = row
        self.digest = row.digest
        self.caller = Caller(row.owner, row.id, effective(row.scopes), limits_of(row))
        if row.revoked_at is not None:
            self.expires_at = 0.0
        else:
            self.expires_at = math.inf if row.expires_at is None else row.expires_at
        self.used_at = self.written_at = row.last_used_at or 0.0


_NOBODY = _Known(KeyRow("", "", "", "", bytes(32), (), b"{}", 0.0, revoked_at=0.0))
"""Stands for every unknown key, so that each failed attempt goes the same way."""


class Keyring:
    """All keys of a store.

    Args:
        always: a key is needed even while there is none.

    Attributes:
        required: a request needs a key.
    """

    def __init__(self, store: Store, *, always: bool) -> None:
        self._store = store
        self._always = always
        self._revision = 0
        self._by_digest: dict[bytes, _Known] = {}
        self.required = always
        self._take(store.keys_now(), announced=False)

    def caller(self, key: bytes) -> Caller:
        """Whose key it is. Raises UnauthorizedError, saying the same for unknown, expired and revoked ones."""
        digest = hashlib.sha256(key).digest()
        known = self._by_digest.get(digest, _NOBODY)
        now = time.time()
        if not hmac.compare_digest(known.digest, digest) or known.expires_at <= now:
            raise UnauthorizedError("the key is unknown here, has expired or was revoked")
        known.used_at = now
        return known.caller

    def delegate(self, owner: str, key: str) -> Caller:
        """Who acts for a key, by its id, without showing it. Raises UnauthorizedError when it is no longer valid."""
        if not key:
            return Caller(owner=owner, scopes=DELEGATED)
        for known in self._by_digest.values():
            if known.row.id == key and known.expires_at > time.time():
                return replace(known.caller, scopes=known.caller.scopes & DELEGATED)
        raise UnauthorizedError("the key behind this has expired or was revoked")

    def check(self, caller: Caller) -> None:
        """For a connection that lasts. Raises UnauthorizedError when its key ended, or when one is wanted by now."""
        if caller.key:
            self.delegate(caller.owner, caller.key)
        elif self.required:
            raise UnauthorizedError("this server wants a key now")

    @property
    def usable(self) -> bool:
        """There is a key that was not revoked."""
        return any(known.row.revoked_at is None for known in self._by_digest.values())

    def rows(self) -> list[tuple[KeyRow, float]]:
        """All keys, oldest first, and when each was used last (0: never)."""
        found = [(known.row, known.used_at) for known in self._by_digest.values()]
        return sorted(found, key=lambda one: one[0].created_at)

    async def add(self, row: KeyRow) -> None:
        """Stores a key; it works when this returns. Raises QuotaExceededError, UnavailableError."""
        await self._store.add_key(row)
        await self.refresh()

    async def revoke(self, key_id: str) -> None:
        """Nobody can use it any more when this returns. Raises KeyNotFoundError, and as `add`."""
        if not await self._store.revoke_key(key_id):
            raise KeyNotFoundError("there is no such key, or it was revoked before")
        await self.refresh()

    async def refresh(self) -> None:
        """Takes in what has changed in the database."""
        rows = await self._store.changed_keys(self._revision)
        if rows:
            self._take(rows)

    async def watch(self) -> None:
        """Keeps up with the database, for ever."""
        failed = False
        written_s = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
                failed = False
            except UnavailableError as error:
                if not failed:
                    log.error("changes of keys cannot be seen: %s", error)
                failed = True
            if time.monotonic() - written_s >= USED_S:
                written_s = time.monotonic()
                self.write_used()

    def write_used(self) -> None:
        """Leaves it to the store when keys were used last."""
        times = {}
        for known in self._by_digest.values():
            if known.used_at > known.written_at:
                times[known.row.id] = known.written_at = known.used_at
        if times:
            self._store.keys_used(times)

    def _take(self, rows: list[KeyRow], *, announced: bool = True) -> None:
        for row in rows:
            known = _Known(row)
            before = self._by_digest.get(row.digest)
            if before is not None:
                known.used_at = max(known.used_at, before.used_at)
            self._by_digest[row.digest] = known
            self._revision = max(self._revision, row.revision)
        required = self._always or self.usable
        if announced and required != self.required:
            log.warning("requests need a key from now on" if required else "requests need no key any more")
        self.required = required
