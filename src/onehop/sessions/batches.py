"""Batches: several executions and commands asked for at once, side by side, each with an outcome of its own.

What an item is refused with is its answer and touches no other; what is wrong with a request is found
before anything runs. A batch goes on without whoever asked for it, as every execution does.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from onehop import errors
from onehop.config import MIB, Settings
from onehop.errors import InvalidRequestError, ProblemError
from onehop.sessions import bounds
from onehop.sessions.caller import Caller
from onehop.sessions.claims import Claims, Replay
from onehop.sessions.commands import Commands
from onehop.sessions.executions import Executions
from onehop.sessions.requests import AT_CREATION, CommandRequest, ExecuteOnceRequest
from onehop.sessions.run import EncodedEvent, Run, encode_json, new_id
from onehop.sessions.tasks import Tasks
from onehop.sessions.tooling import Tooling

MAX_ANSWERS_BYTES = 64 * MIB
"""Of the answers of one batch together; what is over it can be had from its execution."""
QUEUED = 64
"""So many portions of events wait for a client that reads slowly; then the batch waits."""
REPLAY_WAIT_S = 60.0
CALLING = "import json\nprint(json.dumps(tools.{path}(**json.loads(input()))))"
"""Calls a tool with the arguments on stdin."""

ItemEvents = tuple[int, str, list[EncodedEvent]]
"""Index of an item, its execution, and events of it; no events: its outcome is there instead."""

Work = Callable[[], Awaitable[bytes]]
"""An item that is no business of this layer: gives its answer, or raises ProblemError."""

log = logging.getLogger("onehop.sessions")


class BatchItem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One thing to do: code, a shell command, or a call of a registered tool.

    Args:
        execute: code; without `session` in a sandbox of its own.
        command: a shell command of a session.
        session: id of the session.
        tool: name of a tool. It is called by a line of code in a sandbox of its own, so that approval, audit and
            limits are those of any call; what it gives is the answer's stdout, as JSON.
        arguments: of the tool.
    """

    execute: ExecuteOnceRequest | None = None
    command: CommandRequest | None = None
    session: Annotated[str, Meta(max_length=255)] | None = None
    tool: Annotated[str, Meta(max_length=128)] | None = None
    arguments: dict[str, Any] | None = None


class BatchAnswer(msgspec.Struct):
    """For each item, in order: its Answer, the CommandInfo of a command in the background, or its problem document."""

    answers: list[dict[str, Any]]


class Batches:
    def __init__(
        self,
        settings: Settings,
        executions: Executions,
        commands: Commands,
        tooling: Tooling,
        claims: Claims,
        tasks: Tasks,
    ) -> None:
        self._settings = settings
        self._tooling = tooling
        self._tasks = tasks
        self.executions = executions
        self.commands = commands
        self.claims = claims
        self.under_way: set[tuple[str, str]] = set()
        """Owner and idempotency key of batches that run."""

    async def start(
        self,
        items: Sequence[BatchItem],
        caller: Caller,
        *,
        parallel: int | None = None,
        others: Mapping[int, Work] | None = None,
        key: str = "",
        body: bytes | bytearray = b"",
    ) -> Batch:
        """Checks all items, then starts them.

        Args:
            parallel: most that run at once.
            others: by index, items that somebody else carries out and has checked.
            key: idempotency key, which holds for every item of it.
            body: what was asked for, to the byte.

        Raises:
            InvalidRequestError, TooLargeError, ForbiddenError: an item cannot be run as asked; none of them is.
            IdempotencyKeyReusedError, IdempotencyInProgressError: the key is another request's, or this batch runs.
            QuotaExceededError, UnavailableError: the claim cannot be stored.
        """
        most = self._settings.batch_items
        if len(items) > most:
            raise InvalidRequestError(f"items: {len(items)} are too many, the most is {most}", field="items")
        at_once = self._settings.batch_parallel
        if parallel is not None:
            at_once = int(bounds.at_most("parallel", parallel, at_once))
        others = others or {}
        checked = [
            item if index in others else self._checked(index, item, caller)
            for index, item in enumerate(items)
        ]
        batch = Batch(self, checked, caller, key, others)
        if key:
            place = (caller.owner, key)
            name = new_id("bat")
            if place in self.under_way:
                raise errors.IdempotencyInProgressError(
                    "the same batch is being carried out; wait for its end"
                )
            found = await self.claims.once(caller, key, (b"POST /api/batch", body), name, _nothing)
            batch.replayed = isinstance(found, Replay)
            if place in self.under_way:  # meanwhile
                raise errors.IdempotencyInProgressError(
                    "the same batch is being carried out; wait for its end"
                )
            self.under_way.add(place)
        self._tasks.spawn(batch.carry(at_once))
        return batch

    def _checked(self, index: int, item: BatchItem, caller: Caller) -> BatchItem:
        """The item, with code for a tool. Raises for what cannot be run as asked."""
        place = f"items[{index}]"
        if sum(one is not None for one in (item.execute, item.command, item.tool)) != 1:
            raise InvalidRequestError(f"{place}: give one of execute, command, tool and lambda", field=place)
        try:
            if item.tool is not None:
                item = self._calling(item.tool, item, caller)
            elif item.arguments is not None:
                raise InvalidRequestError("arguments: they are for a tool", field="arguments")
            elif item.command is not None:
                place += ".command"
                if item.session is None:
                    raise InvalidRequestError(
                        "session: a command needs one; for a shell in a sandbox of its own run code with !",
                        field="session",
                    )
                bounds.command_spec(item.command, self._settings, "")
            elif item.execute is not None:
                place += ".execute"
                self._check_code(item.execute, item.session, caller)
        except ProblemError as error:
            raise located(error, place, f"items[{index}]") from None
        return item

    def _calling(self, tool: str, item: BatchItem, caller: Caller) -> BatchItem:
        """The item as code that calls the tool."""
        if item.session is not None:
            raise InvalidRequestError("session: a tool is called outside of sessions", field="session")
        arguments = item.arguments or {}
        path = self._tooling.path(tool, arguments, caller)
        code = ExecuteOnceRequest(
            code=CALLING.format(path=path),
            stdin=encode_json(arguments).decode(),
            tools=[tool],
            output_bytes=self._settings.max_output_bytes,
            return_files=True,
        )
        try:
            bounds.execution_spec(code, self._settings, "", grace_s=0.0)
        except errors.TooLargeError as error:
            raise errors.TooLargeError(f"the arguments are too long: {error.detail}", **error.extra) from None
        return BatchItem(execute=code)

    def _check_code(self, asked: ExecuteOnceRequest, session: str | None, caller: Caller) -> None:
        settings = self._settings
        bounds.execution_spec(asked, settings, "", grace_s=0.0)
        room = settings.max_workspace_mb * MIB
        if session is None:
            if asked.context != "main":
                raise InvalidRequestError("context: only a session has others than 'main'", field="context")
            spec = bounds.sandbox_spec(asked, settings, owner="", one_shot=True, limits=caller.limits)
            room = spec.workspace_bytes
        else:
            for name in sorted(AT_CREATION):
                if getattr(asked, name) is not None:
                    raise InvalidRequestError(
                        f"{name} belongs to the session and is set when it is made", field=name
                    )
            if asked.return_files:
                raise InvalidRequestError(
                    "return_files: a session's files are there to be asked for", field="return_files"
                )
        if asked.files:
            bounds.contents(asked, room)
        if asked.tools:
            self._tooling.check(asked.tools, caller)


async def _nothing() -> None:
    """A batch is begun by its items, which have claims of their own."""


class Batch:
    """One batch under way.

    Attributes:
        outcomes: by item: the answer's JSON, or why there is none; complete when `done` is.
        replayed: its key came before; what ran then is not run again.
    """

    def __init__(
        self,
        owner: Batches,
        items: list[BatchItem],
        caller: Caller,
        key: str,
        others: Mapping[int, Work],
    ) -> None:
        self._owner = owner
        self._items = items
        self._others = others
        self._caller = caller
        self._key = key
        self._runs: dict[int, Run] = {}
        self._abandoned = False
        self._bytes = 0
        self._streams = False
        self._queue: asyncio.Queue[ItemEvents | None] | None = None
        self.outcomes: list[bytes | ProblemError] = []
        self.replayed = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lanes(self) -> deque[list[int]]:
        """Items that have to run one after the other, by index."""
        lanes: dict[tuple[str, str] | int, list[int]] = {}
        for index, item in enumerate(self._items):
            place: tuple[str, str] | int = index
            if item.session is not None:
                place = (item.session, item.execute.context if item.execute is not None else "main")
            lanes.setdefault(place, []).append(index)
        return deque(lanes.values())

    async def carry(self, parallel: int) -> None:
        """To the end of all items."""
        lanes = self.lanes()
        unknown = errors.InternalError("the item was not carried out")
        self.outcomes = [unknown] * len(self._items)

        async def work() -> None:
            while lanes:
                for index in lanes.popleft():
                    self.outcomes[index] = found = await self._item(index)
                    if self._queue is not None and found:
                        await self._queue.put((index, "", []))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(parallel, len(lanes))):
                    group.create_task(work())
            if self._queue is not None:
                await self._queue.put(None)
        finally:
            self._owner.under_way.discard((self._caller.owner, self._key))
            if not self.done.done():
                self.done.set_result(None)

    async def _item(self, index: int) -> bytes | ProblemError:
        """An item's answer; empty where events have told it. Nothing that an item fails with gets out of here."""
        item = self._items[index]
        if self._abandoned and _interrupts(item):
            return errors.UnavailableError("it was not begun: its client went away")
        try:
            if index in self._others:
                return self._kept(await self._others[index](), "")
            run = await self._begin(index, item)
            if isinstance(run, Replay):
                return self._kept(await self._again(index, run.made), run.made)
            self._runs[index] = run
            if self._abandoned:
                await self._stop(index, run)
            return self._kept(await self._follow(index, item, run), run.id)
        except ProblemError as error:
            return error
        except Exception:  # a defect in one must not end the others
            log.exception("an item of a batch failed")
            return errors.InternalError("a defect of the server; its log has the details")
        finally:
            self._runs.pop(index, None)

    def _kept(self, answer: bytes, execution: str) -> bytes | ProblemError:
        if self._bytes + len(answer) > MAX_ANSWERS_BYTES:
            return errors.TooLargeError(
                f"the answers of this batch are longer than {MAX_ANSWERS_BYTES >> 20} MiB together; "
                "ask for this one by its execution",
                limit_bytes=MAX_ANSWERS_BYTES,
                execution=execution,
            )
        self._bytes += len(answer)
        return answer

    async def _begin(self, index: int, item: BatchItem) -> Run | Replay:
        caller, executions, name = self._caller, self._owner.executions, new_id("exe")

        async def begin() -> Run:
            if item.command is not None:
                assert item.session is not None
                return await executions.start_command(item.session, item.command, caller, name=name)
            assert item.execute is not None
            if item.session is None:
                return await executions.start_once(item.execute, caller, name=name)
            return await executions.start(item.session, item.execute, caller, name=name)

        if not self._key:
            return await begin()
        # Each item has a key of its own, so that one that was refused, or not reached before the gateway died,
        # can still be carried out when the batch is sent again.
        key = hashlib.sha256(f"batch:{index}:{self._key}".encode()).hexdigest()
        return await self._owner.claims.once(caller, key, (b"",), name, begin, session=item.session)

    async def _follow(self, index: int, item: BatchItem, run: Run) -> bytes:
        if item.command is not None and item.command.background:
            assert item.session is not None
            return encode_json(await self._owner.commands.get(item.session, run.id, self._caller))
        if self._streams:
            async for events in run.follow_encoded(0, pause_s=REPLAY_WAIT_S, until_turn=True):
                await self._emit(index, run.id, events)
        await run.wait()
        return b"" if self._streams else run.document()

    async def _again(self, index: int, execution: str) -> bytes:
        """The answer of an item that was begun before, once it has ended or waits for its client."""
        executions = self._owner.executions
        while True:
            answer = await executions.answer(execution, self._caller, wait_s=REPLAY_WAIT_S)
            if isinstance(answer, bytes):
                break
            if answer.status != "running":
                answer = encode_json(answer)
                break
        if self._streams:
            async for events in await executions.events(execution, 0, self._caller, pause_s=0.0):
                if not events:
                    break  # it waits for its client
                await self._emit(index, execution, events)
            return b""
        return answer

    # --- who asked for it -----------------------------------------------------------------------------

    def listen(self, *, pause_s: float) -> AsyncIterator[ItemEvents | None]:
        """All events as they come, until all items are done; None after `pause_s` seconds of none.

        To be called before anything else is waited for.
        """
        self._streams = True
        self._queue = asyncio.Queue(QUEUED)
        return self._events(self._queue, pause_s)

    async def _events(
        self, queue: asyncio.Queue[ItemEvents | None], pause_s: float
    ) -> AsyncIterator[ItemEvents | None]:
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    one = await queue.get()
            except TimeoutError:
                if self.done.done():
                    return
                yield None
            else:
                if one is None:
                    return
                yield one

    async def _emit(self, index: int, execution: str, events: list[EncodedEvent]) -> None:
        if self._queue is not None and events:
            await self._queue.put((index, execution, events))

    async def abandon(self) -> None:
        """Nobody listens any more: items that asked for it are interrupted or not begun; the others go on."""
        self._abandoned = True
        queue, self._queue = self._queue, None
        while queue is not None and not queue.empty():
            queue.get_nowait()  # who waits to put something in goes on
        for index, run in list(self._runs.items()):
            await self._stop(index, run)

    async def _stop(self, index: int, run: Run) -> None:
        if _interrupts(self._items[index]) and run.end is None and not run.waits:
            await self._owner.executions.stop(run)


def located(error: ProblemError, place: str, item: str) -> ProblemError:
    """The error of an item, which says where in the request it is."""
    if field := error.extra.get("field"):
        error.extra["field"] = f"{place if field != 'session' else item}.{field}"
    error.detail = f"{place}: {error.detail}"
    error.args = (error.detail,)
    return error


def _interrupts(item: BatchItem) -> bool:
    asked = item.execute if item.command is None else item.command
    return asked is not None and asked.on_disconnect == "interrupt"
