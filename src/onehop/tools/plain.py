"""From what a tool returned to plain data: numbers that JSON has, texts, lists, maps; bytes become files.

Runs in the worker only. It must never let a value through that another process would have to guess about:
what has no plain form is a typed error that says where in the value it is.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import hashlib
import math
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Any

from onehop.errors import CallFailedError

FOLDER = "tool_files"
"""Files that tools give land here, in the workspace."""
MAX_DEPTH = 200
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})
_SIGNATURES = (
    (b"\x89PNG\r\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"%PDF-", ".pdf"),
    (b"PK\x03\x04", ".zip"),
    (b"\x1f\x8b", ".gz"),
)


@dataclass(frozen=True)
class Blob:
    """Content that shall land as a file; the value that code gets has its path instead.

    Args:
        name: what the file's name ends with, as "report.pdf"; by its content when empty.
    """

    content: bytes
    name: str = ""


def plain(value: Any) -> tuple[Any, dict[str, bytes]]:
    """The value as plain data, and the files that were in it.

    Raises:
        CallFailedError: of kind bad_result.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return _integer(value, "the result") if kind is int else value, {}
    files: dict[str, bytes] = {}
    return _plain(value, files, "the result", 0), files


def _plain(value: Any, files: dict[str, bytes], where: str, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return _integer(value, where)
    if kind is float:
        return _number(value, where)
    if depth > MAX_DEPTH:
        raise _bad(f"{where[:200]} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return {
            _key(key, where): _plain(one, files, f"{where}[{key!r:.60}]", depth + 1)
            for key, one in value.items()
        }
    if kind is list or kind is tuple:
        if not set(map(type, value)) - {str, bool, float, type(None)} and all(
            map(math.isfinite, [one for one in value if type(one) is float])
        ):
            return list(value)
        return [_plain(one, files, f"{where}[{n}]", depth + 1) for n, one in enumerate(value)]
    return _special(value, files, where, depth)


def _special(value: Any, files: dict[str, bytes], where: str, depth: int) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return _keep(bytes(value), "", files)
    if isinstance(value, Blob):
        return _keep(value.content, value.name, files)
    if isinstance(value, PurePath):
        return _keep(_read(value, where), value.name, files)
    if isinstance(value, enum.Enum):
        return _plain(value.value, files, where, depth + 1)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool | int):
        return _integer(int(value), where)
    if isinstance(value, float):
        return _number(float(value), where)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({one.name: getattr(value, one.name) for one in fields(value)}, files, where, depth + 1)
    dump = getattr(value, "model_dump", None)  # pydantic's models
    if callable(dump) and not isinstance(value, type):
        return _plain(dump(mode="python", by_alias=True), files, where, depth + 1)
    struct = getattr(value, "__struct_fields__", None)  # msgspec's
    if struct is not None and not isinstance(value, type):
        return _plain({name: getattr(value, name) for name in struct}, files, where, depth + 1)
    if isinstance(value, set | frozenset):
        try:
            return _plain(sorted(value), files, where, depth + 1)
        except TypeError:
            return _plain(list(value), files, where, depth + 1)
    item = getattr(value, "tolist", None) or getattr(value, "to_dict", None)  # numpy's and pandas' own
    if callable(item) and not isinstance(value, type):
        return _plain(item(), files, where, depth + 1)
    if isinstance(value, Iterable) and not isinstance(value, type):
        return _plain(list(value), files, where, depth + 1)
    raise _bad(f"{where} is of the type {type(value).__qualname__}, which has no plain form; return data")


def _key(key: Any, where: str) -> str:
    if type(key) is str:
        return key
    if isinstance(key, enum.Enum):
        return _key(key.value, where)
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int | float | datetime.date | uuid.UUID) and not isinstance(key, bool):
        return str(key)
    raise _bad(f"{where} has a key of the type {type(key).__qualname__}; keys are texts")


def _integer(value: int, where: str) -> int:
    if -(2**63) <= value < 2**64:
        return value
    raise _bad(f"{where} has more than 64 bits; return it as text")


def _number(value: float, where: str) -> float:
    if math.isfinite(value):
        return value
    raise _bad(f"{where} is {value}, which JSON does not have; return None instead")


def _keep(content: bytes, name: str, files: dict[str, bytes]) -> str:
    """Equal content has equal names, so that a call done again writes no second file."""
    digest = hashlib.sha256(content).hexdigest()[:12]
    path = f"{FOLDER}/{digest}{_ending(content, name)}"
    files[path] = content
    return path


def _ending(content: bytes, name: str) -> str:
    cleaned = "".join(c if c.isalnum() or c in "._-" else "_" for c in os.path.basename(name))[-80:]
    if cleaned.strip("._"):
        return cleaned if cleaned.startswith(".") else f"-{cleaned}"
    return next((ending for start, ending in _SIGNATURES if content.startswith(start)), ".bin")


def _read(path: PurePath, where: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _bad(f"{where} is the path {str(path)!r}, which cannot be read: {error.strerror}") from None


def _bad(message: str) -> CallFailedError:
    return CallFailedError("bad_result", message)


def from_base64(text: str, name: str = "") -> Blob:
    """What came as base64 in somebody's JSON. Raises ValueError."""
    return Blob(base64.b64decode(text, validate=True), name)
