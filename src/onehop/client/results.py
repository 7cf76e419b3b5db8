"""What an execution came to: Result, its displayed values, and the events that tell it while it happens.

Everything in here came out of a sandbox: it is data to look at, and no more to be trusted than the code.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onehop.client.records import File, record
from onehop.errors import ExecutionFailedError, UnreachableError


@dataclass(frozen=True)
class ErrorInfo:
    """What the code raised; `traceback` has no colours."""

    name: str
    value: str
    traceback: str


@dataclass(frozen=True)
class Usage:
    """Measured from outside the sandbox; -1 where the machine cannot tell."""

    wall_ms: float = -1
    cpu_ms: float = -1
    peak_memory_bytes: int = -1


@dataclass(frozen=True)
class OutputFile:
    """The workspace file with the output that did not fit into the answer."""

    path: str
    bytes: int


@dataclass(frozen=True)
class Output:
    """One displayed thing in all its forms: MIME type → text, or base64 for binary types."""

    data: Mapping[str, str]

    @property
    def text(self) -> str:
        """Its plain form, or nothing."""
        return self.data.get("text/plain", "")

    @property
    def html(self) -> str | None:
        """As HTML from the sandbox: show it in a sandboxed frame only."""
        return self.data.get("text/html")

    @property
    def markdown(self) -> str | None:
        return self.data.get("text/markdown")

    @property
    def latex(self) -> str | None:
        return self.data.get("text/latex")

    @property
    def json(self) -> str | None:
        """JSON as text."""
        return self.data.get("application/json")

    @property
    def svg(self) -> str | None:
        return self.data.get("image/svg+xml")

    @property
    def png(self) -> bytes | None:
        return self._bytes("image/png")

    @property
    def jpeg(self) -> bytes | None:
        return self._bytes("image/jpeg")

    @property
    def pdf(self) -> bytes | None:
        return self._bytes("application/pdf")

    def _bytes(self, kind: str) -> bytes | None:
        try:
            return base64.b64decode(self.data[kind])
        except (KeyError, binascii.Error, ValueError):
            return None

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from onehop.client import show

        return {"text/plain": show.plain_output(self), "text/html": show.html_output(self)}

    def __repr__(self) -> str:
        from onehop.client import show

        return show.terminal_output(self)


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        id: unique in its execution.
        name: of the tool.
        status: `pending` (it waits for the client), `ok`, `error`, `denied`, `abandoned` or `outcome_unknown`.
        arguments: of a pending one.
        needs: what a pending one waits for: `result` or `approval`.
        error: how it failed.
        ms: from its start to its end; None while it is pending.
    """

    id: str
    name: str
    status: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""
    error: str = ""
    ms: float | None = None


@dataclass(frozen=True, repr=False)
class Result:
    """The outcome of an execution.

    Attributes:
        status: `ok`, `error` (it raised), `timeout`, `out_of_memory`, `output_limit`, `interrupted`, `killed`,
            `kernel_died`, `protocol_error`, `outcome_unknown`, or `running`, or `tool_call_required`.
        results: what was displayed, in order, the last expression's value last.
        error: what the code raised, or None.
        tool_calls: those that wait for the client; of an execution that has ended, all.
        files: workspace files that it made or changed; `files_truncated` when there are more.
        usage: time and memory; None while it runs.
        truncated: output or results were left out; `output_file` has the output's rest.
        variables: `kept`, or `lost` when the interpreter did not survive.
        reason: one sentence on a status other than `ok` and `error`.
        exit_code: of a command; None for code, and when a signal ended it.
    """

    id: str
    status: str
    session: str | None = None
    stdout: str = ""
    stderr: str = ""
    results: list[Output] = field(default_factory=list)
    error: ErrorInfo | None = None
    files: list[File] = field(default_factory=list)
    files_truncated: bool = False
    usage: Usage | None = None
    isolation: Mapping[str, str] = field(default_factory=dict)
    truncated: bool = False
    output_file: OutputFile | None = None
    variables: str = "kept"
    reason: str = ""
    exit_code: int | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Result:
        """From the API's answer."""
        parts: dict[str, Any] = {
            "results": [Output(data) for data in document.get("results", ())],
            "files": [File.of(one) for one in document.get("files", ())],
            "tool_calls": [record(ToolCall, one) for one in document.get("tool_calls", ())],
        }
        for name, kind in (("error", ErrorInfo), ("usage", Usage), ("output_file", OutputFile)):
            given = document.get(name)
            parts[name] = None if given is None else record(kind, given)
        return record(cls, {**document, **parts})

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def text(self) -> str:
        """The last displayed value as plain text; empty if there is none."""
        return self.results[-1].text if self.results else ""

    def raise_for_error(self) -> Result:
        """This result if its status is `ok`, so that calls can be chained.

        Raises:
            ExecutionFailedError: for every other status.
        """
        if self.ok:
            return self
        if self.error is not None:
            text = f"{self.error.name}: {self.error.value}"
        elif self.exit_code:
            text = f"the command ended with exit code {self.exit_code}"
        else:
            text = self.status.replace("_", " ") + (f": {self.reason}" if self.reason else "")
        raise ExecutionFailedError(text, self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from onehop.client import show

        return {"text/plain": show.plain(self), "text/html": show.html(self)}

    def __repr__(self) -> str:
        from onehop.client import show

        return show.terminal(self)


@dataclass(frozen=True)
class Event:
    """One thing that an execution told.

    Attributes:
        kind: `stdout`, `stderr`, `result`, `error`, `tool_call`, `tool_result`, `tool_call_required`,
            `gap` (numbers that are no longer stored) or, last, `end`.
        number: from 1 on, without gaps.
        text: of `stdout` and `stderr`; the traceback of `error`.
        output: of `result`.
        result: of `end`: all of it.
        tool_calls: of `tool_call_required`: those that wait for the client.
    """

    kind: str
    number: int
    text: str = ""
    output: Output | None = None
    result: Result | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class Gathering:
    """Events on their way to a result."""

    def __init__(self) -> None:
        self._text: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._outputs: list[dict[str, str]] = []
        self._error: dict[str, str] | None = None
        self.incomplete = False
        """Events were not stored any more, or not asked for: the answer has to be fetched."""

    def add(self, number: int, kind: str, data: dict[str, Any]) -> Event:
        """Raises UnreachableError for data that is no event's."""
        try:
            if kind in self._text:
                self._text[kind].append(data["text"])
                return Event(kind, number, text=data["text"])
            if kind == "result":
                self._outputs.append(data["data"])
                return Event(kind, number, output=Output(data["data"]))
            if kind == "error":
                self._error = data
                return Event(kind, number, text=data["traceback"] or f"{data['name']}: {data['value']}")
            if kind == "tool_call_required":
                return Event(
                    kind, number, tool_calls=tuple(record(ToolCall, one) for one in data["tool_calls"])
                )
            if kind == "end":
                return Event(kind, number, result=Result.of(self._whole(data)))
        except (KeyError, TypeError) as error:
            raise UnreachableError(f"an event of the kind {kind!r} cannot be read ({error!r})") from None
        self.incomplete = self.incomplete or kind == "gap"
        return Event(kind, number)

    def _whole(self, end: dict[str, Any]) -> dict[str, Any]:
        told = {name: "".join(parts) for name, parts in self._text.items()}
        return {**end, **told, "results": self._outputs, "error": self._error}
