"""What a call of a tool raises inside the code: one class per kind of error, all below ToolError.

The code meets them as `tools.ToolError` and so on; `tools` is where they say they are from.
"""
# runs inside the wall: standard library only

from __future__ import annotations

from typing import Any


class ToolError(Exception):
    """A call of a tool has no value.

    Attributes:
        tool: its dotted path below `tools`.
        kind: the error's kind in one word.
        message: what was wrong and what to do.
        parameters: the valid ones by name, as JSON Schema, where that helps.
    """

    kind = "failed"

    def __init__(self, tool: str, message: str, parameters: dict[str, Any] | None = None) -> None:
        self.tool = tool
        self.message = message
        self.parameters = parameters or {}
        super().__init__(tool, message, self.parameters)

    def __str__(self) -> str:
        text = f"tools.{self.tool}: {self.message}" if self.tool else self.message
        if self.parameters and "arameters" not in self.message:
            text += f" (its parameters: {', '.join(self.parameters)})"
        return text


class ToolNotFoundError(ToolError):
    """There is no such tool here."""

    kind = "not_found"


class ToolArgumentError(ToolError):
    """The arguments are not what the tool takes."""

    kind = "bad_arguments"


class ToolFailedError(ToolError):
    """The tool ran and failed."""

    kind = "failed"


class ToolTimeoutError(ToolError):
    """The tool took too long."""

    kind = "timeout"


class ToolBudgetError(ToolError):
    """The execution has used what it may use."""

    kind = "budget"


class ToolDeniedError(ToolError):
    """The call is not allowed, or was not approved."""

    kind = "denied"


class ToolUnavailableError(ToolError):
    """The tool, or the way to it, is not there now."""

    kind = "unavailable"


class ToolOutcomeUnknownError(ToolError):
    """Nobody knows whether the tool did its work; look before you call it again."""

    kind = "outcome_unknown"


class ToolResultError(ToolError):
    """The tool gave something that is no valid result."""

    kind = "bad_result"


CLASSES: dict[str, type[ToolError]] = {
    one.kind: one
    for one in (
        ToolNotFoundError,
        ToolArgumentError,
        ToolFailedError,
        ToolTimeoutError,
        ToolBudgetError,
        ToolDeniedError,
        ToolUnavailableError,
        ToolOutcomeUnknownError,
        ToolResultError,
    )
}
ERRORS: tuple[type[ToolError], ...] = (ToolError, *CLASSES.values())
for _one in ERRORS:
    _one.__module__ = "tools"
