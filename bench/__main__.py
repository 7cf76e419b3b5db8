"""`python -m bench`: the rows side by side, printed as they come; a full run writes RESULTS.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import calls, footprint, lambdas, loop, report, setup, speed, system
from bench.measure import Row
from bench.server import ServerFailedError

RESULTS = Path(__file__).parent / "RESULTS.md"
ROWS: Mapping[str, Callable[[setup.Setup], Row]] = {
    "fresh-add": speed.fresh_add,
    "fresh-describe": speed.fresh_describe,
    "throughput": speed.throughput,
    "live-add": speed.live_add,
    "imports": speed.imports,
    "tool-call": calls.one_after_another,
    "tool-gather": calls.at_once,
    "tool-mcp": calls.mcp,
    "twenty-calls": calls.twenty,
    "lambda": lambdas.lane,
    "loop-turn": loop.turn,
    "loop-first-byte": loop.first_byte,
    "loop-conversations": loop.conversations,
    "memory": footprint.memory,
    "sessions": footprint.many_sessions,
    "import": footprint.sdk_import,
}


def main() -> int:
    """The exit code is 1 when a target was not reached, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and requests, for a first look")
    parser.add_argument(
        "--only", action="append", choices=ROWS, metavar="NAME", help=f"one of {', '.join(ROWS)}; repeatable"
    )
    parser.add_argument("--peers", action="store_true", help="the peers without onehop")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help=f"write the report (a full run always does: {RESULTS.name})",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = options.only or list(ROWS)
    full = not (options.quick or options.only or options.peers)
    target: Path | None = options.write or (RESULTS if full else None)
    started = time.monotonic()
    rows: list[Row] = []
    traces = None
    try:
        with setup.start(quick=options.quick, with_onehop=not options.peers, say=_say) as what:
            if what.onehop is not None:
                traces = system.Traces.of(what.onehop.pid)
            machine = report.machine(what.environment)
            for line in machine:
                _say(line)
            for name in names:
                rows.append(ROWS[name](what))
                print(report.terminal(rows[-1]), flush=True)
    except ServerFailedError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    left = traces.left() if traces else []
    for line in left:
        print(f"\nNOT REACHED: after the end of the server there is still {line}")
    if target is not None:
        text = report.markdown(rows, what.environment, machine, seconds=time.monotonic() - started)
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        scratch.write_text(text)
        scratch.replace(target)
        _say(f"wrote {target}")
    missed = sum(verdict.reached is False for row in rows for verdict in row.verdicts)
    _say(f"{time.monotonic() - started:.0f} s; {missed} targets not reached")
    return 1 if missed or left else 0


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
