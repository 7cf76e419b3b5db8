"""A matplotlib backend that shows figures in the answer: on `plt.show()`, and at the end of a cell without it.

Figures are closed when they have been shown, as in a notebook. matplotlib imports its backend by name,
late, when our files are not there any more; so the module it asks for is made here, in memory.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import importlib.abc
import importlib.machinery
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

BACKEND_MODULE = "onehop_figures"
BACKEND = f"module://{BACKEND_MODULE}"
_shell: Shell | None = None
formats: tuple[str, ...] = ("png",)
"""`png` and/or `svg`."""


class _Backend(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the backend module on import, which is when matplotlib is there for sure."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
                  ) -> importlib.machinery.ModuleSpec | None:
        if fullname != BACKEND_MODULE:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        from matplotlib.backend_bases import FigureManagerBase
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        vars(module).update(FigureCanvas=FigureCanvasAgg, FigureManager=FigureManagerBase, show=show)


def register() -> None:
    """Makes our backend matplotlib's, without importing matplotlib."""
    if not any(isinstance(finder, _Backend) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Backend())
    os.environ["MPLBACKEND"] = BACKEND
    if "matplotlib" in sys.modules:
        import matplotlib

        matplotlib.rcParams["backend"] = BACKEND
        importlib.import_module(BACKEND_MODULE)


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
