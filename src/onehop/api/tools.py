"""Which registered tools there are. What a key may not call, it does not see."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions.caller import ADMIN, READ
from onehop.tools.listing import ToolInfo, info
from onehop.tools.registry import Registry, SourceState
from onehop.tools.stubs import stubs

PYTHON = (b"content-type", b"text/x-python; charset=utf-8")
FORMATS = ("", "json", "python")


class ToolList(msgspec.Struct):
    """All that the key may call, by name, and where it comes from.

    Args:
        sources: of these tools; a key that may call everything sees also those that have none.
    """

    tools: list[ToolInfo]
    sources: list[SourceState]


EXAMPLE = {
    "tools": [
        {
            "name": "weather.forecast",
            "path": "weather.forecast",
            "description": "Highest temperatures of the next days in °C.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "returns": {"type": "array", "items": {"type": "number"}},
            "source": "weather",
            "read_only": True,
            "idempotent": False,
            "requires_approval": False,
            "timeout_s": None,
        }
    ],
    "sources": [{"name": "weather", "kind": "python", "state": "ready", "tools": 1, "problem": ""}],
}


class Tools:
    """`registry`: None where no source is configured."""

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/api/tools",
                self.list,
                "listTools",
                "Tools",
                "The registered tools that the key may call",
                "As Python stubs they are the same bytes for the same tools, so that a prompt cache holds.",
                scope=READ,
                answers={
                    200: (
                        Body("The tools, by name.", ToolList, example=EXAMPLE),
                        Body("With `format=python`: typed stubs.", None, "text/x-python"),
                    )
                },
                problems=(errors.InvalidRequestError,),
                parameters=(
                    {
                        "name": "format",
                        "in": "query",
                        "description": "`python` for typed stubs instead of JSON.",
                        "schema": {"type": "string", "enum": ["json", "python"], "default": "json"},
                    },
                ),
            )
        ]

    async def list(self, call: Call) -> None:
        wanted = call.query("format")
        if wanted not in FORMATS:
            raise errors.InvalidRequestError(
                f"format: expected json or python, got {wanted[:40]!r}", field="format"
            )
        registry, caller = self._registry, call.caller
        found = registry.tools(caller) if registry is not None else []
        if wanted == "python":
            await call.answer(stubs([tool.entry for tool in found]).encode(), headers=[PYTHON])
            return
        names = {tool.spec.source for tool in found}
        everything = caller.tools is None
        sources = [
            one if ADMIN in caller.scopes else msgspec.structs.replace(one, problem="")
            for one in (registry.sources() if registry is not None else [])
            if everything or one.name in names
        ]
        if not everything:
            for one in sources:  # how many there are besides is not for this key
                one.tools = sum(tool.spec.source == one.name for tool in found)
        await call.answer(encode_json(ToolList([info(tool) for tool in found], sources)))
