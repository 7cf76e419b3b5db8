"""The tools and resources that clients of MCP see."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import mcp_types as types
import msgspec
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server

from onehop import __version__, errors
from onehop.sessions import Engine
from onehop.sessions.answers import FileInfo, SessionInfo, TextEvent
from onehop.sessions.caller import LOCAL, Caller
from onehop.sessions.calls import ToolChoice
from onehop.sessions.requests import CommandRequest, ExecuteRequest
from onehop.sessions.run import COMMAND, Run
from onehop.tools.registry import Registry
from onehop.wires.mcp import content, sessions

PROGRESS_S = 5.0
"""A client that wants progress hears at least so often that the code still runs."""
MAX_MESSAGE_CHARS = 500
MAX_READ_BYTES = 16 * 1024 * 1024
INSTRUCTIONS = (
    "run_python runs Python 3 in a sandbox with pandas, numpy, matplotlib and many more packages. Variables, imports "
    "and files of earlier calls are there. The value of the last line is shown, and so are figures. Files that code "
    "writes to its working folder are resources. There is no network; `from tools import …` calls the tools of this "
    "server, if it has any: `tools.search('')` lists them."
)

Context = ServerRequestContext[Any, Any]


class RunPython(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    session: str = ""
    timeout_s: float | None = None


class RunCommand(msgspec.Struct, forbid_unknown_fields=True):
    command: str
    session: str = ""
    timeout_s: float | None = None


class WriteFile(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    text: str | None = None
    base64: bytes | None = None
    session: str = ""


class OfSession(msgspec.Struct, forbid_unknown_fields=True):
    session: str = ""


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


_SESSION = {
    "type": "string",
    "description": "Id of a session, as create_session or an earlier answer gave it; else this connection's own.",
}
_TIMEOUT = {"type": "number", "exclusiveMinimum": 0, "description": "Seconds until it is stopped."}
_ANSWER = {
    "type": "object",
    "properties": {
        "session": {"type": "string"},
        "status": {"type": "string"},
        "stdout": {"type": "string"},
        "stderr": {"type": "string"},
        "results": {"type": "array", "items": {"type": "string"}},
        "files": {"type": "array", "items": {"type": "object"}},
        "error": {"type": "object"},
        "exit_code": {"type": "integer"},
    },
    "required": ["session", "status", "stdout", "stderr", "results", "files"],
}


def _tool(
    name: str,
    text: str,
    properties: dict[str, Any],
    required: list[str],
    *,
    answers: bool = False,
    reads: bool = False,
) -> types.Tool:
    return types.Tool(
        name=name,
        description=text,
        input_schema={
            "type": "object", "properties": properties, "required": required, "additionalProperties": False,
        },
        output_schema=_ANSWER if answers else None,
        annotations=types.ToolAnnotations(read_only_hint=reads, destructive_hint=False, open_world_hint=False),
    )  # fmt: skip


TOOLS = [
    _tool(
        "run_python", f"Runs Python and shows what it prints, its last value and its figures. {INSTRUCTIONS}",
        {"code": {"type": "string"}, "session": _SESSION, "timeout_s": _TIMEOUT}, ["code"], answers=True,
    ),
    _tool(
        "run_command", "Runs a command with bash in the sandbox where the Python code runs.",
        {"command": {"type": "string"}, "session": _SESSION, "timeout_s": _TIMEOUT}, ["command"], answers=True,
    ),
    _tool(
        "write_file", "Writes a file into the working folder, from text or base64.",
        {
            "path": {"type": "string", "description": "Relative to the working folder."},
            "text": {"type": "string"}, "base64": {"type": "string"}, "session": _SESSION,
        },
        ["path"],
    ),
    _tool("list_files", "Lists the files of the working folder.", {"session": _SESSION}, [], reads=True),
    _tool("create_session", "Makes one more sandbox, with variables and files of its own, and tells its id.", {}, []),
    _tool("end_session", "Ends a sandbox: its variables and files are gone.", {"session": _SESSION}, []),
]  # fmt: skip

S = TypeVar("S")


def make(engine: Engine, registry: Registry | None) -> Server[Any]:
    """The server, for every transport."""
    tools = Tools(engine, registry)
    return Server(
        "onehop",
        version=__version__,
        title="onehop: Python in a sandbox",
        instructions=INSTRUCTIONS,
        on_list_tools=tools.list_tools,
        on_call_tool=tools.call,
        on_list_resources=tools.list_resources,
        on_list_resource_templates=tools.list_templates,
        on_read_resource=tools.read_resource,
    )


class Tools:
    """Methods are the protocol's; what cannot be done is told in a result that a model reads."""

    def __init__(self, engine: Engine, registry: Registry | None) -> None:
        self._engine = engine
        self._registry = registry
        self._calls: dict[str, Callable[[Context, dict[str, Any]], Awaitable[types.CallToolResult]]] = {
            "run_python": self._run_python,
            "run_command": self._run_command,
            "write_file": self._write_file,
            "list_files": self._list_files,
            "create_session": self._create_session,
            "end_session": self._end_session,
        }

    async def list_tools(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=TOOLS)

    async def call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        perform = self._calls.get(params.name)
        if perform is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:80]!r}")
        try:
            return await perform(context, params.arguments or {})
        except errors.ProblemError as error:
            return content.failed(error.detail)

    async def _session(self, context: Context, named: str, caller: Caller) -> SessionInfo:
        return await sessions.choose(self._engine, named, _connection(context), caller, self._tools(caller))

    def _tools(self, caller: Caller) -> list[ToolChoice]:
        """All that the caller's key allows, if there are any."""
        return ["*"] if self._registry is not None and self._registry.tools(caller) else []

    # --- tools ----------------------------------------------------------------------------------------

    async def _run_python(self, context: Context, arguments: dict[str, Any]) -> types.CallToolResult:
        asked, caller = _read(RunPython, arguments), _caller(context)
        session = await self._session(context, asked.session, caller)
        request = ExecuteRequest(code=asked.code, timeout_s=asked.timeout_s)
        run = await self._engine.executions.start_in_turn(session.id, request, caller)
        return await self._finish(context, run, session.id, caller)

    async def _run_command(self, context: Context, arguments: dict[str, Any]) -> types.CallToolResult:
        asked, caller = _read(RunCommand, arguments), _caller(context)
        session = await self._session(context, asked.session, caller)
        request = CommandRequest(command=asked.command, timeout_s=asked.timeout_s)
        run = await self._engine.executions.start_command(session.id, request, caller)
        return await self._finish(context, run, session.id, caller)

    async def _finish(self, context: Context, run: Run, session: str, caller: Caller) -> types.CallToolResult:
        try:
            said = 0
            async for events in run.follow(0, pause_s=PROGRESS_S, until_turn=True):
                texts = [event.text for _, (_, event) in events if isinstance(event, TextEvent)]
                if texts or not events:
                    said += 1
                    message = "".join(texts).strip()[-MAX_MESSAGE_CHARS:] or "still running"
                    await context.session.report_progress(said, message=message)
            answer = content.result(await run.wait(), session)
            if not _connection(context):
                answer.content.append(types.TextContent(text=f"session: {session} (name it to go on in it)"))
            return answer
        finally:
            if run.end is None:  # the client has cancelled the call, or would have to approve one of a tool's
                with anyio.CancelScope(shield=True):
                    if run.context.startswith(COMMAND):
                        await self._engine.commands.kill(session, run.id, caller)
                    else:
                        await self._engine.executions.stop(run)

    async def _write_file(self, context: Context, arguments: dict[str, Any]) -> types.CallToolResult:
        asked, caller = _read(WriteFile, arguments), _caller(context)
        if (asked.text is None) == (asked.base64 is None):
            raise errors.InvalidRequestError("give the content as either text or base64")
        raw = asked.text.encode() if asked.text is not None else asked.base64 or b""
        session = await self._session(context, asked.session, caller)

        async def once() -> Any:
            if raw:
                yield raw

        written = await self._engine.files.write(session.id, asked.path, once(), caller)
        answer = content.told(
            f"{written.path}: {written.bytes} bytes",
            {"session": session.id, "path": written.path, "bytes": written.bytes},
        )
        answer.content.append(content.link(session.id, written))
        return answer

    async def _list_files(self, context: Context, arguments: dict[str, Any]) -> types.CallToolResult:
        asked, caller = _read(OfSession, arguments), _caller(context)
        session = await self._session(context, asked.session, caller)
        found = await self._engine.files.list(session.id, "", caller)
        lines = [f"{one.path} ({one.bytes} bytes)" for one in found.files]
        files = [{"path": one.path, "bytes": one.bytes} for one in found.files]
        return content.told("\n".join(lines) or "(no files)", {"session": session.id, "files": files})

    async def _create_session(self, context: Context, arguments: dict[str, Any]) -> types.CallToolResult:
        _read(Nothing, arguments)
        caller = _caller(context)
        made = await sessions.create(self._engine, "", caller, self._tools(caller))
        return content.told(f"session: {made.id}", {"session": made.id})

    async def _end_session(self, context: Context, arguments: dict[str, Any]) -> types.CallToolResult:
        asked, caller = _read(OfSession, arguments), _caller(context)
        if asked.session:
            await self._engine.sessions.delete(asked.session, caller)
        else:
            await sessions.end(self._engine, _connection(context), caller)
        return content.told("it has ended")

    # --- files as resources ---------------------------------------------------------------------------

    async def list_resources(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        caller = _caller(context)
        session = sessions.own(self._engine, _connection(context), caller)
        if session is None:
            return types.ListResourcesResult(resources=[])
        found = await self._engine.files.list(session.id, "", caller)
        return types.ListResourcesResult(resources=[_resource(session.id, one) for one in found.files])

    async def list_templates(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(
            uri_template=content.SCHEME + "{session}/{+path}",
            name="file",
            description="A file of a session's working folder.",
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        address = str(params.uri)
        found = content.place(address)
        try:
            if found is None:
                raise errors.NotFoundError(f"there is no resource {address[:200]!r}")
            async with self._engine.files.read(*found, _caller(context)) as (entry, chunks):
                if entry.bytes > MAX_READ_BYTES:
                    raise errors.TooLargeError(
                        f"the file has {entry.bytes} bytes, more than {MAX_READ_BYTES}; let code read it",
                        limit_bytes=MAX_READ_BYTES,
                    )
                raw = b"".join([chunk async for chunk in chunks])
        except errors.NotFoundError as error:
            raise MCPError(types.INVALID_PARAMS, error.detail, {"uri": address}) from None
        except errors.ProblemError as error:
            raise MCPError(types.INVALID_PARAMS, error.detail) from None
        kind = _media_type(found[1])
        try:
            one: types.TextResourceContents | types.BlobResourceContents = types.TextResourceContents(
                uri=address, mime_type=kind or "text/plain", text=raw.decode()
            )
        except UnicodeDecodeError:
            one = types.BlobResourceContents(
                uri=address, mime_type=kind or "application/octet-stream", blob=base64.b64encode(raw).decode()
            )
        return types.ReadResourceResult(contents=[one])


def _read(kind: type[S], arguments: dict[str, Any]) -> S:
    """A tool's arguments. Raises InvalidRequestError that a model can act on."""
    try:
        return msgspec.convert(arguments, kind)
    except msgspec.ValidationError as error:
        raise errors.InvalidRequestError(f"the arguments do not fit: {error}") from None


def _caller(context: Context) -> Caller:
    """Who asks: the guard has left it in the request's scope."""
    found = context.request.scope.get("caller", LOCAL) if context.request is not None else LOCAL
    assert isinstance(found, Caller)
    return found


def _connection(context: Context) -> str:
    """Its id; empty in revisions of the protocol that know none."""
    if context.request is None:
        return ""
    # The one that lasts longer first.
    names = (context.request.headers.get(name, "") for name in reversed(sessions.CONNECTIONS))
    return next((str(name) for name in names if name), "")


def _resource(session: str, file: FileInfo) -> types.Resource:
    return types.Resource(
        uri=content.uri(session, file.path), name=file.path, size=file.bytes, mime_type=_media_type(file.path)
    )


def _media_type(path: str) -> str | None:
    return mimetypes.guess_type(path)[0]
