"""What the code printed, on a terminal: text, colours and nothing else.

An escape sequence can set the clipboard, rename the window or forge what was shown before. On a
terminal everything but line ends, tabs and colours is made visible; a pipe or a file gets every byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TextIO

from onehop.client.terminal import printable, visible

__all__ = ["PICTURES", "PRINTED", "Stream", "printable", "visible"]

PICTURES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
    "application/pdf": ".pdf",
}
"""What is written to a file of this ending, and not shown as text."""
PRINTED = ("text/plain", "text/markdown", "text/latex")
"""What is shown as text: the first of these that there is."""

_UNFINISHED = re.compile(r"\x1b(\[[0-9;]{0,32})?\Z")


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Prints rows in columns, the first one as their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class Stream:
    """Text in pieces to `target`, flushed each time."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._filter = target.isatty()
        self._held = ""
        self._column_0 = True

    @property
    def at_line_start(self) -> bool:
        return self._column_0

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
