"""`make soak`: the suites of faults and load with their full numbers, one part after the other; writes SOAK.md.

Each part has a section of its own there, which only that part replaces, so that parts can be run one by one.
The exit code is 1 when something was not as promised.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from bench import faults, load, mixed
from bench.parts import Budget, Outcome

PARTS: dict[str, tuple[str, Callable[[Budget], Outcome]]] = {
    "load": ("200 sessions, 50 at work at once", load.run),
    "gateway-kills": ("kill -9 of the gateway", faults.gateway_kills),
    "kernel-kills": ("Kills of kernels, sandboxes and zygotes", faults.kernel_kills),
    "supervisor-kills": ("Kills of the supervisor", faults.supervisor_kills),
    "stops": ("A supervisor that is stopped", faults.stopped_supervisor),
    "leaks": ("What sessions leave behind", faults.leftovers),
    "noise": ("Noisy tenants", faults.noisy_tenants),
    "mixed": ("Mixed load", mixed.run),
}
REPORT = Path(__file__).with_name("SOAK.md")
HEAD = "# Soak\n\nWritten by `make soak`, section by section; what each part does is in README.md.\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="one part (repeatable)")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="most minutes of each part; 0: its full numbers"
    )
    parser.add_argument(
        "--write", type=Path, help="report to write (default: SOAK.md, if --minutes is not given)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = options.write or (None if options.minutes else REPORT)
    failed = False
    for name in options.only or PARTS:
        title, part = PARTS[name]
        print(f"soak: {name}", flush=True)
        started_s = time.monotonic()
        load_before = os.getloadavg()[0]
        try:
            outcome = part(Budget(options.minutes))
        except Exception as error:  # noqa: BLE001 - a part that fails must not take the others' figures along
            traceback.print_exc()
            outcome = Outcome(problems=[f"{type(error).__name__}: {error}"])
        took_s = time.monotonic() - started_s
        text = section(name, title, outcome, took_s, load_before)
        print(text, flush=True)
        if report is not None:
            write(report, name, text)
        failed = failed or bool(outcome.problems)
    return 1 if failed else 0


def section(name: str, title: str, outcome: Outcome, took_s: float, load_before: float) -> str:
    """Markdown."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"## {title} (`{name}`)",
        "",
        f"{now}, {took_s / 60:.1f} minutes, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
        f"load before {load_before:.1f}, {'root' if os.geteuid() == 0 else 'ordinary user'}",
        "",
        "| what | figure |",
        "|---|---|",
        *(f"| {what} | {figure} |" for what, figure in outcome.figures),
        "",
    ]
    if outcome.problems:
        lines += [
            "Not as promised:",
            "",
            *(f"- {' '.join(one.split())[:500]}" for one in outcome.problems[:20]),
            "",
        ]
    else:
        lines += ["All as promised.", ""]
    return "\n".join(lines)


def write(report: Path, name: str, text: str) -> None:
    """Replaces the part's section, or adds it."""
    mark = f"(`{name}`)"
    old = report.read_text() if report.exists() else HEAD
    head, *sections = old.split("\n## ")
    kept = [f"## {one}".rstrip() for one in sections]
    at = next((n for n, one in enumerate(kept) if one.splitlines()[0].endswith(mark)), len(kept))
    kept[at : at + 1] = [text.rstrip()]
    report.write_text("\n\n".join([head.rstrip(), *kept]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
