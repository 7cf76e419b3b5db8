"""Who uses a sandbox from inside: the token that it was made with, or an address that was signed with it.

A token opens one session. Whoever shows a wrong one gets the answer for a sandbox that does not exist.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from urllib.parse import parse_qs

from starlette.types import Scope

from onehop.api.asgi import Call
from onehop.errors import InvalidRequestError, UnauthorizedError
from onehop.sessions import Engine
from onehop.sessions.caller import EXECUTE, READ, Caller

TOKENS = (b"x-access-token", b"e2b-traffic-access-token")
SANDBOX = b"e2b-sandbox-id"
STRANGER = Caller(owner="\0", scopes=frozenset({EXECUTE, READ}))
"""Owns nothing: all sandboxes are unknown to it."""
OPERATIONS = {"GET": "read", "HEAD": "read", "POST": "write"}


class Access:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def caller(self, scope: Scope) -> Caller | None:
        """For a Mount: who shows a token or a signature; None for a request with neither."""
        found = self._shown(scope)
        return found[1] if found is not None else None

    def sandbox(self, call: Call) -> tuple[str, Caller]:
        """Which session the request is for, and as whom it is to be used.

        Raises:
            InvalidRequestError: it names none.
            UnauthorizedError: its signature does not hold, or the key behind it is no longer valid.
        """
        found = self._shown(call.scope)
        if found is not None:
            return found
        name = call.header(SANDBOX).decode("latin-1")
        if not name:
            raise InvalidRequestError("the request names no sandbox; send E2b-Sandbox-Id")
        return name, call.caller

    def _shown(self, scope: Scope) -> tuple[str, Caller] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        tokens = [headers[name] for name in TOKENS if name in headers]
        if tokens:
            name = headers.get(SANDBOX, "")
            held = [self._engine.sessions.holder(name, token) for token in tokens]
            if not all(held) or held[0] is None:
                return name, STRANGER
            return name, self._engine.keyring.delegate(*held[0])
        query = parse_qs(scope["query_string"].decode("latin-1"), errors="surrogateescape")
        if "signature" not in query:
            return None
        name, token = self._signed({key: values[-1] for key, values in query.items()}, scope["method"])
        held_by = self._engine.sessions.holder(name, token)
        assert held_by is not None
        return name, self._engine.keyring.delegate(*held_by)

    def _signed(self, query: dict[str, str], method: str) -> tuple[str, str]:
        """The session and its token; `get_signature` in the package `e2b` is the other side of this."""
        expires = query.get("signature_expiration", "")
        if expires and not (expires.isascii() and expires.isdigit() and int(expires[:20]) > time.time()):
            raise UnauthorizedError("this signed address has expired; have a new one made")
        said = query["signature"].encode("utf-8", "surrogatepass")
        operation = OPERATIONS.get(method, "")
        for name, token in self._engine.sessions.tokens():
            parts = [query.get("path", ""), operation, query.get("username", ""), token]
            raw = ":".join([*parts, expires] if expires else parts).encode("utf-8", "surrogatepass")
            digest = base64.b64encode(hashlib.sha256(raw).digest()).rstrip(b"=")
            if hmac.compare_digest(b"v1_" + digest, said):
                return name, token
        raise UnauthorizedError(
            "the signature does not fit: not this path, not this operation, or no live sandbox"
        )
