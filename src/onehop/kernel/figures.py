"""A matplotlib backend that shows figures in the answer: on `plt.show()`, and at the end of a cell without it.

Figures are closed when they have been shown, as in a notebook. matplotlib imports its backend by name,
late, when our files are not there any more; so the module it asks for is made here, in memory.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

CHART = "e2b/chart"
CHART_VARIABLE = "E2B_SANDBOX"
BACKEND_MODULE = "onehop_figures"
BACKEND = f"module://{BACKEND_MODULE}"
_shell: Shell | None = None
_shown: list[Any] = []
"""Figures of this cell that are in the answer already."""


class _Backend(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the backend module on import, which is when matplotlib is there for sure."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "matplotlib.pyplot":
            _select()
        if fullname != BACKEND_MODULE:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        from matplotlib.backend_bases import FigureManagerBase
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        vars(module).update(FigureCanvas=FigureCanvasAgg, FigureManager=FigureManagerBase, show=show)


def register(shell: Shell) -> None:
    """Makes our backend matplotlib's, without importing matplotlib."""
    global _shell
    _shell = shell
    if not any(isinstance(finder, _Backend) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Backend())
    # Not by MPLBACKEND: programs that user code starts inherit it and have no such module.
    if "matplotlib" in sys.modules:
        _select()
        importlib.import_module(BACKEND_MODULE)


def _select() -> None:
    import matplotlib

    matplotlib.rcParams["backend"] = BACKEND


def teach(shell: Shell) -> None:
    """Lets the shell's formatters draw figures; `%config InlineBackend` and set_matplotlib_formats change how."""
    if importlib.util.find_spec("matplotlib") is None:
        return  # matplotlib_inline is there with IPython, and cannot be imported without matplotlib
    from matplotlib_inline.config import InlineBackend

    shell.display_formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _png)
    chart = _ChartFormatter(parent=shell.display_formatter)
    chart.for_type_by_name("matplotlib.figure", "Figure", _chart)
    shell.display_formatter.formatters[CHART] = chart
    options = InlineBackend.instance(parent=shell)
    options.shell = shell
    shell.configurables.append(options)


class _ChartFormatter(BaseFormatter):
    """What a figure shows, as data: for clients that draw it themselves."""

    format_type = Unicode(CHART)
    print_method = ObjectName("_repr_e2b_chart_")
    _return_type = dict


def _chart(figure: Any) -> dict[str, Any] | None:
    """None where nobody wants it (sessions of E2B's clients say so by a variable), or where it cannot be had."""
    if os.environ.get(CHART_VARIABLE) != "true":
        return None
    try:
        from e2b_charts import chart_figure_to_dict

        return dict(chart_figure_to_dict(figure))
    except Exception:  # noqa: BLE001 - another environment, or a figure that the package cannot read
        return None


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor=figure.get_facecolor())
    return buffer.getvalue()


def is_figure(value: object) -> bool:
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(value, module.Figure)


def note(figure: Any) -> None:
    """`figure` is in the answer: it is not shown again when the cell ends."""
    if not was_shown(figure):
        _shown.append(figure)


def was_shown(figure: Any) -> bool:
    return any(one is figure for one in _shown)


def show(*args: Any, **kwargs: Any) -> None:
    """`plt.show()`: shows and closes all open figures, in the order in which they were made."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if helpers is None or not helpers.Gcf.figs:
        return
    try:
        for manager in list(helpers.Gcf.get_all_fig_managers()):
            _show_figure(manager.canvas.figure)
    finally:
        helpers.Gcf.destroy_all()


def flush() -> None:
    """At the end of a cell: what `show` does, for figures that the cell has not shown itself."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if helpers is None or not (helpers.Gcf.figs or _shown):
        return
    try:
        for manager in list(helpers.Gcf.get_all_fig_managers()):
            if not was_shown(manager.canvas.figure):
                _show_figure(manager.canvas.figure)
    finally:
        helpers.Gcf.destroy_all()
        _shown.clear()


def _show_figure(figure: Any) -> None:
    """Raises what drawing raises."""
    if _shell is None or _shell.channel is None or len(figure.get_children()) < 2:
        return  # its background patch is all that it has
    with _shell.formatting_raises():
        data, _ = _shell.display_formatter.format(figure)
    _shell.display_pub.publish(data)
