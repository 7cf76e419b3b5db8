"""What a client may ask for, and whether it may ask for that much.

The structs are the schema: they decode the JSON strictly (unknown fields and wrong types are errors)
and OpenAPI is made from them. Bounds that settings decide are checked by the functions below; all
raise InvalidRequestError or a subclass, TooLargeError where something is too long.
"""

from __future__ import annotations

import signal
import time
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from onehop import protocol
from onehop.config import MIB, Settings
from onehop.errors import InvalidJsonError, InvalidPathError, InvalidRequestError, TooLargeError
from onehop.sessions.caller import NO_LIMITS, Limits
from onehop.sessions.calls import ToolChoice
from onehop.sessions.imports import ImportRules, import_rules
from onehop.sessions.session import StoredSettings
from onehop.supervisor.messages import ExecutionSpec, SandboxSpec

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


def execution_spec(
    request: ExecuteRequest, settings: Settings, execution: str, *, grace_s: float
) -> ExecutionSpec:
    """What the supervisor is asked to run. Raises for everything that cannot be run as asked."""
    code = request.code
    if _bytes("code", code) > settings.code_bytes:
        raise TooLargeError(
            f"the code is longer than {settings.code_bytes} bytes", limit_bytes=settings.code_bytes
        )
    if "\0" in code:
        raise InvalidRequestError("code: Python source cannot hold NUL characters", field="code")
    if not code.strip():
        raise InvalidRequestError("code: there is nothing to run", field="code")
    _check_stdin(request.stdin, settings)
    spec = _spec(request, settings, execution, code, settings.timeout_s, grace_s)
    if request.imports is not None:
        spec.imports = import_rules(request.imports)
    return spec


def command_spec(request: CommandRequest, settings: Settings, execution: str) -> ExecutionSpec:
    """Like `execution_spec`, for a shell command."""
    command = request.command
    if _bytes("command", command) > MAX_COMMAND_BYTES:
        raise TooLargeError(
            f"the command is longer than {MAX_COMMAND_BYTES} bytes; write it to a file and run that",
            limit_bytes=MAX_COMMAND_BYTES,
        )
    if "\0" in command:
        raise InvalidRequestError("command: it cannot hold NUL characters", field="command")
    if not command.strip():
        raise InvalidRequestError("command: there is nothing to run", field="command")
    if request.cwd:
        check_path(request.cwd)
    _check_stdin(request.stdin, settings)
    timeout_s = 0.0 if request.background else settings.timeout_s
    return _spec(request, settings, execution, command, timeout_s, settings.grace_s)


def signal_number(request: SignalRequest) -> int:
    """Raises InvalidRequestError for what is no signal."""
    asked = request.signal
    try:
        if isinstance(asked, int):
            return signal.Signals(asked).value
        name = asked.upper()
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except (KeyError, ValueError):
        raise InvalidRequestError(
            f"signal: {str(asked)[:40]!r} is no signal; try SIGTERM", field="signal"
        ) from None


def _check_stdin(stdin: str, settings: Settings) -> None:
    if stdin and _bytes("stdin", stdin) > settings.stdin_bytes:
        raise TooLargeError(
            f"stdin is longer than {settings.stdin_bytes} bytes", limit_bytes=settings.stdin_bytes
        )


def _spec(
    request: ExecuteRequest | CommandRequest,
    settings: Settings,
    execution: str,
    code: str,
    timeout_s: float,
    grace_s: float,
) -> ExecutionSpec:
    if request.env:
        check_env(request.env, settings)
    if request.timeout_s is not None:
        timeout_s = at_most("timeout_s", request.timeout_s, settings.max_timeout_s)
    output_bytes = settings.output_bytes
    if request.output_bytes is not None:
        output_bytes = int(at_most("output_bytes", request.output_bytes, settings.max_output_bytes))
    cpu_s = 0.0
    if request.cpu_s is not None:
        cpu_s = at_most("cpu_s", request.cpu_s, settings.max_timeout_s)
    return ExecutionSpec(
        id=execution,
        code=code,
        stdin=request.stdin,
        env=request.env,
        timeout_s=timeout_s,
        grace_s=grace_s,
        cpu_s=cpu_s,
        output_bytes=output_bytes,
        results_bytes=settings.results_bytes,
    )


def sandbox_spec(
    request: ExecuteOnceRequest | SandboxFields,
    settings: Settings,
    *,
    owner: str,
    one_shot: bool,
    limits: Limits = NO_LIMITS,
) -> SandboxSpec:
    """The sandbox that is asked for. Raises InvalidRequestError for one that is too large."""
    memory_mb, processes, workspace_mb = settings.memory_mb, settings.processes, settings.workspace_mb
    max_memory_mb, max_workspace_mb = settings.max_memory_mb, settings.max_workspace_mb
    if limits.max_memory_mb is not None:
        max_memory_mb = min(max_memory_mb, limits.max_memory_mb)
        memory_mb = min(memory_mb, max_memory_mb)
    if limits.max_workspace_mb is not None:
        max_workspace_mb = min(max_workspace_mb, limits.max_workspace_mb)
        workspace_mb = min(workspace_mb, max_workspace_mb)
    if request.memory_mb is not None:
        memory_mb = int(at_most("memory_mb", request.memory_mb, max_memory_mb, least=64))
    if request.processes is not None:
        processes = int(at_most("processes", request.processes, settings.max_processes, least=4))
    if request.workspace_mb is not None:
        workspace_mb = int(at_most("workspace_mb", request.workspace_mb, max_workspace_mb))
    return SandboxSpec(
        environment=settings.environment if request.environment is None else request.environment,
        memory_bytes=memory_mb * MIB,
        processes=processes,
        workspace_bytes=workspace_mb * MIB,
        workspace_inodes=settings.workspace_inodes,
        owner=owner,
        one_shot=one_shot,
    )


def lifetime(request: SessionRequest, settings: Settings) -> tuple[float, float]:
    """Seconds until an idle session ends, and until any session ends."""
    idle_s = settings.idle_timeout_s
    if request.idle_timeout_s is not None:
        idle_s = at_most("idle_timeout_s", request.idle_timeout_s, settings.max_age_s)
    age_s = settings.max_age_s
    if request.max_age_s is not None:
        age_s = at_most("max_age_s", request.max_age_s, settings.max_age_s)
    return idle_s, age_s


def changed(
    change: SessionChange, before: StoredSettings, created_at: float, settings: Settings
) -> StoredSettings:
    """A session's settings after a change. Raises InvalidRequestError."""
    after = msgspec.structs.replace(before)
    if change.idle_timeout_s is not msgspec.UNSET:
        after.idle_timeout_s = at_most("idle_timeout_s", change.idle_timeout_s, settings.max_age_s)
    if change.max_age_s is not msgspec.UNSET:
        after.max_age_s = at_most("max_age_s", change.max_age_s, settings.max_age_s)
    if change.ends_in_s is None:
        after.ends_at = None
    elif change.ends_in_s is not msgspec.UNSET:
        now = time.time()
        after.ends_at = now + at_most("ends_in_s", change.ends_in_s, created_at + settings.max_age_s - now)
        # Else the age it was made with would end it earlier than it was asked for just now.
        after.max_age_s = max(after.max_age_s, after.ends_at - created_at)
    if change.pinned is not msgspec.UNSET:
        after.pinned = change.pinned
    if change.metadata is not msgspec.UNSET:
        after.metadata = metadata(change.metadata, settings)
    return after


def metadata(labels: dict[str, str], settings: Settings) -> dict[str, str]:
    """Raises TooLargeError for more labels than are kept."""
    total = sum(_bytes("metadata", name) + _bytes("metadata", value) for name, value in labels.items())
    if total > settings.metadata_bytes:
        raise TooLargeError(
            f"metadata has {total} bytes, the limit is {settings.metadata_bytes}",
            limit_bytes=settings.metadata_bytes,
        )
    return labels


def contents(request: ExecuteRequest, workspace_bytes: int) -> dict[str, bytes]:
    """The request's files as bytes, every path checked. Raises before anything is written."""
    if len(request.files) > MAX_FILES:
        raise InvalidRequestError(f"files: more than {MAX_FILES} files", field="files")
    result: dict[str, bytes] = {}
    total = 0
    for path, content in request.files.items():
        check_path(path)
        try:
            raw = content.base64 if isinstance(content, Binary) else content.encode()
        except UnicodeEncodeError:
            raise InvalidRequestError(
                f"files: the text of {path!r} is not valid Unicode", field="files"
            ) from None
        total += len(raw)
        result[path] = raw
    if total > workspace_bytes:
        raise TooLargeError(
            f"the files have {total} bytes, the workspace has room for {workspace_bytes}",
            limit_bytes=workspace_bytes,
        )
    return result


def check_path(path: str) -> None:
    """Raises InvalidPathError for what cannot name a file in a workspace."""
    problem = protocol.check_path(path)
    if problem is not None:
        shown = path[:200].encode("utf-8", "replace").decode()
        raise InvalidPathError(f"the path {shown!r} {problem}", path=shown)


def check_env(env: dict[str, str], settings: Settings) -> dict[str, str]:
    """Raises InvalidRequestError, TooLargeError for variables that cannot be set."""
    total, limit_bytes = 0, settings.env_bytes
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InvalidRequestError(
                f"env: {name[:100]!r} cannot be set: names are not empty and hold no '=', "
                "and neither names nor values hold NUL",
                field="env",
            )
        total += _bytes("env", name) + _bytes("env", value)
    if total > limit_bytes:
        raise TooLargeError(f"env has {total} bytes, the limit is {limit_bytes}", limit_bytes=limit_bytes)
    return env


def at_most(field: str, value: int | float, limit: float, *, least: float = 0) -> int | float:
    """`value`, when it is in bounds. Raises InvalidRequestError."""
    if least <= value <= limit:
        return value
    bound = f"the most is {limit:g}" if value > limit else f"the least is {least:g}"
    # A number of thousands of digits has no float to be formatted as.
    shown = f"{value:g}" if isinstance(value, float) else str(value)[:20]
    raise InvalidRequestError(f"{field}: {bound}, got {shown}", field=field)


def _bytes(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # not from JSON, where it is refused earlier, but from a caller in Python
        raise InvalidRequestError(f"{field}: the text holds a lone surrogate", field=field) from None
