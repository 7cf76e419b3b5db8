"""plotly figures in the answer: their data for clients that have plotly.js, and HTML for all others.

Left alone, plotly embeds 4 MB of script in each figure, and refuses to show any without nbformat, a package
that it asks for and does not use.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

RENDERERS = "plotly.io._renderers"


class _Finder(importlib.abc.MetaPathFinder):
    """Sees plotly being imported, which is late and rare."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != RENDERERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                _adapt(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Must come before plotly's import."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _adapt(module: Any) -> None:
    class Renderer(module.PlotlyRenderer):  # type: ignore[misc]
        def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, Any]:
            from plotly.io import to_html

            html = to_html(fig_dict, full_html=False, include_plotlyjs="cdn", validate=False)
            return {"text/plain": "<plotly figure>", "text/html": html, **super().to_mimebundle(fig_dict)}

    module.nbformat = module.nbformat or SimpleNamespace(__version__="5.0")
    module.renderers["onehop"] = Renderer()
    module.renderers.default = "onehop"
