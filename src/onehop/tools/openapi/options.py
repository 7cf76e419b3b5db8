"""What an operator may say about a source of the kind openapi."""

from __future__ import annotations

from typing import Any

import msgspec

from onehop.errors import ConfigurationError
from onehop.tools.auth import AuthOptions

MIB = 1024 * 1024


class OpenApiOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Options of `[tools.NAME]` besides those that every source has.

    Args:
        document: path or URL of the OpenAPI document, JSON or YAML.
        base_url: where the service is, instead of what the document says.
        auth: what it wants; see AuthOptions.
        operations: patterns (as of fnmatch) of operations to offer, by tool name, operationId or
            `METHOD /path`; empty: all.
        raw_request: offer `request(method, path, …)`, too; None: unless `operations` chooses.
        max_response_bytes: of an answer's body.
    """

    document: str
    base_url: str | None = None
    auth: AuthOptions = AuthOptions()
    operations: tuple[str, ...] = ()
    raw_request: bool | None = None
    max_response_bytes: int = 16 * MIB

    @property
    def offers_raw_request(self) -> bool:
        return not self.operations if self.raw_request is None else self.raw_request


def read(options: dict[str, Any]) -> OpenApiOptions:
    """The options of a source. Raises ConfigurationError."""
    try:
        found = msgspec.convert(options, OpenApiOptions)
    except msgspec.ValidationError as error:
        raise ConfigurationError(str(error)) from None
    if found.base_url is not None and not is_url(found.base_url):
        raise ConfigurationError(f"base_url: expected http://… or https://…, got {found.base_url!r}")
    if not 1 <= found.max_response_bytes <= 48 * MIB:
        raise ConfigurationError(f"max_response_bytes: expected 1 to {48 * MIB}")
    return found


def is_url(document: str) -> bool:
    return document.startswith(("http://", "https://"))


def readable(options: OpenApiOptions) -> tuple[str, ...]:
    """The files that the worker must be able to read."""
    return () if is_url(options.document) else (options.document,)
