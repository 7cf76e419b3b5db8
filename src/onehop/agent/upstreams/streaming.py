"""One turn at one upstream: the request, then deltas out of the events of its answer, within the timeouts."""

from __future__ import annotations

import asyncio

import msgspec

from onehop.agent.model import Delta, ModelRequest, TurnEnd
from onehop.agent.upstreams import failures
from onehop.agent.upstreams.codec import Capabilities, Reader
from onehop.agent.upstreams.sse import Events
from onehop.agent.upstreams.transport import Answer
from onehop.agent.upstreams.upstream import Upstream
from onehop.errors import ProblemError, UpstreamError, UpstreamTimeoutError

_encode = msgspec.json.Encoder().encode
HOPELESS = (301, 302, 303, 307, 308, 404, 405, 501)
"""Statuses that the same request gets again."""


class Turn:
    """Made once, started as often as it takes.

    Attributes:
        deltas: the newest; after `start` the first ones.
        ended: there will be no more; the last one of `deltas` is a TurnEnd.
        hopeless: the answer of a `start` that failed says that another one would fail, too.

    Raises UnsupportedParameterError when the dialect cannot say what is asked for.
    """

    def __init__(
        self, upstream: Upstream, request: ModelRequest, model: str, capabilities: Capabilities
    ) -> None:
        self.upstream = upstream
        self.deltas: list[Delta] = []
        self.ended = False
        self.hopeless = False
        self._body = _encode(upstream.codec.body(request, model, capabilities))
        self._path = upstream.codec.path(model)
        self._now = asyncio.get_running_loop().time
        self._deadline_s = self._now() + upstream.spec.timeout_s
        self._answer: Answer | None = None
        self._events: Events
        self._reader: Reader
        self._heard_s = 0.0

    def left_s(self) -> float:
        """Seconds until the whole turn takes too long."""
        return self._deadline_s - self._now()

    async def start(self) -> None:
        """Asks, and waits for the first deltas. Raises UpstreamError and its kin, or what the codec makes of it."""
        spec = self.upstream.spec
        self._events = Events()
        self._reader = self.upstream.codec.reader()
        self.hopeless = False
        timeout_s = min(spec.token_timeout_s, self.left_s())
        self._answer = await self.upstream.transport.send(
            "POST", self._path, self.upstream.headers, self._body, timeout_s
        )
        try:
            if self._answer.status != 200:
                raise await self._refused(self._answer)
            kind = self._answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in ("text/event-stream", ""):
                raise await self._no_stream(self._answer, kind)
            self._heard_s = self._now()
            await self.more()
        except BaseException:
            self.close()
            raise

    async def more(self) -> None:
        """Waits for further deltas."""
        deltas: list[Delta] = []
        self.deltas = deltas
        while not deltas:
            chunk = await self._chunk()
            if not chunk:
                deltas += self._reader.end()
                self.ended = True
                break
            for event, data in self._events.feed(chunk):
                self._heard_s = self._now()
                deltas += self._reader.feed(event, data)
                if deltas and type(deltas[-1]) is TurnEnd:
                    self.ended = True
                    return
        if self.ended and (not deltas or type(deltas[-1]) is not TurnEnd):
            raise UpstreamError(f"the upstream {self.upstream.spec.name!r} hung up amid its answer")

    def close(self) -> None:
        """Ends the connection, unless all of the answer has come."""
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.close(drain=self.ended)

    async def _chunk(self) -> bytes:
        """The next bytes; empty at the end."""
        assert self._answer is not None, "started"
        spec = self.upstream.spec
        silence_s = self._heard_s + spec.token_timeout_s
        try:
            return await self._answer.read(min(silence_s, self._deadline_s))
        except TimeoutError:
            what = (
                f"said nothing for {spec.token_timeout_s:g} s"
                if silence_s < self._deadline_s
                else f"took longer than {spec.timeout_s:g} s"
            )
            raise UpstreamTimeoutError(f"the upstream {spec.name!r} {what}") from None

    async def _refused(self, answer: Answer) -> ProblemError:
        spec = self.upstream.spec
        body = await self._whole(answer)
        told = None if 300 <= answer.status < 400 else self.upstream.codec.error(answer.status, body)
        error = told or failures.by_status(spec.name, answer.status)
        said_s = failures.retry_after_s(answer.headers)
        if said_s is not None and failures.retriable(error):
            error.retry_after_s = said_s
        self.hopeless = answer.status in HOPELESS or answer.headers.get("x-should-retry") == "false"
        return error

    async def _no_stream(self, answer: Answer, kind: str) -> ProblemError:
        """Some servers answer with an error's document and the status of a success."""
        error = self.upstream.codec.error(answer.status, await self._whole(answer))
        self.hopeless = error is None
        return error or UpstreamError(
            f"the upstream {self.upstream.spec.name!r} answered with {kind[:100]!r} where a stream was asked for"
        )

    async def _whole(self, answer: Answer) -> bytes:
        until_s = min(self._now() + self.upstream.spec.token_timeout_s, self._deadline_s)
        try:
            return await answer.body(until_s)
        except (TimeoutError, UpstreamError):
            return b""  # the status says enough
