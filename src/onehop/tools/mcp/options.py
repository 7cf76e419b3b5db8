"""What an operator may say about a source of the kind mcp."""

from __future__ import annotations

import os
import shutil
from typing import Any, Literal

import msgspec

from onehop.errors import ConfigurationError
from onehop.tools.auth import AuthOptions

MIB = 1024 * 1024


class McpOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Options of `[tools.NAME]` besides those that every source has: `command` or `url`, and

    Args:
        command: program and arguments of a server that speaks over stdio.
        env: variables for it, beside the secrets named for the source.
        cwd: folder that it starts in.
        url: of a server that speaks streamable HTTP.
        auth: what that wants; see AuthOptions.
        offer: patterns (as of fnmatch) of its tools to offer; empty: all.
        approval: which tools wait for an approval: those that the server declares as destructive
            (`declared`), all that it does not declare as read-only or not destructive (`writes`: what the
            MCP specification assumes of a tool without annotations), or none by themselves (`never`).
        parse_json: text that is a JSON object or array becomes data where there is no structured content.
        max_message_bytes: of one message of the server.
    """

    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    auth: AuthOptions = AuthOptions()
    offer: tuple[str, ...] = ()
    approval: Literal["declared", "writes", "never"] = "declared"
    parse_json: bool = False
    max_message_bytes: int = 32 * MIB


def read(options: dict[str, Any]) -> McpOptions:
    """The options of a source. Raises ConfigurationError."""
    try:
        found = msgspec.convert(options, McpOptions)
    except msgspec.ValidationError as error:
        raise ConfigurationError(str(error)) from None
    if bool(found.command) == (found.url is not None):
        raise ConfigurationError("expected either `command` (a list: program, arguments) or `url`")
    if found.url is not None and (found.env or found.cwd):
        raise ConfigurationError("env and cwd are for a server with a `command`")
    if found.command and found.auth != AuthOptions():
        raise ConfigurationError(
            "auth is for a server with a `url`; one with a `command` gets its `secrets` as variables"
        )
    if found.url is not None and not found.url.startswith(("http://", "https://")):
        raise ConfigurationError(f"url: {found.url!r} is no URL of HTTP")
    if not 1024 <= found.max_message_bytes <= 48 * MIB:
        raise ConfigurationError(f"max_message_bytes: expected 1024 to {48 * MIB}")
    return found


def readable(options: McpOptions) -> tuple[str, ...]:
    """The files that the worker must be able to read: the program, and those that its arguments name."""
    if not options.command:
        return ()
    program = shutil.which(options.command[0])
    found = [] if program is None else [os.path.abspath(program)]
    return (*found, *(one for one in options.command[1:] if os.path.isabs(one) and os.path.isfile(one)))
