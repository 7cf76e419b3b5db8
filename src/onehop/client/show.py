"""A result as people see it: HTML for notebooks, text and pictures for terminals.

All of it came out of a sandbox. Text is escaped; HTML and SVG of the code's own are shown in frames and
images that can reach neither the notebook nor the network. Nothing else of it may get into a page.
"""

from __future__ import annotations

import base64
import html as escaping
import sys
from typing import TYPE_CHECKING

from onehop.client import terminal as term

if TYPE_CHECKING:
    from onehop.client.results import Output, Result

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
MAX_FRAME_PX = 600
ROW_PX = 24
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_STYLE = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0;padding:0.2em 0"


# --- notebooks ------------------------------------------------------------------------------------


def html(result: Result) -> str:
    """The whole result as HTML that is safe in the page of a notebook."""
    parts = [_text(result.stdout), _text(result.stderr, colour="#b00020")]
    parts += [html_output(output) for output in result.results]
    if result.error is not None:
        parts.append(_text(_traceback(result), colour="#b00020"))
    if line := _ending(result):
        parts.append(_text(line, colour="#b00020"))
    if result.files:
        parts.append(_text(_files(result), colour="#666"))
    return "".join(parts)


def html_output(output: Output) -> str:
    """One displayed value as HTML that is safe in the page of a notebook."""
    data = output.data
    for kind in _PICTURES:
        if kind in data:
            return f'<img alt="" src="data:{kind};base64,{_base64(data[kind])}" style="max-width:100%">'
    if "image/svg+xml" in data:
        # In an image, scripts of an SVG do not run and nothing is loaded.
        content = base64.b64encode(data["image/svg+xml"].encode("utf-8", "replace")).decode()
        return f'<img alt="" src="data:image/svg+xml;base64,{content}" style="max-width:100%">'
    if "text/html" in data:
        return _frame(data["text/html"])
    return _text(_plain_form(output))


def _frame(content: str) -> str:
    rows = content.count("<tr")
    height = min(MAX_FRAME_PX, rows * ROW_PX + 40) if rows else MAX_FRAME_PX // 2
    if "<script" in content:
        height = MAX_FRAME_PX
    page = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta charset="utf-8">{content}'
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{escaping.escape(page)}" '
        f'style="width:100%;height:{height}px;border:0"></iframe>'
    )


def _text(text: str, *, colour: str = "") -> str:
    if not text:
        return ""
    shown = escaping.escape(term.visible(term.without_colours(text)))
    return f'<pre style="{_STYLE}{f";color:{colour}" if colour else ""}">{shown}</pre>'


def _base64(text: str) -> str:
    """Nothing but the alphabet of base64, so that it cannot leave its attribute."""
    return "".join(one for one in text if one.isascii() and (one.isalnum() or one in "+/="))


# --- terminals ------------------------------------------------------------------------------------


def terminal(result: Result) -> str:
    """The whole result as text, with pictures where this process's terminal can show them."""
    return _lines(result, term.protocol(sys.stdout))


def terminal_output(output: Output) -> str:
    return _output(output, term.protocol(sys.stdout))


def plain(result: Result) -> str:
    """The whole result as text only."""
    return _lines(result, "")


def plain_output(output: Output) -> str:
    return _output(output, "")


def _lines(result: Result, how: str) -> str:
    parts = [term.visible(result.stdout), term.visible(result.stderr)]
    parts += [_output(output, how) for output in result.results]
    if result.error is not None:
        parts.append(term.visible(_traceback(result)))
    if line := _ending(result):
        parts.append(term.visible(line))
    if result.files:
        parts.append(_files(result))
    return "\n".join(part.removesuffix("\n") for part in parts if part)


def _output(output: Output, how: str) -> str:
    return term.picture(output.data, how) or term.visible(_plain_form(output))


def _plain_form(output: Output) -> str:
    for kind in ("text/plain", "text/markdown", "text/latex", "application/json"):
        if kind in output.data:
            return output.data[kind]
    return f"[{term.printable(', '.join(output.data)) or 'nothing'}]"


def _traceback(result: Result) -> str:
    error = result.error
    assert error is not None
    return error.traceback or f"{error.name}: {error.value}"


def _ending(result: Result) -> str:
    if result.status in ("ok", "error"):
        return "[the output was longer than allowed]" if result.truncated else ""
    return f"[{result.status.replace('_', ' ')}{': ' + result.reason if result.reason else ''}]"


def _files(result: Result) -> str:
    names = ", ".join(f"{term.printable(file.path)} ({file.bytes} bytes)" for file in result.files)
    return f"[files: {names}{', …' if result.files_truncated else ''}]"
