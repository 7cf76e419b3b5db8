"""What gateway and supervisor say to each other over their unix socket.

Frames are u32 length, big-endian, and a msgpack array. The gateway sends `Request`s; the supervisor
answers each with a `Reply` of the same ticket, and pushes `Event`s of the executions that the
connection follows. The supervisor keeps an execution's events until they are acknowledged, so a
gateway that comes back after a crash reads on from any number.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from onehop.protocol import ImportRules

LENGTH = struct.Struct(">I")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class SandboxSpec(msgspec.Struct, omit_defaults=True):
    """What a sandbox may use.

    Args:
        environment: name of the environment.
        memory_bytes: all its processes and tmpfs pages together.
        processes: most processes and threads at once.
        workspace_bytes, workspace_inodes: quota of the workspace.
        cpus: processors it may use at once (0: all).
        owner: opaque label of whose it is, given back by `sandboxes`.
        one_shot: made for one execution; nobody will ask for it after a restart of the gateway.
    """

    environment: str = "default"
    memory_bytes: int = 1 << 30
    processes: int = 64
    workspace_bytes: int = 256 << 20
    workspace_inodes: int = 16384
    cpus: float = 0.0
    owner: str = ""
    one_shot: bool = False


class ExecutionSpec(msgspec.Struct, omit_defaults=True):
    """One execution.

    Args:
        id: chosen by the gateway, unique.
        code, stdin, env: as in protocol.Execute.
        timeout_s: SIGINT after this much wall time.
        grace_s: SIGKILL this much later.
        cpu_s: most CPU seconds of the sandbox during the execution (0: as long as `timeout_s` allows).
        output_bytes: most bytes of stdout and stderr together that are returned; the rest is spilled.
        results_bytes: most bytes of displayed results that are returned.
        catalogue: id of the catalogue of the tools that it may call; empty: none.
        context_data: opaque: what the gateway needs to go on with it after a restart; given back by
            `executions`.
        imports: as in protocol.Execute.
    """

    id: str
    code: str
    stdin: str = ""
    env: dict[str, str] = {}
    timeout_s: float = 60.0
    grace_s: float = 0.0
    cpu_s: float = 0.0
    output_bytes: int = 1 << 20
    results_bytes: int = 32 << 20
    catalogue: str = ""
    context_data: bytes = b""
    imports: ImportRules | None = None


class SandboxInfo(msgspec.Struct):
    """A sandbox that was handed out.

    Args:
        isolation: has the members `level`, `memory`, `pids`, `network`.
        executions: that nobody has acknowledged.
        places: by execution, the context's name, or for a command `!` and its id.
        running: executions that have not ended.
    """

    id: str
    environment: str
    owner: str
    one_shot: bool
    isolation: dict[str, str]
    executions: list[str] = []
    places: dict[str, str] = {}
    running: list[str] = []


class EnvironmentInfo(msgspec.Struct):
    """An environment that a sandbox may have. `ready`: its zygote is warm; `packages`: versions by name."""

    name: str
    packages: dict[str, str]
    ready: bool


class ExecutionInfo(msgspec.Struct):
    """An execution that nobody has acknowledged, of whatever sandbox.

    Args:
        owner, one_shot, isolation: those of its sandbox.
        ended_session: its terminal status when the sandbox ended with it, else empty.
        context_data: that of its ExecutionSpec.
        events: how many it has.
    """

    id: str
    owner: str
    one_shot: bool
    isolation: dict[str, str]
    ended_session: str = ""
    context_data: bytes = b""
    events: int = 0


class ContextInfo(msgspec.Struct):
    """A kernel of a sandbox: its name, where it started (a folder of the workspace), and what it does."""

    name: str
    cwd: str
    status: str
    created_at: float


class CommandInfo(msgspec.Struct):
    """A shell command of a sandbox.

    Args:
        id: of its execution.
        status: `running`, or a terminal status.
        exit_code: None while it runs, and when a signal ended it.
        pid: inside the sandbox.
        background: nobody waits for its end.
        stdin_open: it may be fed.
        started_at, ended_at: seconds since 1970; 0 while it runs.
    """

    id: str
    command: str
    pid: int
    background: bool
    stdin_open: bool
    started_at: float
    ended_at: float = 0.0
    status: str = "running"
    exit_code: int | None = None


class Usage(msgspec.Struct):
    """Measured from outside the sandbox. -1 where the machine cannot tell."""

    wall_ms: float
    cpu_ms: float
    peak_memory_bytes: int


class End(msgspec.Struct, omit_defaults=True):
    """The terminal event of an execution.

    Args:
        status: a terminal status of DESIGN.md, section 2.
        reason: one sentence for people, empty for `ok` and `error`.
        variables: `kept`, or `lost` when the kernel did not survive.
        session: `alive`, or `ended` when the whole sandbox is gone.
        truncated: output was left out of the events.
        spill_file: the workspace file that holds all output from the point of truncation on.
        spilled_bytes: its length.
        exit_code: of a command that no signal ended.
        workspace_used: the workspace holds at least one file or directory, so a listing is worthwhile.
    """

    status: str
    usage: Usage
    reason: str = ""
    variables: str = "kept"
    session: str = "alive"
    truncated: bool = False
    spill_file: str = ""
    spilled_bytes: int = 0
    workspace_used: bool = False
    exit_code: int | None = None


CALL_STATUSES = ("ok", "error", "denied", "abandoned", "outcome_unknown")


class CallEnd(msgspec.Struct, omit_defaults=True):
    """How a call of a tool ended, for the log.

    Args:
        call: its number.
        status: one of CALL_STATUSES.
        ms: from its start until its end.
        error: one sentence, empty for `ok`.
    """

    call: int
    status: str
    ms: float
    error: str = ""


class Event(msgspec.Struct, array_like=True):
    """One event of an execution; `number` counts from 1 without gaps.

    `kind` is `stdout` or `stderr` (payload: raw bytes of text), `result` (payload: msgpack of
    protocol.Result), `failure` (msgpack of protocol.Failure), `call` (a CALL's payload; without its
    arguments once it is answered), `return` (msgpack of CallEnd), `blocked` (empty: nothing but the
    pending calls can make the code go on) or `end` (msgpack of End, always last).
    Payloads of kernels are not checked by the supervisor: decode them against their type.
    """

    execution: str
    number: int
    kind: str
    payload: bytes


class Request(msgspec.Struct, array_like=True):
    ticket: int
    operation: str
    arguments: dict[str, Any] = {}
    sandbox_spec: SandboxSpec | None = None
    execution_spec: ExecutionSpec | None = None


class Reply(msgspec.Struct, array_like=True):
    """`error` is empty, or the name of a class in onehop.errors; `detail` is its message."""

    ticket: int
    value: Any = None
    error: str = ""
    detail: str = ""


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_from_supervisor = msgspec.msgpack.Decoder(list[Any]).decode
decode_call_end = msgspec.msgpack.Decoder(CallEnd).decode
decode_end = msgspec.msgpack.Decoder(End).decode


def frame(message: Any) -> bytes:
    """A message with its length in front."""
    payload = encode(message)
    return LENGTH.pack(len(payload)) + payload
