"""A lambda's way: through Monty where it fits it, else through a sandbox of its own.

Code in Monty has no effect on anything, so whatever stops it there (what is not known to mean the same in
CPython, an exception, a limit, the end of its process), it can run again in a sandbox as if for the first
time. So the only thing that Monty ever answers of its own is a value.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from onehop.config import MIB
from onehop.errors import InvalidRequestError, TooLargeError
from onehop.lambdas import program
from onehop.lambdas.model import Job, Reply
from onehop.lambdas.workers import Workers
from onehop.sessions import Answer, Caller, Engine, ExecuteOnceRequest
from onehop.sessions.answers import ErrorInfo, Status
from onehop.sessions.requests import Positive, PositiveInt
from onehop.sessions.run import new_id
from onehop.supervisor.messages import Usage

WARM_S = 1.0
"""Workers start this long after the server, so that its own start is not slower for them."""
NOT_JSON = "NotJsonError"
"""The error of a value that is no JSON."""
_NULL = msgspec.Raw(b"null")

LaneName = Literal["monty", "sandbox"]


class Arguments(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a function is called with.

    Args:
        args, kwargs: JSON values.
        engine: `auto`: in Monty where the code fits it, else in a sandbox.
        timeout_s: wall seconds until it is stopped. In Monty it never gets more than the server's slice.
        memory_mb: MiB of memory of the sandbox.
    """

    args: list[msgspec.Raw] = []
    kwargs: dict[str, msgspec.Raw] = {}
    engine: Literal["auto", "monty", "sandbox"] = "auto"
    timeout_s: Positive | None = None
    memory_mb: PositiveInt | None = None


class LambdaRequest(Arguments, kw_only=True, forbid_unknown_fields=True):
    """An expression or a small function, and what it is called with.

    Args:
        code: Python source. Its value is that of its last statement, if that is an expression or defines a
            function; a value that can be called is called with `args` and `kwargs`.
        args, kwargs, engine, timeout_s, memory_mb: as in Arguments.
    """

    code: Annotated[str, Meta(min_length=1)]


class LambdaAnswer(msgspec.Struct, kw_only=True):
    """What came of it.

    Args:
        status: `ok`, or how it ended otherwise, as of an execution.
        value: what the code gave, when the status is `ok`.
        engine: where that happened.
        routed: why it was not in Monty; empty when it was.
        error: what the code raised; `NotJsonError` when its value is no JSON, with what to return instead.
        reason: one sentence on a status other than `ok` and `error`.
        stdout: what it printed.
        usage: wall and CPU time; in Monty nobody measures memory.
        execution: id of the execution in the sandbox; null when there was none.
    """

    status: Status
    value: msgspec.Raw
    engine: LaneName
    routed: str
    error: ErrorInfo | None
    reason: str
    stdout: str
    usage: Usage | None
    execution: str | None


class _Shown(msgspec.Struct):
    """What the program in a sandbox shows; see `program`."""

    value: str | None = None
    refused: str | None = None
    error: ErrorInfo | None = None


_decode_shown = msgspec.json.Decoder(_Shown).decode


class Lane:
    """Use as `async with Lane(engine)`, inside of the engine's own."""

    def __init__(self, engine: Engine) -> None:
        settings = engine.settings
        self._engine = engine
        self._slice_s = settings.lambda_slice_s
        self._memory_bytes = settings.lambda_memory_mb * MIB
        self._enabled = settings.lambda_workers > 0
        self._timer: asyncio.TimerHandle | None = None
        self.workers = Workers(settings.lambda_workers)

    async def __aenter__(self) -> Lane:
        self._timer = asyncio.get_running_loop().call_later(WARM_S, self.workers.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.workers.close()

    async def run(self, code: str, wanted: Arguments, caller: Caller) -> LambdaAnswer:
        """Runs the code, wherever that is.

        Raises:
            InvalidRequestError, TooLargeError: it cannot be run as asked.
            TooManyError: the key or the server is over a limit.
            UnavailableError: the supervisor or the database is lost.
        """
        self.check_request(code, wanted)
        arguments = _joined(wanted)
        routed = "the request asks for a sandbox"
        if wanted.engine != "sandbox":
            answer, routed = await self._in_monty(code, arguments, wanted, caller)
            if answer is not None:
                return answer
        return await self._in_sandbox(code, arguments, wanted, caller, routed)

    def check_request(self, code: str, wanted: Arguments) -> None:
        """Raises InvalidRequestError, TooLargeError for what cannot be run as asked."""
        self._check_code(code)
        self._check_limits(wanted)

    async def check(self, code: str, caller: Caller) -> str:
        """Why the code does not fit Monty, empty when it does; nothing of it runs.

        Raises:
            InvalidRequestError: it is no Python.
            TooLargeError, TooManyError, UnavailableError: as `run`.
        """
        self._check_code(code)
        if self._enabled:
            reply = await self.workers.run(
                Job(code, b"", self._slice_s, self._memory_bytes, only_check=True), caller.owner
            )
            if reply.kind == "raised":
                raise InvalidRequestError(f"code: it is no Python: {reply.text}", field="code")
            if reply.kind == "unfit":
                return reply.text
            if reply.kind == "value":
                return ""
        request = ExecuteOnceRequest(code=f"compile({code!r}, '<lambda>', 'exec').co_name")
        run = await self._engine.executions.start_once(request, caller, name=new_id("exe"))
        await run.wait()
        answer = run.answer
        assert answer is not None
        if answer.status != "ok":
            said = answer.error.value if answer.error is not None else answer.reason
            raise InvalidRequestError(f"code: it is no Python: {said}", field="code")
        return "it could not be checked in Monty"

    def _check_code(self, code: str) -> None:
        settings = self._engine.settings
        if len(code) > settings.code_bytes:
            raise TooLargeError(
                f"the code is longer than {settings.code_bytes} bytes", limit_bytes=settings.code_bytes
            )
        if not code.strip():
            raise InvalidRequestError("code: there is nothing to run", field="code")
        if "\0" in code:
            raise InvalidRequestError("code: Python source cannot hold NUL characters", field="code")

    def _check_limits(self, wanted: Arguments) -> None:
        for field in ("timeout_s", "memory_mb"):
            asked, most = getattr(wanted, field), getattr(self._engine.settings, f"max_{field}")
            if asked is not None and asked > most:
                raise InvalidRequestError(f"{field}: at most {most:g}, got {asked:g}", field=field)

    async def _in_monty(
        self, code: str, arguments: bytes, wanted: Arguments, caller: Caller
    ) -> tuple[LambdaAnswer | None, str]:
        """The answer; None where a sandbox has to give it, with the reason."""
        if not self._enabled:
            if wanted.engine == "monty":
                raise InvalidRequestError(
                    "engine: this server has no Monty (lambda_workers is 0)", field="engine"
                )
            return None, "this server has no Monty"
        meter = self._engine.meter
        meter.admit(caller)
        slice_s = min(self._slice_s, wanted.timeout_s or self._slice_s)
        started_s = time.perf_counter()
        try:
            reply = await self.workers.run(Job(code, arguments, slice_s, self._memory_bytes), caller.owner)
        except BaseException:
            meter.withdraw(caller)
            raise
        kind = reply.kind
        if kind != "value" and wanted.engine == "auto":
            meter.withdraw(caller)
            if reply.cpu_ms:
                meter.used(caller, reply.cpu_ms, executions=0)
            return None, _why(reply, slice_s)
        if kind == "unfit":
            meter.withdraw(caller)
            raise InvalidRequestError(
                f"code: it does not fit Monty ({reply.text}); ask for engine auto or sandbox", field="code"
            )
        meter.used(caller, reply.cpu_ms)
        usage = Usage(
            wall_ms=round((time.perf_counter() - started_s) * 1000, 3),
            cpu_ms=round(reply.cpu_ms, 3),
            peak_memory_bytes=-1,
        )
        return _monty_answer(reply, usage, slice_s), ""

    async def _in_sandbox(
        self, code: str, arguments: bytes, wanted: Arguments, caller: Caller, routed: str
    ) -> LambdaAnswer:
        request = ExecuteOnceRequest(
            code=program.sandbox_source(code, arguments.decode()),
            timeout_s=wanted.timeout_s,
            memory_mb=wanted.memory_mb,
        )
        run = await self._engine.executions.start_once(request, caller, name=new_id("exe"))
        await run.wait()
        answer = run.answer
        assert answer is not None
        return _sandbox_answer(answer, routed)


def _joined(wanted: Arguments) -> bytes:
    """JSON of [args, kwargs], without taking it apart."""
    pairs = b",".join(
        msgspec.json.encode(name) + b":" + bytes(value) for name, value in wanted.kwargs.items()
    )
    return b"[[" + b",".join(map(bytes, wanted.args)) + b"],{" + pairs + b"}]"


def _why(reply: Reply, slice_s: float) -> str:
    if reply.kind == "unfit":
        return f"not in Monty: {reply.text}"
    if reply.kind == "time":
        return f"it takes longer than {slice_s:g} s in Monty"
    if reply.kind == "memory":
        return "it needs more memory than there is in Monty"
    if reply.kind == "lost":
        return f"Monty: {reply.text}"
    if reply.kind == "refused":
        return "its value is no JSON"
    return f"it raised {reply.name} in Monty"


def _monty_answer(reply: Reply, usage: Usage, slice_s: float) -> LambdaAnswer:
    status: Status = "ok"
    error, reason, value = None, "", _NULL
    if reply.kind == "value":
        value = msgspec.Raw(reply.text.encode())
    elif reply.kind == "refused":
        status, error = "error", _not_json(reply.text)
    elif reply.kind == "raised":
        status, error = "error", ErrorInfo(reply.name, reply.text, reply.traceback)
    elif reply.kind == "time":
        status, reason = (
            "timeout",
            f"it took longer than {slice_s:g} s, all that Monty gives; engine sandbox gives more",
        )
    elif reply.kind == "memory":
        status, reason = "out_of_memory", f"{reply.text}; engine sandbox gives more"
    else:
        status, reason = "killed", reply.text
    return LambdaAnswer(
        status=status,
        value=value,
        engine="monty",
        routed="",
        error=error,
        reason=reason,
        stdout="",
        usage=usage,
        execution=None,
    )


def _sandbox_answer(answer: Answer, routed: str) -> LambdaAnswer:
    status, error, value = answer.status, answer.error, _NULL
    shown = _shown(answer)
    if status == "ok":
        if shown.value is not None:
            value = msgspec.Raw(shown.value.encode())
        elif shown.error is not None:  # SystemExit, with which an execution ends well
            status, error = "error", shown.error
        else:
            status = "error"
            error = _not_json(shown.refused or "the code ended its program before there was a value")
    elif status == "error" and shown.error is not None:
        error = shown.error
    return LambdaAnswer(
        status=status,
        value=value,
        engine="sandbox",
        routed=routed,
        error=error,
        reason=answer.reason,
        stdout=answer.stdout,
        usage=answer.usage,
        execution=answer.id,
    )


def _shown(answer: Answer) -> _Shown:
    """What the program showed last; code may show something of the kind itself, which is then its own value."""
    for result in reversed(answer.results):
        text: Any = result.get(program.MIME)
        if text is not None:
            try:
                shown = _decode_shown(text)
                if shown.value is not None:
                    msgspec.json.decode(shown.value)
                return shown
            except (msgspec.DecodeError, UnicodeDecodeError):
                break
    return _Shown()


def _not_json(text: str) -> ErrorInfo:
    return ErrorInfo(NOT_JSON, text, f"{NOT_JSON}: {text}")
