"""From what a server of MCP says about its tools to what the gateway is told: bounded, and never believed.

Names become identifiers, schemas that cannot be used are left out, annotations become policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import mcp_types as types
import msgspec

from onehop.tools.mcp.options import McpOptions
from onehop.tools.mcp.results import Results
from onehop.tools.model import MAX_TOOLS, ToolSpec
from onehop.tools.names import distinct, identifier
from onehop.tools.schemas import Arguments, Schema, size_bytes

SCHEMA_BYTES = 64 * 1024
DESCRIPTION_CHARACTERS = 8000
CATALOGUE_BYTES = 32 * 1024 * 1024
ANYTHING: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True)
class Tool:
    """One tool: `name` is what the server calls it."""

    name: str
    spec: ToolSpec
    arguments: Arguments
    results: Results


def tools(listed: Sequence[types.Tool], options: McpOptions, warn: Callable[[str], None]) -> dict[str, Tool]:
    """By the name that code uses.

    Args:
        listed: what the server offers.
        warn: told of what is left out, and later of results that break the server's promises.
    """
    chosen = [
        one
        for one in {one.name: one for one in listed}.values()
        if not options.offer or any(fnmatchcase(one.name, pattern) for pattern in options.offer)
    ]
    if len(chosen) > MAX_TOOLS:
        warn(f"{len(chosen)} tools; only the first {MAX_TOOLS} are offered")
        chosen = chosen[:MAX_TOOLS]
    found: dict[str, Tool] = {}
    room = CATALOGUE_BYTES
    for name, one in zip(distinct(identifier(one.name) for one in chosen), chosen, strict=True):
        made = _tool(name, one, options, warn)
        room -= len(msgspec.msgpack.encode(made.spec))
        if room < 0:
            warn(
                f"the tools from {name} on are left out: the descriptions have more than {CATALOGUE_BYTES} bytes"
            )
            break
        found[name] = made
    return found


def _tool(name: str, one: types.Tool, options: McpOptions, warn: Callable[[str], None]) -> Tool:
    annotations = one.annotations or types.ToolAnnotations()
    read_only = annotations.read_only_hint is True
    if options.approval == "writes":
        approval = not read_only and annotations.destructive_hint is not False
    else:
        approval = options.approval == "declared" and not read_only and annotations.destructive_hint is True
    parameters = _usable(one.input_schema, f"{one.name}: its input schema", warn)
    arguments = Arguments(parameters or ANYTHING)
    returns = None
    output = None
    if one.output_schema is not None:
        returns = _usable(one.output_schema, f"{one.name}: its output schema", warn)
        output = Schema(returns) if returns is not None else None
    title = one.title or annotations.title
    description = "\n\n".join(text for text in (title, one.description) if text and text != one.name)
    return Tool(
        name=one.name,
        spec=ToolSpec(
            name=name,
            description=description[:DESCRIPTION_CHARACTERS],
            parameters=parameters or ANYTHING,
            returns=returns,
            read_only=read_only,
            idempotent=read_only or annotations.idempotent_hint is True,
            requires_approval=approval,
        ),
        arguments=arguments,
        results=Results(output, parse_json=options.parse_json, warn=lambda text: warn(f"{one.name}: {text}")),
    )


def _usable(schema: dict[str, Any], what: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    try:
        Schema(schema)  # its depth first
        size = size_bytes(schema)
    except (ValueError, TypeError, RecursionError) as error:
        warn(f"{what} cannot be used: {error}")
        return None
    if size > SCHEMA_BYTES:
        warn(f"{what} has {size} bytes, more than {SCHEMA_BYTES}; it is left out")
        return None
    return schema
