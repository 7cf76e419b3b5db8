"""The default environment: its lock, what the zygote finds in it, its fonts, and the example."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from onehop.environments import ENVIRONMENT_VARIABLES, KERNEL_REQUIREMENTS, Environment
from onehop.environments.locking import DEFAULT_LOCK, DEFAULT_REQUIREMENTS, direct_requirements
from tests.environments.package_cells import PACKAGE_CELLS

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_inside(
    environment: Environment, code: str, cwd: Path, *, variables: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `code` with the environment's python and the variables that a zygote gets."""
    environ = {"PATH": os.defpath, "HOME": str(cwd)}
    if variables:
        environ |= dict(ENVIRONMENT_VARIABLES) | {"MPLCONFIGDIR": str(cwd / "matplotlib")}
    return subprocess.run(
        [environment.path / "bin" / "python", "-c", code],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_lock_covers_the_requirements_with_hashes_and_names_no_host() -> None:
    lock = DEFAULT_LOCK.read_text(encoding="utf-8")
    locked = set(direct_requirements(lock))
    wanted = set(direct_requirements(DEFAULT_REQUIREMENTS.read_text(encoding="utf-8")))
    assert set(KERNEL_REQUIREMENTS) <= wanted <= locked
    assert "://" not in lock
    assert not re.search(r"^-", lock, flags=re.MULTILINE)
    entries = re.findall(r"^[a-z0-9].*(?:\n    --hash=.*)*", lock, flags=re.MULTILINE)
    assert len(entries) >= len(locked)
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
    # Compiled packages have a file for each of four Pythons and two architectures at the least.
    for name in ("msgspec", "numpy", "pandas", "scipy", "pillow", "cffi"):
        assert max(entry.count("sha256:") for entry in entries if entry.startswith(f"{name}==")) >= 8, name


def test_every_direct_requirement_has_a_cell() -> None:
    assert set(PACKAGE_CELLS) == set(direct_requirements(DEFAULT_REQUIREMENTS.read_text(encoding="utf-8")))


def test_built_environment_has_what_the_lock_says(default_environment: Environment) -> None:
    lock = DEFAULT_LOCK.read_text(encoding="utf-8")
    for name, version in default_environment.packages.items():
        assert re.search(rf"^{re.escape(name)}=={re.escape(version)}\b", lock, flags=re.MULTILINE), name
    assert set(direct_requirements(DEFAULT_REQUIREMENTS.read_text(encoding="utf-8"))) <= set(
        default_environment.packages
    )


PRELOAD = """
import json, os, sys
import onehop_warm
before = set(os.listdir("/proc/self/fd"))
onehop_warm.load(PRELOAD)
after = set(os.listdir("/proc/self/fd"))
threads = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
heavy = [name for name in ("scipy", "sklearn", "polars", "duckdb", "statsmodels") if name in sys.modules]
opened = len(after) - len(before)
print(json.dumps({"threads": threads, "opened": opened, "heavy": heavy, "made": os.listdir(".")}))
"""


def preload_code(environment: Environment) -> str:
    return f"PRELOAD = {list(environment.preload)!r}\n" + PRELOAD


def test_preload_starts_no_thread_and_leaves_nothing_open(
    default_environment: Environment, tmp_path: Path
) -> None:
    answer = run_inside(default_environment, preload_code(default_environment), tmp_path)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found == {"threads": ["python"], "opened": 0, "heavy": [], "made": []}
    assert answer.stderr == ""


@pytest.mark.skipif(os.cpu_count() == 1, reason="OpenBLAS starts no thread on one core")
def test_control_without_the_variables_threads_are_there(
    default_environment: Environment, tmp_path: Path
) -> None:
    answer = run_inside(default_environment, preload_code(default_environment), tmp_path, variables=False)
    assert "jemalloc_bg_thd" in json.loads(answer.stdout)["threads"]


FIGURES = """
import io, warnings
WARM
import matplotlib.pyplot as plt
warnings.simplefilter("error", UserWarning)  # matplotlib warns of a glyph that no font has
for script, text in SCRIPTS.items():
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.set_title(text)
    plt.rcParams["font.family"] = "sans-serif"  # as seaborn and styles do
    try:
        for kind in ("png", "pdf", "svg"):
            figure.savefig(io.BytesIO(), format=kind)
    except UserWarning as warning:
        print(script, warning)
    plt.close(figure)
"""

SCRIPTS = {
    "Arabic": "\u0645\u0631\u062d\u0628\u0627",
    "Chinese": "\u9500\u552e\u989d",
    "Devanagari": "\u0928\u092e\u0938\u094d\u0924\u0947",
    "Emoji": "\U0001f680",
    "Ethiopic": "\u12a0\u121b\u122d\u129b",
    "Hebrew": "\u05e9\u05dc\u05d5\u05dd",
    "Japanese": "\u58f2\u308a\u4e0a\u3052",
    "Khmer": "\u1781\u17d2\u1798\u17c2\u179a",
    "Korean": "\ub9e4\ucd9c",
    "Tamil": "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
    "Thai": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
}


def figures_code(warm: str) -> str:
    return f"SCRIPTS = {SCRIPTS!r}\n" + FIGURES.replace("WARM", warm)


def test_every_script_has_glyphs_whatever_the_font_settings(
    default_environment: Environment, tmp_path: Path
) -> None:
    code = figures_code("import onehop_warm; onehop_warm.prepare_matplotlib()")
    answer = run_inside(default_environment, code, tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_control_without_the_fallback_glyphs_are_missing(
    default_environment: Environment, tmp_path: Path
) -> None:
    answer = run_inside(default_environment, figures_code(""), tmp_path)
    missing = {line.split()[0] for line in answer.stdout.splitlines()}
    assert missing == set(SCRIPTS) - {"Arabic", "Hebrew"}  # which DejaVu Sans has itself


def test_fonts_are_listed_by_paths_that_move_with_the_environment(default_environment: Environment) -> None:
    (listed,) = default_environment.path.glob("share/onehop/matplotlib/fontlist-*.json")
    entries = json.loads(listed.read_text(encoding="utf-8"))["ttflist"]
    directory = default_environment.site_packages / "matplotlib" / "mpl-data"
    assert {"DejaVu Sans", "Noto Sans CJK SC", "Noto Sans Thai", "SimHei"} <= {
        entry["name"] for entry in entries
    }
    for entry in entries:
        assert not entry["fname"].startswith("/")
        assert (directory / entry["fname"]).resolve().is_relative_to(default_environment.path.resolve())
        assert (directory / entry["fname"]).is_file()


def test_example_data_is_the_packages_own_file(default_environment: Environment) -> None:
    packaged = default_environment.site_packages / "statsmodels" / "datasets" / "co2" / "co2.csv"
    assert (EXAMPLES / "co2.csv").read_bytes() == packaged.read_bytes()


def test_example_analysis_writes_its_figures_and_its_table(
    default_environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "co2.csv").write_bytes((EXAMPLES / "co2.csv").read_bytes())
    answer = run_inside(default_environment, (EXAMPLES / "analysis.py").read_text(encoding="utf-8"), tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "weeks: 2284, without a measurement: 59" in answer.stdout
    for name in ("trend.png", "season.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(b"\x89PNG\r\n")
        assert int.from_bytes(picture[16:20]) > 900  # width in IHDR
    rows = (tmp_path / "by_year.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "year,weeks,mean,low,high,growth,swing"
    assert len(rows) == 1 + 44
