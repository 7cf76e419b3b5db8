"""The two thin clients on httpx2: they perform the steps of the SDK's logic, blocking or in asyncio.

No decision of the SDK is made in here: what is tried again, and what an answer means, is requests.py's.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from onehop.client.steps import (
    READ_TIMEOUT_S,
    Call,
    CallAll,
    E,
    Emit,
    Flow,
    Op,
    Open,
    Pause,
    R,
    Reply,
    Request,
    Send,
    Source,
    Step,
)
from onehop.client.where import Place, Where
from onehop.errors import ConfigurationError, UnreachableError

THREADS = 32
"""So many of a user's functions run at once."""

CONNECT_TIMEOUT_S = 10.0
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=60)
"""Connections wait for code that runs for minutes: a limit would be one on the sessions at work."""
TIMEOUT = httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)


def _options(place: Place) -> dict[str, Any]:
    options: dict[str, Any] = {"base_url": place.url, "timeout": TIMEOUT, "limits": LIMITS}
    if place.api_key:
        options["headers"] = {"Authorization": f"Bearer {place.api_key}"}
    if place.is_local:
        options["trust_env"] = False  # a proxy of the environment does not lead to this machine
    if not place.url.startswith("https:"):
        options["verify"] = False  # loading all certificates costs tens of milliseconds, and there is no TLS
    return options


def _invalid(place: Place, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"url: {place.url!r} is no address of a server: {error}")


def _broken(where: Where, known: bool, error: Exception) -> UnreachableError:
    """One class for all that can happen to a connection, with the next step."""
    place = where.describe()
    unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    if unsent and not where.is_embedded:
        text = f"no server answers at {place}; start one with: onehop serve"
    elif unsent:
        text = f"{place} has ended, and its sessions with it; make a new Session or Client"
    elif isinstance(error, httpx2.TimeoutException):
        text = f"{place} said nothing for {READ_TIMEOUT_S:g} s; the execution may be running on: ask for it again"
    else:
        text = f"the connection to {place} broke ({type(error).__name__}); what was started there may be running on"
    # The engine's own process keeps the socket open as long as it lives: nobody comes back there.
    return UnreachableError(text, unsent=unsent, known=known and not where.is_embedded)


def _reply(response: httpx2.Response, body: bytes) -> Reply:
    return Reply(response.status_code, dict(response.headers), body)


def _headers(request: Request) -> dict[str, str]:
    headers = dict(request.headers)
    if isinstance(request.body, Source) and request.body.length_bytes is not None:
        headers["Content-Length"] = str(request.body.length_bytes)
    return headers


class SyncCarrier:
    """Performs steps on the caller's thread; may be used by several threads."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._client: httpx2.Client | None = None
        self._known = False

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def carry(self, op: Op[R]) -> R:
        """The result of `op`."""
        with _SyncStream(self) as stream:
            try:
                step = next(op)
                while True:
                    try:
                        outcome = stream.perform(step)
                    except BaseException as error:  # noqa: BLE001 - thrown into the logic, which decides
                        step = op.throw(error)
                    else:
                        step = op.send(outcome)
            except StopIteration as stop:
                result: R = stop.value
                return result

    def iterate(self, flow: Flow[E]) -> Iterator[E]:
        """What `flow` emits."""
        with _SyncStream(self) as stream:
            try:
                step = next(flow)
                while True:
                    if isinstance(step, Emit):
                        yield step.value
                        step = flow.send(None)
                        continue
                    try:
                        outcome = stream.perform(step)
                    except BaseException as error:  # noqa: BLE001 - thrown into the logic, which decides
                        step = flow.throw(error)
                    else:
                        step = flow.send(outcome)
            except StopIteration:
                return

    def send(self, request: Request, *, stream: bool) -> httpx2.Response:
        """Raises UnreachableError."""
        client = self._connected()
        body = request.body.open() if isinstance(request.body, Source) else request.body
        built = client.build_request(
            request.method,
            request.path,
            params=request.params or None,
            headers=_headers(request),
            content=body or None,
        )
        try:
            response = client.send(built, stream=stream)
        except httpx2.TransportError as error:
            raise self.broken(error) from error
        self._known = True
        return response

    def broken(self, error: Exception) -> UnreachableError:
        return _broken(self._where, self._known, error)

    def _connected(self) -> httpx2.Client:
        with self._lock:
            if self._client is None:
                place = self._where.find()
                try:
                    self._client = httpx2.Client(**_options(place), transport=self._transport(place))
                except (httpx2.InvalidURL, ValueError) as error:
                    raise _invalid(place, error) from None
            return self._client

    @staticmethod
    def _transport(place: Place) -> httpx2.HTTPTransport | None:
        return httpx2.HTTPTransport(uds=place.socket, verify=False, limits=LIMITS) if place.socket else None


class _SyncStream:
    """The open stream of one op; closed on every way out."""

    def __init__(self, carrier: SyncCarrier) -> None:
        self._carrier = carrier
        self._response: httpx2.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def __enter__(self) -> _SyncStream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()

    def perform(self, step: Step | Emit[Any]) -> object:
        if isinstance(step, Send):
            response = self._carrier.send(step.request, stream=False)
            return _reply(response, response.content)
        if isinstance(step, Open):
            self.__exit__()
            self._response = self._carrier.send(step.request, stream=True)
            self._chunks = self._response.iter_raw()
            return _reply(self._response, b"" if self._response.is_success else self._read_all())
        if isinstance(step, Pause):
            threading.Event().wait(step.seconds)
            return None
        if isinstance(step, Call):
            step.function(step.argument)
            return None
        if isinstance(step, CallAll):
            return _side_by_side(step.functions)
        return self._next()

    def _next(self) -> bytes:
        try:
            return next(self._chunks, b"")
        except httpx2.TransportError as error:
            raise self._carrier.broken(error) from error

    def _read_all(self) -> bytes:
        return b"".join(iter(self._next, b""))


class AsyncCarrier:
    """Performs steps in the running event loop of asyncio."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._client: httpx2.AsyncClient | None = None
        self._known = False

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def carry(self, op: Op[R]) -> R:
        """The result of `op`."""
        async with _AsyncStream(self) as stream:
            try:
                step = next(op)
                while True:
                    try:
                        outcome = await stream.perform(step)
                    except BaseException as error:  # noqa: BLE001 - thrown into the logic, which decides
                        step = op.throw(error)
                    else:
                        step = op.send(outcome)
            except StopIteration as stop:
                result: R = stop.value
                return result

    async def iterate(self, flow: Flow[E]) -> AsyncIterator[E]:
        """What `flow` emits."""
        async with _AsyncStream(self) as stream:
            try:
                step = next(flow)
                while True:
                    if isinstance(step, Emit):
                        yield step.value
                        step = flow.send(None)
                        continue
                    try:
                        outcome = await stream.perform(step)
                    except BaseException as error:  # noqa: BLE001 - thrown into the logic, which decides
                        step = flow.throw(error)
                    else:
                        step = flow.send(outcome)
            except StopIteration:
                return

    async def send(self, request: Request, *, stream: bool) -> httpx2.Response:
        """Raises UnreachableError."""
        client = await self._connected()
        body = _chunks(request.body) if isinstance(request.body, Source) else request.body
        built = client.build_request(
            request.method,
            request.path,
            params=request.params or None,
            headers=_headers(request),
            content=body or None,
        )
        try:
            response = await client.send(built, stream=stream)
        except httpx2.TransportError as error:
            raise self.broken(error) from error
        self._known = True
        return response

    def broken(self, error: Exception) -> UnreachableError:
        return _broken(self._where, self._known, error)

    async def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            place = (
                await asyncio.to_thread(self._where.find) if self._where.is_embedded else self._where.find()
            )
            if self._client is None:  # another task may have been quicker
                try:
                    self._client = httpx2.AsyncClient(**_options(place), transport=self._transport(place))
                except (httpx2.InvalidURL, ValueError) as error:
                    raise _invalid(place, error) from None
        return self._client

    @staticmethod
    def _transport(place: Place) -> httpx2.AsyncHTTPTransport | None:
        return (
            httpx2.AsyncHTTPTransport(uds=place.socket, verify=False, limits=LIMITS) if place.socket else None
        )


def _outcome(function: Callable[[], Any]) -> object:
    try:
        returned = function()
        if inspect.iscoroutine(returned):
            returned.close()
            return TypeError("it is a coroutine function; AsyncSession and AsyncClient can run it")
        return returned
    except Exception as error:  # noqa: BLE001 - the user's function: what it raises is its answer
        return error


def _side_by_side(functions: list[Callable[[], Any]]) -> list[object]:
    if len(functions) == 1:
        return [_outcome(functions[0])]
    with ThreadPoolExecutor(min(len(functions), THREADS), thread_name_prefix="onehop-tools") as pool:
        return list(pool.map(_outcome, functions))


async def _in_a_thread(function: Callable[[], Any]) -> object:
    """A function that blocks must not hold up the loop; what it returns may have to be awaited."""
    try:
        returned = await asyncio.to_thread(function)
        return await returned if inspect.isawaitable(returned) else returned
    except Exception as error:  # noqa: BLE001 - as above
        return error


async def _chunks(source: Source) -> AsyncIterator[bytes]:
    for chunk in source.open():
        yield chunk


class _AsyncStream:
    """The open stream of one op; closed on every way out."""

    def __init__(self, carrier: AsyncCarrier) -> None:
        self._carrier = carrier
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> _AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            await self._response.aclose()

    async def perform(self, step: Step | Emit[Any]) -> object:
        if isinstance(step, Send):
            response = await self._carrier.send(step.request, stream=False)
            return _reply(response, response.content)
        if isinstance(step, Open):
            await self.__aexit__()
            self._response = await self._carrier.send(step.request, stream=True)
            self._chunks = self._response.aiter_raw()
            return _reply(self._response, b"" if self._response.is_success else await self._read_all())
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Call):
            returned = step.function(step.argument)
            if inspect.isawaitable(returned):
                await returned
            return None
        if isinstance(step, CallAll):
            return await asyncio.gather(*(_in_a_thread(one) for one in step.functions))
        return await self._next()

    async def _next(self) -> bytes:
        assert self._chunks is not None
        try:
            return await anext(self._chunks, b"")
        except httpx2.TransportError as error:
            raise self._carrier.broken(error) from error

    async def _read_all(self) -> bytes:
        parts = []
        while chunk := await self._next():
            parts.append(chunk)
        return b"".join(parts)
