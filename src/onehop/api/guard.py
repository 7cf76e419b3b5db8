"""The outermost layer: who may ask at all, and what every answer carries. No request passes around it.

A web page that somebody has open must not reach a server on the same machine: the Host has to be one
of ours (a page that rebinds its name to 127.0.0.1 sends its own), an Origin has to be ours or allowed,
and Fetch Metadata must not say that another site asks (https://www.w3.org/TR/fetch-metadata/).
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onehop.api import logs
from onehop.api.asgi import Call, Header
from onehop.api.authentication import Authentication
from onehop.api.logs import access
from onehop.api.metrics import Requests
from onehop.api.mounts import Mounts
from onehop.config import Settings
from onehop.errors import ForbiddenOriginError, InternalError, ProblemError
from onehop.sessions.caller import LOCAL

LOOPBACK_HOST = re.compile(rb"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?", re.IGNORECASE)

NAVIGABLE = frozenset({"/", "/docs"})
"""Pages that a link on another site may lead to."""

ALWAYS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
SAME_ORIGIN: tuple[Header, ...] = ((b"cross-origin-resource-policy", b"same-origin"),)
REPLACEABLE = frozenset({b"content-security-policy", b"cache-control"})
"""What a route may say differently."""

EXPOSED = (
    b"x-request-id, onehop-execution-id, content-disposition, content-range, etag, onehop-left-out, "
    b"onehop-left-out-names"
)
"""What pages of allowed origins may see of an answer's headers."""

log = logging.getLogger("onehop.api")


SWITCHED = 101
GONE = 499
"""Not a status of HTTP: the client went away before it was answered."""


class Guard:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        authentication: Authentication,
        requests: Requests,
        mounts: Mounts,
    ) -> None:
        self._app = app
        self._mounts = mounts
        self._authentication = authentication
        self._requests = requests
        self._logs_requests = access.isEnabledFor(logging.DEBUG)
        # A name for the log, no secret: one random part per process saves a system call per request.
        self._prefix = f"req_{secrets.token_hex(6)}_"
        self._numbers = itertools.count(1)
        self._hosts = frozenset(host.lower().encode() for host in settings.allowed_hosts)
        self._origins = frozenset(origin.lower().encode() for origin in settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = f"{self._prefix}{next(self._numbers):x}"
        scope["request_id"] = request_id
        logs.request_id.set(request_id)
        began_s = time.perf_counter()
        extra: list[Header] = [*ALWAYS, (b"x-request-id", request_id.encode())]
        started = 0

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message["status"]
                headers = message["headers"]
                own = REPLACEABLE.intersection(key for key, _ in headers)
                message["headers"] = (
                    [*headers, *(one for one in extra if one[0] not in own)] if own else headers + extra
                )
            elif message["type"] == "websocket.accept":
                started = SWITCHED
            await send(message)

        call = Call(scope, receive, guarded)
        try:
            sharing = self._check(scope)
            extra += sharing
            if sharing is not SAME_ORIGIN and scope["type"] == "http" and scope["method"] == "OPTIONS":
                await _preflight(call)
                return
            self._authentication.take(scope)
            await self._app(scope, receive, guarded)
        except ClientDisconnect:
            log.debug("%s: the client went away", request_id)
        except ProblemError as error:
            if scope["type"] == "websocket":
                log.info("%s: a websocket is refused: %s", request_id, error)
                await send({"type": "websocket.close", "code": 1008, "reason": error.detail[:100]})
            elif started:
                # Part of the answer is out: breaking it off is all that tells the client.
                log.warning("%s: the answer was broken off: %s", request_id, error)
            else:
                await self._refuse(call, error, request_id)
        except Exception:  # a defect of ours must not look like the end of the world to the client
            log.exception("%s: %s %r failed", request_id, scope.get("method"), scope["path"][:200])
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011})
            elif not started:
                defect = InternalError("a defect of the server; its log has the details")
                await self._refuse(call, defect, request_id)
        finally:
            duration_s = time.perf_counter() - began_s
            status = started or GONE
            self._requests.observe(scope.get("method", "GET"), scope.get("template", ""), status, duration_s)
            if self._logs_requests:
                _log(scope, status, duration_s)

    async def _refuse(self, call: Call, error: ProblemError, request_id: str) -> None:
        mount = self._mounts.of(call.scope["path"])
        if mount is None:
            await call.problem(error, request_id)
            return
        refusal = mount.refuse(error, request_id)
        await call.answer(refusal.body, status=refusal.status, headers=refusal.headers)

    def _check(self, scope: Scope) -> tuple[Header, ...]:
        """Headers for the origin, those of CORS for an allowed foreign one. Raises ForbiddenOriginError."""
        host: bytes | None = None
        origin: bytes | None = None
        site = mode = b""
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    raise ForbiddenOriginError("the request has two Host headers")
                host = value.lower()
            elif name == b"origin":
                origin = value.lower() if origin is None else b"null"
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-mode":
                mode = value
        if host is None or not (LOOPBACK_HOST.fullmatch(host) or self._is_configured(host)):
            raise ForbiddenOriginError(
                "the Host header names no host of this server; add it to allowed_hosts if it is one"
            )
        if origin is not None:
            scheme, _, rest = origin.partition(b"://")
            if origin in self._origins:
                return _cors(origin)
            if rest != host or scheme not in (b"http", b"https"):
                raise ForbiddenOriginError(
                    "web pages of other origins may not call this server; see allowed_origins"
                )
        if site not in (b"", b"same-origin", b"none"):
            navigates = mode == b"navigate" and scope.get("method") == "GET" and scope["path"] in NAVIGABLE
            if not navigates:
                raise ForbiddenOriginError("pages of other sites may not call this server")
        return SAME_ORIGIN

    def _is_configured(self, host: bytes) -> bool:
        if not self._hosts:
            return False
        name, colon, port = host.rpartition(b":")
        return host in self._hosts or (bool(colon) and port.isdigit() and name in self._hosts)


def _log(scope: Scope, status: int, duration_s: float) -> None:
    path = scope.get("path_params", {})
    caller = scope.get("caller", LOCAL)
    access.debug(
        "%s %s",
        scope.get("method", scope["type"]),
        scope["path"][:200],
        extra={
            "route": scope.get("template", ""),
            "status": status,
            "duration_ms": round(duration_s * 1000, 3),
            "session": path.get("session_id", ""),
            "execution": scope.get("execution", path.get("execution_id", "")),
            "key": caller.key,
            "owner": caller.owner.strip("\0"),
        },
    )


def _cors(origin: bytes) -> tuple[Header, ...]:
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED),
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"vary", b"origin"),
    )


async def _preflight(call: Call) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        # Vendors' SDKs send a dozen of their own; `*` stands for all but this one (CORS protocol, Fetch Standard).
        (b"access-control-allow-headers", b"authorization, *"),
        (b"access-control-max-age", b"600"),
    ]
    await call.answer(b"", status=204, headers=headers)
