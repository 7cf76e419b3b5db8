"""Where `onehop run` runs: a server that is named, or an engine in this process. One interface for both.

A backend owns one session and ends it, with whatever was started for it, on every way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from onehop.cli import engine as starting
from onehop.config import Settings
from onehop.errors import ConfigurationError, EngineError

if TYPE_CHECKING:
    import httpx2

    from onehop.environments.model import Environment
    from onehop.sessions import Engine
    from onehop.supervisor.spawn import SupervisorHandle

CHUNK_BYTES = 256 * 1024
REQUEST_TIMEOUT_S = 60.0
RECONNECT_S = 20.0
RETRY_S = 0.2
EVENTS = {"Accept": "text/event-stream"}

Event = tuple[str, dict[str, Any]]
"""Kind and data, as in the API's server-sent events."""


class Backend(Protocol):
    """One session. Methods raise OnehopError with a message for people."""

    async def upload(self, path: Path, name: str) -> None:
        """Puts a file of this machine into the workspace."""

    def execute(self, code: str, timeout_s: float | None) -> AsyncIterator[Event]:
        """The events of an execution as they come; the last one is of the kind `end`."""

    async def interrupt(self) -> None: ...

    async def answer(self, execution: str) -> dict[str, Any]:
        """The whole answer of an execution that has ended."""

    def download(self, path: str) -> AsyncIterator[bytes]:
        """The content of a file of the workspace."""


def _chunks(path: Path) -> AsyncIterator[bytes]:
    async def read() -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    return read()


# --- in this process ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def local(settings: Settings, built: Environment) -> AsyncIterator[Backend]:
    """An engine without HTTP; its state lies beside the supervisor's socket and goes with it."""
    from onehop.supervisor import spawn

    with starting.supervisor_log() as log:
        chosen = starting.supervisor_settings(settings, (built,), one_session=True)
        with spawn.launch(chosen, stderr=log) as supervisor:
            # Imported while the zygote gets warm: this takes a second or two.
            from onehop.sessions import Engine, SessionRequest
            from onehop.store import Store
            from onehop.supervisor.client import SupervisorClient

            await _warm(supervisor)
            client = await SupervisorClient.connect(supervisor.path)
            store = Store.open("", Path(supervisor.runtime, "state"))
            try:
                async with Engine(settings, client, store) as engine:
                    session = await engine.sessions.create(SessionRequest())
                    yield _Local(engine, session.id)
            finally:
                store.close()
                await client.close()


async def _warm(supervisor: SupervisorHandle) -> None:
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(supervisor.report_fd, readable.set)
    try:
        async with asyncio.timeout(60):
            await readable.wait()
    except TimeoutError:
        raise EngineError("the supervisor did not get ready within 60 s") from None
    finally:
        loop.remove_reader(supervisor.report_fd)
    supervisor.wait_ready(timeout_s=5)


class _Local:
    def __init__(self, engine: Engine, session: str) -> None:
        self._engine = engine
        self._session = session

    async def upload(self, path: Path, name: str) -> None:
        await self._engine.files.write(self._session, name, _chunks(path))

    async def execute(self, code: str, timeout_s: float | None) -> AsyncIterator[Event]:
        import msgspec

        from onehop.sessions import ExecuteRequest

        run = await self._engine.executions.start(
            self._session, ExecuteRequest(code=code, timeout_s=timeout_s)
        )
        async for events in run.follow(0, pause_s=3600):
            for _, (kind, data) in events:
                yield kind, msgspec.to_builtins(data)

    async def interrupt(self) -> None:
        await self._engine.executions.interrupt(self._session)

    async def answer(self, execution: str) -> dict[str, Any]:
        import msgspec

        found = await self._engine.executions.answer(execution)
        document: dict[str, Any] = (
            json.loads(found) if isinstance(found, bytes) else msgspec.to_builtins(found)
        )
        return document

    async def download(self, path: str) -> AsyncIterator[bytes]:
        async with self._engine.files.read(self._session, path) as (_, chunks):
            async for chunk in chunks:
                yield chunk


# --- on a server ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def remote(url: str, sandbox: dict[str, Any]) -> AsyncIterator[Backend]:
    """A session on the server at `url`; `sandbox` are the fields of its creation."""
    import httpx2

    key = os.environ.get("ONEHOP_API_KEY", "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        timeout = httpx2.Timeout(REQUEST_TIMEOUT_S, read=None)
        client = httpx2.AsyncClient(base_url=url, timeout=timeout, headers=headers)
    except UnicodeEncodeError:
        raise ConfigurationError("ONEHOP_API_KEY: a key has visible ASCII characters only") from None
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConfigurationError(f"--url: {url!r} is no address of a server: {error}") from None
    async with client:
        try:
            session = (await _checked(await client.post("/api/sessions", json=sandbox))).json()["id"]
            try:
                yield _Remote(client, session)
            finally:
                with contextlib.suppress(httpx2.HTTPError):
                    await client.delete(f"/api/sessions/{session}")
        except httpx2.ConnectError:
            raise EngineError(f"no server answers at {url}; start one with: onehop serve") from None
        except httpx2.UnsupportedProtocol:
            raise ConfigurationError(f"--url: {url!r} must begin with http:// or https://") from None
        except httpx2.HTTPError as error:
            raise EngineError(f"the connection to {url} broke: {error!r}") from None


async def _checked(response: httpx2.Response) -> httpx2.Response:
    if response.is_success:
        return response
    raw = await response.aread()
    try:
        problem = json.loads(raw)
        text = f"{problem['title']}: {problem['detail']}"
        if response.status_code == 401:
            text += "; put the key into ONEHOP_API_KEY"
    except (ValueError, KeyError, TypeError):
        text = f"it answered with HTTP status {response.status_code}"
    raise EngineError(f"{response.url.host}: {text}")


async def _events(response: httpx2.Response) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
    """Number, kind and data of server-sent events; data is one line of JSON."""
    number, kind = 0, ""
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            number = int(value)
        elif name == "event":
            kind = value
        elif name == "data":
            yield number, kind, json.loads(value)


class _Remote:
    def __init__(self, client: httpx2.AsyncClient, session: str) -> None:
        self._client = client
        self._base = f"/api/sessions/{session}"

    async def upload(self, path: Path, name: str) -> None:
        await _checked(
            await self._client.put(
                f"{self._base}/files/{quote(name)}",
                content=_chunks(path),
                headers={"Content-Type": "application/octet-stream"},
            )
        )

    async def execute(self, code: str, timeout_s: float | None) -> AsyncIterator[Event]:
        import httpx2

        body: dict[str, Any] = {"code": code} | ({} if timeout_s is None else {"timeout_s": timeout_s})
        request = self._client.build_request("POST", f"{self._base}/execute", json=body, headers=EVENTS)
        execution, seen, kind = "", 0, ""
        deadline_s = time.monotonic() + RECONNECT_S
        while kind != "end":
            try:
                response = await _checked(await self._client.send(request, stream=True))
                try:
                    execution = execution or response.headers["onehop-execution-id"]
                    async for number, kind, data in _events(response):
                        seen = number
                        yield kind, data
                        deadline_s = time.monotonic() + RECONNECT_S
                finally:
                    await response.aclose()
            except httpx2.TransportError:
                # What was started runs on, and a gateway that comes back hands out its events again.
                if not execution or time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(RETRY_S)
            path = f"/api/executions/{execution}/events"
            request = self._client.build_request("GET", path, params={"after": seen}, headers=EVENTS)

    async def interrupt(self) -> None:
        await _checked(await self._client.post(f"{self._base}/interrupt", json={}))

    async def answer(self, execution: str) -> dict[str, Any]:
        response = await _checked(await self._client.get(f"/api/executions/{execution}"))
        document: dict[str, Any] = response.json()
        return document

    async def download(self, path: str) -> AsyncIterator[bytes]:
        async with self._client.stream("GET", f"{self._base}/files/{quote(path)}") as response:
            await _checked(response)
            async for chunk in response.aiter_bytes():
                yield chunk
