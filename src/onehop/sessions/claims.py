"""Idempotency keys: a request that is sent again is answered again, and never carried out twice.

A key is claimed, durably and together with the start of what it is for, before anything runs. From then
on at most one outcome is recorded; one that was lost stays lost (`outcome_unknown`). The header is that
of https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from onehop import errors
from onehop.crash import reached
from onehop.sessions.caller import Caller
from onehop.sessions.tasks import Tasks
from onehop.store import Claim, Store

MAX_KEY = 255

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Replay:
    """The request came before; `made` is the id of what it made."""

    made: str


class Claims:
    def __init__(self, store: Store, tasks: Tasks) -> None:
        self._store = store
        self._tasks = tasks
        self._starting: dict[tuple[str, str], str] = {}
        """By owner and key, what is being begun at this moment."""

    async def once(
        self,
        caller: Caller,
        key: str,
        request: tuple[bytes | bytearray, ...],
        made: str,
        begin: Callable[[], Awaitable[T]],
        *,
        session: str | None = None,
    ) -> T | Replay:
        """What `begin` gives, or that the request came before. `begin` goes on if the caller is cancelled.

        Args:
            key: of the client's choice.
            request: all that makes the request what it is.
            made: id of the execution or session that `begin` makes; an execution's start is recorded here.
            session: of the execution.

        Raises:
            IdempotencyKeyReusedError: the key belongs to another request.
            IdempotencyInProgressError: the same request is being begun.
            QuotaExceededError, UnavailableError: the claim cannot be stored.
        """
        if not 1 <= len(key) <= MAX_KEY or not all("!" <= letter <= "~" for letter in key):
            raise errors.InvalidRequestError(
                f"Idempotency-Key: expected 1 to {MAX_KEY} visible ASCII characters", field="Idempotency-Key"
            )
        place = (caller.owner, key)
        if place in self._starting:
            raise _in_progress(self._starting[place])
        self._starting[place] = made
        digest = hashlib.sha256()
        for part in request:
            digest.update(b"%d:" % len(part))
            digest.update(part)
        claim = Claim(caller.owner, key, digest.hexdigest(), made, time.time(), session, caller.key)
        return await self._tasks.finish(self._once(place, claim, begin))

    async def _once(
        self, place: tuple[str, str], claim: Claim, begin: Callable[[], Awaitable[T]]
    ) -> T | Replay:
        try:
            found = await self._store.claim(claim)
            if found is not None:
                if found.request != claim.request:
                    raise errors.IdempotencyKeyReusedError(
                        "this Idempotency-Key was sent with another request; take a new one for a new request"
                    )
                return Replay(found.made)
            reached("idempotency-claimed")
            try:
                return await begin()
            except BaseException:
                self._store.unclaim(claim)
                raise
        finally:
            del self._starting[place]

    def forget(self, caller: Caller, key: str, made: str) -> None:
        """`made` has never come to be: the key is free again."""
        self._store.unclaim(Claim(caller.owner, key, "", made, 0.0, None))


def _in_progress(made: str) -> errors.IdempotencyInProgressError:
    return errors.IdempotencyInProgressError(
        "the same request is being carried out; wait for its end", execution=made
    )
