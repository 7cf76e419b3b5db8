"""What really happened behind an answer that a client has seen a part of, kept until the client comes back.

A client that gets calls of its own functions sends the conversation back with their results. It knows nothing of
our calls in the same turn, nor of code that waits, alive, for a result. Both are found by the ids of its calls. A
request may be sent again by a client that got no answer: nothing here may be used up by the first one.
"""

from __future__ import annotations

import msgspec

from onehop.agent.events import Container
from onehop.agent.memory import Memory
from onehop.agent.model import CallPart, Message, Part, ReasoningPart, ResultPart, TextPart
from onehop.agent.work import Suspended
from onehop.sessions.caller import Caller

KIND = "turn"
UNANSWERED = "The code was stopped: a function that it called was never answered."


class Kept(msgspec.Struct, kw_only=True):
    """What stands behind one answer.

    Args:
        ids: of the client's calls; it is kept under the first one.
        transcript: what was really said, instead of the answer.
        results: of our calls in its last turn.
        to_code: the client's results went to code (or shall): the model does not get them.
        suspended: executions that wait for them.
        next: they got them and wait again: the first id of the answer that tells of it.
        container: where the code runs.
    """

    ids: list[str]
    transcript: list[Message]
    results: list[ResultPart] = []
    to_code: list[str] = []
    suspended: list[Suspended] = []
    next: str = ""
    container: Container | None = None


class Past(msgspec.Struct, kw_only=True):
    """A conversation with all that really happened.

    Args:
        messages: for the model.
        container: the newest that it has used.
        last: the answer whose executions go on now.
        resumed: these, each with its client's results.
        place, at: the one of `messages` that their results belong into, and before which part of it.
        again: the client has had this answer already, and asks for it again.
        abandoned: executions that wait for what the client does not answer any more.
    """

    messages: list[Message]
    container: Container | None = None
    last: Kept | None = None
    resumed: list[tuple[Suspended, list[ResultPart]]] = []
    place: Message | None = None
    at: int = 0
    again: Kept | None = None
    abandoned: list[Suspended] = []

    def settle(self, results: list[ResultPart]) -> None:
        """The executions that went on have these results, for the model."""
        assert self.place is not None
        self.place.parts[self.at : self.at] = results


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


class Continuing:
    """Args:
    memory: where it is kept.
    ttl_s: for how long.
    """

    def __init__(self, memory: Memory, ttl_s: float) -> None:
        self._memory = memory
        self._ttl_s = ttl_s

    async def keep(self, caller: Caller, kept: Kept) -> None:
        """Returns when a client that comes back will find it. Raises ProblemError when it cannot be kept."""
        await self._memory.put(caller.owner, KIND, kept.ids[0], _encode(kept), self._ttl_s)

    async def past(self, caller: Caller, messages: list[Message]) -> Past:
        """A client's messages, with what it has not seen put in its place."""
        called = [part.id for one in messages for part in _calls(one)]
        known = await self._memory.several(caller.owner, KIND, called) if called else {}
        if not known:
            return Past(messages=list(messages))
        past = Past(messages=[])
        told, position = past.messages, 0
        while position < len(messages):
            message = messages[position]
            position += 1
            # The client's calls are the last ones: before them may be ours, from wires that show these.
            name = next((part.id for part in reversed(_calls(message)) if part.id in known), None)
            if name is None:
                told.append(message)
                continue
            kept = _decode(known[name])
            while position < len(messages) and _rest_of(kept, messages[position]):
                position += 1  # its calls one by one
            _drop_shown(told, kept.transcript)
            told += kept.transcript
            past.container = kept.container or past.container
            after: list[Message] = []
            while position < len(messages) and messages[position].role == "user":
                after.append(messages[position])
                position += 1
            await self._answered(caller, past, kept, after, latest=position == len(messages))
        return past

    async def _answered(
        self, caller: Caller, past: Past, kept: Kept, after: list[Message], *, latest: bool
    ) -> None:
        """What the client has said to it."""
        given = [
            part
            for one in after
            for part in one.parts
            if isinstance(part, ResultPart) and part.id in kept.to_code
        ]
        if kept.next and given and latest:
            past.again = await self._newest(caller, kept)
        results = list(kept.results)
        goes_on = bool(kept.suspended and given and latest)
        if goes_on:
            results = []  # all of them in one place, once there are all
            past.last = kept
            past.resumed = [
                (one, [result for result in given if result.id in one.ids]) for one in kept.suspended
            ]
        elif kept.suspended:
            results += [_unanswered(one) for one in kept.suspended]
            past.abandoned = kept.suspended if latest else []
        told = past.messages
        earlier: list[Part] = []
        if told and told[-1].role == "user" and not kept.transcript:
            # Code that waited twice: its model has said nothing in between, and gets one message of results.
            earlier = told.pop().parts
        dropped = {*kept.to_code, *(one.id for one in kept.results), *(one.call for one in kept.suspended)}
        rest = [part for part in after[0].parts if not _is_result(part, dropped)] if after else []
        message = Message("user", [*earlier, *results, *rest], after[0].extra if after else {})
        if goes_on:
            past.place, past.at = message, len(earlier)
        if message.parts or goes_on:
            told.append(message)
        for one in after[1:]:
            parts = [part for part in one.parts if not _is_result(part, dropped)]
            if parts:
                told.append(Message("user", parts, one.extra))

    async def _newest(self, caller: Caller, kept: Kept) -> Kept:
        while kept.next:
            data = await self._memory.get(caller.owner, KIND, kept.next)
            if data is None:
                break
            kept = _decode(data)
        return kept


def hides(turns: list[Message], results: list[ResultPart], suspended: list[Suspended]) -> bool:
    """Whether anything is behind an answer that its client has not seen, or could not send back."""
    if results or suspended or len(turns) != 1:
        return True
    return any(isinstance(part, ReasoningPart) for part in turns[0].parts)


def _calls(message: Message) -> list[CallPart]:
    if message.role != "assistant":
        return []
    return [part for part in message.parts if isinstance(part, CallPart)]


def _rest_of(kept: Kept, message: Message) -> bool:
    """Nothing but calls of the same answer, as wires have them that send every call by itself."""
    calls = _calls(message)
    return bool(calls) and len(calls) == len(message.parts) and all(one.id in kept.ids[1:] for one in calls)


def _drop_shown(told: list[Message], transcript: list[Message]) -> None:
    """Takes away the turns that a client was shown and sends back, as the transcript has them too."""
    ids = {part.id for message in transcript for part in message.parts if isinstance(part, CallPart)}
    while told:
        of = [part.id for part in told[-1].parts if isinstance(part, CallPart | ResultPart)]
        if not of or not ids.issuperset(of):
            return
        told.pop()


def _is_result(part: Part, ids: set[str]) -> bool:
    return isinstance(part, ResultPart) and part.id in ids


def _unanswered(one: Suspended) -> ResultPart:
    return ResultPart(id=one.call, name=one.name, content=[TextPart(UNANSWERED)], error=True)
