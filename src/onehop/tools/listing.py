"""What is told about a registered tool, over HTTP and by the command line."""

from __future__ import annotations

from typing import Any

import msgspec

from onehop.tools.registry import Tool


class ToolInfo(msgspec.Struct, kw_only=True):
    """A registered tool.

    Args:
        name: what `tools` of a request names.
        path: how code calls it: `tools.weather.forecast(...)`.
        parameters: JSON Schema of an object.
        returns: JSON Schema of the value, null where nothing is promised.
        read_only: it changes nothing.
        idempotent: called twice with the same arguments, it does what one call does.
        requires_approval: each call waits until the client has approved it.
        timeout_s: seconds that a call may take, null for what the request or the server says.
    """

    name: str
    path: str
    description: str
    parameters: dict[str, Any]
    returns: dict[str, Any] | None
    source: str
    read_only: bool
    idempotent: bool
    requires_approval: bool
    timeout_s: float | None


def info(tool: Tool) -> ToolInfo:
    """What is told about a tool of the registry."""
    spec = tool.spec
    return ToolInfo(
        name=spec.name,
        path=tool.entry.path,
        description=spec.description,
        parameters=spec.parameters,
        returns=spec.returns,
        source=spec.source,
        read_only=spec.read_only,
        idempotent=spec.idempotent,
        requires_approval=spec.requires_approval,
        timeout_s=tool.timeout_s,
    )
