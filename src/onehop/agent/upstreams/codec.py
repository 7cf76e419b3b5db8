"""What every dialect's codec can do. A codec translates and does nothing else: no input, no output, no clock."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from onehop.agent.model import Delta, Dialect, ModelRequest
from onehop.errors import ProblemError


class Capabilities(msgspec.Struct, kw_only=True, frozen=True):
    """What a configured model can do.

    Args:
        images: it takes pictures, in results of calls too.
        parallel_calls: it may be allowed to call several functions in one turn.
        strict: its server knows `strict` on functions and schemas.
        hosted: its server's own interpreter is used instead of ours.
        stream_options: its server (of Chat Completions) knows that member; without it some count no tokens.
        max_tokens_name: what its server (of Chat Completions) calls the limit of an answer.
    """

    images: bool = True
    parallel_calls: bool = True
    strict: bool = True
    hosted: bool = False
    stream_options: bool = True
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"


class Reader(Protocol):
    """One streamed answer, event by event."""

    def feed(self, event: str, data: str) -> list[Delta]:
        """What one server-sent event says; `event` is empty where the dialect names none.

        Raises UpstreamError for an error in the stream, and for what cannot be read.
        """

    def end(self) -> list[Delta]:
        """The connection has ended. Raises UpstreamError when the answer has not (no TurnEnd yet)."""


class Codec(Protocol):
    """One dialect, for requests to an upstream that speaks it."""

    dialect: Dialect

    def path(self, model: str) -> str:
        """Where a streamed turn is asked for, below the upstream's URL; begins with a slash."""

    def headers(self, key: str) -> dict[str, str]:
        """The key and what else the dialect wants. `key` may be empty."""

    def body(self, request: ModelRequest, model: str, capabilities: Capabilities) -> dict[str, Any]:
        """The request for a streamed turn, as plain JSON data.

        Raises UnsupportedParameterError for what this dialect cannot say.
        """

    def reader(self) -> Reader:
        """For the answer to one request."""

    def error(self, status: int, body: bytes) -> ProblemError | None:
        """What the vendor's error document means; None when the status says it all."""
