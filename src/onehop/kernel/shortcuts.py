"""Ways around IPython's machinery for what most cells are: plain Python, and plain values.

Not for speed in a warm kernel (0.1 ms) but in a fresh one: every function of IPython that a cell runs
through costs copied pages, since CPython writes to an object's reference count when it looks at it.
Measured on CPython 3.11, first cell of a fork: transforming `1+1` copies 1.7 MB, formatting `2` 2.1 MB.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

# Characters that any of IPython's transformers looks for, anywhere; and beginnings of lines that one
# looks for: escapes, prompts that were pasted along, indentation of the first line.
_SPECIAL = re.compile(r"[%!?$\f]|^\s*[,;/]|\A\s*(?:>|\.\.\.|In \[)|\A[ \t]|\A\s*\n[ \t]", re.MULTILINE)
_SCALARS = frozenset({int, bool, str, float, complex})
_LINE = 79
"""From this length on IPython's pretty printer breaks containers into lines."""


class Shortcuts:
    """Knows what the shell looked like when nobody had customised it; afterwards it steps aside."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._transformers = self._lists()
        self._counts = [len(part) for part in self._transformers]
        # IPython's traits are looked up once; who registers a printer adds to these very dictionaries.
        self._printers = [
            getattr(formatter, name)
            for formatter in shell.display_formatter.formatters.values()
            for name in ("type_printers", "deferred_printers", "singleton_printers")
            if hasattr(formatter, name)
        ]
        self._registered = [len(printers) for printers in self._printers]
        self._plain = shell.display_formatter.formatters["text/plain"]
        self._plain_printer = dict(self._plain.type_printers)

    def _lists(self) -> list[list[object]]:
        manager = self._shell.input_transformer_manager
        return [
            manager.cleanup_transforms,
            manager.line_transforms,
            manager.token_transformers,
            self._shell.input_transformers_post,
        ]

    def is_plain(self, code: str) -> bool:
        """Whether no transformer would change the cell."""
        return _SPECIAL.search(code) is None and [len(part) for part in self._transformers] == self._counts

    def text_of(self, value: object) -> str | None:
        """What `text/plain` shows for a number, a string or a short list of them, else None.

        Only for exact built-in types, which have no other representation, while nobody registered a printer.
        """
        kind = type(value)
        if kind in _SCALARS:
            text = repr(value)
        elif kind is list or kind is tuple:
            if len(value) > 30 or any(type(one) not in _SCALARS for one in value):  # type: ignore[arg-type, attr-defined]
                return None
            text = repr(value)
            if len(text) >= _LINE:
                return None
        else:
            return None
        if self._plain.float_precision or self._plain.type_printers.get(kind) is not self._plain_printer.get(
            kind
        ):
            return None
        if [len(printers) for printers in self._printers] != self._registered:
            return None
        return text
