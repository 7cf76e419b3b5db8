"""When a loop has to end: what it may use, and whether it gets anywhere. Generated code can go round for ever."""

from __future__ import annotations

import math
import time
from collections import Counter
from hashlib import sha256
from typing import TypeVar

import msgspec

from onehop.agent.events import EndReason, Limits, Report
from onehop.agent.model import Tokens
from onehop.agent.upstreams.router import Model
from onehop.config import Settings
from onehop.sessions.answers import Answer

N = TypeVar("N", int, float)

SAME_ERRORS = 3
SAME_RESULTS = 2
NOTE_ERROR = (
    "\n[note: this is the same error for the {count}. time. Do something different, or answer with what "
    "you have.]"
)
NOTE_RESULT = (
    "\n[note: this code has run before with this result. Running it again changes nothing: do something different, "
    "or answer with what you have.]"
)


class Ending(msgspec.Struct):
    """Why nothing more is to be done."""

    reason: EndReason
    detail: str


class Guards:
    """Of one request.

    Args:
        limits: what the request asks for; never more than the settings.
    """

    def __init__(self, limits: Limits, settings: Settings, model: Model) -> None:
        self.turns = 0
        self.tokens = Tokens()
        self.tool_calls = 0
        self.report = Report()
        self._model = model
        self._started_s = time.monotonic()
        self._max_turns = _least(limits.turns, settings.loop_turns)
        self._wall_s = _least(limits.wall_s, settings.loop_wall_s)
        self._max_tokens = _least(limits.tokens, settings.loop_tokens)
        self._max_tool_calls = _least(limits.tool_calls, settings.loop_tool_calls)
        self._max_cost = _least(limits.cost, settings.loop_cost or math.inf)
        self._errors: Counter[bytes] = Counter()
        self._results: Counter[bytes] = Counter()
        self._counted: dict[bytes, int] = {}
        """In which turn last: what is called side by side is no repetition."""
        self._stuck: Ending | None = None
        self._expired = False

    @property
    def left_s(self) -> float:
        """Seconds of the whole request that are left."""
        return self._wall_s - (time.monotonic() - self._started_s)

    @property
    def cost(self) -> float | None:
        """So far, in the prices' currency; None without prices."""
        if self._model.input_price is None and self._model.output_price is None:
            return None
        tokens = self.tokens
        return (
            tokens.input * (self._model.input_price or 0.0)
            + tokens.output * (self._model.output_price or 0.0)
        ) / 1e6

    def before_turn(self) -> Ending | None:
        """Whether the model may be asked once more."""
        if self._stuck is not None:
            return self._stuck
        if self.turns >= self._max_turns:
            return Ending("max_turns", f"the model was asked {self.turns} times, the most allowed")
        return self.late() or self._over()

    def late(self) -> Ending | None:
        """Whether the time is over."""
        if self._expired or self.left_s <= 0:
            return Ending("max_time", f"the request took {self._wall_s:g} s, the most allowed")
        return None

    def expire(self) -> None:
        """A timer says that it is: clocks need not agree on the last millisecond."""
        self._expired = True

    def _over(self) -> Ending | None:
        used = self.tokens.input + self.tokens.output
        if used >= self._max_tokens:
            return Ending("max_tokens", f"{used} tokens were used, {self._max_tokens} are allowed")
        cost = self.cost
        if cost is not None and cost >= self._max_cost:
            return Ending("max_cost", f"{cost:.4f} was spent, {self._max_cost:g} is allowed")
        return None

    def take_call(self) -> Ending | None:
        """One more call of our tools; or why not."""
        if self.tool_calls >= self._max_tool_calls:
            self._stuck = Ending(
                "max_tool_calls", f"{self.tool_calls} tool calls were made, the most allowed"
            )
            return self._stuck
        self.tool_calls += 1
        return None

    def note(self, code: str, place: str, answer: Answer | None, told: str) -> str:
        """What to tell the model when a call's outcome shows that it goes in circles, mostly nothing.

        Args:
            place: where it ran; other interpreters have other variables.
            told: the result's text.
        """
        if answer is None or answer.error is not None or answer.status != "ok":
            key = sha256(_error(answer, told).encode("utf-8", "replace")).digest()
            if self._again_in_turn(key):
                return ""
            self._errors[key] += 1
            count = self._errors[key]
            if count > SAME_ERRORS:
                self._stuck = Ending("repeated_error", f"the same error came {count} times")
            return NOTE_ERROR.format(count=count) if count >= SAME_ERRORS else ""
        key = sha256(f"{place}\0{code}\0{told}".encode("utf-8", "replace")).digest()
        if self._again_in_turn(key):
            return ""
        self._results[key] += 1
        count = self._results[key]
        if count > SAME_RESULTS:
            self._stuck = Ending("repeated_result", f"the same code gave the same result {count} times")
        return NOTE_RESULT if count >= SAME_RESULTS else ""

    def _again_in_turn(self, key: bytes) -> bool:
        before = self._counted.get(key)
        self._counted[key] = self.turns
        return before == self.turns

    def finished(self) -> Report:
        """The report, at the end."""
        report = self.report
        report.turns = self.turns
        report.hops_saved = report.executions + report.tool_calls
        report.wall_s = round(time.monotonic() - self._started_s, 4)
        report.sandbox_s = round(report.sandbox_s, 4)
        report.upstream_s = round(report.upstream_s, 4)
        report.cost = self.cost
        return report


def _error(answer: Answer | None, told: str) -> str:
    """What makes two errors the same: not where in the code they came up."""
    if answer is None:
        return told
    if answer.error is not None:
        return f"{answer.error.name}\0{answer.error.value}"
    return f"{answer.status}\0{answer.reason}\0{answer.exit_code}\0{answer.stderr}"


def _least(asked: N | None, most: N) -> N:
    return most if asked is None else min(asked, most)
