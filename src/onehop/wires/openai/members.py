"""Members of OpenAI's requests, checked one by one; each problem names its member."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from onehop.errors import InvalidJsonError, InvalidRequestError
from onehop.wires.extras import Extras

DATA_URL = re.compile(r"data:([\w.+/-]+)(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
"""With its parameters, which no kind of upstream has a word for; source: RFC 2397."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def document(raw: str | bytes | bytearray) -> dict[str, Any]:
    """A body, or a message of a websocket. Raises InvalidJsonError."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJsonError(f"what came is no JSON object: {error}") from None


def extras(given: Any) -> Extras | None:
    if given is None:
        return None
    try:
        return msgspec.convert(given, Extras)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"onehop: {error}", field="onehop") from None


def text(body: dict[str, Any], name: str) -> str:
    value = body.pop(name, None)
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"{name}: a text is needed", field=name)
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    value = body.pop(name, False)
    if not isinstance(value, bool):
        raise wrong(name, "true or false")
    return value


def optional_flag(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise wrong(name, "true or false")
    return value


def number(value: Any, name: str, *, whole: bool = False) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise wrong(name, "a whole number" if whole else "a number")
    return value


def wrong(where: str, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(f"{where}: expected {wanted}", field=where)
