"""Text and pictures that came out of a sandbox, on a terminal: text, colours, pictures and nothing else.

An escape sequence can set the clipboard, rename the window or forge what was shown before: everything
but line ends, tabs and colours is made visible. The protocols of pictures are those of kitty
(https://sw.kovidgoyal.net/kitty/graphics-protocol/) and iTerm2 (https://iterm2.com/documentation-images.html).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import TextIO

_COLOUR = r"\x1b\[[0-9;]*m"
_UNSAFE = re.compile(rf"({_COLOUR})|([\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069])")
_ANY_COLOUR = re.compile(_COLOUR)

_SIGNATURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8"}
_KITTY_CHUNK = 4096
MAX_PICTURE_BYTES = 8 * 1024 * 1024
"""Terminals keep what they have shown; a larger picture is named only."""


def visible(text: str) -> str:
    """`text` with control characters as escapes; colours, line ends, tabs and backspaces stay."""
    return _UNSAFE.sub(lambda match: match[1] or match[2].encode("unicode_escape").decode(), text)


def printable(name: str) -> str:
    """A file's name on one line: everything that does not print as an escape."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in name
    )


def without_colours(text: str) -> str:
    return _ANY_COLOUR.sub("", text)


def protocol(stream: TextIO | None, environ: Mapping[str, str] | None = None) -> str:
    """How pictures can be shown on `stream`: `kitty`, `iterm2`, or empty for not at all."""
    environ = os.environ if environ is None else environ
    try:
        if stream is None or not stream.isatty():
            return ""
    except ValueError:  # closed
        return ""
    program, term = environ.get("TERM_PROGRAM", ""), environ.get("TERM", "")
    if "TMUX" in environ or term.startswith(("screen", "tmux")):
        return ""  # they do not pass it on unless they are told to
    if "KITTY_WINDOW_ID" in environ or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return ""


def picture(data: Mapping[str, str], how: str) -> str:
    """The escape sequence that shows the picture among the forms in `data`; empty if it cannot be shown.

    Args:
        how: as `protocol` says.
    """
    for kind, signature in _SIGNATURES.items():
        if kind not in data or not how or (how == "kitty" and kind != "image/png"):
            continue
        try:
            raw = base64.b64decode(data[kind], validate=False)
        except (binascii.Error, ValueError):
            continue
        if raw.startswith(signature) and len(raw) <= MAX_PICTURE_BYTES:
            # Encoded anew: what came from the sandbox must not end the sequence and begin another.
            content = base64.b64encode(raw).decode("ascii")
            return _kitty(content) if how == "kitty" else _iterm2(content, len(raw))
    return ""


def _kitty(content: str) -> str:
    pieces = [content[start : start + _KITTY_CHUNK] for start in range(0, len(content), _KITTY_CHUNK)]
    shown = []
    for number, piece in enumerate(pieces, 1):
        head = "a=T,f=100,q=2," if number == 1 else ""
        shown.append(f"\x1b_G{head}m={int(number < len(pieces))};{piece}\x1b\\")
    return "".join(shown)


def _iterm2(content: str, size: int) -> str:
    return f"\x1b]1337;File=inline=1;size={size}:{content}\a"
