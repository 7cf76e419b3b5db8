"""What is answered: the structs are the schema, of JSON and of OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from onehop.supervisor.messages import Usage

Status = Literal[
    "ok",
    "error",
    "timeout",
    "out_of_memory",
    "output_limit",
    "interrupted",
    "killed",
    "kernel_died",
    "protocol_error",
    "outcome_unknown",
    "running",
    "tool_call_required",
]

Variables = Literal["kept", "lost"]


class ErrorInfo(msgspec.Struct):
    """What the code raised. `traceback` has no ANSI codes."""

    name: str
    value: str
    traceback: str


class FileInfo(msgspec.Struct, omit_defaults=True):
    """A file of the workspace.

    Args:
        path: relative to the workspace.
        bytes: its size, 0 for a folder that was moved.
        modified_at: RFC 3339 in UTC; in listings and for files that were carried, not in executions' answers.
        base64: its content, where that was asked for.
        omitted: its content was asked for and left out, because all together are too large.
    """

    path: str
    bytes: int
    modified_at: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET
    omitted: bool = False


class OutputFile(msgspec.Struct):
    """The workspace file with the output that did not fit into the answer."""

    path: str
    bytes: int


class ToolCallInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A call of a tool.

    Args:
        id: unique in its execution.
        name: of the tool.
        status: `pending` calls wait for the client.
        arguments: of a pending one.
        needs: what a pending one waits for.
        error: how it failed.
        ms: from its start to its end.
    """

    id: str
    name: str
    status: Literal["pending", "running", "ok", "error", "denied", "abandoned", "outcome_unknown"]
    arguments: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    needs: Literal["result", "approval"] | None = None
    error: str = ""
    ms: float | msgspec.UnsetType = msgspec.UNSET


class Answer(msgspec.Struct, kw_only=True):
    """The outcome of an execution.

    Args:
        results: what was displayed, in order, the last expression's value last; MIME type → text or base64.
        error: what the code raised, or null.
        files: workspace files that the execution made or changed.
        files_truncated: `files` is incomplete.
        tool_calls: with the status `tool_call_required` those that wait for the client; at the end all, at most
            1000, in the order of their ends.
        usage: measured from outside the sandbox; null while it runs, -1 where the machine cannot tell.
        truncated: output or results were left out; `output_file` has the output's rest.
        variables: `kept`, or `lost` when the kernel did not survive.
        reason: one sentence on a status other than `ok` and `error`.
        exit_code: of a command, and of nothing else; null while it runs and when a signal ended it.
    """

    id: str
    session: str | None
    status: Status
    stdout: str
    stderr: str
    results: list[dict[str, str]]
    error: ErrorInfo | None
    files: list[FileInfo]
    files_truncated: bool
    tool_calls: list[ToolCallInfo]
    usage: Usage | None
    isolation: dict[str, str]
    truncated: bool
    output_file: OutputFile | None
    variables: Variables
    reason: str
    exit_code: int | msgspec.UnsetType | None = msgspec.UNSET


class EndEvent(msgspec.Struct, kw_only=True):
    """The last event: the answer without what the events before it have told."""

    id: str
    session: str | None
    status: Status
    files: list[FileInfo]
    files_truncated: bool
    tool_calls: list[ToolCallInfo]
    usage: Usage | None
    isolation: dict[str, str]
    truncated: bool
    output_file: OutputFile | None
    variables: Variables
    reason: str
    exit_code: int | msgspec.UnsetType | None = msgspec.UNSET


class TextEvent(msgspec.Struct):
    """A piece of stdout or stderr."""

    text: str


class ResultEvent(msgspec.Struct):
    """Something displayed; `final` marks the value of the last expression."""

    data: dict[str, str]
    final: bool


class ToolsLoadedEvent(msgspec.Struct):
    """The code has asked what tools there are (`tools_asked`), or knows them now (`tools_loaded`)."""

    catalogue: str


class ToolCallEvent(msgspec.Struct):
    """The code calls a tool. `arguments` is null where they are long and nobody has to act on them."""

    id: str
    name: str
    arguments: dict[str, Any] | None
    needs: Literal["result", "approval"] | None


class ToolResultEvent(msgspec.Struct):
    """A call has ended."""

    id: str
    status: str
    error: str
    ms: float


class ToolCallRequiredEvent(msgspec.Struct):
    """The execution is suspended until the client has answered some of these."""

    tool_calls: list[ToolCallInfo]


class GapEvent(msgspec.Struct, kw_only=True):
    """Events that are no longer stored: the numbers of the first and the last one."""

    first: int
    last: int


class SandboxLimits(msgspec.Struct, kw_only=True):
    """What a session's sandbox may use."""

    memory_mb: int
    processes: int
    workspace_mb: int
    workspace_inodes: int


class SessionInfo(msgspec.Struct, kw_only=True):
    """A session. Times are RFC 3339 in UTC.

    Args:
        expires_at: when it ends if nobody uses it any more.
        pinned: it does not end for being idle.
        metadata: labels of its owner's choice.
        env: names of its environment variables; their values are not told.
        executions: ids of what is running in it.
    """

    id: str
    status: Literal["idle", "busy"]
    environment: str
    created_at: str
    expires_at: str
    idle_timeout_s: float
    max_age_s: float
    pinned: bool
    metadata: dict[str, str]
    env: list[str]
    executions: list[str]
    limits: SandboxLimits
    isolation: dict[str, str]


class ContextInfo(msgspec.Struct, kw_only=True):
    """A context: a kernel with variables of its own in the session's sandbox.

    Args:
        cwd: folder of the workspace where it started, empty for the workspace itself.
    """

    name: str
    status: Literal["idle", "busy", "starting"]
    cwd: str
    created_at: str


class ContextList(msgspec.Struct):
    contexts: list[ContextInfo]


class CommandInfo(msgspec.Struct, kw_only=True):
    """A shell command.

    Args:
        id: of its execution, which has its output.
        exit_code: null while it runs and when a signal ended it.
        pid: inside the sandbox.
        background: nobody waits for its end.
        stdin_open: it was started to be fed.
    """

    id: str
    command: str
    status: Status
    exit_code: int | None
    pid: int
    background: bool
    stdin_open: bool
    started_at: str
    ended_at: str | None


class CommandList(msgspec.Struct):
    """Those that run, and the last of those that have ended; oldest first."""

    commands: list[CommandInfo]


class ToolCallRecord(msgspec.Struct, kw_only=True):
    """A call of a tool, as it was recorded when it ended.

    Args:
        number: in its execution, from 1 on.
        arguments_sha256: of the arguments, as the code sent them (msgpack), in hex.
        bytes_out, bytes_in: of the arguments, and of the result.
        ms: from its start to its end.
    """

    id: str
    number: int
    name: str
    key: str
    arguments_sha256: str
    bytes_out: int
    bytes_in: int
    started_at: str
    ms: float
    status: str
    error: str


class ToolCallList(msgspec.Struct):
    tool_calls: list[ToolCallRecord]


class SessionList(msgspec.Struct):
    sessions: list[SessionInfo]


class FileList(msgspec.Struct):
    """Regular files, sorted by path; `truncated` when there are more."""

    files: list[FileInfo]
    truncated: bool


class Interrupted(msgspec.Struct):
    """False when nothing was running."""

    interrupted: bool


def end_event(answer: Answer) -> EndEvent:
    """The answer without output, results and error."""
    return EndEvent(
        id=answer.id,
        session=answer.session,
        status=answer.status,
        files=answer.files,
        files_truncated=answer.files_truncated,
        tool_calls=answer.tool_calls,
        usage=answer.usage,
        isolation=answer.isolation,
        truncated=answer.truncated,
        output_file=answer.output_file,
        variables=answer.variables,
        reason=answer.reason,
        exit_code=answer.exit_code,
    )
