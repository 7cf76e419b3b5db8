"""Whether a client may ask for that much, and what the supervisor is told when it may.

All raise InvalidRequestError or a subclass, TooLargeError where something is too long.
"""

from __future__ import annotations

import signal
import time

import msgspec

from onehop import protocol
from onehop.config import MIB, Settings
from onehop.errors import InvalidPathError, InvalidRequestError, TooLargeError
from onehop.sessions.caller import NO_LIMITS, Limits
from onehop.sessions.imports import import_rules
from onehop.sessions.requests import (
    MAX_COMMAND_BYTES,
    MAX_FILES,
    Binary,
    CommandRequest,
    ExecuteOnceRequest,
    ExecuteRequest,
    SandboxFields,
    SessionChange,
    SessionRequest,
    SignalRequest,
)
from onehop.sessions.session import StoredSettings
from onehop.supervisor.messages import ExecutionSpec, SandboxSpec


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
