"""Requests to one upstream, and their answers as they come. Nothing is translated here, nothing answered is retried.

Redirects are not followed: a key must not go to a host that nobody configured.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import quote, urlsplit

import httpx2

from onehop import __version__
from onehop.agent.upstreams.config import UpstreamSpec
from onehop.agent.upstreams.connection import BrokenError, Connection
from onehop.errors import ConfigurationError, UpstreamError, UpstreamTimeoutError

MAX_IDLE = 256
IDLE_S = 30.0
"""A connection that was idle for longer is not trusted with a request: many servers close theirs after that."""
ERROR_BYTES = 256 * 1024
"""Of an answer that is no stream; what is longer is cut."""


class Answer:
    """An answer whose head has come.

    Attributes:
        status, headers: of HTTP; names in small letters.
    """

    def __init__(self, connection: Connection, upstream: str) -> None:
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self._connection: Connection | None = connection
        self._upstream = upstream

    async def read(self, until_s: float) -> bytes:
        """What has come of the body; empty at its end.

        Args:
            until_s: of the loop's clock.

        Raises:
            TimeoutError: nothing came until then.
            UpstreamError: the connection broke.
        """
        assert self._connection is not None, "closed already"
        try:
            return await self._connection.read(until_s)
        except BrokenError as error:
            why = f": {error}" if str(error) else ""
            raise UpstreamError(f"the upstream {self._upstream!r} hung up amid its answer{why}") from None

    async def body(self, until_s: float, most_bytes: int = ERROR_BYTES) -> bytes:
        """The whole body, or its first `most_bytes`. Raises as `read` does."""
        parts, total = [], 0
        while total < most_bytes and (part := await self.read(until_s)):
            parts.append(part)
            total += len(part)
        return b"".join(parts)[:most_bytes]

    def close(self, *, drain: bool = False) -> None:
        """Ends the connection, unless all of the answer has come, or with `drain` all but the end of its body."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.done(drain=drain)


class Transport:
    """The connections to one upstream; an async context manager that owns them."""

    def __init__(self, spec: UpstreamSpec) -> None:
        self._spec = spec
        parts = urlsplit(spec.url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path
        lines = {"host": parts.netloc, "user-agent": f"onehop/{__version__}", "accept-encoding": "identity"}
        own = {name.lower(): value for name, value in spec.headers.items()}
        self._common = lines | own
        self._context: ssl.SSLContext | None = None
        self._idle: dict[Connection, None] = {}  # in the order in which they became idle
        self._all: set[Connection] = set()
        self._closed = False

    async def __aenter__(self) -> Transport:
        if self._tls:  # here, because reading the authorities holds up the loop for tens of milliseconds
            try:
                self._context = httpx2.create_ssl_context()
            except OSError as error:
                raise ConfigurationError(
                    f"upstreams.{self._spec.name}: the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be "
                    f"read: {error.strerror or error}"
                ) from None
            self._context.set_alpn_protocols(["http/1.1"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        for one in list(self._all):
            one.abort()
        await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

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
        request = self._request(method, path, headers, content)
        until_s = asyncio.get_running_loop().time() + timeout_s
        while True:
            connection = self._take() or await self._connect(timeout_s)
            used = not connection.fresh
            try:
                connection.send(request)
                await connection.head(until_s)
            except TimeoutError:
                connection.abort()
                raise UpstreamTimeoutError(
                    f"the upstream {self._spec.name!r} did not begin its answer in {timeout_s:g} s"
                ) from None
            except BrokenError as error:
                if used and not connection.status and not str(error):
                    continue  # it was closed while it was idle, and our request crossed that
                why = f": {error}" if str(error) else ""
                raise UpstreamError(
                    f"the upstream {self._spec.name!r} hung up before it answered{why}"
                ) from None
            except BaseException:
                connection.abort()
                raise
            encoding = connection.headers.get("content-encoding", "identity")
            if encoding != "identity":
                connection.abort()
                raise UpstreamError(
                    f"the upstream {self._spec.name!r} answered in the encoding {encoding[:40]!r} that nobody asked for"
                )
            return Answer(connection, self._spec.name)

    def _request(self, method: str, path: str, headers: dict[str, str], content: bytes | None) -> bytes:
        # `quote` leaves what is well-formed as it is; a name of a model must not end the line.
        where = quote(self._prefix + path, safe="/:?#[]@!$&'()*+,;=%~")
        lines = self._common | headers
        if content is not None:
            lines["content-length"] = str(len(content))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {where} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (content or b"")

    def _take(self) -> Connection | None:
        """An idle connection: the one last used, since it is the likeliest to be still there."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.closed:
                continue
            if asyncio.get_running_loop().time() - connection.idle_since_s <= IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, timeout_s: float) -> Connection:
        name = self._spec.name
        try:
            async with asyncio.timeout(min(timeout_s, self._spec.connect_timeout_s)):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._released, self._lost), self._host, self._port, ssl=self._context
                )
        except TimeoutError:
            raise UpstreamTimeoutError(
                f"the upstream {name!r} cannot be reached: no connection in time"
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise UpstreamError(
                f"the upstream {name!r} cannot be trusted: {error.verify_message or 'its certificate is wrong'}"
            ) from None
        except socket.gaierror:
            raise UpstreamError(f"the upstream {name!r} cannot be reached: there is no such host") from None
        except OSError as error:  # its own text has the address in it
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__
            raise UpstreamError(f"the upstream {name!r} cannot be reached: {why}") from None
        self._all.add(connection)
        return connection

    def _released(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        self._idle[connection] = None
        oldest = next(iter(self._idle))
        if connection.idle_since_s - oldest.idle_since_s > IDLE_S:
            oldest.abort()

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._idle.pop(connection, None)
