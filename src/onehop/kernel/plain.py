"""What code passes to a tool, as plain JSON data: None, booleans, numbers, text, lists, dicts with text as keys.

What has one obvious plain form gets it (numpy's numbers and arrays, data frames, dates, decimals, data
classes); everything else is refused here, with its place, before anything leaves.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)


class NotPlainError(Exception):
    """Something has no plain form; `place` says where it is."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.place = ""


def plain(value: Any) -> Any:
    """`value` as plain data. Raises NotPlainError."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise NotPlainError("an integer of more than 64 bits; pass it as text")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise NotPlainError(f"{value} is no JSON number; pass None or leave it out")
        return value
    if kind is dict:
        return _dict(value)
    if kind is list or kind is tuple:
        return _list(value)
    return _converted(value)


def _dict(value: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, one in value.items():
        if not isinstance(key, str):
            raise NotPlainError(f"the key {key!r:.80} is {_article(key)}; JSON's keys are text: use str(key)")
        try:
            found[str(key)] = plain(one)
        except NotPlainError as error:
            error.place = f"[{key!r:.80}]{error.place}"
            raise
    return found


def _list(value: Any) -> list[Any]:
    found: list[Any] = []
    for one in value:
        try:
            found.append(plain(one))
        except NotPlainError as error:
            error.place = f"[{len(found)}]{error.place}"
            raise
    return found


def _converted(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return plain(value.value)
    for kind in (str, int, float):  # numpy's float64 and text are of these, too
        if isinstance(value, kind):
            return plain(kind(value))
    if isinstance(value, Mapping):
        return _dict(value)
    if isinstance(value, (list, tuple, range, type({}.keys()), type({}.values()))):
        return _list(value)
    if isinstance(value, (set, frozenset)):
        try:
            return _list(sorted(value))
        except TypeError:
            return _list(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        if value != value:  # pandas' NaT
            raise NotPlainError("NaT is no point in time; pass None or leave it out")
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return plain(value.total_seconds())
    if isinstance(value, decimal.Decimal):
        if value.is_finite() and value == value.to_integral_value():
            return plain(int(value))
        return plain(float(value))
    if isinstance(value, (uuid.UUID, pathlib.PurePath)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dict({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise NotPlainError("bytes are no JSON; pass text: base64.b64encode(data).decode()")
    return _of_library(value)


def _of_library(value: Any) -> Any:
    """numpy, pandas, polars and pydantic, known by their methods: none of them is imported for this."""
    for name, arguments in (
        ("to_dicts", {}),
        ("to_dict", {"orient": "records"}),
        ("tolist", {}),
        ("to_list", {}),
        ("model_dump", {"mode": "json"}),
    ):
        method = getattr(type(value), name, None)
        if method is None:
            continue
        try:
            made = method(value, **arguments)
        except TypeError:  # another library's method of that name
            continue
        if type(made) is not type(value):
            return plain(made)
    hint = str(value) if "await" in type(value).__name__.lower() else ""
    raise NotPlainError(f"{_article(value)} is no JSON data{': ' + hint if hint else ''}")


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
