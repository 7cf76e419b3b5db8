"""How `onehop repl` shows what code told: text as it comes, values, pictures, tracebacks in colour.

All of it came out of a sandbox: on a terminal nothing but text, colours and pictures gets through.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onehop.cli.terminal import PICTURES, PRINTED, Stream, printable, visible
from onehop.client import terminal

if TYPE_CHECKING:
    from onehop.client.records import File
    from onehop.client.results import Event, Result

NAMED_FILES = 5
RED, CYAN, DIM, PLAIN = "\x1b[31m", "\x1b[36m", "\x1b[2m", "\x1b[0m"


class Screen:
    """Where events go."""

    def __init__(self) -> None:
        self._out, self._err = Stream(sys.stdout), Stream(sys.stderr)
        self._how = terminal.protocol(sys.stdout)
        self._colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self._folder: Path | None = None
        self._count = 0

    def show(self, event: Event) -> None:
        if event.kind == "stdout":
            self._out.write(event.text)
        elif event.kind == "stderr":
            self._err.write(event.text)
        elif event.kind == "error":
            self._traceback(event.text)
        elif event.output is not None:
            self._value(event.output.data)
        elif event.result is not None:
            self._end(event.result)

    def say(self, text: str) -> None:
        """A line of ours."""
        self._new_line()
        print(f"{DIM}{text}{PLAIN}" if self._colours else text, file=sys.stderr, flush=True)

    def _new_line(self) -> None:
        if not self._out.at_line_start:
            self._out.write("\n")

    def _traceback(self, text: str) -> None:
        self._new_line()
        if not self._colours:
            self._err.line(text)
            return
        print(coloured(visible(terminal.without_colours(text))).rstrip("\n"), file=sys.stderr, flush=True)

    def _value(self, data: Mapping[str, str]) -> None:
        if shown := terminal.picture(data, self._how):
            self._new_line()
            sys.stdout.write(shown + "\n")
            sys.stdout.flush()
            return
        for kind, suffix in PICTURES.items():
            if kind in data:
                self.say(f"[picture saved as {self._save(data[kind], suffix)}]")
                return
        text = next((data[kind] for kind in PRINTED if kind in data), None)
        if text is not None:
            self._out.line(text)
        elif "text/html" in data:
            self.say(f"[HTML saved as {self._save(data['text/html'], '.html')}]")
        else:
            self._out.line(next(iter(data.values()), ""))

    def _save(self, content: str, suffix: str) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="onehop-repl-"))
        self._count += 1
        path = self._folder / f"{self._count}{suffix}"
        try:
            raw = content.encode() if suffix in (".svg", ".html") else base64.b64decode(content)
        except (binascii.Error, ValueError):
            raw = b""
        path.write_bytes(raw)
        return path

    def _end(self, result: Result) -> None:
        self._new_line()
        if result.truncated:
            where = f"; the rest is in {printable(result.output_file.path)!r}" if result.output_file else ""
            self.say(f"[the output was longer than allowed{where}]")
        if result.files:
            self.say(f"[wrote {named(result.files)}]")
        if result.status not in ("ok", "error"):
            reason = f": {result.reason}" if result.reason else ""
            self.say(f"[{result.status.replace('_', ' ')}{reason}]")
        if result.variables == "lost":
            self.say("[the variables are lost, the files are there]")


def named(files: list[File]) -> str:
    """The first files' names."""
    names = [printable(file.path) for file in files[:NAMED_FILES]]
    more = len(files) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def coloured(traceback: str) -> str:
    """Places in cyan, the exception in red."""
    lines = traceback.rstrip("\n").split("\n")
    last = max(
        (number for number, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*(:|$)", line)), default=-1
    )
    shown = []
    for number, line in enumerate(lines):
        if number == last:
            name, colon, text = line.partition(":")
            line = f"{RED}{name}{PLAIN}{colon}{text}"
        elif re.match(r"\s*(File|Cell) ", line):
            line = f"{CYAN}{line}{PLAIN}"
        shown.append(line)
    return "\n".join(shown)
