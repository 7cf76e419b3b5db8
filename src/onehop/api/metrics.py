"""Figures for Prometheus, in its text format (https://prometheus.io/docs/instrumenting/exposition_formats/).

A request costs one look-up and one addition; everything else happens when somebody asks. Written here
and not with a client library, whose counters cost ten times as much and take locks that one loop does
not need. Labels are route templates, never paths, ids or names of tenants.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping

from onehop import __version__, errors
from onehop.api.asgi import Call
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.caller import READ

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""The route of what has none, and the method that no route has: a client must not be able to add series."""
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_STARTED_AT = time.time()

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]


class Requests:
    """Counts and durations of requests, by method, route and status."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], list[float]] = {}

    def observe(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Args: route: the template; empty for what has none."""
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            if method not in METHODS:
                key = (OTHER, route, status)
            series = self._series.setdefault(key, [0.0] * (len(BUCKETS_S) + 2))
        series[bisect_left(BUCKETS_S, duration_s)] += 1
        series[-1] += duration_s

    def families(self) -> Iterable[str]:
        counts: list[Sample] = []
        sums: dict[tuple[str, str], list[float]] = {}
        for (method, route, status), series in self._series.items():
            labels = {"method": method, "route": route or OTHER, "status": str(status)}
            counts.append(("onehop_requests_total", labels, sum(series[:-1])))
            total = sums.setdefault((method, route or OTHER), [0.0] * len(series))
            total[:] = [one + other for one, other in zip(total, series, strict=True)]
        yield family("onehop_requests_total", "counter", "Requests answered.", counts)
        durations: list[Sample] = []
        name = "onehop_request_duration_seconds"
        for (method, route), total in sums.items():
            labels, below = {"method": method, "route": route}, 0.0
            for bound, count in zip((*BUCKETS_S, float("inf")), total[:-1], strict=True):
                below += count
                durations.append((f"{name}_bucket", {**labels, "le": _number(bound)}, below))
            durations.append((f"{name}_sum", labels, total[-1]))
            durations.append((f"{name}_count", labels, below))
        yield family(name, "histogram", "Time until a request was answered, streams to their end.", durations)


class Metrics:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.requests = Requests()

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/metrics",
                self.answer,
                "metrics",
                "Server",
                "Figures for Prometheus",
                scope=READ,
                answers={200: (Body("In Prometheus' text format.", media_type="text/plain"),)},
            )
        ]

    async def answer(self, call: Call) -> None:
        text = "".join([*self.requests.families(), *await self._engine_families(), *_process()])
        await call.answer(text.encode(), headers=[(b"content-type", CONTENT_TYPE)])

    async def _engine_families(self) -> list[str]:
        figures = self._engine.statistics()
        found = [
            one("onehop_info", "gauge", "The running version.", 1, version=__version__),
            family(
                "onehop_executions_total",
                "counter",
                "Executions that ended, by how.",
                [
                    ("onehop_executions_total", {"status": status}, count)
                    for status, count in sorted(self._engine.outcomes.items())
                ],
            ),
            family(
                "onehop_tool_calls_total",
                "counter",
                "Calls of tools that ended, by how.",
                [
                    ("onehop_tool_calls_total", {"status": status}, count)
                    for status, count in sorted(self._engine.call_outcomes.items())
                ],
            ),
            one("onehop_sessions", "gauge", "Live sessions.", figures["sessions"]),
            one("onehop_executions_running", "gauge", "Executions under way.", figures["running"]),
            one("onehop_executions_unstored", "gauge", "Results not committed yet.", figures["unstored"]),
            one(
                "onehop_store_lag_seconds",
                "gauge",
                "Age of the oldest thing that waits to be committed.",
                self._engine.store_lag_s,
            ),
        ]
        try:
            about = await self._engine.describe()
        except errors.UnavailableError:
            return [*found, one("onehop_supervisor_up", "gauge", "The supervisor answers.", 0)]
        pools: list[Sample] = [
            (f"onehop_pool_{name}", {"environment": environment}, value)
            for environment, pool in about["environments"].items()
            for name, value in pool.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        for name in sorted({name for name, _, _ in pools}):
            text = f"Figure {name.removeprefix('onehop_pool_')!r} of the pools of sandboxes."
            found.append(family(name, "gauge", text, [sample for sample in pools if sample[0] == name]))
        return [
            *found,
            one("onehop_supervisor_up", "gauge", "The supervisor answers.", 1),
            one("onehop_sandboxes", "gauge", "Sandboxes that exist.", about["sandboxes"]),
            one("onehop_sandboxes_assigned", "gauge", "Sandboxes in use.", about["assigned"]),
            one("onehop_executions_kept", "gauge", "Executions the supervisor holds.", about["executions"]),
        ]


def _process() -> list[str]:
    times = os.times()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return [
        one("process_cpu_seconds_total", "counter", "CPU time of the gateway.", times.user + times.system),
        one("process_resident_memory_bytes", "gauge", "Memory of the gateway.", resident),
        one(
            "process_open_fds", "gauge", "Open descriptors of the gateway.", len(os.listdir("/proc/self/fd"))
        ),
        one("process_start_time_seconds", "gauge", "When the gateway started.", _STARTED_AT),
    ]


def one(name: str, kind: str, text: str, value: float, **labels: str) -> str:
    """A family of one sample."""
    return family(name, kind, text, [(name, labels, value)])


def family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    """The lines of one metric. `kind`: counter, gauge or histogram."""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for sample, labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{sample}{{{inside}}} {_number(value)}" if inside else f"{sample} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
