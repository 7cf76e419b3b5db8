"""Rows as text for the terminal and as RESULTS.md. It formats; it measures nothing."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.measure import Row, Series
from onehop import __version__
from onehop.environments import Environment

SHARES = (0.5, 0.95, 0.99)
FEW = 100
"""With fewer samples a p99 is the slowest sample, and is marked."""


def table(row: Row) -> list[list[str]]:
    """Header and lines of a row's table."""
    columns = [
        "",
        f"p50 {row.unit}",
        "p95",
        "p99",
        *(["per second"] if row.rate else []),
        "ratio",
        "samples",
        "errors",
    ]
    lines = [columns]
    for name, series in row.series.items():
        if not series.samples_ms:
            lines.append([name, *["-"] * (len(columns) - 2), str(series.errors)])
            continue
        ratio = row.ratio(name)
        rate = [f"{series.per_second:.1f}"] if row.rate else []
        times = "-" if ratio is None else f"{ratio:.2f}x"
        lines.append(
            [name, *_percentiles(series), *rate, times, str(len(series.samples_ms)), str(series.errors)]
        )
    return lines


def _percentiles(series: Series) -> list[str]:
    values = [series.at(share) for share in SHARES]
    text = [f"{value:.2f}" if value < 100 else f"{value:.0f}" for value in values]
    if len(series.samples_ms) < FEW:
        text[2] += "*"
    return text


def terminal(row: Row) -> str:
    lines = [f"\n{row.title}  [{row.key}, {row.seconds:.0f} s]"]
    rows = table(row)
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    for line in rows:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        lines.append("  " + "  ".join(cells))
    lines += [f"  {name}: cannot ({reason})" for name, reason in row.unable.items()]
    lines += [f"  {name}: {series.first_error}" for name, series in row.series.items() if series.errors]
    lines += [f"  note: {note}" for note in row.notes]
    lines += [
        f"  {_mark(verdict.reached):<11} {verdict.target}: {verdict.measured}" for verdict in row.verdicts
    ]
    return "\n".join(lines)


def _mark(reached: bool | None) -> str:
    return {True: "reached", False: "NOT REACHED", None: "unknown"}[reached]


def markdown(rows: Sequence[Row], environment: Environment, machine: Sequence[str], *, seconds: float) -> str:
    today = datetime.datetime.now(tz=datetime.UTC)
    lines = [
        "# Results",
        "",
        f"Written by `make bench` on {today:%Y-%m-%d} in {seconds:.0f} s: one run, all peers on one machine, "
        "in interleaved rounds. README.md says how it is measured. Figures under load and faults: [SOAK.md](SOAK.md).",
        "",
        "| target | measured | |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row.title}: {verdict.target} | {verdict.measured} | {_mark(verdict.reached)} |"
        for row in rows
        for verdict in row.verdicts
    ]
    lines += [
        "",
        "## Machine",
        "",
        *[f"- {line}" for line in machine],
        "",
        "## Versions",
        "",
        versions(environment),
        "",
    ]
    for row in rows:
        header, *body = table(row)
        lines += [f"## {row.title}", ""]
        lines += ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
        lines += ["| " + " | ".join(line) + " |" for line in body]
        lines += [""]
        lines += [f"- {name}: {series.errors} errors, the first: {_line(series.first_error)}"
                  for name, series in row.series.items() if series.errors]  # fmt: skip
        lines += [f"- {name} has no figure: {reason}." for name, reason in row.unable.items()]
        lines += [f"- {note}" for note in row.notes]
        if any(len(series.samples_ms) < FEW for series in row.series.values()):
            lines.append(f"- \\* fewer than {FEW} samples: the p99 is the slowest of them.")
        if lines[-1]:
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())[:200].replace("|", "\\|")


def versions(environment: Environment) -> str:
    ours = (
        "uvicorn",
        "uvloop",
        "starlette",
        "jupyter-client",
        "ipykernel",
        "RestrictedPython",
        "pydantic-monty",
    )
    parts = [f"onehop {__version__}{_commit()}", f"Python {platform.python_version()}"]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in ours]
    parts += [
        f"{name} {environment.packages[name]}"
        for name in ("numpy", "pandas", "ipython")
        if name in environment.packages
    ]
    if program := shutil.which("bwrap"):
        parts.append(subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip())
    return ", ".join(parts) + "."


def _commit() -> str:
    folder = Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True
    )
    return f" ({done.stdout.strip()})" if done.returncode == 0 and done.stdout.strip() else ""


def machine(environment: Environment) -> list[str]:
    """What the figures depend on, and how busy the machine was with other things before the run."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    virtual = (
        " (virtual machine)"
        if any("hypervisor" in line for line in lines if line.startswith("flags"))
        else ""
    )
    memory = next(
        line.split()[1]
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    compiled = all(processes.bytecode_of(environment, name) for name in ("numpy", "pandas"))
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    return [
        f"{len(os.sched_getaffinity(0))} cores of {model}{virtual}, {int(memory) / 1e6:.1f} GB of memory",
        f"Linux {platform.release()}, transparent huge pages: {_huge_pages()}",
        f"run as {user}, load average before the run: {os.getloadavg()[0]:.2f}",
        "the peers' python has its bytecode "
        + ("compiled" if compiled else "NOT compiled: their figures are too slow"),
    ]


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "none"
    return text.partition("[")[2].partition("]")[0]
