"""What a client may ask for.

The structs are the schema: they decode the JSON strictly (unknown fields and wrong types are errors)
and OpenAPI is made from them. Bounds that settings decide are checked in `bounds.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from onehop.errors import InvalidJsonError, InvalidRequestError
from onehop.sessions.calls import ToolChoice
from onehop.sessions.imports import ImportRules

MAX_FILES = 1000
"""Most files in one request."""

AT_CREATION = frozenset({"environment", "memory_mb", "processes", "workspace_mb"})
"""Fields of a sandbox: an execution in a session cannot change them."""

Positive = Annotated[float, Meta(gt=0)]
PositiveInt = Annotated[int, Meta(ge=1)]


class Binary(msgspec.Struct, forbid_unknown_fields=True):
    """File content that is not text."""

    base64: bytes


class SandboxFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a sandbox may be and use.

    Args:
        environment: name of the set of packages; the server's default when left out.
        memory_mb: MiB of memory for all its processes and temporary files together.
        processes: most processes and threads at once.
        workspace_mb: quota of the workspace in MiB.
    """

    environment: Annotated[str, Meta(max_length=255)] | None = None
    memory_mb: PositiveInt | None = None
    processes: PositiveInt | None = None
    workspace_mb: PositiveInt | None = None


ContextName = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}(?![\\s\\S])")]
MAX_COMMAND_BYTES = 131_071
"""The longest argument of a program (MAX_ARG_STRLEN, include/uapi/linux/binfmts.h), without its NUL."""


class ExecuteRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Code to run, and what it may use while it runs.

    Args:
        code: Python source; IPython's magics, `!cmd` and top-level await work.
        timeout_s: wall seconds until it is stopped.
        cpu_s: CPU seconds until it is stopped.
        output_bytes: bytes of stdout and stderr returned; the rest goes to a file of the workspace.
        env: environment variables for this execution, besides those of the session.
        files: path in the workspace → text, or `{"base64": …}`; written before the code runs.
        stdin: what `input()` reads.
        context: which of the session's kernels; every session has `main`.
        on_disconnect: what happens when the client hangs up before the end.
        tools: what the code may call: names of registered tools (`weather.forecast`, `weather.*`, `*`), and tools of
            the client's own; the session's when left out.
        max_tool_calls: most calls of tools.
        tool_results_timeout_s: seconds that it waits, suspended, for results of the client's tools.
        imports: which modules the code may import; the session's rules when left out.
    """

    code: str
    timeout_s: Positive | None = None
    cpu_s: Positive | None = None
    output_bytes: PositiveInt | None = None
    env: dict[str, str] = {}
    files: dict[str, str | Binary] = {}
    stdin: str = ""
    context: ContextName = "main"
    on_disconnect: Literal["continue", "interrupt"] = "continue"
    tools: list[ToolChoice] | None = None
    max_tool_calls: PositiveInt | None = None
    tool_results_timeout_s: Positive | None = None
    imports: ImportRules | None = None


class ContextRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A context to be made.

    Args:
        name: 1 to 64 letters, digits, `_` and `-`; one is made up when it is left out.
        cwd: folder of the workspace where it starts.
    """

    name: ContextName | None = None
    cwd: str = ""


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object."""


class ContextChoice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which of a session's contexts."""

    context: ContextName = "main"


class CommandRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A shell command to run.

    Args:
        command: for `bash -c`.
        cwd: folder of the workspace where it starts.
        env: environment variables besides those of the session.
        stdin: what it reads first.
        stdin_open: more stdin follows, by requests of its own.
        timeout_s: wall seconds until it is stopped; in the background none unless asked for.
        cpu_s, output_bytes, on_disconnect: as in ExecuteRequest.
        background: answer at once; it goes on until it ends, is killed, or the session ends.
    """

    command: str
    cwd: str = ""
    env: dict[str, str] = {}
    stdin: str = ""
    stdin_open: bool = False
    timeout_s: Positive | None = None
    cpu_s: Positive | None = None
    output_bytes: PositiveInt | None = None
    background: bool = False
    on_disconnect: Literal["continue", "interrupt"] = "continue"


class SignalRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A signal by its name or number."""

    signal: str | int


class ExecuteOnceRequest(ExecuteRequest, kw_only=True, forbid_unknown_fields=True):
    """Code to run in a sandbox of its own, which is gone afterwards.

    Args:
        code, timeout_s, cpu_s, output_bytes, env, files, stdin, context, on_disconnect, tools, max_tool_calls,
            tool_results_timeout_s, imports: as in ExecuteRequest.
        environment, memory_mb, processes, workspace_mb: as in SessionRequest.
        return_files: put the content of the files that the code made into the answer.
    """

    environment: Annotated[str, Meta(max_length=255)] | None = None
    memory_mb: PositiveInt | None = None
    processes: PositiveInt | None = None
    workspace_mb: PositiveInt | None = None
    return_files: bool = False


class SessionRequest(SandboxFields, kw_only=True, forbid_unknown_fields=True):
    """A session to be made.

    Args:
        environment, memory_mb, processes, workspace_mb: as in SandboxFields.
        idle_timeout_s: seconds without a request after which it ends.
        max_age_s: seconds after which it ends in any case.
        pinned: it does not end for being idle.
        metadata: labels of your choice.
        env: environment variables of all its executions and commands.
        tools: those of its executions that name none themselves; see ExecuteRequest.
        imports: the rules of its executions that have none of their own.
    """

    idle_timeout_s: Positive | None = None
    max_age_s: Positive | None = None
    pinned: bool = False
    metadata: dict[str, str] = {}
    env: dict[str, str] = {}
    tools: list[ToolChoice] = []
    imports: ImportRules | None = None


class SessionChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What of a session is to be different; what is left out stays.

    Args:
        idle_timeout_s, max_age_s, pinned: as in SessionRequest.
        ends_in_s: seconds from now after which it ends in any case; null takes such an end away.
        metadata: replaces all labels.
    """

    idle_timeout_s: Positive | msgspec.UnsetType = msgspec.UNSET
    max_age_s: Positive | msgspec.UnsetType = msgspec.UNSET
    ends_in_s: Positive | msgspec.UnsetType | None = msgspec.UNSET
    pinned: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


R = TypeVar("R")


class MoveRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where a file or folder shall be.

    Args:
        move_to: its new path in the workspace; folders on the way are made.
        overwrite: a file that is there already is replaced; a folder never is, unless it is empty.
    """

    move_to: str
    overwrite: bool = False


def decode(decoder: msgspec.json.Decoder[R], body: bytes | bytearray) -> R:
    """The request in a JSON body.

    Raises:
        InvalidJsonError: it is not JSON, or not UTF-8.
        InvalidRequestError: a field is unknown, missing, or of a wrong type; `field` names it.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except UnicodeDecodeError:
        raise InvalidJsonError("the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidJsonError("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        detail = "the body is empty" if not body else f"the body is not valid JSON: {error}"
        raise InvalidJsonError(detail) from None


def _invalid(message: str) -> InvalidRequestError:
    text, separator, path = message.rpartition(" - at `$")
    if not separator:
        text, path = message, ""
    field = path.rstrip("`").lstrip(".")
    if text.startswith("Object contains unknown field `"):
        unknown = text.split("`")[1]
        field = f"{field}.{unknown}" if field else unknown
        if field in AT_CREATION:
            return InvalidRequestError(
                f"{field} belongs to the session and is set when it is made", field=field
            )
        return InvalidRequestError(f"there is no field {field!r} here", field=field)
    if text.startswith("Object missing required field `"):
        missing = text.split("`")[1]
        field = f"{field}.{missing}" if field else missing
        return InvalidRequestError(f"the field {field!r} is missing", field=field)
    text = text.replace("`", "")
    return InvalidRequestError(f"{field}: {text}" if field else text, field=field)
