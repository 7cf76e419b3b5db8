"""A client: one-shot code, many sessions over the same connections, keys and usage; blocking and for asyncio."""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

from onehop.client import executing, follow
from onehop.client import tools as tool_calls
from onehop.client.batches import batch
from onehop.client.core import Holder, SessionOptions
from onehop.client.executing import Content, OnResult, OnText
from onehop.client.follow import Follower
from onehop.client.lambdas import AsyncFunctions, Functions, evaluate
from onehop.client.methods import aiterating, awaiting, blocking, iterating
from onehop.client.records import DayUsage, EnvironmentInfo, KeyInfo, SessionInfo, record
from onehop.client.requests import document, get, path_of, post, send
from onehop.client.results import Event, Result
from onehop.client.sessions import AsyncSession, Session, _async_carrier, _sync_carrier
from onehop.client.steps import Flow, Op, Request
from onehop.client.tools import Approve, OwnTools, Tool
from onehop.client.where import Where


def run(
    self: Holder,
    code: str,
    *,
    environment: str | None = None,
    memory_mb: int | None = None,
    processes: int | None = None,
    workspace_mb: int | None = None,
    timeout_s: float | None = None,
    cpu_s: float | None = None,
    output_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    files: Mapping[str, Content] | None = None,
    return_files: bool = False,
    imports: Mapping[str, Sequence[str]] | None = None,
    on_stdout: OnText | None = None,
    on_stderr: OnText | None = None,
    on_result: OnResult | None = None,
    tools: Sequence[Tool] | None = None,
    approve: Approve | None = None,
) -> Op[Result]:
    """Runs code once, in a sandbox of its own that is gone afterwards.

    Args:
        code: Python; IPython's magics, `!cmd` and top-level await work.
        environment: the set of packages; the server's default when left out.
        memory_mb, processes, workspace_mb: MiB of memory, processes and threads, MiB of the workspace.
        timeout_s: wall seconds until it is stopped.
        cpu_s: CPU seconds until it is stopped.
        output_bytes: bytes of stdout and stderr returned.
        env: environment variables.
        stdin: what `input()` reads.
        files: path in the workspace → text, bytes or the Path of a file here; written before the code runs.
        return_files: the result's files have their `content`.
        imports: `{"allow": […]}` or `{"deny": […]}`: modules that the code may import; a guard rail, no wall.
        on_stdout, on_stderr: called with each piece of text as it comes.
        on_result: called with each displayed Output as it comes.
        tools: what the code may call: functions of yours, which run here while this call lasts (those of a session
            without), names of tools that the server has, tools as the API writes them. What nobody here can answer
            makes this return with the status `tool_call_required`; `submit` goes on then.
        approve: says for a call of a tool that needs approval whether it may be made.

    Raises:
        InvalidRequestError: an argument is out of its bounds.
        TooManyError: too much runs at once; `retry_after_s` says when to try again.
        UnreachableError: the connection broke for good.
    """
    body: dict[str, Any] = {
        "code": code,
        "environment": environment,
        "memory_mb": memory_mb,
        "processes": processes,
        "workspace_mb": workspace_mb,
        "timeout_s": timeout_s,
        "cpu_s": cpu_s,
        "output_bytes": output_bytes,
        "env": dict(env) if env else None,
        "stdin": stdin or None,
        "files": executing.file_fields(files),
        "return_files": return_files or None,
        "imports": dict(imports) if imports is not None else None,
    }
    own = OwnTools(tools, approve)
    body["tools"] = own.field
    return (yield from executing.run("/api/execute", body, on_stdout, on_stderr, on_result, _leave, own))


def _leave(execution: str) -> Op[object]:
    """A one-shot execution that nobody waits for runs to its deadline: there is no call that ends it."""
    yield from ()
    return None


def list_sessions(self: Holder) -> Op[list[SessionInfo]]:
    """The caller's live sessions, oldest first."""
    found = yield from get("/api/sessions")
    return [record(SessionInfo, one) for one in found["sessions"]]


def execution(self: Holder, execution_id: str, *, wait_s: float = 0) -> Op[Result]:
    """The result of an execution again, however it was started; its status is `running` while it runs.

    Args:
        wait_s: waits up to that many seconds for its end (the server allows 60).
    """
    return Result.of(
        (yield from get(path_of("executions", execution_id), {"wait_s": math.ceil(wait_s) or None}))
    )


def events(self: Holder, execution_id: str, *, after: int = 0) -> Flow[Event]:
    """The events of an execution again, those after the number `after`, and those to come."""
    return executing.emit(Follower(None, execution_id, after))


def wait(self: Holder, execution_id: str) -> Op[Result]:
    """The result of an execution once it has ended, however long that takes."""
    return follow.wait(execution_id)


def submit(self: Holder, execution_id: str, results: Sequence[Mapping[str, Any]]) -> Op[Result]:
    """Answers calls that an execution with the status `tool_call_required` waits for; it goes on.

    Args:
        results: each with the `id` of a call, and its `result` (JSON), an `error` (text), or for a call that needs
            approval `approve` (and a `reason` why not).

    Raises:
        CallNotPendingError: one of them waits for nothing; none of the results was used.
    """
    return tool_calls.submit(execution_id, results)


def environments(self: Holder) -> Op[list[EnvironmentInfo]]:
    """The sets of packages that sessions can name."""
    found = yield from get("/api/environments")
    return [record(EnvironmentInfo, one) for one in found["environments"]]


def server_info(self: Holder) -> Op[dict[str, Any]]:
    """Version, environments, protections and limits of the server, as it tells them."""
    found: dict[str, Any] = yield from get("/api/info")
    return found


def usage(
    self: Holder, *, start: datetime.date | str | None = None, end: datetime.date | str | None = None
) -> Op[list[DayUsage]]:
    """What was used, by key and day.

    Args:
        start, end: first and last day (UTC), as dates or YYYY-MM-DD.
    """
    days = {"from": None if start is None else str(start), "to": None if end is None else str(end)}
    found = yield from get("/api/usage", days)
    return [record(DayUsage, one) for one in found["usage"]]


def create_key(
    self: Holder,
    name: str = "",
    *,
    owner: str | None = None,
    scopes: Sequence[str] | None = None,
    expires_in_s: float | None = None,
    limits: Mapping[str, Any] | None = None,
) -> Op[KeyInfo]:
    """Makes a key; its secret, `key`, is told this once. The first key ends the time without keys.

    Args:
        name: for people.
        owner: the tenant whose things it reaches; a new one of its own when left out.
        scopes: `execute` (includes `read`; what it gets when left out), `read`, `admin`.
        expires_in_s: seconds until it is of no use any more.
        limits: of max_sessions, executions_per_minute, cpu_s_per_hour, max_memory_mb, max_workspace_mb, and tools
            (patterns of names).
    """
    body = {
        "name": name,
        "owner": owner,
        "scopes": None if scopes is None else list(scopes),
        "expires_in_s": expires_in_s,
        "limits": None if limits is None else dict(limits),
    }
    return record(KeyInfo, document((yield from send(post("/api/keys", body)))))


def list_keys(self: Holder) -> Op[list[KeyInfo]]:
    """All keys, without their secrets."""
    found = yield from get("/api/keys")
    return [record(KeyInfo, one) for one in found["keys"]]


def revoke_key(self: Holder, key_id: str) -> Op[None]:
    """From now on the key is not accepted."""
    yield from send(Request("DELETE", path_of("keys", key_id)))


class Keys(Holder):
    """API keys; needs the scope `admin`."""

    def __init__(self, client: Holder) -> None:
        self._carrier = client._carrier

    create = blocking(create_key)
    list = blocking(list_keys)
    revoke = blocking(revoke_key)


class AsyncKeys(Holder):
    """API keys; needs the scope `admin`."""

    def __init__(self, client: Holder) -> None:
        self._carrier = client._carrier

    create = awaiting(create_key)
    list = awaiting(list_keys)
    revoke = awaiting(revoke_key)


class Client(Holder):
    """A server, or the engine of this process; many sessions share its connections.

    Args:
        url: the server (default: ONEHOP_URL; without one an engine is started for this process).
        api_key: default: ONEHOP_API_KEY.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self._carrier = _sync_carrier(Where(url, api_key))

    run = blocking(run)
    batch = blocking(batch)
    evaluate = blocking(evaluate)
    sessions = blocking(list_sessions)
    execution = blocking(execution)
    events = iterating(events)
    wait = blocking(wait)
    submit = blocking(submit)
    environments = blocking(environments)
    info = blocking(server_info)
    usage = blocking(usage)

    @functools.cached_property
    def keys(self) -> Keys:
        """API keys."""
        return Keys(self)

    @functools.cached_property
    def functions(self) -> Functions:
        """Functions stored under names."""
        return Functions(self)

    def session(self, **options: Unpack[SessionOptions]) -> Session:
        """A new session over these connections; the arguments are those of `Session`, but url and api_key."""
        return Session._on(self._carrier, options)

    def attach(self, session_id: str) -> Session:
        """A session that exists already, over these connections."""
        return Session._on(self._carrier, {}, session_id)

    def close(self) -> None:
        """Closes the connections; sessions live on until they are closed or end by themselves."""
        self._carrier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Holder):
    """A server, or the engine of this process; many sessions share its connections.

    Args:
        url: the server (default: ONEHOP_URL; without one an engine is started for this process).
        api_key: default: ONEHOP_API_KEY.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self._carrier = _async_carrier(Where(url, api_key))

    run = awaiting(run)
    batch = awaiting(batch)
    evaluate = awaiting(evaluate)
    sessions = awaiting(list_sessions)
    execution = awaiting(execution)
    events = aiterating(events)
    wait = awaiting(wait)
    submit = awaiting(submit)
    environments = awaiting(environments)
    info = awaiting(server_info)
    usage = awaiting(usage)

    @functools.cached_property
    def keys(self) -> AsyncKeys:
        """API keys."""
        return AsyncKeys(self)

    @functools.cached_property
    def functions(self) -> AsyncFunctions:
        """Functions stored under names."""
        return AsyncFunctions(self)

    def session(self, **options: Unpack[SessionOptions]) -> AsyncSession:
        """A new session over these connections; the arguments are those of `AsyncSession`, but url and api_key."""
        return AsyncSession._on(self._carrier, options)

    def attach(self, session_id: str) -> AsyncSession:
        """A session that exists already, over these connections."""
        return AsyncSession._on(self._carrier, {}, session_id)

    async def close(self) -> None:
        """Closes the connections; sessions live on until they are closed or end by themselves."""
        await self._carrier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
