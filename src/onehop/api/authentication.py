"""Who asks: the caller behind a request's key. It must never let a key into a log, an answer or an exception."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Scope

from onehop.api.mounts import Mounts
from onehop.errors import UnauthorizedError
from onehop.sessions.caller import Caller
from onehop.sessions.keyring import Keyring

BEARER = b"bearer "
NOBODY = Caller(owner="\0", scopes=frozenset())
"""Who looks at a public page. Not a name that an owner can have."""


class Authentication:
    """Args:
    keyring: the keys.
    public: paths that everybody may see; one that ends in `/` stands for all below it.
    mounts: protocols that may carry their keys elsewhere.
    """

    def __init__(self, keyring: Keyring, public: Iterable[str], mounts: Mounts) -> None:
        self._keyring = keyring
        self._mounts = mounts
        self._public = frozenset(public)
        self._below = tuple(path for path in self._public if path.endswith("/") and path != "/")

    def take(self, scope: Scope) -> None:
        """Leaves the caller in `scope`, if keys are needed here. Raises UnauthorizedError."""
        if self._keyring.required:
            path = scope["path"]
            if path in self._public or path.startswith(self._below):
                scope["caller"] = NOBODY
            else:
                mount = self._mounts.of(path)
                shown = mount.caller(scope) if mount is not None and mount.caller is not None else None
                if shown is not None:
                    scope["caller"] = shown
                    return
                own = mount.key(scope) if mount is not None and mount.key is not None else b""
                scope["caller"] = self._keyring.caller(own or _key(scope["headers"]))


def _key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if value[: len(BEARER)].lower() != BEARER:
                raise UnauthorizedError("the Authorization header wants the form: Bearer KEY")
            key = value[len(BEARER) :].strip()
        elif name == b"x-api-key":
            key = value.strip()
        else:
            continue
        if found is not None and found != key:
            raise UnauthorizedError("the request has several keys; send one")
        found = key
    if not found:
        raise UnauthorizedError(
            "this server wants a key, as Authorization: Bearer KEY or X-API-Key: KEY; "
            "who runs it makes one with: onehop keys create"
        )
    return found
