"""What the code printed, on a terminal: text, colours and nothing else.

An escape sequence can set the clipboard, rename the window or forge what was shown before. On a
terminal everything but line ends, tabs and colours is made visible; a pipe or a file gets every byte.
"""

from __future__ import annotations

import re
from typing import TextIO

_COLOUR = r"\x1b\[[0-9;]*m"
_UNSAFE = re.compile(rf"({_COLOUR})|([\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069])")
_UNFINISHED = re.compile(r"\x1b(\[[0-9;]{0,32})?\Z")


def visible(text: str) -> str:
    """`text` with control characters as escapes; colours, line ends, tabs and backspaces stay."""
    return _UNSAFE.sub(lambda match: match[1] or match[2].encode("unicode_escape").decode(), text)


def printable(name: str) -> str:
    """A file's name on one line: everything that does not print as an escape."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in name
    )


class Stream:
    """Text in pieces to `target`, flushed each time."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._filter = target.isatty()
        self._held = ""
        self._column_0 = True

    def write(self, text: str) -> None:
        """A sequence that a piece cuts in two is held back until the next piece."""
        text = self._held + text
        self._held = ""
        if self._filter:
            cut = _UNFINISHED.search(text)
            if cut:
                text, self._held = text[: cut.start()], text[cut.start() :]
            text = visible(text)
        if text:
            self._column_0 = text.endswith("\n")
            self._target.write(text)
            self._target.flush()

    def line(self, text: str) -> None:
        """`text` on lines of its own."""
        if self._held:
            self.write(" ")
        self.write(("" if self._column_0 else "\n") + text + ("" if text.endswith("\n") else "\n"))
