"""Ways through the model: one past every crash point, and walks at random that hypothesis chooses and shrinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies

from onehop.crash import POINTS as ALL_POINTS
from onehop.crash import TOOL_POINTS
from tests.faults.model import Model
from tests.faults.server import FaultServer

Step = tuple[str, int, int]
"""What to do, to which session, and how: flags of the step, a delay, a crash point."""

DELAYS_MS = 400
POINTS = tuple(point for point in ALL_POINTS if point not in TOOL_POINTS)
"""The others have tests of their own: tests/api/test_tool_restarts.py."""

steps = strategies.lists(
    strategies.one_of(
        strategies.tuples(
            strategies.sampled_from(
                [*["count"] * 3, *["stream"] * 2, *["once"] * 2, "create", "put", "get", "interrupt", "drop"]
            ),
            strategies.integers(0, 3),
            strategies.integers(0, 3),
        ),
        strategies.tuples(strategies.just("kill"), strategies.just(0), strategies.integers(0, DELAYS_MS)),
        strategies.tuples(
            strategies.just("crash"), strategies.integers(1, 2), strategies.integers(0, len(POINTS) - 1)
        ),
    ),
    min_size=6,
    max_size=14,
)


def walk(server: FaultServer, chosen: list[Step]) -> None:
    """Takes the steps and checks everything at the end."""
    model = Model(server)
    try:
        model.create(keyed=True)
        for step in chosen:
            take(model, step)
        model.verify()
        model.leave()
    finally:
        server.no_crash()
        model.close()


def take(model: Model, step: Step) -> None:
    kind, which, how = step
    if kind == "create":
        if len(model.sessions) < 4:
            model.create(keyed=bool(how & 1))
        return
    if kind == "kill":
        model.kill_soon(how / 1000)
        return
    if kind == "once":
        model.once(keyed=bool(how & 1), dies=bool(how & 2))
        return
    if kind == "crash":
        model.server.no_crash()
        model.server.crash_at(POINTS[how], which)
        return
    if not model.sessions:
        model.create(keyed=True)
    name = list(model.sessions)[which % len(model.sessions)]
    actions: dict[str, Callable[[], Any]] = {
        "count": lambda: model.count(name, keyed=bool(how & 1), slow=bool(how & 2)),
        "stream": lambda: model.stream(name, slow=bool(how & 2)),
        "put": lambda: model.put(name, f"file{how}"),
        "get": lambda: model.get(name, f"file{how}"),
        "interrupt": lambda: model.interrupt(name),
        "drop": lambda: model.drop(name),
    }
    actions[kind]()


def past(server: FaultServer, point: str, times: int = 1) -> None:
    """Everything that a client can do, with a gateway that dies at `point` on the way."""
    model = Model(server)
    try:
        model.create(keyed=True)
        (name,) = model.sessions
        model.count(name, keyed=True)
        if point == "recovery-half-done":
            server.crash_at(point, times)
            server.kill_gateway()
        else:
            server.crash_at(point, times)
        for keyed in (False, True):
            # First, and without a key: when the commit of its result dies, its sandbox is gone already.
            model.once(keyed=keyed, dies=keyed)
            model.create(keyed=keyed)
            for known in list(model.sessions):
                model.count(known, keyed=keyed)
                model.stream(known, slow=keyed)
                model.put(known, "file")
        model.drop(list(model.sessions)[-1])
        model.create(keyed=True)
        waits = server.no_crash()
        assert not waits or times > 1, f"the gateway never came to {point}"
        model.verify()
        model.leave()
    finally:
        server.no_crash()
        model.close()
