"""An execution's answer as MCP's content: text, pictures, links to the files that it made."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import mcp_types as types

from onehop.sessions.answers import Answer, FileInfo

SCHEME = "onehop://"
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MAX_LINKS = 50


def uri(session: str, path: str) -> str:
    """Of a file as a resource."""
    return f"{SCHEME}{session}/{quote(path)}"


def place(address: str) -> tuple[str, str] | None:
    """Session and path of a resource; None for an address that is none of ours."""
    session, slash, path = address.removeprefix(SCHEME).partition("/")
    if not address.startswith(SCHEME) or not slash or not path:
        return None
    return session, unquote(path, errors="surrogateescape")


def result(answer: Answer, session: str) -> types.CallToolResult:
    """For a model and, as `structured_content`, for a program."""
    content: list[types.ContentBlock] = []
    shown = [one for one in (answer.stdout, answer.stderr) if one]
    pictures: list[types.ContentBlock] = []
    for one in answer.results:
        kind = next((mime for mime in PICTURES if mime in one), "")
        if kind:
            pictures.append(types.ImageContent(data=one[kind], mime_type=kind))
        elif "text/plain" in one:
            shown.append(one["text/plain"])
    if answer.error is not None:
        shown.append(answer.error.traceback)
    if answer.status not in ("ok", "error", "tool_call_required"):
        shown.append(f"{answer.status}: {answer.reason}" if answer.reason else answer.status)
    if answer.status == "tool_call_required":
        names = ", ".join(one.name for one in answer.tool_calls)
        shown.append(
            f"{names}: a person has to approve the call, which cannot be asked for here; the code was stopped"
        )
    if isinstance(answer.exit_code, int) and answer.exit_code:
        shown.append(f"exit status {answer.exit_code}")
    text = "\n".join(part.rstrip("\n") for part in shown)
    content.append(types.TextContent(text=text or "(it ran and showed nothing)"))
    content += pictures
    content += [link(session, file) for file in answer.files[:MAX_LINKS]]
    return types.CallToolResult(
        content=content, structured_content=_structured(answer, session), is_error=answer.status != "ok"
    )


def link(session: str, file: FileInfo) -> types.ResourceLink:
    return types.ResourceLink(uri=uri(session, file.path), name=file.path, size=file.bytes)


def _structured(answer: Answer, session: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "session": session,
        "status": answer.status,
        "stdout": answer.stdout,
        "stderr": answer.stderr,
        "results": [one["text/plain"] for one in answer.results if "text/plain" in one],
        "files": [{"path": one.path, "bytes": one.bytes} for one in answer.files],
    }
    if answer.error is not None:
        found["error"] = {"name": answer.error.name, "value": answer.error.value}
    if isinstance(answer.exit_code, int):
        found["exit_code"] = answer.exit_code
    return found


def told(text: str, structured: dict[str, Any] | None = None) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


def failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
