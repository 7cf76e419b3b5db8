"""What the loop tells a wire while it works, and what a wire asks of it. The wires translate both."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from onehop.agent.model import (
    CallPart,
    Function,
    Message,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    ResultPart,
    TextDelta,
    Tokens,
    TurnEnd,
)
from onehop.sessions.answers import Answer
from onehop.sessions.caller import Caller

Kind = Literal["python", "bash", "editor"]
"""Which of our tools a model has called."""


class Container(msgspec.Struct, kw_only=True):
    """Where code runs: a session of the native API.

    Args:
        session: its id.
        expires_at: RFC 3339, when it ends if nobody uses it any more.
        made: it was made for this request.
    """

    session: str
    expires_at: str
    made: bool


class ContainerChoice(msgspec.Struct, kw_only=True):
    """Which container a request wants.

    Args:
        session: this one; it has to be there.
        conversation: the one of this conversation of the same owner, made when it is not there.
        restart: a new one when the wanted one has expired, and the model is told.
        memory_mb, files: of one that is made; `files` are ids of uploads put into its workspace.
        idle_timeout_s: of one that is made.
    """

    session: str = ""
    conversation: str = ""
    restart: bool = False
    memory_mb: int | None = None
    idle_timeout_s: float | None = None
    files: list[str] = []


class Limits(msgspec.Struct, kw_only=True):
    """Most of each that one request may use; None is the server's setting, which is also the ceiling."""

    turns: int | None = None
    wall_s: float | None = None
    tokens: int | None = None
    tool_calls: int | None = None
    cost: float | None = None


class LoopRequest(msgspec.Struct, kw_only=True):
    """What a wire asks for.

    Args:
        request: the conversation and the client's own functions (`tools`); without our tools, which the loop adds.
        kinds: our tools that the model gets; none: it is one turn, passed through.
        code_callable: the client's functions that code may call (a call of one suspends the code, alive).
        code_only: of these, the ones that the model itself must not call.
        tools: registered tools (names, patterns) that code may call.
        container: asked for when code is run for the first time.
        hosted: an upstream's own interpreter as the wire's dialect writes it, should the model's config want that.
    """

    request: ModelRequest
    caller: Caller
    kinds: list[Kind] = []
    code_callable: list[Function] = []
    code_only: list[str] = []
    tools: list[str] = []
    container: ContainerChoice = msgspec.field(default_factory=ContainerChoice)
    limits: Limits = msgspec.field(default_factory=Limits)
    hosted: dict[str, Any] = {}


class TurnStarted(msgspec.Struct):
    """A model is about to be asked; the first turn is 1."""

    turn: int


class ContainerOpened(msgspec.Struct):
    container: Container


class CodeStarted(msgspec.Struct):
    """The model begins to write a call of one of our tools. `call` names it in what follows, and is unique."""

    call: str
    kind: Kind


class CodeDelta(msgspec.Struct):
    """A piece of the code (or command), decoded from the arguments' JSON; an editor's call has none."""

    call: str
    text: str


class CodeWritten(msgspec.Struct):
    """All of it. `arguments` are the call's own; empty when they were no JSON."""

    call: str
    kind: Kind
    code: str
    arguments: dict[str, Any]


class CodeRunning(msgspec.Struct):
    call: str
    execution: str


class CodeOutput(msgspec.Struct):
    """A piece of output, as it happens."""

    call: str
    stream: Literal["stdout", "stderr"]
    text: str


class CodeShown(msgspec.Struct):
    """Something displayed: MIME type → text or base64."""

    call: str
    data: dict[str, str]


class CodeEnded(msgspec.Struct, kw_only=True):
    """A call of one of our tools has ended.

    Args:
        answer: of the execution; None for what never ran (no JSON, refused).
        result: what the model gets.
        output: an editor's answer, as plain data.
    """

    call: str
    kind: Kind
    answer: Answer | None
    result: ResultPart
    output: dict[str, Any] = {}


class ForeignStarted(msgspec.Struct):
    """The model begins to call one of the client's functions."""

    id: str
    name: str


class ForeignDelta(msgspec.Struct):
    id: str
    text: str


class ForeignCall(msgspec.Struct):
    """One of the client's functions is called, by the model."""

    part: CallPart


class CodeCalls(msgspec.Struct):
    """The code of `call` is suspended, alive, until the client has answered these (arguments as JSON text)."""

    call: str
    calls: list[CallPart]


class Report(msgspec.Struct, kw_only=True):
    """What a request took; goes to the client as our own block of usage.

    Args:
        turns: times that a model was asked.
        executions: pieces of code that ran.
        tool_calls: that the code made.
        hops_saved: round trips that a client without us would have made: one per result that we gave.
        sandbox_s, upstream_s, wall_s: seconds of code, of models, of everything.
        cost: in the currency of the configured prices, None without prices.
    """

    turns: int = 0
    executions: int = 0
    tool_calls: int = 0
    hops_saved: int = 0
    sandbox_s: float = 0.0
    upstream_s: float = 0.0
    wall_s: float = 0.0
    cost: float | None = None


EndReason = Literal[
    "answer",
    "length",
    "refusal",
    "pause",
    "foreign_calls",
    "suspended",
    "max_turns",
    "max_time",
    "max_tokens",
    "max_tool_calls",
    "max_cost",
    "repeated_error",
    "repeated_result",
]


class LoopEnd(msgspec.Struct, kw_only=True):
    """The last event, unless the loop raises.

    Args:
        reason: why it ended.
        detail: one sentence for the client on a reason that a limit or a guard gave.
        last: of the last turn.
        transcript: every message that this request added to the conversation: answers of the model, our results.
        container: when one was opened.
    """

    reason: EndReason
    detail: str = ""
    last: TurnEnd | None = None
    transcript: list[Message] = []
    tokens: Tokens = msgspec.field(default_factory=Tokens)
    report: Report = msgspec.field(default_factory=Report)
    container: Container | None = None


LoopEvent = (
    TurnStarted
    | ContainerOpened
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | CodeStarted
    | CodeDelta
    | CodeWritten
    | CodeRunning
    | CodeOutput
    | CodeShown
    | CodeEnded
    | ForeignStarted
    | ForeignDelta
    | ForeignCall
    | CodeCalls
    | TurnEnd
    | LoopEnd
)
"""Each turn's deltas, then its TurnEnd, then what was run for it (side by side, told apart by `call`)."""
