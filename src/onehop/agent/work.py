"""Calls of our tools: code, commands and edits in the request's container, told as they happen.

Calls that name the same context run one after the other, others side by side. Whoever stops listening stops the
code; only what waits for its client stays, suspended, for a later request.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from onehop.agent import results
from onehop.agent.containers import Containers
from onehop.agent.editor import Editor, EditorError, View, described
from onehop.agent.events import (
    CodeCalls,
    CodeEnded,
    CodeOutput,
    CodeRunning,
    CodeShown,
    Container,
    ContainerOpened,
    Kind,
    LoopEvent,
    LoopRequest,
)
from onehop.agent.guards import Guards
from onehop.agent.model import CallPart, ImagePart, ResultPart, TextPart
from onehop.errors import (
    CallNotPendingError,
    ConflictError,
    ExecutionNotFoundError,
    InvalidRequestError,
    OnehopError,
    ProblemError,
    SessionBusyError,
    TooManyError,
)
from onehop.sessions import Engine
from onehop.sessions.answers import Answer, ResultEvent, TextEvent
from onehop.sessions.calls import ClientTool, ToolAnswer
from onehop.sessions.requests import CommandRequest, ContextRequest, ExecuteRequest
from onehop.sessions.run import Run

BUSY_S = 60.0
"""How long a call waits for its turn in a container that another request uses."""
MAIN = "main"
GONE = "The code is gone, and with it what it would have printed: too much time has passed."
PAUSE_S = 3600.0
SUSPENDED_PAUSE_S = 0.25


class Work(msgspec.Struct, kw_only=True):
    """One call of our tools.

    Args:
        uid: names it in the loop's events.
        call: the model's own id of it.
        name: the function's.
        problem: why its arguments cannot be used; then nothing is run.
    """

    uid: str
    call: str
    name: str
    kind: Kind
    code: str
    arguments: dict[str, Any]
    problem: str = ""


class Suspended(msgspec.Struct, kw_only=True):
    """An execution that waits for its client, alive.

    Args:
        seen: number of the last event of it that was told.
        ids: the execution's call by the id that the client knows; new ones each time that the client is asked.
        calls: what the client was asked.
    """

    uid: str
    call: str
    name: str
    code: str
    context: str
    execution: str
    seen: int
    ids: dict[str, str]
    calls: list[CallPart]


class Outcome(msgspec.Struct, kw_only=True):
    """What a call came to: a result for the model, or a suspension."""

    result: ResultPart | None = None
    suspended: Suspended | None = None


class Worker:
    """Does the work of one request.

    Args:
        choices: tools for the code.
        images: the model takes pictures.

    Attributes:
        container: once it has been opened.
    """

    def __init__(
        self,
        engine: Engine,
        containers: Containers,
        editor: Editor,
        request: LoopRequest,
        guards: Guards,
        choices: list[str | ClientTool],
        *,
        images: bool,
        container: Container | None = None,
    ) -> None:
        self.container = container
        self._engine = engine
        self._containers = containers
        self._editor = editor
        self._request = request
        self._guards = guards
        self._choices = choices
        self._images = images
        self._note = ""
        self._opening = asyncio.Lock()
        self._contexts: set[str] = {MAIN}
        self._queue: asyncio.Queue[LoopEvent | None] = asyncio.Queue()
        self._parked: list[Run] = []
        """Wait for the client, who does not know it yet."""

    def handed_over(self) -> None:
        """What waits for the client is kept for a later request."""
        self._parked.clear()

    async def abandon(self) -> None:
        """Stops what waits for a client that is not going to be told."""
        parked, self._parked = self._parked, []
        for run in parked:
            await self._engine.executions.stop(run)

    async def stop(self, suspended: Suspended) -> None:
        """Stops code that the client does not answer, if it still waits."""
        caller = self._request.caller
        with suppress(ProblemError):
            answer = await self._engine.executions.answer(suspended.execution, caller)
            if not isinstance(answer, bytes) and answer.status == "tool_call_required" and answer.session:
                await self._engine.executions.interrupt(answer.session, caller, context=suspended.context)

    async def run(
        self,
        works: list[Work],
        resumed: list[tuple[Suspended, list[ResultPart]]],
        outcomes: dict[str, Outcome],
    ) -> AsyncGenerator[LoopEvent, None]:
        """All of them; each one's outcome is left in `outcomes`, by its uid.

        Args:
            resumed: executions that go on, each with the results of its client.

        Raises:
            ProblemError: the container is not there, or the server cannot; all of them are stopped.
        """
        lanes: dict[tuple[str, str], list[Work]] = {}
        for work in works:
            place = _context(work) if work.kind == "python" else work.uid
            lanes.setdefault((work.kind, place), []).append(work)

        async def lane(several: list[Work]) -> None:
            for work in several:
                outcomes[work.uid] = await self._one(work)

        async def again(suspended: Suspended, given: list[ResultPart]) -> None:
            outcomes[suspended.uid] = await self._resume(suspended, given)

        async def everything() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for several in lanes.values():
                        group.create_task(lane(several))
                    for suspended, given in resumed:
                        group.create_task(again(suspended, given))
            finally:
                self._queue.put_nowait(None)

        task = asyncio.get_running_loop().create_task(everything())
        try:
            while (event := await self._queue.get()) is not None:
                yield event
            try:
                await task
            except BaseExceptionGroup as group:
                raise _first(group) from None
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, BaseExceptionGroup):
                    await task

    # --- one call -----------------------------------------------------------------------------------

    async def _one(self, work: Work) -> Outcome:
        if work.problem:
            return self._ended(work, None, _failure(work, work.problem))
        ending = self._guards.take_call()
        if ending is not None:
            return self._ended(work, None, _failure(work, f"It was not run: {ending.detail}."))
        session = await self._open()
        began_s = time.monotonic()
        try:
            if work.kind == "editor":
                return await self._edit(work, session)
            try:
                run = await self._start(work, session)
            except (InvalidRequestError, TooManyError) as error:  # the model can do something about these
                return self._ended(work, None, _failure(work, error.detail))
            self._guards.report.executions += 1
            self._queue.put_nowait(CodeRunning(work.uid, run.id))
            return await self._follow(work, run, 0)
        finally:
            self._guards.report.sandbox_s += time.monotonic() - began_s

    async def open(self) -> ContainerOpened | None:
        """Opens the container, if that has not been done; then it is told once.

        Raises ProblemError when it cannot be had.
        """
        async with self._opening:
            if self.container is not None:
                return None
            self.container, self._note = await self._containers.open(
                self._request.container, self._request.caller
            )
            return ContainerOpened(self.container)

    async def _open(self) -> str:
        opened = await self.open()
        if opened is not None:
            self._queue.put_nowait(opened)
        assert self.container is not None
        return self.container.session

    async def _start(self, work: Work, session: str) -> Run:
        executions, caller = self._engine.executions, self._request.caller
        if work.kind == "bash":
            command = CommandRequest(command=work.code, timeout_s=self._timeout_s())
            return await self._started(executions.start_command(session, command, caller))
        context = _context(work)
        request = ExecuteRequest(code=work.code, context=context, tools=self._choices)
        if context not in self._contexts:
            with suppress(ConflictError):  # an earlier request has made it
                await self._engine.contexts.create(session, ContextRequest(name=context), caller)
            self._contexts.add(context)
        until_s = time.monotonic() + min(BUSY_S, self._guards.left_s)
        while True:
            request.timeout_s = self._timeout_s()
            try:
                return await self._started(executions.start(session, request, caller))
            except SessionBusyError as error:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    raise
                await self._other(str(error.extra.get("execution", "")), min(left_s, 5.0))

    def _timeout_s(self) -> float:
        return max(0.1, min(self._engine.settings.timeout_s, self._guards.left_s))

    async def _started(self, starting: Coroutine[Any, Any, Run]) -> Run:
        """What is started just when nobody wants it any more is stopped."""
        task = asyncio.ensure_future(starting)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with suppress(OnehopError):
                await self._engine.executions.stop(await task)
            raise

    async def _other(self, execution: str, wait_s: float) -> None:
        """Until another request's execution has ended, as far as that can be waited for."""
        with suppress(ProblemError):
            answer = await self._engine.executions.answer(execution, self._request.caller, wait_s=wait_s)
            if isinstance(answer, bytes) or answer.status not in ("running", "tool_call_required"):
                return
        # It waits for a client: nothing tells when it has its results.
        await asyncio.sleep(min(wait_s, SUSPENDED_PAUSE_S))

    async def _follow(self, work: Work, run: Run, seen: int) -> Outcome:
        """Until its end, or until it waits for its client."""
        uid, queue = work.uid, self._queue
        try:
            while True:
                async for several in run.follow(seen, pause_s=PAUSE_S, until_turn=True):
                    for number, (kind, data) in several:
                        seen = number
                        if kind in ("stdout", "stderr"):
                            assert isinstance(data, TextEvent)
                            queue.put_nowait(
                                CodeOutput(uid, "stderr" if kind == "stderr" else "stdout", data.text)
                            )
                        elif kind == "result":
                            assert isinstance(data, ResultEvent)
                            queue.put_nowait(CodeShown(uid, data.data))
                if run.answer is not None:
                    return self._finished(work, run.answer)
                if self._deny(run):
                    continue
                return self._suspended(work, run, seen)
        finally:
            if run.answer is None and not run.waits and run.end is None:
                await asyncio.shield(self._engine.executions.stop(run))

    def _deny(self, run: Run) -> bool:
        """Calls that need approval have nobody here who could give it. True when there were such calls."""
        assert run.calls is not None
        asked = [one for one in run.calls.pending() if one.needs == "approval"]
        if asked:
            reason = "a call that needs approval cannot be made by a model's own code here"
            run.calls.submit([ToolAnswer(id=one.id, approve=False, reason=reason) for one in asked])
        return bool(asked)

    def _suspended(self, work: Work, run: Run, seen: int) -> Outcome:
        assert run.calls is not None
        calls: list[CallPart] = []
        ids: dict[str, str] = {}
        for one in run.calls.pending():
            arguments = {} if one.arguments is msgspec.UNSET else one.arguments
            calls.append(CallPart(id=_new_id(), name=one.name, arguments=json.dumps(arguments)))
            ids[calls[-1].id] = one.id
        self._parked.append(run)
        self._queue.put_nowait(CodeCalls(work.uid, calls))
        return Outcome(
            suspended=Suspended(
                uid=work.uid,
                call=work.call,
                name=work.name,
                code=work.code,
                context=_context(work),
                execution=run.id,
                seen=seen,
                ids=ids,
                calls=calls,
            )
        )

    def _asked_again(self, suspended: Suspended) -> Outcome:
        """It has got nothing, and waits as before. Its calls get new ids: the old ones belong to an older answer."""
        calls = [msgspec.structs.replace(one, id=_new_id()) for one in suspended.calls]
        ids = {
            new.id: suspended.ids[old.id]
            for new, old in zip(calls, suspended.calls, strict=True)
        }  # fmt: skip
        self._queue.put_nowait(CodeCalls(suspended.uid, calls))
        return Outcome(suspended=msgspec.structs.replace(suspended, calls=calls, ids=ids))

    async def _resume(self, suspended: Suspended, given: list[ResultPart]) -> Outcome:
        """It goes on where it stopped."""
        work = Work(
            uid=suspended.uid,
            call=suspended.call,
            name=suspended.name,
            kind="python",
            code=suspended.code,
            arguments={"context": suspended.context},
        )
        began_s = time.monotonic()
        by_call = {suspended.ids[one.id]: one for one in given}
        answers = [_tool_answer(call, one) for call, one in by_call.items()]
        executions, caller = self._engine.executions, self._request.caller
        for again in (False, True):
            if not answers:
                return self._asked_again(suspended)
            try:
                run, _ = await executions.tool_results(suspended.execution, answers, caller)
                break
            except ExecutionNotFoundError:
                return self._ended(work, None, _failure(work, GONE))
            except CallNotPendingError:
                # Its time is over; or these results came before; or a gateway that has just started looks after it.
                answer = await executions.answer(
                    suspended.execution, caller, wait_s=max(0.0, min(BUSY_S, self._guards.left_s))
                )
                if isinstance(answer, bytes):
                    answer = msgspec.json.decode(answer, type=Answer)
                if answer.status not in ("running", "tool_call_required"):
                    return self._finished(work, answer)
                waiting = {one.id for one in answer.tool_calls}
                if again or answer.status == "running" or not any(one.id in waiting for one in answers):
                    raise ConflictError(
                        "another request has these results already and goes on with them"
                    ) from None
                answers = [one for one in answers if one.id in waiting]
        self._queue.put_nowait(CodeRunning(work.uid, run.id))
        try:
            return await self._follow(work, run, suspended.seen)
        finally:
            self._guards.report.sandbox_s += time.monotonic() - began_s

    async def _edit(self, work: Work, session: str) -> Outcome:
        try:
            edit = await self._editor.run(session, self._request.caller, work.arguments)
        except EditorError as error:
            output = {"error": error.code, "message": error.message}
            return self._ended(work, None, _failure(work, error.message), output)
        self._guards.report.executions += 1
        text = results.cut(described(edit), results.MAX_CHARACTERS, "; view a part of it with view_range")
        content: list[Any] = [TextPart(text)]
        if isinstance(edit, View) and edit.kind == "image" and self._images:
            content.append(ImagePart(media_type=edit.media_type, data=edit.text))
        result = ResultPart(id=work.call, name=work.name, content=content)
        return self._ended(work, None, result, {"type": type(edit).__name__, **msgspec.structs.asdict(edit)})

    # --- ends ---------------------------------------------------------------------------------------

    def _finished(self, work: Work, answer: Answer) -> Outcome:
        self._guards.report.tool_calls += len(answer.tool_calls)
        result = results.result(work.name, work.call, answer, images=self._images)
        told = result.content[0]
        assert isinstance(told, TextPart)
        told.text += self._guards.note(work.code, _context(work), answer, told.text)
        return self._ended(work, answer, result)

    def _ended(
        self, work: Work, answer: Answer | None, result: ResultPart, output: dict[str, Any] | None = None
    ) -> Outcome:
        told = result.content[0]
        assert isinstance(told, TextPart)
        if answer is None and result.error:
            told.text += self._guards.note(work.code, _context(work), None, told.text)
        if self._note:
            told.text = f"[{self._note}]\n{told.text}"
            self._note = ""
        self._queue.put_nowait(
            CodeEnded(call=work.uid, kind=work.kind, answer=answer, result=result, output=output or {})
        )
        return Outcome(result=result)


def _new_id() -> str:
    """How a client knows a call that code makes of its function."""
    return f"call_{secrets.token_hex(12)}"


def _context(work: Work) -> str:
    return str(work.arguments.get("context") or MAIN)


def _failure(work: Work, text: str) -> ResultPart:
    return ResultPart(id=work.call, name=work.name, content=[TextPart(text)], error=True)


def _tool_answer(call: str, result: ResultPart) -> ToolAnswer:
    """A client's result as code gets it: JSON as data, other text as it is."""
    text = "".join(part.text for part in result.content if isinstance(part, TextPart))
    if result.error:
        return ToolAnswer(id=call, error=text or "it failed")
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = text
    return ToolAnswer(id=call, result=value)


def _no_number(text: str) -> None:
    raise ValueError(text)  # NaN and its kin are no JSON


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a client is told, of several things that went wrong at once."""
    problems, others = group.split(ProblemError)
    found: BaseException | None = problems or others
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert found is not None
    return found if isinstance(found, OnehopError | asyncio.CancelledError) else group
