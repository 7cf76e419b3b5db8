"""Secrets on their way to a service over HTTP: from a worker's environment into requests to one origin.

They must never reach another host, nor what code in the sandbox is told: answers that repeat one are
blackened.
"""

from __future__ import annotations

import base64
from collections.abc import Generator
from urllib.parse import quote, quote_plus

import httpx2

from onehop.errors import ConfigurationError
from onehop.tools.auth import AuthOptions

BLACKENED = b"***"
SHORTEST_CHARACTERS = 6
"""Shorter secrets are not blackened: they would be found in everything."""


class Credentials(httpx2.Auth):
    """Adds the secrets to each request to the given origin, and to no other.

    Args:
        options: what the operator configured.
        secrets: values of the secrets named for the source.

    Raises:
        ConfigurationError: a secret is not there, or cannot be sent.
    """

    def __init__(self, options: AuthOptions, secrets: dict[str, str]) -> None:
        self.origin: tuple[str, str, int | None] | None = None
        self.headers: dict[str, str] = {}
        self.query: dict[str, str] = {}
        self._forms: set[bytes] = set()
        if options.bearer is not None and options.basic is not None:
            raise ConfigurationError("auth: bearer and basic are the same header; give one of them")
        if options.bearer is not None:
            self.headers["Authorization"] = f"Bearer {self._take(options.bearer, secrets)}"
        if options.basic is not None:
            user = self._take(options.basic.user, secrets, is_hidden=False)
            both = f"{user}:{self._take(options.basic.password, secrets)}"
            encoded = base64.b64encode(both.encode()).decode()
            self._forms.add(encoded.encode())
            self.headers["Authorization"] = f"Basic {encoded}"
        for header, name in options.header.items():
            self.headers[header] = self._take(name, secrets)
        for parameter, name in options.query.items():
            self.query[parameter] = self._take(name, secrets)
        for header, value in self.headers.items():
            if not value.isascii() or not value.isprintable() or not header.replace("-", "").isalnum():
                raise ConfigurationError(f"auth: what is given for the header {header} cannot be sent in one")

    def _take(self, name: str, secrets: dict[str, str], *, is_hidden: bool = True) -> str:
        value = secrets.get(name, "").strip()
        if not value:
            raise ConfigurationError(
                f"auth: the secret {name} is not there; name it in `secrets` and set it in the server's environment"
            )
        if is_hidden and len(value) >= SHORTEST_CHARACTERS:
            forms = (value, quote(value, safe=""), quote_plus(value))
            self._forms |= {form.encode("utf-8", "surrogateescape") for form in forms}
        return value

    def bind(self, url: str) -> None:
        """Only requests to this URL's scheme, host and port get the secrets. Raises ConfigurationError."""
        self.origin = origin_of(url)

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        if self.origin is not None and origin_of(request.url) == self.origin:
            request.headers.update(self.headers)
            if self.query:
                request.url = request.url.copy_merge_params(self.query)
        yield request

    def blacken(self, data: bytes) -> bytes:
        """`data` without the secrets."""
        for form in self._forms:
            if form in data:
                data = data.replace(form, BLACKENED)
        return data

    def blacken_text(self, text: str) -> str:
        return self.blacken(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")


def origin_of(url: str | httpx2.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port. Raises ConfigurationError for what is no URL of HTTP."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"{str(url)!r} is no URL of HTTP; expected https://host/path")
    return parsed.scheme, parsed.host, parsed.port
