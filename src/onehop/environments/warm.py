"""Imports the preload list so that a first plot is quick and shows every script. Runs INSIDE an environment.

The builder copies this file into the environment as the module `onehop_warm`; the zygote calls `load`. It
must never import onehop, open a font (a descriptor and its offset would be shared by all forked sandboxes)
or start a thread.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHARE = Path(__file__).resolve().parents[3] / "share" / "onehop" / "matplotlib"
"""Written by fonts.py: the font list, and which font has which characters."""


def load(modules: Iterable[str]) -> dict[str, float]:
    """Import `modules` in order, as the environment's `preload` lists them.

    Returns:
        Seconds that each one took.

    Raises:
        ImportError: a module is missing or broken; the environment does not match its list.
    """
    seconds: dict[str, float] = {}
    for module in modules:
        started = time.perf_counter()
        if module.partition(".")[0] == "matplotlib":
            prepare_matplotlib()
        importlib.import_module(module)
        seconds[module] = time.perf_counter() - started
    return seconds


@functools.cache
def prepare_matplotlib() -> None:
    """Import matplotlib with the environment's own font list; let every text fall back to fonts that have it.

    matplotlib looks for its list only in a directory that it can write to, and says so on stderr; the one
    in the environment is read-only. So the two functions that look for the directory are replaced during
    the imports, and `import matplotlib` itself is told where the settings are.
    """
    os.environ["MATPLOTLIBRC"] = str(SHARE / "matplotlibrc")
    try:
        matplotlib = importlib.import_module("matplotlib")
    finally:
        del os.environ["MATPLOTLIBRC"]
    replaced = {name: getattr(matplotlib, name) for name in ("get_cachedir", "get_configdir")}
    try:
        for name in replaced:
            setattr(matplotlib, name, lambda: str(SHARE))
        font_manager = importlib.import_module("matplotlib.font_manager")
        for module in (
            "matplotlib.style",
            "matplotlib.texmanager",
        ):  # these ask for it while they are imported
            importlib.import_module(module)
    finally:
        for name, original in replaced.items():
            setattr(matplotlib, name, original)
    try:
        rows = json.loads((SHARE / "fallback.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # an environment without our font packages
    text = importlib.import_module("matplotlib.text")
    directory = Path(matplotlib.get_data_path(), "fonts", "ttf")
    fallback = FontFallback(
        [(font_manager.FontPath(str(directory / row["file"]), row["face"]), row["ranges"]) for row in rows]
    )
    fallback.install(text.Text, font_manager.fontManager)


class FontFallback:
    """Adds to every figure the fonts that its texts turned out to need, and no others.

    matplotlib can fall back from font to font, but only along `font.family`, which seaborn, styles and user
    code overwrite, and it opens all of them for each new text property: 25 files and 5 ms a time. Here the
    texts themselves are looked at as they are set, which costs ASCII text nothing.

    Args:
        fonts: (font, sorted character ranges [first, last]) in order of preference.
    """

    def __init__(self, fonts: list[tuple[Any, list[list[int]]]]) -> None:
        self._fonts = [font for font, _ in fonts]
        self._first = [[first for first, _ in ranges] for _, ranges in fonts]
        self._last = [[last for _, last in ranges] for _, ranges in fonts]
        self._seen: set[str] = set()
        self._needed: set[int] = set()

    def note(self, text: str) -> None:
        """Remember the fonts that `text` needs."""
        new = set(text) - self._seen
        self._seen |= new
        for character in new:
            code = ord(character)
            for index, first in enumerate(self._first):
                position = bisect_right(first, code) - 1
                if position >= 0 and code <= self._last[index][position]:
                    self._needed.add(index)
                    break

    def add_to(self, found: list[Any]) -> list[Any]:
        """`found`, then the needed fonts that are not in it."""
        return found + [self._fonts[i] for i in sorted(self._needed) if self._fonts[i] not in found]

    def install(self, text_class: Any, manager: Any) -> None:
        """Hook into matplotlib: every text set is noted, every search for fonts gets the fallbacks."""
        set_text = text_class.set_text
        find_fonts = manager._find_fonts_by_props

        @functools.wraps(set_text)
        def set_text_noted(artist: Any, s: Any) -> None:
            set_text(artist, s)
            if not (text := artist.get_text()).isascii():
                self.note(text)

        @functools.wraps(find_fonts)
        def find_fonts_with_fallback(prop: Any, fontext: str = "ttf", *args: Any, **kwargs: Any) -> list[Any]:
            found: list[Any] = find_fonts(prop, fontext, *args, **kwargs)
            return self.add_to(found) if fontext == "ttf" else found

        text_class.set_text = set_text_noted
        manager._find_fonts_by_props = find_fonts_with_fallback


def main() -> int:
    """Read module names from stdin and print those that exist here as JSON; used by the builder."""
    present = []
    for module in sys.stdin.read().split():
        try:
            load([module])
        except ModuleNotFoundError:
            continue
        present.append(module)
    sys.stdout.write(json.dumps(present) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
