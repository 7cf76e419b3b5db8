"""Values as JSON, strictly: what is none is refused with a word on what to return instead.

One text for both lanes: a Monty worker imports it, and a sandbox gets it as source in front of the
code. So it uses the standard library only, and must never change a value to make it fit.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import json
import math
from typing import Any

MAX_VALUE_CHARS = 1024 * 1024
"""The longest JSON of a value."""
MAX_DEPTH = 100

ADVICE = {
    "set": "sorted(…) or list(…) of it",
    "frozenset": "sorted(…) or list(…) of it",
    "bytes": ".decode() of it, or base64",
    "bytearray": ".decode() of it, or base64",
    "datetime": ".isoformat() of it",
    "date": ".isoformat() of it",
    "time": ".isoformat() of it",
    "timedelta": ".total_seconds() of it",
    "Decimal": "str(…) or float(…) of it",
    "Fraction": "str(…) or float(…) of it",
    "complex": "[z.real, z.imag]",
    "function": "what it gives when it is called",
    "coroutine": "its result; the lambda lane calls functions that are not async",
    "ndarray": ".tolist() of it",
    "Series": ".tolist() or .to_dict() of it",
    "DataFrame": ".to_dict('records') of it",
    "range": "list(…) of it",
    "generator": "list(…) of it",
    "map": "list(…) of it",
    "filter": "list(…) of it",
    "zip": "list(…) of it",
    "enumerate": "list(…) of it",
    "reversed": "list(…) of it",
    "dict_keys": "list(…) of it",
    "dict_values": "list(…) of it",
    "dict_items": "list(…) of it",
}
ANYTHING = "None, a bool, a number, text, or lists and dicts of those"


class NotPlainError(Exception):
    """The value is no JSON; the text says where and what to return."""


def encode(value: Any) -> str:
    """The JSON of a value. Raises NotPlainError."""
    _check(value, "", 0)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError:
        raise NotPlainError(
            "text in the value has lone surrogates; return .encode('utf-8', 'replace').decode() of it"
        ) from None
    except ValueError as error:  # an int of more digits than CPython writes
        raise NotPlainError(f"the value cannot be written as JSON ({error}); return less") from None
    if len(text) > MAX_VALUE_CHARS:
        raise NotPlainError(
            f"the value is {len(text)} characters of JSON, more than {MAX_VALUE_CHARS}; return less of it"
        )
    return text


def _check(value: Any, place: str, depth: int) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotPlainError(
                f"{_where(place)} is {float(value)!r}, which JSON does not have; return None or text"
            )
        return
    if depth >= MAX_DEPTH:
        raise NotPlainError(f"the value is nested more than {MAX_DEPTH} deep, or holds itself; return less")
    if isinstance(value, list | tuple):
        for at, item in enumerate(value):
            _check(item, f"{place}[{at}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotPlainError(
                    f"{_where(place)} has a key that is no text but {_a(key)}; return it with str(key) as keys"
                )
            _check(item, f"{place}[{str(key)[:40]!r}]", depth + 1)
    else:
        name = type(value).__name__
        raise NotPlainError(
            f"{_where(place)} is {_a(value)}, which is no JSON; return {ADVICE.get(name, ANYTHING)}"
        )


def _where(place: str) -> str:
    return f"the value at {place[:200]}" if place else "the value"


def _a(value: Any) -> str:
    name = type(value).__name__[:80]
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
