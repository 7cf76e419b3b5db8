"""One bounded exchange with a service over HTTP, for sources of tools.

The answer is read as it comes and given up beyond a size; redirects are followed within the origin only,
so that neither secrets nor arguments go to a host that nobody configured. Proxies and .netrc come from
the worker's scrubbed environment, which has none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from onehop.errors import CallFailedError, ConfigurationError
from onehop.tools.credentials import Credentials, origin_of

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 10.0
LONGEST_S = 3600.0
"""Calls are ended by the gateway, at their own timeout; this is for what nobody ends."""
MAX_CONNECTIONS = 100
USER_AGENT = "onehop"


@dataclass(frozen=True)
class Answer:
    """What a service has answered; `body` without secrets, its content encoding undone."""

    status: int
    reason: str
    headers: httpx2.Headers
    body: bytes
    url: httpx2.URL


class Exchange:
    """The connections to one service.

    Args:
        credentials: what it gets besides the requests.
        max_bytes: of an answer's body.
        timeout_s: seconds for one exchange, None for LONGEST_S.
    """

    def __init__(self, credentials: Credentials, *, max_bytes: int, timeout_s: float | None = None) -> None:
        self.credentials = credentials
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s or LONGEST_S
        self._client = httpx2.AsyncClient(
            auth=credentials,
            headers={"User-Agent": USER_AGENT},
            timeout=httpx2.Timeout(self._timeout_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s)),
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=20),
            follow_redirects=False,
            # What a service hands to one caller must not go along with the next one's request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def send(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        """Sends a request and takes the whole answer.

        Raises:
            CallFailedError: unavailable, timeout, failed (a redirect elsewhere) or bad_result (too large).
        """
        try:
            request = self._client.build_request(method, url, headers=headers, content=content)
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(request)
        except (TimeoutError, httpx2.TimeoutException):
            raise CallFailedError(
                "timeout", f"{_place(url)} did not answer within {self._timeout_s:g} s"
            ) from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
            raise CallFailedError(
                "bad_arguments", f"no request can be made of these arguments: {error}"
            ) from None
        except httpx2.HTTPError as error:
            text = self.credentials.blacken_text(f"{type(error).__name__}: {error}")
            raise CallFailedError("unavailable", f"{_place(url)} cannot be reached: {text}") from None

    async def _follow(self, request: httpx2.Request) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._client.send(request, stream=True)
            try:
                further = response.next_request
                if further is None:
                    return await self._read(response)
            finally:
                await response.aclose()
            if not _same_origin(request.url, further.url):
                where = further.url.copy_with(userinfo=b"", query=None, fragment=None)
                raise CallFailedError(
                    "failed", f"the service redirects to another place, {where}, which is not followed"
                )
            request = further
        raise CallFailedError("failed", f"the service redirects more than {MAX_REDIRECTS} times")

    async def _read(self, response: httpx2.Response) -> Answer:
        parts, total = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            total += len(part)
            if total > self._max_bytes:
                raise CallFailedError(
                    "bad_result",
                    f"the answer is larger than {self._max_bytes} bytes; ask for less, page by page",
                )
        body = self.credentials.blacken(b"".join(parts))
        return Answer(response.status_code, response.reason_phrase, response.headers, body, response.url)

    async def close(self) -> None:
        await self._client.aclose()


def _same_origin(one: httpx2.URL, other: httpx2.URL) -> bool:
    try:
        if origin_of(one) == origin_of(other):
            return True
    except ConfigurationError:
        return False
    upgraded = one.scheme == "http" and other.scheme == "https" and one.port is None and other.port is None
    return upgraded and one.host == other.host


def _place(url: str) -> str:
    try:
        return httpx2.URL(url).netloc.decode("ascii", "replace") or "the service"
    except httpx2.InvalidURL:
        return "the service"
