"""What is in a sandbox's folders: E2B's service `filesystem.Filesystem`, by the tools that every Linux has.

They run in the sandbox as its own user, so that they see and may do what its code sees and may do.
"""

from __future__ import annotations

import posixpath
import shlex
from typing import Any

import msgspec

from onehop import errors
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Operation
from onehop.sessions import Engine
from onehop.sessions.answers import Answer
from onehop.sessions.caller import EXECUTE, READ, Caller
from onehop.sessions.requests import CommandRequest
from onehop.wires.e2b import connect
from onehop.wires.e2b.access import Access
from onehop.wires.e2b.errors import UnsupportedError
from onehop.wires.e2b.paths import ROOTS, absolute

TAG = "E2B"
FIELDS = ("%Y", "%y", "%s", "%m", "%M", "%u", "%g", "%T@", "%l", "%p")
"""Of find's -printf: type of what a link leads to, own type, bytes, mode, …, target of a link, path."""
TYPES = {"d": "FILE_TYPE_DIRECTORY", "l": "FILE_TYPE_SYMLINK"}
"""Everything else is a file; so is a link that leads nowhere its own type."""
MISSING, EXISTS, NO_FOLDER = 44, 45, 46
"""Exit codes of the scripts below."""
MAX_OUTPUT_BYTES = 8 * 1024 * 1024


class OfPath(msgspec.Struct):
    path: str = ""


class ListRequest(OfPath):
    depth: int = 1


class MoveRequest(msgspec.Struct):
    source: str = ""
    destination: str = ""


_of_path = msgspec.json.Decoder(OfPath)
_list = msgspec.json.Decoder(ListRequest)
_move = msgspec.json.Decoder(MoveRequest)


class Filesystem:
    def __init__(self, engine: Engine, access: Access) -> None:
        self._engine = engine
        self._access = access

    def operations(self, prefix: str) -> list[Operation]:
        calls = [
            ("Stat", self.stat, "One entry", READ),
            ("ListDir", self.list_dir, "A folder's entries", READ),
            ("MakeDir", self.make_dir, "Make a folder", EXECUTE),
            ("Move", self.move, "Move an entry", EXECUTE),
            ("Remove", self.remove, "Remove an entry", EXECUTE),
        ]
        calls += [
            (name, self.watch, "Not supported: watching", READ)
            for name in ("WatchDir", "CreateWatcher", "GetWatcherEvents", "RemoveWatcher")
        ]
        return [
            Operation(
                "POST", f"{prefix}/filesystem.Filesystem/{name}", handler, f"e2bFilesystem{name}", TAG, text,
                scope=scope,
            )
            for name, handler, text, scope in calls
        ]  # fmt: skip

    async def stat(self, call: Call) -> None:
        path = absolute((await connect.unary(call, _of_path)).path)
        sandbox, caller = self._access.sandbox(call)
        await call.answer(encode_json({"entry": await self._entry(sandbox, path, caller)}))

    async def _entry(self, sandbox: str, path: str, caller: Caller) -> dict[str, Any]:
        found = await self._run(sandbox, f"{_exists(path)}; {_find(path, 0, 0)}", caller)
        return _entries(found)[0]

    async def list_dir(self, call: Call) -> None:
        asked = await connect.unary(call, _list)
        path, depth = absolute(asked.path), max(asked.depth, 1)
        sandbox, caller = self._access.sandbox(call)
        script = f"{_exists(path)}; [ -d {shlex.quote(path)} ] || exit {NO_FOLDER}; {_find(path, 1, depth)}"
        entries = _entries(await self._run(sandbox, script, caller))
        entries.sort(key=lambda one: one["path"])
        await call.answer(encode_json({"entries": entries}))

    async def make_dir(self, call: Call) -> None:
        path = absolute((await connect.unary(call, _of_path)).path)
        sandbox, caller = self._access.sandbox(call)
        quoted = shlex.quote(path)
        await self._run(sandbox, f"[ -e {quoted} ] && exit {EXISTS}; mkdir -p -- {quoted}", caller)
        await call.answer(encode_json({"entry": await self._entry(sandbox, path, caller)}))

    async def move(self, call: Call) -> None:
        asked = await connect.unary(call, _move)
        source, destination = absolute(asked.source), absolute(asked.destination)
        sandbox, caller = self._access.sandbox(call)
        folder = shlex.quote(posixpath.dirname(destination))
        script = f"{_exists(source)}; mkdir -p -- {folder} && mv -T -- {shlex.quote(source)} {shlex.quote(destination)}"
        await self._run(sandbox, script, caller)
        await call.answer(encode_json({"entry": await self._entry(sandbox, destination, caller)}))

    async def remove(self, call: Call) -> None:
        path = absolute((await connect.unary(call, _of_path)).path)
        sandbox, caller = self._access.sandbox(call)
        await self._run(sandbox, f"{_exists(path)}; rm -rf -- {shlex.quote(path)}", caller)
        await call.answer(b"{}")

    async def watch(self, call: Call) -> None:
        raise UnsupportedError("watching folders is not supported here; list them, or let the code watch")

    async def _run(self, sandbox: str, script: str, caller: Caller) -> str:
        """What it wrote. Raises ProblemError for what it says by its exit code or on stderr."""
        most = min(MAX_OUTPUT_BYTES, self._engine.settings.max_output_bytes)
        request = CommandRequest(command=script, output_bytes=most)
        run = await self._engine.executions.start_command(sandbox, request, caller)
        answer = await run.wait()
        if answer.exit_code == 0 and not answer.truncated:
            return answer.stdout
        raise _failure(answer)


def _failure(answer: Answer) -> errors.ProblemError:
    if answer.exit_code == MISSING:
        return errors.FileNotFoundInWorkspaceError("there is no such file or folder in the sandbox")
    if answer.exit_code == EXISTS:
        return errors.ConflictError("there is something of that name already")
    if answer.exit_code == NO_FOLDER:
        return errors.InvalidRequestError("path: it is no folder", field="path")
    if answer.truncated:
        return errors.TooLargeError(
            f"the folder has more entries than {MAX_OUTPUT_BYTES} bytes can name; list a part of it",
            limit_bytes=MAX_OUTPUT_BYTES,
        )
    told = answer.stderr.strip().splitlines()
    return errors.InvalidRequestError(told[-1][:500] if told else answer.reason or "it failed without a word")


def _exists(path: str) -> str:
    """Also for a link that leads nowhere."""
    quoted = shlex.quote(path)
    return f"[ -e {quoted} ] || [ -L {quoted} ] || exit {MISSING}"


def _find(path: str, least: int, most: int) -> str:
    form = "\\0".join(FIELDS) + "\\0"
    # The home is a link itself, and so may be a folder that is listed.
    follow = "-H" if least or path in ROOTS else "-P"
    where = f"{follow} {shlex.quote(path)} -mindepth {least} -maxdepth {most}"
    return f"find {where} -printf '{form}' 2>/dev/null; true"


def _entries(found: str) -> list[dict[str, Any]]:
    words = found.split("\0")
    rows = [words[at : at + len(FIELDS)] for at in range(0, len(words) - 1, len(FIELDS))]
    if not rows:
        return []
    return [_entry(*row) for row in rows]


def _entry(
    kind: str, own: str, size: str, mode: str, permissions: str, owner: str, group: str, time: str, target: str,
    path: str,
) -> dict[str, Any]:  # fmt: skip
    seconds, _, fraction = time.partition(".")
    from datetime import UTC, datetime

    modified = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    told: dict[str, Any] = {
        "name": posixpath.basename(path),
        "type": TYPES.get(kind, TYPES.get(own, "FILE_TYPE_FILE") if kind in "NL?" else "FILE_TYPE_FILE"),
        "path": path,
        "size": size,
        "mode": int(mode, 8),
        "permissions": permissions,
        "owner": owner,
        "group": group,
        "modifiedTime": f"{modified}.{fraction[:9] or '0'}Z",
    }
    if own == "l":
        told["symlinkTarget"] = target
        told["isSymlink"] = True
    return told
