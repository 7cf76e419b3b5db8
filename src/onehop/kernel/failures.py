"""What a cell raised, as its user should see it: no frame of the shell's own, no ANSI codes, no surprise.

It formats objects of hostile code, so nothing that their methods raise may get out of here.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import linecache
import os
import traceback

import IPython
from IPython.core.error import UsageError

from onehop.protocol import Failure

MAX_TRACEBACK_CHARS = 32_768
MAX_MESSAGE_CHARS = 8_192
CELL_PREFIX = "<cell "
OWN = (os.path.dirname(IPython.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep)
"""Where the frames lie that are nobody's business: IPython's and ours."""


def describe(error: BaseException) -> Failure:
    """Name, message and traceback."""
    name = type(error).__name__
    try:
        value = str(error)
    except Exception:  # noqa: BLE001 - user code's __str__
        value = "<the exception's text cannot be had>"
    if isinstance(error, UsageError):
        text = f"UsageError: {value}"
    else:
        try:
            text = _format(error)
        except Exception:  # noqa: BLE001 - user code's __repr__, __cause__ loops and the like
            text = f"{name}: {value}"
    return Failure(
        name=_clean(name, 256),
        value=_clean(value, MAX_MESSAGE_CHARS),
        traceback=_clean(text, MAX_TRACEBACK_CHARS),
    )


def _format(error: BaseException) -> str:
    linecache.checkcache()
    entry = error.__traceback__
    while entry is not None and not entry.tb_frame.f_code.co_filename.startswith(CELL_PREFIX):
        entry = entry.tb_next
    if isinstance(error, SyntaxError):
        if error.text is None and error.filename and error.filename.startswith(CELL_PREFIX):
            error.text = linecache.getline(error.filename, error.lineno or 0) or None
    elif entry is None:
        entry = error.__traceback__
    # Lines are looked up when they are formatted, after the frames that nobody will see are gone.
    described = traceback.TracebackException(type(error), error, entry, compact=True, lookup_lines=False)
    _drop_own(described, 0)
    return "".join(described.format()).rstrip("\n")


def _drop_own(described: traceback.TracebackException, depth: int) -> None:
    described.stack[:] = [frame for frame in described.stack if not frame.filename.startswith(OWN)]
    if depth < 50:
        for other in (described.__cause__, described.__context__, *(described.exceptions or ())):
            if other is not None:
                _drop_own(other, depth + 1)


def _clean(text: str, most: int) -> str:
    """Cut in the middle: the beginning says where, the end says what. Lone surrogates cannot be sent."""
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
