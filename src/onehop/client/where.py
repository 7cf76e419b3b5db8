"""Which server: the one that is named, or an engine of this process's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from onehop.errors import ConfigurationError

URL_VARIABLE = "ONEHOP_URL"
KEY_VARIABLE = "ONEHOP_API_KEY"


@dataclass(frozen=True)
class Place:
    """An address; `socket` is the path of a unix socket, if the server listens on one."""

    url: str
    api_key: str = ""
    socket: str = ""

    @property
    def is_local(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return bool(self.socket) or host in ("localhost", "::1") or host.startswith("127.")


class Where:
    """What the caller said, or else ONEHOP_URL and ONEHOP_API_KEY; looked up when it is made.

    Raises:
        ConfigurationError: the address or the key cannot be one.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        given = url is not None
        address = (os.environ.get(URL_VARIABLE, "") if url is None else url).strip()
        self._key = (os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key).strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ConfigurationError(f"api_key (or {KEY_VARIABLE}): a key has visible ASCII characters only")
        if address:
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                source = "url" if given else f"url (from the variable {URL_VARIABLE})"
                raise ConfigurationError(f"{source}: {address!r} must be like http://127.0.0.1:8000")
        self._url = address.rstrip("/")
        if not address and api_key is None:
            self._key = ""  # the variable's key is for a server

    @property
    def is_embedded(self) -> bool:
        return not self._url

    def describe(self) -> str:
        """For error messages."""
        return self._url or "the engine of this process"

    def find(self) -> Place:
        """The address; starts the engine if there is none yet, which takes seconds. Raises OnehopError."""
        if self._url:
            return Place(self._url, self._key)
        from onehop.client import embed

        return Place("http://localhost", self._key, embed.socket_path())
