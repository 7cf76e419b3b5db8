"""The record of tool calls as clients read it."""

from __future__ import annotations

from onehop.sessions.answers import ToolCallList, ToolCallRecord
from onehop.sessions.calling import CALL_PREFIX
from onehop.sessions.session import timestamp
from onehop.store import ToolCallRow


def tool_call_list(rows: list[ToolCallRow]) -> ToolCallList:
    """The answer for stored rows."""
    return ToolCallList(
        [
            ToolCallRecord(
                id=f"{CALL_PREFIX}{row.number}",
                number=row.number,
                name=row.name,
                key=row.key,
                arguments_sha256=row.arguments_sha256,
                bytes_out=row.bytes_out,
                bytes_in=row.bytes_in,
                started_at=timestamp(row.started_at),
                ms=row.ms,
                status=row.status,
                error=row.error,
            )
            for row in rows
        ]
    )
