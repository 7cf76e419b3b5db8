"""The loop: ask the model, run what it calls, give it the results, until it answers, waits, or a limit ends it.

It is one generator of events for every wire. Closing it stops the upstream and the code; it must never leave either
running for nobody, except code that waits for its client.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from onehop.agent import prompts
from onehop.agent.code import CodeText
from onehop.agent.containers import Containers
from onehop.agent.continuing import Continuing, Kept, Past, hides
from onehop.agent.editor import Editor
from onehop.agent.events import (
    CodeCalls,
    CodeDelta,
    CodeStarted,
    CodeWritten,
    EndReason,
    ForeignCall,
    ForeignDelta,
    ForeignStarted,
    Kind,
    LoopEnd,
    LoopEvent,
    LoopRequest,
    TurnStarted,
)
from onehop.agent.guards import Guards
from onehop.agent.memory import Memory
from onehop.agent.model import (
    CallDelta,
    CallPart,
    CallStart,
    Message,
    ModelRequest,
    Options,
    Part,
    ResultPart,
    TurnEnd,
)
from onehop.agent.upstreams.router import Model, Models
from onehop.agent.work import Outcome, Work, Worker
from onehop.errors import ConflictError, UpstreamError
from onehop.sessions import Engine
from onehop.tools.registry import Registry

MEMBERS: dict[Kind, str] = {"python": "code", "bash": "command", "editor": ""}
"""Of the arguments: the text that is shown while it is written."""
CONTEXT = re.compile("[A-Za-z0-9_-]{1,64}")
MAX_CALLS = 64
"""Of our tools in one turn."""


class Loop:
    """Args:
    engine: runs the code.
    models: are asked.
    containers: where the code runs.
    memory: what one request leaves for the next.
    registry: of the operator's tools.
    """

    def __init__(
        self,
        engine: Engine,
        models: Models,
        containers: Containers,
        memory: Memory,
        registry: Registry | None = None,
    ) -> None:
        self._engine = engine
        self._models = models
        self._containers = containers
        self._registry = registry
        self._editor = Editor(engine.files)
        self._continuing = Continuing(memory, engine.settings.loop_memory_hours * 3600)

    def run(self, request: LoopRequest) -> AsyncGenerator[LoopEvent, None]:
        """Carries out a request; the last event is a LoopEnd, and the only one.

        Raises:
            ModelNotFoundError, UpstreamError: no model answers, at any point.
            InvalidRequestError, ForbiddenError: it cannot be asked like that.
            SessionNotFoundError, SessionEndedError, SessionBusyError: the container cannot be used.
            ProblemError: the server cannot.
        """
        return self._run(request)

    async def _run(self, request: LoopRequest) -> AsyncGenerator[LoopEvent, None]:
        model = await self._models.resolve(request.request.model)
        one = _Request(self, request, model)
        async with aclosing(one.run()) as events:
            async for event in events:
                yield event


class _Request:
    """One request on its way."""

    def __init__(self, loop: Loop, request: LoopRequest, model: Model) -> None:
        self._loop = loop
        self._request = request
        self._model = model
        hosted = (
            bool(request.hosted) and model.capabilities.hosted and request.request.dialect == model.dialect
        )
        self._hosted = [request.hosted] if hosted else []
        if hosted:
            request = self._request = msgspec.structs.replace(request, kinds=[])
        self._offer = prompts.offer(request, loop._registry) if request.kinds else prompts.Offer([], {}, [])
        self._guards = Guards(request.limits, loop._engine.settings, model)
        self._said: list[Message] = []
        """What this request adds to the conversation."""
        self._last: TurnEnd | None = None
        self._outcomes: dict[str, Outcome] = {}
        self._used_ids: set[str] = set()
        self._works: list[Work] = []
        self._foreign: list[CallPart] = []

    async def run(self) -> AsyncGenerator[LoopEvent, None]:
        caller = self._request.caller
        past = await self._loop._continuing.past(caller, self._request.request.messages)
        self._before = past.messages
        choice = self._request.container
        if past.container is not None and not choice.session and not choice.conversation:
            # The client has never named it, so it cannot be asked whether a new one will do: the model is told.
            choice = msgspec.structs.replace(choice, session=past.container.session, restart=True)
        self._worker = Worker(
            self._loop._engine,
            self._loop._containers,
            self._loop._editor,
            msgspec.structs.replace(self._request, container=choice),
            self._guards,
            self._offer.choices,
            images=self._model.capabilities.images,
            container=past.container if past.last is not None else None,
        )
        for one in past.abandoned:
            await self._worker.stop(one)
        try:
            async with aclosing(self._go_on(past) if past.last or past.again else self._go()) as events:
                async for event in events:
                    yield event
        except BaseException:
            await asyncio.shield(self._worker.abandon())
            raise

    async def _go_on(self, past: Past) -> AsyncGenerator[LoopEvent, None]:
        """Code that waited for its client has what it waited for."""
        if past.again is not None:
            if not past.again.suspended:
                raise ConflictError("these results came before, and the conversation has gone on with them")
            for one in past.again.suspended:
                yield CodeCalls(one.uid, one.calls)
            yield self._end("suspended")
            return
        kept = past.last
        assert kept is not None
        async with aclosing(self._worker.run([], past.resumed, self._outcomes)) as events:
            async for event in events:
                yield event
        results, waiting = self._results([one.uid for one, _ in past.resumed])
        results = [*kept.results, *results]
        if waiting:
            yield await self._suspend(waiting, results, before=kept)
            return
        kept.results, kept.suspended = results, []
        await self._loop._continuing.keep(self._request.caller, kept)
        past.settle(results)
        async with aclosing(self._go()) as events:
            async for event in events:
                yield event

    async def _go(self) -> AsyncGenerator[LoopEvent, None]:
        guards = self._guards
        while True:
            ending = guards.before_turn()
            if ending is not None:
                yield self._end(ending.reason, ending.detail)
                return
            async with aclosing(self._turn()) as deltas:
                async for event in deltas:
                    yield event
            if (ending := guards.late()) is not None and self._last is None:
                yield self._end(ending.reason, ending.detail)
                return
            turn = self._last
            assert turn is not None
            self._said.append(turn.message)
            if turn.stop == "length" or not (self._works or self._foreign):
                reason: EndReason = "answer"
                if turn.stop in ("length", "refusal"):
                    reason = "length" if turn.stop == "length" else "refusal"
                elif turn.stop == "pause":
                    if self._hosted:
                        reason = "pause"
                    else:
                        continue  # the upstream wants to be asked again as it is
                yield self._end(reason)
                return
            async with aclosing(self._worker.run(self._works, [], self._outcomes)) as events:
                async for event in events:
                    yield event
            results, waiting = self._results([one.uid for one in self._works])
            if waiting or self._foreign:
                yield await self._suspend(waiting, results)
                return
            self._take_results(results)

    # --- one turn of the model ----------------------------------------------------------------------

    async def _turn(self) -> AsyncGenerator[LoopEvent, None]:
        guards = self._guards
        guards.turns += 1
        self._last, self._works, self._foreign = None, [], []
        yield TurnStarted(guards.turns)
        calls: dict[int, _Call] = {}
        began_s = time.monotonic()
        try:
            async with aclosing(self._loop._models.turn(self._model, self._model_request())) as deltas:
                until_s = asyncio.get_running_loop().time() + guards.left_s
                while True:
                    try:
                        async with asyncio.timeout_at(until_s):
                            delta = await anext(deltas)
                    except StopAsyncIteration:
                        break
                    except TimeoutError:
                        guards.expire()
                        return
                    if isinstance(delta, CallStart):
                        call = calls[delta.index] = self._call(delta)
                        if call.kind is None:
                            yield ForeignStarted(call.id, delta.name)
                        else:
                            # Before the code is written: it is there in a millisecond, and wires name it.
                            opened = await self._worker.open()
                            if opened is not None:
                                yield opened
                            yield CodeStarted(call.uid, call.kind)
                    elif isinstance(delta, CallDelta):
                        call = calls[delta.index]
                        if call.kind is None:
                            yield ForeignDelta(call.id, delta.text)
                        elif call.text is not None and (text := call.text.feed(delta.text)):
                            yield CodeDelta(call.uid, text)
                    elif isinstance(delta, TurnEnd):
                        self._last = delta
                        guards.tokens += delta.tokens
                        for event in self._written(delta, list(calls.values())):
                            yield event
                        yield delta
                    else:
                        yield delta
                    if guards.late() is not None and self._last is None:
                        return
        finally:
            guards.report.upstream_s += time.monotonic() - began_s
        if self._last is None:
            raise UpstreamError("the model's answer has no end")

    def _model_request(self) -> ModelRequest:
        asked = self._request.request
        options = asked.options
        if options.choice not in (None, "auto", "none") and self._guards.turns > 1:
            # Whoever wants a call wants one call, not one in every turn.
            options = msgspec.structs.replace(options, choice=None)
        functions = [one for one in asked.tools if one.name not in self._request.code_only]
        return msgspec.structs.replace(
            asked,
            messages=[*self._before, *(one for one in self._said if one.parts)],
            tools=[*self._offer.functions, *functions],
            raw_tools=[*asked.raw_tools, *self._hosted],
            options=self._choice(options),
        )

    def _choice(self, options: Options) -> Options:
        """A client may name our tool by its kind, whatever it is called for the model."""
        for name, kind in self._offer.kinds.items():
            if options.choice == f"={kind}" and name != kind:
                return msgspec.structs.replace(options, choice=f"={name}")
        return options

    def _call(self, start: CallStart) -> _Call:
        name = start.id
        if not name or name in self._used_ids:
            name = f"call_{secrets.token_hex(12)}"  # some upstreams count from 0 in every turn
        self._used_ids.add(name)
        return _Call(name, start.name, self._offer.kinds.get(start.name))

    def _written(self, turn: TurnEnd, calls: list[_Call]) -> list[LoopEvent]:
        """Takes the turn's calls out of its message; tells them whole."""
        events: list[LoopEvent] = []
        waiting = list(calls)
        cut_off = turn.stop == "length"
        parts: list[Part] = []
        for part in turn.message.parts:
            if not isinstance(part, CallPart):
                parts.append(part)
                continue
            call = next((one for one in waiting if one.name == part.name), None)
            if call is None:  # a codec that tells calls at the end only
                call = self._call(CallStart(0, part.id, part.name))
            else:
                waiting.remove(call)
            if cut_off:
                continue  # half a call is no call, and a conversation with one cannot go on
            # Ours get names that are unique for good: wires show them, and clients send them back.
            part = msgspec.structs.replace(part, id=call.uid or call.id)
            parts.append(part)
            if call.kind is None:
                self._foreign.append(part)
                events.append(ForeignCall(part))
                continue
            work = _work(call, call.kind, part)
            if len(self._works) >= MAX_CALLS:
                work.problem = f"It was not run: at most {MAX_CALLS} calls in one turn."
            self._works.append(work)
            events.append(CodeWritten(call.uid, call.kind, work.code, work.arguments))
        turn.message = msgspec.structs.replace(turn.message, parts=parts)
        return events

    # --- results and ends ---------------------------------------------------------------------------

    def _results(self, uids: list[str]) -> tuple[list[ResultPart], list[Outcome]]:
        """Results in the order of the calls, and what waits for its client."""
        outcomes = [self._outcomes[uid] for uid in uids]
        results = [one.result for one in outcomes if one.result is not None]
        return results, [one for one in outcomes if one.suspended is not None]

    def _take_results(self, results: list[ResultPart]) -> None:
        if results:
            self._said.append(Message("user", list(results)))

    async def _suspend(
        self, waiting: list[Outcome], results: list[ResultPart], before: Kept | None = None
    ) -> LoopEnd:
        """Ends this request; keeps what the next one needs before the client is told."""
        suspended = [one.suspended for one in waiting if one.suspended is not None]
        to_code = [name for one in suspended for name in one.ids]
        said = [one for one in self._said if one.parts]
        if before is None and not hides(said, results, suspended):
            return self._end("foreign_calls")  # the client has seen everything, and sends it back
        keep = self._loop._continuing.keep
        kept = Kept(
            ids=[*(part.id for part in self._foreign), *to_code],
            transcript=said,
            results=results,
            to_code=to_code,
            suspended=suspended,
            container=self._worker.container,
        )
        await keep(self._request.caller, kept)
        if before is not None:
            # The answer before this one is settled: its results went to the code, which waits again.
            before.results, before.suspended, before.next = [], [], kept.ids[0]
            await keep(self._request.caller, before)
        self._worker.handed_over()
        return self._end("suspended" if suspended else "foreign_calls")

    def _end(self, reason: EndReason, detail: str = "") -> LoopEnd:
        return LoopEnd(
            reason=reason,
            detail=detail,
            last=self._last,
            transcript=[one for one in self._said if one.parts],
            tokens=self._guards.tokens,
            report=self._guards.finished(),
            container=self._worker.container,
        )


class _Call:
    """One that a model is writing."""

    def __init__(self, name: str, function: str, kind: Kind | None) -> None:
        self.id = name
        self.name = function
        self.kind = kind
        self.uid = f"code_{secrets.token_hex(12)}" if kind is not None else ""
        self.text = CodeText(MEMBERS[kind]) if kind is not None and MEMBERS[kind] else None


def _work(call: _Call, kind: Kind, part: CallPart) -> Work:
    """A call with its arguments decoded, or with what is wrong with them."""
    arguments: Any = None
    problem = ""
    try:
        arguments = json.loads(part.arguments, strict=False)  # models write line breaks into JSON's texts
    except (ValueError, RecursionError) as error:
        problem = f"The arguments are no JSON ({error}); call {part.name} again with a JSON object."
    member = MEMBERS[kind]
    if not problem and not isinstance(arguments, dict):
        problem = f"The arguments have to be a JSON object; call {part.name} again."
    elif (
        not problem and member and not (isinstance(arguments.get(member), str) and arguments[member].strip())
    ):
        problem = f"The arguments need {member!r}, a text; call {part.name} again."
    elif not problem and not CONTEXT.fullmatch(str(arguments.get("context") or "main")):
        problem = f"context has to be 1 to 64 letters, digits, - and _; call {part.name} again."
    if "\\ud" in part.arguments.lower() and not problem and _halves(arguments):
        problem = f"The text holds half a character (a surrogate); call {part.name} again."
        arguments = None
    given = arguments if isinstance(arguments, dict) else {}
    code = given.get(member) if member else None
    return Work(
        uid=call.uid,
        call=part.id,
        name=part.name,
        kind=kind,
        code=code if isinstance(code, str) else "",
        arguments=given,
        problem=problem,
    )


def _halves(arguments: Any) -> bool:
    """JSON may name half a character, which no text can hold that is to leave this process."""
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
