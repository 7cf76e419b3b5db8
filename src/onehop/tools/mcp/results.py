"""What a server of MCP answered, as the value of a call. It must never pass an error on as a value."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Sequence
from typing import Any

import mcp_types as types
import msgspec

from onehop.errors import CallFailedError
from onehop.tools.plain import Blob, from_base64
from onehop.tools.schemas import Schema

ERROR_CHARACTERS = 4000


class Results:
    """How one tool's results are read.

    Args:
        output: its output schema, None when it has none that can be used.
        parse_json: as in McpOptions.
        warn: told when a result is not what the server promised.
    """

    def __init__(self, output: Schema | None, *, parse_json: bool, warn: Callable[[str], None]) -> None:
        self._output = output
        self._parse_json = parse_json
        self._warn = warn

    def value(self, result: types.CallToolResult) -> Any:
        """Raises CallFailedError: failed for an error, bad_result for content that cannot be read."""
        if result.is_error:
            raise CallFailedError("failed", _text(result.content) or "the tool failed and does not say why")
        structured = result.structured_content
        has_structured = structured is not None or "structured_content" in result.model_fields_set
        others = [one for one in result.content if not isinstance(one, types.TextContent)]
        if has_structured:
            self._compare(structured)
            if others:  # it says more than the structure does
                return {"structured": structured, "content": [_block(one) for one in others]}
            return structured
        values = [self._read(one) for one in result.content]
        value = None if not values else values[0] if len(values) == 1 else values
        if self._output is not None:
            value = self._without_structure(result.content, value)
        return value

    def _compare(self, structured: Any) -> None:
        if self._output is None:
            return
        try:
            problems = self._output.problems(structured)
        except ValueError as error:
            self._output = None
            self._warn(f"its output schema cannot be used: {error}")
            return
        if problems:
            self._warn(
                f"its result does not match its output schema ({'; '.join(problems)}); passed on as it is"
            )

    def _without_structure(self, content: Sequence[types.ContentBlock], value: Any) -> Any:
        """It promised structure and sent text: JSON that matches the promise is what was meant."""
        if len(content) == 1 and isinstance(content[0], types.TextContent) and self._output is not None:
            try:
                parsed = msgspec.json.decode(content[0].text)
                if not self._output.problems(parsed):
                    return parsed
            except (ValueError, RecursionError):
                pass
        self._warn("it has an output schema but sent no structured content; passed on as it is")
        return value

    def _read(self, block: types.ContentBlock) -> Any:
        if isinstance(block, types.TextContent) and self._parse_json:
            text = block.text.strip()
            if text[:1] in ("{", "["):
                try:
                    return msgspec.json.decode(text)
                except (msgspec.DecodeError, RecursionError):
                    pass
        return _block(block)


def _block(block: types.ContentBlock) -> Any:
    """Text as text, everything binary as a file, links as data."""
    if isinstance(block, types.TextContent):
        return block.text
    if isinstance(block, types.ImageContent | types.AudioContent):
        return _blob(block.data, block.mime_type)
    if isinstance(block, types.EmbeddedResource):
        resource = block.resource
        if isinstance(resource, types.TextResourceContents):
            return resource.text
        name = str(resource.uri).partition("?")[0].rpartition("/")[2]
        return _blob(resource.blob, resource.mime_type or "", name)
    return block.model_dump(mode="json", by_alias=True, exclude_none=True)


def _blob(data: str, mime_type: str, name: str = "") -> Blob:
    ending = mimetypes.guess_extension(mime_type.partition(";")[0].strip()) or ""
    try:
        return from_base64(data, name if "." in name.strip(".") else ending)
    except ValueError:
        raise CallFailedError(
            "bad_result", f"the server sent {mime_type or 'data'} that is no base64"
        ) from None


def _text(content: Sequence[types.ContentBlock]) -> str:
    texts = [one.text for one in content if isinstance(one, types.TextContent)]
    return "\n".join(texts)[:ERROR_CHARACTERS].strip()
