"""Programs: each has an interpreter of its own, and the workspace that its files are in.

Where a request's files are in a session that lives, the program runs there; otherwise a session is made, which stays
when the program leaves files. A program that calls tools is suspended, alive, until their results come.
"""

from __future__ import annotations

import base64
import contextlib
import json
import keyword
import re
import shlex
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from onehop import errors
from onehop.sessions import Engine
from onehop.sessions.answers import Answer, FileInfo
from onehop.sessions.caller import Caller
from onehop.sessions.calls import ClientTool, ToolAnswer
from onehop.sessions.requests import CommandRequest, ContextRequest, ExecuteRequest, SessionRequest
from onehop.sessions.run import Run
from onehop.wires.librechat.files import LABEL, Shelf, file_id, new_label
from onehop.wires.process import outcome

HINT = "librechat.runtime"
"""Label of the session that a conversation's programs share."""
LANGUAGES = {"py": "python", "python": "python", "bash": "bash", "sh": "bash"}
FAILURES = {"timeout": "Time limit exceeded", "out_of_memory": "Out of memory"}
"""What LibreChat tells the model of `error`; others it tells by the exit code."""


class FileRef(msgspec.Struct):
    """A file of an earlier answer or upload."""

    id: str = ""
    name: str = ""
    session_id: str = ""
    storage_session_id: str = ""

    @property
    def label(self) -> str:
        return self.storage_session_id or self.session_id


class Exec(msgspec.Struct):
    """A program to run. `timeout` is in milliseconds."""

    lang: str
    code: str
    args: list[str] | None = None
    files: list[FileRef] | None = None
    session_id: str | None = None
    runtime_session_hint: str | None = None
    timeout: float | None = None


class Tool(msgspec.Struct):
    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


class Result(msgspec.Struct):
    call_id: str
    result: Any = None
    is_error: bool = False
    error_message: str | None = None


class Programmatic(msgspec.Struct):
    """A program with tools, or the results that a suspended one waits for. `timeout` is in milliseconds."""

    code: str | None = None
    tools: list[Tool] | None = None
    files: list[FileRef] | None = None
    session_id: str | None = None
    runtime_session_hint: str | None = None
    timeout: float | None = None
    continuation_token: str | None = None
    tool_results: list[Result] | None = None


class Place(msgspec.Struct):
    """Where a program runs: LibreChat's id of the session, the session, a context of its own, and what was lost."""

    label: str
    session: str
    context: str
    made: bool
    lost: str = ""


class Program(msgspec.Struct):
    """One that runs. `names`: of tools, where Python's name is another one."""

    place: Place
    run: Run
    names: dict[str, str] = {}


class Programs:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, engine: Engine, shelf: Shelf) -> None:
        self._engine = engine
        self._shelf = shelf

    async def start(self, request: Exec, caller: Caller) -> Program:
        """Starts a program without tools."""
        language = LANGUAGES.get(request.lang.lower())
        if language is None:
            raise errors.UnsupportedParameterError(
                f"lang: {request.lang[:20]!r} is not here; there are py and bash", field="lang"
            )
        timeout_s = self._timeout_s(request.timeout)
        place = await self._place(request.files, request.session_id, request.runtime_session_hint, caller)
        async with self._undone(place, caller):
            if language == "bash":
                before = f"set -- {shlex.join(request.args)}\n" if request.args else ""
                command = CommandRequest(command=before + request.code, timeout_s=timeout_s)
                run = await self._engine.executions.start_command(place.session, command, caller)
            else:
                if request.args:
                    await self._prepare(place, f"import sys; sys.argv[1:] = {request.args!r}", caller)
                code = ExecuteRequest(code=request.code, context=place.context, timeout_s=timeout_s)
                run = await self._engine.executions.start(place.session, code, caller)
        return Program(place, run)

    async def start_with_tools(self, request: Programmatic, caller: Caller) -> Program:
        """Starts a program that may call the client's tools by their names, as functions."""
        if not request.code:
            raise errors.InvalidRequestError("code: there is none, and no continuation_token", field="code")
        if not request.tools:
            raise errors.InvalidRequestError("tools: there are none; use /exec", field="tools")
        names = {identifier(one.name): one.name for one in request.tools}
        if len(names) < len(request.tools):
            raise errors.InvalidRequestError("tools: two of them have one name in Python", field="tools")
        tools = [
            ClientTool(
                name=identifier(one.name),
                description=one.description,
                parameters=one.parameters or {"type": "object", "properties": {}},
            )
            for one in request.tools
        ]
        timeout_s = self._timeout_s(request.timeout)
        place = await self._place(request.files, request.session_id, request.runtime_session_hint, caller)
        async with self._undone(place, caller):
            await self._prepare(
                place, f"import asyncio, json\nfrom tools import {', '.join(names)}", caller, tools
            )
            code = ExecuteRequest(
                code=request.code, context=place.context, timeout_s=timeout_s, tools=[*tools]
            )
            run = await self._engine.executions.start(place.session, code, caller)
        return Program(place, run, {ours: theirs for ours, theirs in names.items() if ours != theirs})

    async def go_on(self, request: Programmatic, caller: Caller) -> Program:
        """Gives a suspended program its results."""
        assert request.continuation_token is not None
        execution, program = _opened(request.continuation_token)
        answers = [
            ToolAnswer(id=one.call_id, error=one.error_message or "the tool failed")
            if one.is_error
            else ToolAnswer(id=one.call_id, result=one.result)
            for one in request.tool_results or []
        ]
        if not answers:
            raise errors.InvalidRequestError("tool_results: there are none", field="tool_results")
        run, _ = await self._engine.executions.tool_results(execution, answers, caller)
        place = Place(program["label"], run.session or "", run.context, bool(program["made"]))
        return Program(place, run, program["names"])

    async def told(self, program: Program, caller: Caller) -> dict[str, Any]:
        """The answer of a program that has ended, or waits for its client."""
        run, place = program.run, program.place
        if run.answer is None and run.calls is not None and run.calls.suspended:
            calls = [
                {"id": one.id, "name": program.names.get(one.name, one.name), "input": one.arguments}
                for one in run.calls.pending()
            ]
            return {
                "status": "tool_call_required",
                "session_id": place.label,
                "continuation_token": _token(program),
                "tool_calls": calls,
            }
        answer = await run.wait()
        found = self._answer(answer, place)
        await self._leave(place, caller, keep=bool(answer.files))
        return found

    async def stop(self, program: Program, caller: Caller) -> None:
        """Nobody waits for it any more."""
        await self._engine.executions.stop(program.run)
        await self._leave(program.place, caller, keep=False)

    def _answer(self, answer: Answer, place: Place) -> dict[str, Any]:
        done = outcome(answer, results=False)
        found: dict[str, Any] = {
            "session_id": place.label,
            "stdout": done.stdout,
            "stderr": place.lost + done.stderr,
            "files": [_file(one, place.label) for one in answer.files],
            "status": "completed",
        }
        if done.return_code:
            found["status"] = "error"
            found["error"] = FAILURES.get(answer.status, f"Sandbox exited with code {done.return_code}")
        return found

    # --- where it runs --------------------------------------------------------------------------------

    async def _place(
        self, files: list[FileRef] | None, label: str | None, hint: str | None, caller: Caller
    ) -> Place:
        sessions = self._engine.sessions
        wanted = [*dict.fromkeys(one.label for one in files or [])]
        home = next(
            (one for name in [*wanted, label] if name for one in sessions.find({LABEL: name}, caller)), None
        )
        if home is None and hint:
            home = next(iter(sessions.find({HINT: hint}, caller)), None)
        if home is None:
            name = new_label()
            labels = {LABEL: name} | ({HINT: hint} if hint else {})
            made = await sessions.create(SessionRequest(metadata=labels), caller)
            place = Place(name, made.id, "main", made=True)
        else:
            context = await self._engine.contexts.create(home.id, ContextRequest(), caller)
            place = Place(home.metadata[LABEL], home.id, context.name, made=False)
        async with self._undone(place, caller):
            for one in files or []:
                if one.label != place.label and not await self._fetch(one, place, caller):
                    place.lost += f"the file {one.name or one.id} is not there any more: upload it again\n"
        return place

    async def _fetch(self, file: FileRef, place: Place, caller: Caller) -> bool:
        """Puts another session's file, or an upload, into the workspace."""
        try:
            found = await self._shelf.get(file.label, file.id, caller)
        except errors.NotFoundError:
            return False
        async with self._shelf.content(found, caller) as chunks:
            await self._engine.files.write(place.session, file.name or found.name, chunks, caller)
        return True

    async def _prepare(
        self, place: Place, code: str, caller: Caller, tools: list[ClientTool] | None = None
    ) -> None:
        asked = ExecuteRequest(code=code, context=place.context, tools=[*tools] if tools else None)
        answer = await (await self._engine.executions.start(place.session, asked, caller)).wait()
        if answer.status != "ok":
            reason = answer.error.value if answer.error is not None else answer.reason
            raise errors.InvalidRequestError(f"the program cannot be prepared: {reason}", field="code")

    @contextlib.asynccontextmanager
    async def _undone(self, place: Place, caller: Caller) -> AsyncIterator[None]:
        """What was made for a program that does not start is gone."""
        try:
            yield
        except BaseException:
            await self._leave(place, caller, keep=False)
            raise

    async def _leave(self, place: Place, caller: Caller, *, keep: bool) -> None:
        """The program's interpreter ends; so does its session, if it was made for it and holds nothing."""
        with contextlib.suppress(errors.ProblemError):
            if place.made and not keep and not self._shared(place, caller):
                await self._engine.sessions.delete(place.session, caller)
            elif place.context != "main":
                await self._engine.contexts.delete(place.session, place.context, caller)

    def _shared(self, place: Place, caller: Caller) -> bool:
        found = self._engine.sessions.find({LABEL: place.label}, caller)
        return any(HINT in one.metadata for one in found)

    def _timeout_s(self, milliseconds: float | None) -> float | None:
        if milliseconds is None or milliseconds <= 0:
            return None
        return min(milliseconds / 1000, self._engine.settings.max_timeout_s)


def identifier(name: str) -> str:
    """LibreChat's own name of a tool in Python; it tells the model this one."""
    name = re.sub(r"[^a-zA-Z0-9_]", "", re.sub(r"[-\s]", "_", name))
    if name[:1].isdigit():
        name = "_" + name
    return name + "_tool" if keyword.iskeyword(name) else name


def _file(file: FileInfo, label: str) -> dict[str, Any]:
    return {
        "id": file_id(file.path),
        "name": file.path,
        "session_id": label,
        "storage_session_id": label,
        "size": file.bytes,
    }


def _token(program: Program) -> str:
    """The execution's id, which nobody can guess, and what its answers need to be told."""
    about = {"label": program.place.label, "made": program.place.made, "names": program.names}
    coded = base64.urlsafe_b64encode(json.dumps(about).encode()).decode().rstrip("=")
    return f"{program.run.id}.{coded}"


def _opened(token: str) -> tuple[str, dict[str, Any]]:
    execution, _, coded = token.partition(".")
    try:
        about = json.loads(base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
        label, made, names = str(about["label"]), bool(about["made"]), dict(about["names"])
    except (ValueError, KeyError, TypeError):
        raise errors.ExecutionNotFoundError("continuation_token: there is no such program") from None
    return execution, {"label": label, "made": made, "names": names}
