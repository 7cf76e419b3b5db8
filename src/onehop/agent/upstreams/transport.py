"""Requests to one upstream, and their answers as they come. It retries nothing and translates nothing.

Redirects are not followed: a key must not go to a host that nobody configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType

import httpx2

from onehop import __version__
from onehop.agent.upstreams.config import UpstreamSpec
from onehop.errors import UpstreamError, UpstreamTimeoutError

MAX_CONNECTIONS = 1000
ERROR_BYTES = 256 * 1024
"""Of an answer that is no stream; what is longer is cut."""


class Answer:
    """An answer whose head has come.

    Attributes:
        status, headers: of HTTP; names of headers in any case.
    """

    def __init__(self, response: httpx2.Response, upstream: str) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._upstream = upstream

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamError when the connection breaks."""
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except httpx2.HTTPError:
            raise UpstreamError(f"the upstream {self._upstream!r} hung up amid its answer") from None

    async def body(self, most_bytes: int = ERROR_BYTES) -> bytes:
        """The whole body, or its first `most_bytes`."""
        parts, total = [], 0
        async for chunk in self.chunks():
            parts.append(chunk)
            total += len(chunk)
            if total >= most_bytes:
                break
        return b"".join(parts)[:most_bytes]

    async def close(self) -> None:
        """Gives the connection back when all of the answer was read, or else ends it."""
        await self._response.aclose()


class Transport:
    """The connections to one upstream; an async context manager that owns them."""

    def __init__(self, spec: UpstreamSpec) -> None:
        self._spec = spec
        self._client = httpx2.AsyncClient(
            headers={"User-Agent": f"onehop/{__version__}", **spec.headers},
            timeout=httpx2.Timeout(None, connect=spec.connect_timeout_s),
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=100),
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(
        self, method: str, path: str, headers: dict[str, str], content: bytes | None, timeout_s: float
    ) -> Answer:
        """Sends a request; returns when the head of the answer is there.

        Args:
            path: behind the upstream's URL.
            timeout_s: until then.

        Raises:
            UpstreamError: it cannot be reached, or hung up.
            UpstreamTimeoutError: it took longer.
        """
        name = self._spec.name
        try:
            request = self._client.build_request(
                method, self._spec.url + path, headers=headers, content=content
            )
            async with asyncio.timeout(timeout_s):
                return Answer(await self._client.send(request, stream=True), name)
        except httpx2.ConnectTimeout:
            raise UpstreamTimeoutError(f"the upstream {name!r} cannot be reached") from None
        except (TimeoutError, httpx2.TimeoutException):
            raise UpstreamTimeoutError(
                f"the upstream {name!r} did not begin its answer in {timeout_s:g} s"
            ) from None
        except httpx2.ConnectError:
            raise UpstreamError(f"the upstream {name!r} cannot be reached") from None
        except (httpx2.HTTPError, httpx2.InvalidURL):
            raise UpstreamError(f"the upstream {name!r} hung up before it answered") from None
