"""The code out of a call's arguments while a model still writes their JSON.

Deltas may be cut anywhere, in an escape or between the halves of a surrogate pair. What it gives is for showing;
what is run is decoded from the whole arguments.
"""

from __future__ import annotations

import json
import re

MAX_BEFORE = 8192
"""Characters before the code's member; beyond this nothing is shown early."""
_PLAIN = re.compile(r'[^"\\]*')
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_decoder = json.JSONDecoder(strict=False)


class CodeText:
    """Args:
    member: of the arguments' object, the text that is wanted.
    """

    def __init__(self, member: str) -> None:
        self._member = member
        self._buffer = ""
        self._inside = False
        self._over = False

    def feed(self, text: str) -> str:
        """What of the code is known more by this piece."""
        if self._over:
            return ""
        self._buffer += text
        if not self._inside:
            if not self._enter():
                if len(self._buffer) > MAX_BEFORE:
                    self._over, self._buffer = True, ""
                return ""
            self._inside = True
        return self._take()

    def _enter(self) -> bool:
        """Whether the wanted text has begun; then the buffer begins with it."""
        buffer, at = self._buffer, _skip(self._buffer, 0)
        if at < len(buffer) and buffer[at] != "{":
            self._over = True
            return False
        at += 1
        while True:
            at = _skip(buffer, at)
            try:
                name, at = _decoder.raw_decode(buffer, at)
            except (ValueError, RecursionError):
                return False  # not all of it is here yet
            at = _skip(buffer, at)
            if buffer[at : at + 1] != ":":
                return False
            at = _skip(buffer, at + 1)
            if name == self._member:
                if at < len(buffer) and buffer[at] == '"':
                    self._buffer = buffer[at + 1 :]
                    return True
                self._over = at < len(buffer)
                return False
            try:
                _, at = _decoder.raw_decode(buffer, at)
            except (ValueError, RecursionError):
                return False
            at = _skip(buffer, at)
            if buffer[at : at + 1] != ",":
                return False
            at += 1

    def _take(self) -> str:
        """Decodes as far as it is certain."""
        buffer, at, found = self._buffer, 0, []
        while True:
            match = _PLAIN.match(buffer, at)
            assert match is not None
            found.append(match[0])
            at = match.end()
            if at == len(buffer):
                break
            if buffer[at] == '"':
                self._over = True
                break
            step, text = _escape(buffer, at)
            if not step:
                break
            found.append(text)
            at += step
        self._buffer = buffer[at:]
        return "".join(found)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _escape(text: str, at: int) -> tuple[int, str]:
    """Length and meaning of the escape at `at`; 0 when it is not all there."""
    kind = text[at + 1 : at + 2]
    if not kind:
        return 0, ""
    if kind != "u":
        return 2, _ESCAPES.get(kind, kind)
    code = _unit(text, at)
    if code is None:
        return (0, "") if len(text) < at + 6 else (2, "")
    if not 0xD800 <= code < 0xDC00:
        return 6, chr(code) if not 0xDC00 <= code < 0xE000 else "\ufffd"
    rest = text[at + 6 : at + 12]
    if len(rest) < 6 and "\\u".startswith(rest[:2]):
        return 0, ""  # its other half may come
    low = _unit(text, at + 6)
    if low is None or not 0xDC00 <= low < 0xE000:
        return 6, "\ufffd"
    return 12, chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))


def _unit(text: str, at: int) -> int | None:
    digits = text[at + 2 : at + 6]
    if text[at : at + 2] != "\\u" or len(digits) < 4:
        return None
    try:
        return int(digits, 16)
    except ValueError:
        return None
