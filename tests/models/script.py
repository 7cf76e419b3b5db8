"""What the scripted model says: turns of steps, for every dialect the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class Gate:
    """Where a turn stops until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.future: Future[None] = Future()

    def open(self) -> None:
        self.future.set_result(None)


@dataclass
class Text:
    """Said in `pieces` deltas (0: one for each word), `per_s` of them in a second (0: at once)."""

    text: str
    pieces: int = 0
    per_s: float = 0.0


@dataclass
class Stamps:
    """`count` pieces of text, each the time at which it is sent (time.monotonic(), as `@12.345678 `)."""

    count: int
    per_s: float


@dataclass
class Reasoning:
    text: str
    pieces: int = 0


@dataclass
class Refusal:
    text: str


@dataclass
class Call:
    """A function called. `arguments` as text is sent as it is, were it no JSON; `pieces` as for Text (0: four)."""

    name: str
    arguments: dict[str, Any] | str
    id: str = ""
    pieces: int = 0

    @property
    def written(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass
class Calls:
    """Several in parallel, their pieces interleaved where the dialect allows that."""

    calls: list[Call]


@dataclass
class Raw:
    """Bytes into the stream, as they are: a whole event of the dialect, or nonsense."""

    content: bytes


@dataclass
class Sleep:
    seconds: float


@dataclass
class Pause:
    gate: Gate


@dataclass
class HangUp:
    """The connection is cut here, mid-answer; as the first step before any answer."""


@dataclass
class Status:
    """As the only step: an answer that is no stream. A `body` of None is the dialect's document of an error."""

    status: int
    message: str = "scripted"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


Step = Text | Stamps | Reasoning | Refusal | Call | Calls | Raw | Sleep | Pause | HangUp | Status


@dataclass
class Turn:
    """One answer.

    Args:
        stop: why it ends, in our words (end, calls, length, refusal); empty: as its steps say.
        ends: it has its end; without it the body ends after the last step.
    """

    steps: list[Step]
    stop: str = ""
    input_tokens: int = 10
    output_tokens: int = 5
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    ends: bool = True

    @property
    def stopped(self) -> str:
        if self.stop:
            return self.stop
        if any(isinstance(step, Call | Calls) for step in self.steps):
            return "calls"
        return "refusal" if any(isinstance(step, Refusal) for step in self.steps) else "end"


@dataclass
class Request:
    """What came in. `gone` is set when its client hung up before the answer's end, `done` when all was said."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    number: int
    gone: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


Reply = Turn | list[Step]
Script = Callable[[Request], Reply]


def pieces(text: str, count: int) -> list[str]:
    """`text` cut into `count` pieces of about one length; 0: before every word."""
    if count > 0:
        size = max(1, -(-len(text) // count))
        return [text[at : at + size] for at in range(0, len(text), size)] or [""]
    found: list[str] = []
    for word in text.split(" "):
        found.append(word if not found else " " + word)
    return found
