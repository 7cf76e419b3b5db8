"""What really happened behind an answer that a client has seen a part of, kept until the client comes back.

A client that gets calls of its own functions sends the conversation back with their results. It knows nothing of
our calls in the same turn, nor of code that waits, alive, for a result. Both are found by the id of its first call.
"""

from __future__ import annotations

import msgspec

from onehop.agent.events import Container
from onehop.agent.memory import Memory
from onehop.agent.model import CallPart, Message, ResultPart
from onehop.agent.work import Suspended
from onehop.sessions.caller import Caller

KIND = "turn"


class Kept(msgspec.Struct, kw_only=True):
    """What stands behind one answer.

    Args:
        ids: of the client's calls.
        transcript: what was really said, instead of the answer.
        results: of our calls in its last turn.
        to_code: the client's results went to code (or shall): the model does not get them.
        suspended: executions that wait for them.
        container: where the code runs.
    """

    ids: list[str]
    transcript: list[Message]
    results: list[ResultPart] = []
    to_code: list[str] = []
    suspended: list[Suspended] = []
    container: Container | None = None


class Past(msgspec.Struct, kw_only=True):
    """A conversation with all that really happened.

    Args:
        messages: for the model.
        name: under which the last answer is kept, when executions of it go on now.
        last: that answer.
        resumed: executions that go on, each with its client's results.
    """

    messages: list[Message]
    name: str = ""
    last: Kept | None = None
    resumed: list[tuple[Suspended, list[ResultPart]]] = []


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
        told: list[Message] = []
        past = Past(messages=told)
        kept: Kept | None = None
        for position, message in enumerate(messages):
            if message.role == "assistant":
                kept = await self._find(caller, message)
                if kept is None:
                    told.append(message)
                else:
                    _drop_shown(told, kept.transcript)
                    told += kept.transcript
                continue
            if kept is not None and message.role == "user":
                given = [
                    part for part in message.parts if isinstance(part, ResultPart) and part.id in kept.to_code
                ]
                known = {part.id for part in kept.results}
                rest = [
                    part
                    for part in message.parts
                    if part not in given and not (isinstance(part, ResultPart) and part.id in known)
                ]
                if kept.suspended and given and position == len(messages) - 1:
                    past.name, past.last = kept.ids[0], kept
                    past.resumed = [
                        (one, [result for result in given if result.id in one.ids]) for one in kept.suspended
                    ]
                parts = [*kept.results, *rest]
                kept = None
                if parts:
                    told.append(Message("user", parts, message.extra))
                continue
            told.append(message)
        return past

    async def _find(self, caller: Caller, message: Message) -> Kept | None:
        # The client's calls are the last ones: before them may be those of our tools, from wires that show these.
        for part in reversed(message.parts):
            if isinstance(part, CallPart):
                data = await self._memory.get(caller.owner, KIND, part.id)
                if data is not None:
                    return _decode(data)
        return None


def _drop_shown(told: list[Message], transcript: list[Message]) -> None:
    """Takes away the turns that a client was shown and sends back, as the transcript has them too."""
    ids = {part.id for message in transcript for part in message.parts if isinstance(part, CallPart)}
    while told:
        of = [part.id for part in told[-1].parts if isinstance(part, CallPart | ResultPart)]
        if not of or not ids.issuperset(of):
            return
        told.pop()
