"""What a person types into `onehop repl`: lines that become one piece of code, with history and completion.

Whether Python is complete is decided here, with this interpreter's compiler; nothing typed is ever run here.
"""

from __future__ import annotations

import ast
import codeop
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onehop.cli.nudge import Nudges

HISTORY_LINES = 5000
PROMPT, CONTINUED = ">>> ", "... "
_DELIMITERS = " \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/?"
"""Not the dot: readline's word is then the whole `frame.col`."""

Complete = Callable[[str, int], tuple[str, list[str]]]
"""A line and the cursor's place in it → the text before the cursor that is to be replaced, and by what."""


def is_complete(source: str) -> bool:
    """Whether `source` is ready to be run: as in Python's own shell, a block ends with an empty line."""
    first = source.lstrip().splitlines()[0] if source.strip() else ""
    last = source.rpartition("\n")[2]
    if first.startswith("%%"):
        return "\n" in source and not last.strip()
    if first.startswith(("%", "!", "?")) or (first.endswith("?") and "\n" not in source):
        return not source.endswith("\\")
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        return compiler(source, "<typed>", "single") is not None
    except (SyntaxError, ValueError, OverflowError):
        # The kernel says what is wrong with it, or knows what it means (`!ls` in a block): not in mid-block.
        return not ("\n" in source and last[:1].isspace() and last.strip())


class Reader:
    """Pieces of code from standard input, with readline where a person types.

    Args:
        complete: asked when Tab is pressed.
    """

    def __init__(self, history: Path | None, complete: Complete) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._history = history
        self._complete = complete
        self._found: list[str] = []
        self._nudges = Nudges()

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """History is read at the beginning and written at the end."""
        readline = _readline() if self.interactive else None
        if readline is None:
            yield
            return
        readline.set_completer(self._next_completion)
        readline.set_completer_delims(_DELIMITERS)
        readline.parse_and_bind("tab: complete")
        readline.set_history_length(HISTORY_LINES)
        if self._history is not None:
            with contextlib.suppress(OSError):
                self._history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.close(os.open(self._history, os.O_RDONLY | os.O_CREAT, 0o600))
                readline.read_history_file(self._history)
        try:
            with self._nudges.running():
                yield
        finally:
            if self._history is not None:
                with contextlib.suppress(OSError):
                    readline.write_history_file(self._history)

    def read(self) -> str:
        """The next piece of code, without the lines' last newline; empty for an empty line.

        Raises:
            EOFError: there is no more (Ctrl-D).
            KeyboardInterrupt: Ctrl-C; what was typed so far is dropped.
        """
        lines: list[str] = []
        while True:
            try:
                line = self._line(CONTINUED if lines else PROMPT)
            except EOFError:
                if lines and not self.interactive:
                    return "\n".join(lines)
                raise
            lines.append(line)
            source = "\n".join(lines)
            if not source.strip():
                return ""
            if is_complete(source):
                return source

    def _line(self, prompt: str) -> str:
        if self.interactive:
            with self._nudges.waiting():
                return input(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def _next_completion(self, word: str, state: int) -> str | None:
        """readline's protocol: called with 0, 1, … until it gets None."""
        if state == 0:
            self._found = self._look_up(word)
        return self._found[state] if state < len(self._found) else None

    def _look_up(self, word: str) -> list[str]:
        readline = _readline()
        if readline is None:
            return []
        line, cursor = readline.get_line_buffer(), readline.get_endidx()
        if not line[:cursor].strip():
            return ["    "]  # Tab indents
        replaced, found = self._complete(line, cursor)
        return fit(word, replaced, found)


def fit(word: str, replaced: str, found: list[str]) -> list[str]:
    """Completions that replace `replaced` as such that replace `word`: both end at the cursor."""
    if word.endswith(replaced):
        fitted = [word[: len(word) - len(replaced)] + one for one in found]
    elif replaced.endswith(word):
        cut = len(replaced) - len(word)
        fitted = [one[cut:] for one in found if one.startswith(replaced[:cut])]
    else:
        fitted = []
    # A newline or an escape in a name would be typed into the terminal.
    return [one for one in fitted if one.isprintable() and not re.search(r"[\x00-\x1f\x7f]", one)]


def _readline() -> Any:
    """The module, or None where Python was built without it."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def history_path() -> Path:
    """In the user's state folder (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return folder / "onehop" / "repl_history"
