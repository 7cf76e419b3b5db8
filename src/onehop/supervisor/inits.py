"""The conversation with a sandbox's init: requests with tickets, their answers, and what it tells by itself.

Init is ours and runs no user code; what it says is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from onehop.errors import UnavailableError

Answer = Callable[[dict[str, Any], list[int]], None]
MESSAGE_BYTES = 65_536
DESCRIPTORS = 4
"""Most that come with one message."""


class InitChannel:
    """Both ends of the socket until the init has taken its own.

    Args:
        on_event: gets what is no answer, with its descriptors, and returns those that it did not take.
        on_broken: called when init takes no requests.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_event: Callable[[dict[str, Any], list[int]], list[int]],
        on_broken: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._on_event = on_event
        self._on_broken = on_broken
        self._tickets: dict[int, Answer] = {}
        self._ticket = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        self.theirs = theirs.detach()
        """The init's end, -1 once it has it."""

    def given(self) -> None:
        """The init has its end, or will never be."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def listen(self) -> None:
        self._loop.add_reader(self._socket, self._on_readable)

    def close(self) -> None:
        """Whoever waits for an answer is told that the sandbox has ended."""
        self.given()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        tickets, self._tickets = self._tickets, {}
        for answer in tickets.values():
            answer({"event": "gone", "detail": "the sandbox has ended"}, [])

    def tell(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """A request without an answer."""
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode()], fds or [])
        except OSError as error:
            self._on_broken(f"its init does not take requests: {error}")

    def ask(self, message: dict[str, Any], answer: Answer, fds: list[int] | None = None) -> None:
        """A request with one answer; `answer` gets the event and owns the descriptors."""
        self._ticket += 1
        self._tickets[self._ticket] = answer
        self.tell({**message, "ticket": self._ticket}, fds)

    async def request(
        self,
        message: dict[str, Any],
        fds: list[int] | None = None,
        *,
        timeout_s: float,
        sent: Callable[[], None] | None = None,
    ) -> tuple[dict[str, Any], list[int]]:
        """Like `ask`, for who can wait; the descriptors are the caller's. Raises UnavailableError.

        Args:
            sent: called when `fds` are on their way.
        """
        answered: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()

        def answer(event: dict[str, Any], received: list[int]) -> None:
            if answered.done():
                for fd in received:
                    if event["event"] == "command":  # nobody waits for it any more, so nobody would end it
                        with contextlib.suppress(ProcessLookupError):
                            signal.pidfd_send_signal(fd, signal.SIGKILL)
                    os.close(fd)
            else:
                answered.set_result((event, received))

        self.ask(message, answer, fds)
        if sent is not None:
            sent()
        try:
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError:
            raise UnavailableError("the sandbox does not answer") from None

    def _on_readable(self) -> None:
        try:
            raw, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            raw, fds = b"", []
        if not raw:
            self._loop.remove_reader(self._socket)
            return  # the reaper tells the rest
        message = json.loads(raw)
        answer = self._tickets.pop(message.get("ticket"), None)
        if answer is not None:
            answer(message, fds)
            return
        for fd in self._on_event(message, fds):
            os.close(fd)
