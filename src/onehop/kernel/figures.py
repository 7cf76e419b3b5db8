"""A matplotlib backend that shows figures in the answer: on `plt.show()`, and at the end of a cell without it.

Figures are closed when they have been shown, as in a notebook.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

BACKEND = "module://onehop.kernel.figures"
_shell: Shell | None = None
formats: tuple[str, ...] = ("png",)
"""`png` and/or `svg`; changed by `%config InlineBackend.figure_formats` or set_matplotlib_formats."""


def register() -> None:
    """Makes this module matplotlib's backend, without importing matplotlib."""
    os.environ["MPLBACKEND"] = BACKEND
    if "matplotlib" in sys.modules:
        import matplotlib

        matplotlib.rcParams["backend"] = BACKEND


def __getattr__(name: str) -> Any:
    """matplotlib's backend interface, resolved late so that a zygote without matplotlib can load this module."""
    if name == "FigureCanvas":
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        return FigureCanvasAgg
    if name == "FigureManager":
        from matplotlib.backend_bases import FigureManagerBase

        return FigureManagerBase
    raise AttributeError(name)


def show(*args: Any, **kwargs: Any) -> None:
    """`plt.show()`."""
    if _shell is not None:
        flush(_shell)


def flush(shell: Shell) -> None:
    """Shows and closes all open figures, in the order in which they were made."""
    global _shell
    _shell = shell
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if helpers is None or not helpers.Gcf.figs:
        return
    try:
        for manager in list(helpers.Gcf.get_all_fig_managers()):
            figure = manager.canvas.figure
            if figure.axes or figure.lines or figure.texts:
                _show_figure(shell, figure)
    finally:
        helpers.Gcf.destroy_all()


def render(figure: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, bbox_inches="tight", facecolor=figure.get_facecolor())
    return buffer.getvalue()


def _show_figure(shell: Shell, figure: Any) -> None:
    data: dict[str, str | bytes] = {"text/plain": repr(figure)}
    for kind in formats:
        if kind == "svg":
            data["image/svg+xml"] = render(figure, "svg").decode()
        else:
            data["image/png"] = render(figure, "png")
    if shell.channel is not None:
        shell.channel.display(data)
