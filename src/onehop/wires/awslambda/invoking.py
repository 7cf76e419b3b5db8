"""Invocations: in a warm process of the function's that is free, or in a new one, as on Lambda."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from onehop import errors
from onehop.sessions import Engine
from onehop.sessions.answers import Answer, SessionInfo
from onehop.sessions.caller import Caller
from onehop.sessions.requests import ExecuteRequest, SessionChange, SessionRequest
from onehop.sessions.run import Run
from onehop.wires.awslambda.functions import ZIP, Function, Functions
from onehop.wires.awslambda.runtime import MIME, SOURCE, call

LABEL, REVISION = "lambda.function", "lambda.revision"
ACCOUNT, REGION = "000000000000", "us-east-1"
VERSION = "$LATEST"
TAIL_BYTES = 4096
INIT_S = 10.0
"""As long as Lambda gives a new process to begin."""


def arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


@dataclass
class Invocation:
    """One under way. `began_s` is of the clock time.perf_counter."""

    id: str
    run: Run
    session: str
    function: Function
    began_s: float
    init_ms: float


class Told(msgspec.Struct):
    """How it ended: the payload, whether that is an error, and the end of the log."""

    payload: bytes
    error: bool
    log: bytes


class _Outcome(msgspec.Struct):
    error: bool
    payload: str


_decode = msgspec.json.Decoder(_Outcome)


class Invoker:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, engine: Engine, functions: Functions) -> None:
        self._engine = engine
        self._functions = functions

    async def start(
        self, function: Function, event: str, client_context: object, caller: Caller
    ) -> Invocation:
        """Begins one; raises TooManyError when no more processes may be started."""
        settings = function.settings
        request_id = str(uuid.uuid4())
        context = {
            "function_name": settings.name,
            "function_version": VERSION,
            "invoked_function_arn": arn(settings.name),
            "memory_limit_in_mb": str(settings.memory_mb),
            "aws_request_id": request_id,
            "log_group_name": f"/aws/lambda/{settings.name}",
            "log_stream_name": function.upload[-16:],
            "identity": None,
            "client_context": client_context,
            "timeout_s": settings.timeout_s,
        }
        timeout_s = min(float(settings.timeout_s), self._engine.settings.max_timeout_s)
        code = ExecuteRequest(code=call(settings.handler, event, json.dumps(context)), timeout_s=timeout_s)
        free, init_ms = [one.id for one in self._warm(function, caller)], 0.0
        while True:
            for session in free:
                began_s = time.perf_counter()
                try:
                    run = await self._engine.executions.start(session, code, caller)
                except (errors.SessionBusyError, errors.SessionNotFoundError, errors.SessionEndedError):
                    continue  # another invocation was faster, or it has just ended
                return Invocation(request_id, run, session, function, began_s, init_ms)
            cold_s = time.perf_counter()
            free = [await self._begin(function, caller)]
            init_ms = (time.perf_counter() - cold_s) * 1000

    async def end(self, invocation: Invocation, caller: Caller) -> Told:
        """Waits for it. A process that did not come back by itself is not used again."""
        answer = await invocation.run.wait()
        duration_ms = (time.perf_counter() - invocation.began_s) * 1000
        found = next((one[MIME] for one in answer.results if MIME in one), None)
        if found is not None and answer.status == "ok":
            outcome = _decode.decode(found.encode())
            error, payload = outcome.error, outcome.payload.encode()
        else:
            error, payload = True, self._broken(invocation, answer)
            await self._drop(invocation.session, caller)
        return Told(payload, error, _log(invocation, answer, duration_ms))

    def _warm(self, function: Function, caller: Caller) -> list[SessionInfo]:
        labels = {LABEL: function.settings.name, REVISION: function.upload}
        return [one for one in self._engine.sessions.find(labels, caller) if not one.executions]

    async def forget(self, name: str, caller: Caller) -> None:
        """Ends the function's processes that nobody uses."""
        for one in self._engine.sessions.find({LABEL: name}, caller):
            if not one.executions:
                await self._drop(one.id, caller)

    async def _drop(self, session: str, caller: Caller) -> None:
        try:
            await self._engine.sessions.delete(session, caller)
        except (errors.NotFoundError, errors.SessionEndedError):
            pass

    async def _begin(self, function: Function, caller: Caller) -> str:
        settings, limits = function.settings, self._engine.settings
        variables = {
            "AWS_LAMBDA_FUNCTION_NAME": settings.name,
            "AWS_LAMBDA_FUNCTION_VERSION": VERSION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_mb),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "LAMBDA_TASK_ROOT": "/workspace",
            "_HANDLER": settings.handler,
            **settings.environment,
        }
        request = SessionRequest(
            metadata={LABEL: settings.name},
            env=variables,
            # Never less than what sessions have: the interpreter itself is in it.
            memory_mb=min(max(settings.memory_mb, limits.memory_mb), limits.max_memory_mb),
        )
        package = await self._functions.package(function, caller)
        made = await self._engine.sessions.create(request, caller)
        try:
            await self._engine.files.unpack(
                made.id, "", "zip", _once(_zipped(package, settings.handler)), caller
            )
            ready = ExecuteRequest(code=SOURCE, timeout_s=INIT_S)
            answer = await (await self._engine.executions.start(made.id, ready, caller)).wait()
            if answer.status != "ok":
                raise errors.UnavailableError(f"the function's process did not begin: {answer.status}")
            # From now on others find it, too.
            labels = {LABEL: settings.name, REVISION: function.upload}
            await self._engine.sessions.change(made.id, SessionChange(metadata=labels), caller)
        except BaseException:
            await self._drop(made.id, caller)
            raise
        return made.id

    def _broken(self, invocation: Invocation, answer: Answer) -> bytes:
        name = {"timeout": "Sandbox.Timedout", "out_of_memory": "Runtime.OutOfMemory"}.get(
            answer.status, "Runtime.ExitError"
        )
        text = answer.reason or answer.status
        if answer.status == "timeout":
            text = f"Task timed out after {invocation.function.settings.timeout_s:.2f} seconds"
        elif answer.error is not None:
            text = f"{answer.error.name}: {answer.error.value}"
        elif answer.truncated:
            name, text = "Function.ResponseSizeTooLarge", "the response is larger than what is carried"
        return json.dumps(
            {"errorType": name, "errorMessage": f"RequestId: {invocation.id} Error: {text}"}
        ).encode()


def _zipped(package: bytes, handler: str) -> bytes:
    """A package as a zip: what is none is the source of the handler's module."""
    if package.startswith(ZIP):
        return package
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(handler.rpartition(".")[0].replace(".", "/") + ".py", package)
    return made.getvalue()


async def _once(raw: bytes) -> AsyncIterator[bytes]:
    yield raw


def _log(invocation: Invocation, answer: Answer, duration_ms: float) -> bytes:
    """What the function wrote, between the lines that Lambda writes; the last 4 KB."""
    usage = answer.usage
    used_mb = max(usage.peak_memory_bytes, 0) / 1024 / 1024 if usage is not None else 0
    report = [
        f"REPORT RequestId: {invocation.id}",
        f"Duration: {duration_ms:.2f} ms",
        f"Billed Duration: {int(duration_ms) + 1} ms",
        f"Memory Size: {invocation.function.settings.memory_mb} MB",
        f"Max Memory Used: {used_mb:.0f} MB",
    ]
    if invocation.init_ms:
        report.append(f"Init Duration: {invocation.init_ms:.2f} ms")
    written = "".join(
        text if text.endswith("\n") else text + "\n" for text in (answer.stdout, answer.stderr) if text
    )
    whole = (
        f"START RequestId: {invocation.id} Version: {VERSION}\n{written}END RequestId: {invocation.id}\n"
        + "\t".join(report)
        + "\t\n"
    )
    return whole.encode()[-TAIL_BYTES:]
