"""The gateway's end of the Monty workers: a few processes, a fair queue before them, a deadline for each call.

A worker has one call at a time. Whoever's calls wait longest relative to others goes first: owners take
turns. A worker that dies or is killed takes only its own call with it and is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from functools import partial

import msgspec

from onehop.errors import TooManyError
from onehop.lambdas import model
from onehop.lambdas.model import Job, Reply

GRACE_S = 0.3
"""What a worker gets beyond a call's slice before it is killed."""
READY_S = 10.0
DELAYS_S = (0.05, 0.2, 1.0, 5.0, 30.0)
"""Before the next start of a worker that died again before it had answered anything."""
MAX_WAITING = 1000
READ_BYTES = 262_144
PASSED_ON = ("PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH")

log = logging.getLogger("onehop.lambdas")

Waiting = tuple[Job, "asyncio.Future[Reply]"]


class _Worker:
    """One place for a process: it is filled again whenever the process ends."""

    def __init__(self, owner: Workers, number: int) -> None:
        self.ready = False
        self.failures = 0
        self._owner = owner
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._received = bytearray()
        self._unsent = b""
        self._call: asyncio.Future[Reply] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = False

    @property
    def free(self) -> bool:
        return self.ready and self._call is None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Starts the process; `ready` is set once it has said so."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-s",
                        "-P",
                        "-m",
                        "onehop.lambdas.worker",
                        str(theirs.fileno()),
                        str(os.getpid()),
                        str(self._number),
                    ],
                    env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a group of its own, with Monty's process, to be killed together
                )
            except OSError as error:
                ours.close()
                log.error("a lambda worker cannot be started: %s", error)
                self._again()
                return
        ours.setblocking(False)
        self._channel = ours
        self._loop.add_reader(ours, self._read)
        self._deadline = self._loop.call_later(READY_S, self._too_late)

    def run(self, job: Job, call: asyncio.Future[Reply]) -> None:
        """It must be free. The future is given its reply, whatever happens."""
        assert self.free
        assert self._channel is not None
        self._call = call
        self._deadline = self._loop.call_later(job.slice_s + GRACE_S, self._too_late)
        self._unsent = model.frame(job)
        self._write()

    def _write(self) -> None:
        assert self._channel is not None
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader hears of its end
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._channel, self._write)
        else:
            self._loop.remove_writer(self._channel)

    def _read(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        received = self._received
        received += data
        if len(received) < model.HEADER.size:
            return
        (length,) = model.HEADER.unpack_from(received)
        end = model.HEADER.size + length
        if length > model.MAX_FRAME_BYTES or len(received) > end:
            self.kill()  # it says more than it was asked
            return
        if len(received) < end:
            return
        try:
            reply = model.decode_reply(received[model.HEADER.size : end])
        except msgspec.DecodeError:
            self.kill()
            return
        self._received = bytearray()
        if reply.kind == "ready":
            self.ready = True
        else:
            self.failures = 0
        self._answer(reply)
        self._owner.freed()

    def _answer(self, reply: Reply) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        call, self._call = self._call, None
        if call is not None and not call.done():
            call.set_result(reply)

    def _too_late(self) -> None:
        self._late = True
        self.kill()

    def kill(self) -> None:
        """With Monty's process; what was running is answered when the end is heard of."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _ended(self) -> None:
        self.ready = False
        late, self._late = self._late, False
        self.close()
        if late:
            self._answer(Reply("time", "it was killed at its deadline"))
        else:
            self._answer(Reply("lost", "its process ended"))
        self._again()

    def _again(self) -> None:
        delay_s = DELAYS_S[min(self.failures, len(DELAYS_S) - 1)]
        self.failures += 1
        if self.failures > 1:
            log.warning("a lambda worker ended; starting it again in %g s", delay_s)
        self._timer = self._loop.call_later(delay_s, self.start)
        self._owner.freed()

    def close(self) -> None:
        """Ends the process, if there is one, and gives everything back."""
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None
        if self._channel is not None:
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self.kill()
            self._process.wait()  # SIGKILL has been sent: this is short
            self._process = None
        self._received = bytearray()
        self._unsent = b""
        self.ready = False


class Workers:
    """Args:
    count: most processes; with 0 nothing is ever available.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: list[_Worker] = []
        self._waiting: dict[str, deque[Waiting]] = {}
        self._waiting_count = 0
        self._running: dict[str, int] = {}

    def start(self) -> None:
        """Starts the processes, once; returns before they are ready."""
        if not self._workers:
            self._workers = [_Worker(self, number) for number in range(self._count)]
            for worker in self._workers:
                worker.start()

    @property
    def available(self) -> bool:
        """A call would be run before long: false where workers cannot be had, or fail again and again."""
        return any(worker.failures < 3 for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers if worker.ready]

    async def run(self, job: Job, owner: str) -> Reply:
        """Runs it when a worker is free and it is the owner's turn.

        Raises:
            TooManyError: too many calls wait.
        """
        self.start()
        if not self.available:
            return Reply("lost", "there are no Monty workers at the moment")
        own = self._waiting.setdefault(owner, deque())
        if self._waiting_count >= MAX_WAITING or len(own) >= MAX_WAITING // 2:
            raise TooManyError("too many lambdas wait for their turn; try again in a moment")
        call: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        own.append((job, call))
        self._waiting_count += 1
        self.freed()
        return await call

    def freed(self) -> None:
        """A worker may be free, or gone: hands out what waits, owner by owner."""
        if not self._waiting_count:
            return
        if not self.available:
            self._give_up()
            return
        for worker in self._workers:
            while worker.free and self._waiting_count:
                job, call, owner = self._next()
                if call.done():  # who asked has gone
                    continue
                self._running[owner] = self._running.get(owner, 0) + 1
                call.add_done_callback(partial(self._ended, owner))
                worker.run(job, call)

    def _next(self) -> tuple[Job, asyncio.Future[Reply], str]:
        """The next of the owner with the fewest running; among equals, owners take turns."""
        owner = min(
            (one for one in self._waiting if self._waiting[one]), key=lambda one: self._running.get(one, 0)
        )
        queue = self._waiting.pop(owner)
        job, call = queue.popleft()
        self._waiting_count -= 1
        if queue:
            self._waiting[owner] = queue  # behind all others
        return job, call, owner

    def _ended(self, owner: str, _: object) -> None:
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]

    def _give_up(self) -> None:
        for queue in self._waiting.values():
            for _, call in queue:
                if not call.done():
                    call.set_result(Reply("lost", "there are no Monty workers at the moment"))
        self._waiting.clear()
        self._waiting_count = 0

    def close(self) -> None:
        """Ends all processes."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()
        self._give_up()
