"""The text editor's commands on files of a workspace: view, create, str_replace, insert.

Models know them from Anthropic's text editor tool
(https://docs.claude.com/en/docs/agents-and-tools/tool-use/text-editor-tool). What a model asked for wrongly is an
EditorError, whose message tells it what to do; it must never see the server's own failures as its own.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec

from onehop.errors import (
    ConflictError,
    FileNotFoundInWorkspaceError,
    InvalidPathError,
    NotARegularFileError,
    OnehopError,
    QuotaExceededError,
)
from onehop.sessions.caller import Caller
from onehop.sessions.transfers import Transfers

WORKSPACE = "/workspace"
MAX_BYTES = 1024 * 1024
"""A longer file is nothing for an editor: code can read it piece by piece."""
MAX_LISTED = 200
COMMANDS = ("view", "create", "str_replace", "insert")

Code = Literal["invalid_tool_input", "file_not_found", "unavailable"]


class EditorError(OnehopError):
    """What the model asked for cannot be done.

    Args:
        code: as Anthropic's tool names it.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class View(msgspec.Struct, kw_only=True):
    """A file, or a part of it.

    Args:
        kind: `folder` for a list of paths; of a picture or PDF `text` is base64.
        first_line: number of the first line of `text`, from 1 on.
        lines: that `text` has.
        total_lines: that the file has.
    """

    path: str
    kind: Literal["text", "image", "pdf", "folder"]
    text: str
    media_type: str = ""
    first_line: int = 1
    lines: int = 0
    total_lines: int = 0


class Created(msgspec.Struct, kw_only=True):
    path: str
    replaced: bool


class Changed(msgspec.Struct, kw_only=True):
    """A hunk: `old_lines` lines from `old_start` on became `new_lines` from `new_start` on; `lines` as in a diff."""

    path: str
    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: list[str]


Edit = View | Created | Changed


class Editor:
    """Works on the sessions' files.

    Args:
        files: the engine's.
    """

    def __init__(self, files: Transfers) -> None:
        self._files = files

    async def run(self, session: str, caller: Caller, arguments: dict[str, Any]) -> Edit:
        """One command with the arguments as the model wrote them.

        Raises:
            EditorError: the model has to do something different.
            ProblemError: the session is gone, or the server cannot.
        """
        command = arguments.get("command")
        path = _path(_text(arguments, "path"))
        try:
            if command == "view":
                return await self._view(session, caller, path, arguments.get("view_range"))
            if command == "create":
                return await self._create(session, caller, path, _text(arguments, "file_text"))
            if command == "str_replace":
                old, new = _text(arguments, "old_str"), _text(arguments, "new_str", "")
                return await self._replace(session, caller, path, old, new)
            if command == "insert":
                text = _text(arguments, "insert_text" if "insert_text" in arguments else "new_str")
                return await self._insert(session, caller, path, arguments.get("insert_line"), text)
        except FileNotFoundInWorkspaceError:
            raise EditorError(
                "file_not_found", f"there is no file {path!r} in the workspace; view . lists what there is"
            ) from None
        except InvalidPathError as error:
            raise EditorError("invalid_tool_input", f"path: {error.detail}") from None
        except ConflictError as error:  # a folder, a link, or something else of the kind
            raise EditorError("invalid_tool_input", error.detail) from None
        except QuotaExceededError:
            raise EditorError(
                "unavailable", "the workspace is full; delete files that are not needed"
            ) from None
        raise EditorError(
            "invalid_tool_input",
            f"there is no command {str(command)[:40]!r}; there are {', '.join(COMMANDS)}",
        )

    # --- commands -----------------------------------------------------------------------------------

    async def _view(self, session: str, caller: Caller, path: str, wanted: Any) -> View:
        if path in ("", "."):
            return await self._list(session, caller, "")
        try:
            raw = await self._read(session, caller, path)
        except NotARegularFileError:
            return await self._list(session, caller, path)
        media_type = mimetypes.guess_type(path)[0] or "text/plain"
        if media_type.startswith("image/") or media_type == "application/pdf":
            from base64 import b64encode

            kind: Literal["image", "pdf"] = "pdf" if media_type == "application/pdf" else "image"
            return View(path=path, kind=kind, text=b64encode(raw).decode("ascii"), media_type=media_type)
        lines = _decoded(path, raw).splitlines()
        first, last = _range(wanted, len(lines))
        shown = lines[first - 1 : last]
        return View(
            path=path,
            kind="text",
            text="\n".join(shown),
            media_type=media_type,
            first_line=first,
            lines=len(shown),
            total_lines=len(lines),
        )

    async def _list(self, session: str, caller: Caller, folder: str) -> View:
        found = await self._files.list(session, folder, caller)
        paths = [one.path for one in found.files]
        rest = len(paths) - MAX_LISTED
        shown = paths[:MAX_LISTED] + ([f"… and {rest} more"] if rest > 0 else [])
        return View(
            path=folder or ".",
            kind="folder",
            text="\n".join(shown),
            lines=len(shown),
            total_lines=len(paths),
        )

    async def _create(self, session: str, caller: Caller, path: str, text: str) -> Created:
        try:
            await self._files.stat(session, path, caller)
            replaced = True
        except FileNotFoundInWorkspaceError:
            replaced = False
        await self._write(session, caller, path, text)
        return Created(path=path, replaced=replaced)

    async def _replace(self, session: str, caller: Caller, path: str, old: str, new: str) -> Changed:
        before = _decoded(path, await self._read(session, caller, path))
        if not old:
            raise EditorError("invalid_tool_input", "old_str: it is empty; use insert to add text")
        count = before.count(old)
        if count != 1:
            what = "is not in the file" if not count else f"is in the file {count} times"
            more = (
                "view the file and copy the text exactly"
                if not count
                else "add lines around it until it is unique"
            )
            raise EditorError("invalid_tool_input", f"old_str: this text {what}; {more}")
        after = before.replace(old, new, 1)
        await self._write(session, caller, path, after)
        return _changed(path, before, after)

    async def _insert(self, session: str, caller: Caller, path: str, after: Any, text: str) -> Changed:
        before = _decoded(path, await self._read(session, caller, path))
        lines = before.splitlines(keepends=True)
        if isinstance(after, bool) or not isinstance(after, int) or not 0 <= after <= len(lines):
            raise EditorError(
                "invalid_tool_input", f"insert_line: expected a line number from 0 to {len(lines)}"
            )
        if after and not lines[after - 1].endswith("\n"):
            lines[after - 1] += "\n"
        if text and not text.endswith("\n"):
            text += "\n"
        new = "".join([*lines[:after], text, *lines[after:]])
        await self._write(session, caller, path, new)
        return _changed(path, before, new)

    # --- files --------------------------------------------------------------------------------------

    async def _read(self, session: str, caller: Caller, path: str) -> bytes:
        async with self._files.read(session, path, caller, length=MAX_BYTES + 1) as (entry, chunks):
            raw = b"".join([chunk async for chunk in chunks])
        if len(raw) > MAX_BYTES:
            raise EditorError(
                "invalid_tool_input",
                f"{path!r} has {entry.bytes} bytes, too many for the editor; read it with code, piece by piece",
            )
        return raw

    async def _write(self, session: str, caller: Caller, path: str, text: str) -> None:
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            raise EditorError("invalid_tool_input", "the text holds half a character (a surrogate)") from None
        if len(raw) > MAX_BYTES:
            raise EditorError(
                "invalid_tool_input", f"the text has {len(raw)} bytes, too many for the editor; use code"
            )

        async def content() -> AsyncIterator[bytes]:
            yield raw

        await self._files.write(session, path, content(), caller)


def described(edit: Edit) -> str:
    """What was done, as text for a model."""
    if isinstance(edit, Created):
        return f"{'Replaced' if edit.replaced else 'Created'} {edit.path}"
    if isinstance(edit, Changed):
        return "\n".join([f"Changed {edit.path}, line {edit.new_start}:", *edit.lines])
    if edit.kind == "folder":
        return edit.text or "The folder is empty."
    if edit.kind == "text":
        numbered = (f"{edit.first_line + n:6}\t{line}" for n, line in enumerate(edit.text.split("\n")))
        return "\n".join(numbered) if edit.lines else "The file is empty."
    return f"{edit.path}: {edit.media_type}"


def _text(arguments: dict[str, Any], name: str, default: str | None = None) -> str:
    value = arguments.get(name, default)
    if value is None:
        value = default
    if not isinstance(value, str):
        raise EditorError("invalid_tool_input", f"{name}: a text is needed")
    return value


def _path(path: str) -> str:
    """Below the workspace, as the sessions name it."""
    if path == WORKSPACE or path.startswith(WORKSPACE + "/"):
        path = path[len(WORKSPACE) :].lstrip("/")
    elif path.startswith("/"):
        raise EditorError(
            "invalid_tool_input", f"path: the editor sees files of {WORKSPACE} only; give a path below it"
        )
    while path.startswith("./"):
        path = path[2:]
    return path.rstrip("/")


def _decoded(path: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise EditorError("invalid_tool_input", f"{path!r} is no UTF-8 text; read it with code") from None


def _range(wanted: Any, total: int) -> tuple[int, int]:
    if wanted is None:
        return 1, total
    if (
        not isinstance(wanted, list)
        or len(wanted) != 2
        or not all(isinstance(one, int) and not isinstance(one, bool) for one in wanted)
    ):
        raise EditorError("invalid_tool_input", "view_range: expected two line numbers, [first, last]")
    first, last = wanted
    if last == -1:
        last = total
    if not 1 <= first <= max(total, 1) or last < first:
        raise EditorError("invalid_tool_input", f"view_range: the file has lines 1 to {total}")
    return first, min(last, total)


def _changed(path: str, before: str, after: str) -> Changed:
    """The one hunk between two texts: all between their common first and last lines."""
    old, new = before.splitlines(), after.splitlines()
    start, most = 0, min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    same = 0
    while same < most - start and old[-1 - same] == new[-1 - same]:
        same += 1
    gone, come = old[start : len(old) - same], new[start : len(new) - same]
    return Changed(
        path=path,
        old_start=start + 1,
        old_lines=len(gone),
        new_start=start + 1,
        new_lines=len(come),
        lines=[f"-{line}" for line in gone] + [f"+{line}" for line in come],
    )
