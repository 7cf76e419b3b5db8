"""Named functions: lambdas that are stored once and called by name. Each belongs to its owner alone."""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from onehop.errors import FunctionNotFoundError, InvalidRequestError, TooManyError
from onehop.lambdas.lane import Arguments, LambdaAnswer, Lane, LaneName
from onehop.sessions import Caller, Engine
from onehop.store.records import FunctionRow

MAX_FUNCTIONS = 1000
"""Of one owner."""
REMEMBERED = 1000
"""Rows kept in memory, so that a call needs no database."""


class FunctionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A function to be stored: `code` as in LambdaRequest."""

    code: Annotated[str, Meta(min_length=1)]


class FunctionInfo(msgspec.Struct, kw_only=True):
    """A stored function. Times are RFC 3339 in UTC.

    Args:
        engine: where it runs first: in Monty if its code fits that.
        routed: why not in Monty; empty when it does.
    """

    name: str
    engine: LaneName
    routed: str
    created_at: str
    updated_at: str


class Function(FunctionInfo, kw_only=True):
    """A stored function with its code."""

    code: str


class FunctionList(msgspec.Struct):
    """By name."""

    functions: list[FunctionInfo]


class Functions:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, engine: Engine, lane: Lane) -> None:
        self._store = engine.store
        self._lane = lane
        self._rows: OrderedDict[tuple[str, str], FunctionRow] = OrderedDict()

    async def put(self, name: str, request: FunctionRequest, caller: Caller) -> tuple[Function, bool]:
        """Checks the code and stores it; True when the name is new.

        Raises:
            InvalidRequestError: the name cannot be one, or the code is no Python.
            TooManyError: the owner has as many as are allowed.
        """
        _check_name(name)
        routed = await self._lane.check(request.code, caller)
        now = time.time()
        row = FunctionRow(caller.owner, name, request.code.encode(), routed[:255], now, now)
        key = (caller.owner, name)
        self._rows.pop(key, None)
        made = await self._store.put_function(row, MAX_FUNCTIONS)
        self._rows.pop(key, None)  # who read it meanwhile may have got the old one
        if made is None:
            raise TooManyError(f"there are {MAX_FUNCTIONS} functions already, the most allowed; delete one")
        return _function(await self._find(name, caller)), made

    async def get(self, name: str, caller: Caller) -> Function:
        """Raises FunctionNotFoundError."""
        return _function(await self._find(name, caller))

    async def list(self, caller: Caller) -> FunctionList:
        return FunctionList([_info(row) for row in await self._store.functions(caller.owner)])

    async def delete(self, name: str, caller: Caller) -> None:
        """Raises FunctionNotFoundError."""
        self._rows.pop((caller.owner, name), None)
        found = await self._store.remove_function(caller.owner, name)
        self._rows.pop((caller.owner, name), None)
        if not found:
            raise _missing()

    async def call(self, name: str, wanted: Arguments, caller: Caller) -> LambdaAnswer:
        """Like Lane.run. Raises FunctionNotFoundError, too."""
        row = await self._find(name, caller)
        return await self._lane.run(row.code.decode(), wanted, caller)

    async def _find(self, name: str, caller: Caller) -> FunctionRow:
        key = (caller.owner, name)
        row = self._rows.get(key)
        if row is None:
            found = await self._store.functions(caller.owner, name)
            if not found:
                raise _missing()
            row = self._rows[key] = found[0]
            if len(self._rows) > REMEMBERED:
                self._rows.popitem(last=False)
        return row


def _check_name(name: str) -> None:
    if not (name.isascii() and name.isidentifier() and len(name) <= 64):
        raise InvalidRequestError(
            "name: expected 1 to 64 letters, digits and _, no digit first", field="name"
        )


def _missing() -> FunctionNotFoundError:
    return FunctionNotFoundError("there is no function of that name")


def _info(row: FunctionRow) -> FunctionInfo:
    return FunctionInfo(
        name=row.name,
        engine="sandbox" if row.routed else "monty",
        routed=row.routed,
        created_at=_time(row.created_at),
        updated_at=_time(row.updated_at),
    )


def _function(row: FunctionRow) -> Function:
    return Function(**msgspec.structs.asdict(_info(row)), code=row.code.decode())


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
