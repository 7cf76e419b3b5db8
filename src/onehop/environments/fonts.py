"""Makes an environment's fonts ready for matplotlib. Run by the environment's own python while it is built.

    python -I fonts.py ENVIRONMENT

Font packages are linked into matplotlib's own font directory, so that every process in a sandbox finds them
there and their paths are stored relative to it, valid wherever the environment is mounted. Then the font
list is written, and which font has which characters. It must list no font of the host: a sandbox does not
see those.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

CJK = "NotoSansCJK-Regular.ttc"

FACES = {"jp": 0, "kr": 1, "sc": 2, "tc": 3}
"""The collection holds all characters in each face, drawn as that region writes them."""

FONT_PACKAGES = ("manimgx_fonts", "noto_cjk_sans_otc")

KANA = [[0x3040, 0x30FF], [0x31F0, 0x31FF], [0xFF66, 0xFF9F]]
HANGUL = [[0x1100, 0x11FF], [0x3130, 0x318F], [0xA960, 0xA97F], [0xAC00, 0xD7FF], [0xFFA1, 0xFFDC]]

ALIASES = {
    "sc": (
        "SimHei", "SimSun", "NSimSun", "KaiTi", "FangSong", "Microsoft YaHei", "DengXian", "PingFang SC",
        "Heiti SC", "STHeiti", "STSong", "Songti SC", "Hiragino Sans GB", "Source Han Sans SC",
        "Source Han Sans CN", "Noto Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Arial Unicode MS",
    ),
    "tc": (
        "Microsoft JhengHei", "PMingLiU", "MingLiU", "PingFang TC", "Heiti TC", "Source Han Sans TC",
        "Noto Sans TC",
    ),
    "jp": (
        "MS Gothic", "MS PGothic", "Meiryo", "Yu Gothic", "Hiragino Sans", "Hiragino Kaku Gothic Pro",
        "IPAGothic", "IPAPGothic", "IPAexGothic", "TakaoGothic", "TakaoPGothic", "VL PGothic",
        "Source Han Sans JP", "Noto Sans JP",
    ),
    "kr": (
        "Malgun Gothic", "NanumGothic", "NanumBarunGothic", "Apple SD Gothic Neo", "AppleGothic",
        "Noto Sans KR",
    ),
}  # fmt: skip
"""Names that code for Chinese, Japanese and Korean readers asks for. Unknown ones would give boxes, and a
warning for every text of the figure."""


def main(environment: Path) -> int:
    """Link fonts, write the list and the fallbacks; does nothing if matplotlib is not installed."""
    target = environment / "share" / "onehop" / "matplotlib"
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MPLCONFIGDIR"] = scratch  # importing font_manager writes a list of the host's fonts there
        try:
            manager: Any = importlib.import_module("matplotlib.font_manager")
        except ModuleNotFoundError:
            return 0
    data = Path(importlib.import_module("matplotlib").get_data_path())
    _link_fonts(environment, data / "fonts" / "ttf")

    find_all = manager.findSystemFonts
    manager.findSystemFonts = lambda paths=None, fontext="ttf": (
        sorted(find_all(paths, fontext)) if paths else []
    )
    fonts = manager.FontManager()
    known = {entry.name for entry in fonts.ttflist}
    cjk = {entry.index: entry for entry in fonts.ttflist if Path(entry.fname).name == CJK}
    for region, names in ALIASES.items():
        if FACES[region] in cjk:
            entry = cjk[FACES[region]]
            fonts.ttflist += [dataclasses.replace(entry, name=name) for name in names if name not in known]

    target.mkdir(parents=True, exist_ok=True)
    manager.json_dump(fonts, target / f"fontlist-v{manager.FontManager.__version__}.json")
    (target / "matplotlibrc").write_text("# matplotlib's own defaults hold.\n", encoding="utf-8")
    if cjk:
        (target / "fallback.json").write_text(
            json.dumps(_fallbacks(data / "fonts" / "ttf")), encoding="utf-8"
        )
    print(f"{len({entry.fname for entry in fonts.ttflist})} fonts")  # noqa: T201 - the builder reads it
    return 0


def _link_fonts(environment: Path, directory: Path) -> None:
    site = directory.parents[3]
    for package in FONT_PACKAGES:
        for font in sorted((site / package).glob("*.[ot]t[fc]")):
            link = directory / font.name
            if not link.exists():
                link.symlink_to(os.path.relpath(font, directory))


def _fallbacks(directory: Path) -> list[dict[str, Any]]:
    """In order of preference. Han characters are drawn as in Japan or Korea once kana or Hangul are seen."""
    cjk_only = {"file": CJK, "face": FACES["sc"]}
    rows: list[dict[str, Any]] = [
        {"file": "DejaVuSans.ttf", "face": 0},
        {"file": CJK, "face": FACES["jp"], "ranges": KANA},
        {"file": CJK, "face": FACES["kr"], "ranges": HANGUL},
    ]
    scripts = sorted(path.name for path in directory.glob("NotoSans*.ttf") if "Italic" not in path.name)
    symbols = [name for name in scripts if name.startswith("NotoSansSymbols")]
    rows += [{"file": name, "face": 0} for name in scripts if name not in symbols]
    rows += [cjk_only]
    rows += [{"file": name, "face": 0} for name in symbols]
    rows += [{"file": path.name, "face": 0} for path in sorted(directory.glob("NotoEmoji*.ttf"))]
    ft2font = importlib.import_module("matplotlib.ft2font")
    for row in rows:
        if "ranges" not in row:
            font = ft2font.FT2Font(str(directory / row["file"]), face_index=row["face"])
            row["ranges"] = _ranges(code for code in font.get_charmap() if code > 0x7F)
    return rows


def _ranges(codes: Any) -> list[list[int]]:
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return ranges


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
