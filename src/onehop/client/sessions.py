"""A session: code, files, contexts and commands in one sandbox. `Session` blocks, `AsyncSession` is for asyncio."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from onehop.client import executing
from onehop.client.commands import AsyncCommands, Commands
from onehop.client.contexts import AsyncContexts, Contexts
from onehop.client.core import SessionCore, SessionOptions
from onehop.client.executing import Content, OnResult, OnText
from onehop.client.files import AsyncFiles, Files
from onehop.client.follow import Follower
from onehop.client.methods import aiterating, awaiting, blocking, iterating
from onehop.client.records import SessionInfo, record
from onehop.client.requests import JSON, document, get, path_of, post, send
from onehop.client.results import Event, Result
from onehop.client.steps import Flow, Op, Request
from onehop.client.tools import Approve, OwnTools, Tool
from onehop.client.where import Where
from onehop.errors import NotFoundError, SessionEndedError, UnreachableError

SETTLE_S = 3
"""So long an interrupted execution is waited for when its caller has given up."""


def run(
    self: SessionCore,
    code: str,
    *,
    context: str = "main",
    timeout_s: float | None = None,
    cpu_s: float | None = None,
    output_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    files: Mapping[str, Content] | None = None,
    on_stdout: OnText | None = None,
    on_stderr: OnText | None = None,
    on_result: OnResult | None = None,
    tools: Sequence[Tool] | None = None,
    approve: Approve | None = None,
) -> Op[Result]:
    """Runs code; variables, imports and files of earlier runs are there.

    Who stops waiting (Ctrl-C, a cancelled task, a callback that raises) interrupts the code.

    Args:
        code: Python; IPython's magics, `!cmd` and top-level await work.
        context: which of the session's contexts.
        timeout_s: wall seconds until it is stopped.
        cpu_s: CPU seconds until it is stopped.
        output_bytes: bytes of stdout and stderr returned; the rest goes to a file of the workspace.
        env: environment variables for this run.
        stdin: what `input()` reads.
        files: path in the workspace → text, bytes or the Path of a file here; written before the code runs.
        on_stdout, on_stderr: called with each piece of text as it comes.
        on_result: called with each displayed Output as it comes.
        tools: what the code may call: functions of yours, which run here while this call lasts (those of a session
            without), names of tools that the server has, tools as the API writes them. What nobody here can answer
            makes this return with the status `tool_call_required`; `submit` goes on then.
        approve: says for a call of a tool that needs approval whether it may be made.

    Raises:
        SessionBusyError: other code runs in this context.
        SessionEndedError: the session has ended; `reason` in `extra` says why.
        InvalidRequestError: an argument is out of its bounds.
        UnreachableError: the connection broke for good.
    """
    path = yield from self._path("execute")
    body = _body(code, context, timeout_s, cpu_s, output_bytes, env, stdin, files)
    own = OwnTools(tools, approve)
    body["tools"] = own.field

    def give_up(execution: str) -> Op[object]:
        yield from interrupt(self, context=context)
        # So that the next call does not find the context busy.
        running = [execution] if execution else (yield from info(self)).executions
        for one in running:
            yield from get(path_of("executions", one), {"wait_s": SETTLE_S})
        return None

    return (yield from executing.run(path, body, on_stdout, on_stderr, on_result, give_up, own))


def stream(
    self: SessionCore,
    code: str,
    *,
    context: str = "main",
    timeout_s: float | None = None,
    cpu_s: float | None = None,
    output_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    files: Mapping[str, Content] | None = None,
) -> Flow[Event]:
    """Runs code and hands out its events as they come; the last one has the result.

    Who leaves the loop early leaves the code running; `interrupt()` stops it. Arguments and errors are
    those of `run`.
    """
    path = yield from self._path("execute")
    body = _body(code, context, timeout_s, cpu_s, output_bytes, env, stdin, files)
    yield from executing.emit(Follower(executing.start_request(path, body, events=True)))


def _body(
    code: str,
    context: str,
    timeout_s: float | None,
    cpu_s: float | None,
    output_bytes: int | None,
    env: Mapping[str, str] | None,
    stdin: str,
    files: Mapping[str, Content] | None,
) -> dict[str, Any]:
    return {
        "code": code,
        "context": None if context == "main" else context,
        "timeout_s": timeout_s,
        "cpu_s": cpu_s,
        "output_bytes": output_bytes,
        "env": dict(env) if env else None,
        "stdin": stdin or None,
        "files": executing.file_fields(files),
    }


def interrupt(self: SessionCore, *, context: str = "main") -> Op[bool]:
    """Stops what runs in a context and keeps its variables; False when nothing ran."""
    path = yield from self._path("interrupt")
    reply = yield from send(post(path, {"context": None if context == "main" else context}))
    return bool(document(reply)["interrupted"])


def info(self: SessionCore) -> Op[SessionInfo]:
    """What the server knows about the session."""
    path = yield from self._path()
    return record(SessionInfo, (yield from get(path)))


def change(
    self: SessionCore,
    *,
    idle_timeout_s: float | None = None,
    max_age_s: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Op[SessionInfo]:
    """Changes its lifetimes or its metadata; what is left out stays."""
    return (
        yield from _patch(
            self, {"idle_timeout_s": idle_timeout_s, "max_age_s": max_age_s, "metadata": metadata}
        )
    )


def extend(self: SessionCore, seconds: float) -> Op[SessionInfo]:
    """It ends that many seconds from now at the latest, if the server's maximum age allows it."""
    return (yield from _patch(self, {"ends_in_s": seconds}))


def pin(self: SessionCore, pinned: bool = True) -> Op[SessionInfo]:
    """A pinned session does not end for being idle; its maximum age holds."""
    return (yield from _patch(self, {"pinned": pinned}))


def _patch(self: SessionCore, changes: Mapping[str, Any]) -> Op[SessionInfo]:
    path = yield from self._path()
    body = post(path, changes).body
    reply = yield from send(Request("PATCH", path, headers=JSON, body=body))
    return record(SessionInfo, document(reply))


def end(self: SessionCore) -> Op[None]:
    """Ends the session, if there is one; nothing is left of it afterwards."""
    if not self._id:
        return
    path = yield from self._path()
    try:
        yield from send(Request("DELETE", path))
    except (NotFoundError, SessionEndedError):
        pass


def _enter(self: SessionCore) -> Op[None]:
    yield from self._path()


class _Base(SessionCore):
    """A session, made at its first use and ended by `close` or by the end of `with`.

    Args:
        url: the server (default: ONEHOP_URL; without one an engine is started for this process).
        api_key: default: ONEHOP_API_KEY.
        options: see SessionOptions.
    """

    _new_carrier: Any

    def __init__(
        self, *, url: str | None = None, api_key: str | None = None, **options: Unpack[SessionOptions]
    ) -> None:
        super().__init__(type(self)._new_carrier(Where(url, api_key)), options)
        self._attached = False
        self._shared = False

    @classmethod
    def attach(cls, session_id: str, *, url: str | None = None, api_key: str | None = None) -> Self:
        """A session that exists already. Leaving its `with` block does not end it; `close()` does."""
        session = cls(url=url, api_key=api_key)
        session._id, session._attached = session_id, True
        return session

    @classmethod
    def _on(cls, carrier: Any, options: SessionOptions, session_id: str = "") -> Self:
        """On the connections of a client."""
        session = cls.__new__(cls)
        SessionCore.__init__(session, carrier, options, session_id)
        session._attached, session._shared = bool(session_id), True
        return session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id or 'not used yet'}>"


def _sync_carrier(where: Where) -> Any:
    from onehop.client.carriers import SyncCarrier

    return SyncCarrier(where)


def _async_carrier(where: Where) -> Any:
    from onehop.client.carriers import AsyncCarrier

    return AsyncCarrier(where)


class Session(_Base):
    __doc__ = _Base.__doc__
    _new_carrier = staticmethod(_sync_carrier)

    run = blocking(run)
    stream = iterating(stream)
    interrupt = blocking(interrupt)
    info = blocking(info)
    change = blocking(change)
    extend = blocking(extend)
    pin = blocking(pin)
    _enter = blocking(_enter)
    _end = blocking(end)

    @functools.cached_property
    def files(self) -> Files:
        """Its workspace."""
        return Files(self)

    @functools.cached_property
    def contexts(self) -> Contexts:
        """Its interpreters."""
        return Contexts(self)

    @functools.cached_property
    def commands(self) -> Commands:
        """Its shell commands."""
        return Commands(self)

    def close(self) -> None:
        """Ends the session, and the connections that it has of its own."""
        try:
            self._end()
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if not self._shared:
            self._carrier.close()

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._attached:
                self._end()
        except UnreachableError:
            if error is None:
                raise
        finally:
            self._hang_up()


class AsyncSession(_Base):
    __doc__ = _Base.__doc__
    _new_carrier = staticmethod(_async_carrier)

    run = awaiting(run)
    stream = aiterating(stream)
    interrupt = awaiting(interrupt)
    info = awaiting(info)
    change = awaiting(change)
    extend = awaiting(extend)
    pin = awaiting(pin)
    _enter = awaiting(_enter)
    _end = awaiting(end)

    @functools.cached_property
    def files(self) -> AsyncFiles:
        """Its workspace."""
        return AsyncFiles(self)

    @functools.cached_property
    def contexts(self) -> AsyncContexts:
        """Its interpreters."""
        return AsyncContexts(self)

    @functools.cached_property
    def commands(self) -> AsyncCommands:
        """Its shell commands."""
        return AsyncCommands(self)

    async def close(self) -> None:
        """Ends the session, and the connections that it has of its own."""
        try:
            await self._end()
        finally:
            await self._hang_up()

    async def _hang_up(self) -> None:
        if not self._shared:
            await self._carrier.close()

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._attached:
                await self._end()
        except UnreachableError:
            if error is None:
                raise
        finally:
            await self._hang_up()
