"""Which tools there are and who may call which: the gateway's dispatcher of registered tools.

The code that calls is hostile: what it may call was settled from the stored allowlist before it started,
and is looked up here at every call. Nothing here waits; a call costs some dict look-ups and one frame.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from onehop.config import Settings
from onehop.errors import ForbiddenError, InvalidRequestError
from onehop.protocol import CallError, ToolEntry
from onehop.sessions.caller import Caller
from onehop.sessions.calls import (
    Call,
    ClientTool,
    Outcome,
    ToolChoice,
    ToolSet,
    catalogue_id,
    client_entries,
)
from onehop.tools import naming
from onehop.tools.checking import Checker
from onehop.tools.model import ErrorFrame, RawResultFrame, SourceSpec, ToolSpec
from onehop.tools.workers import SourceLink, Workers

MAX_CHOICES = 1000
MAX_VIEWS = 512
MAX_DESCRIPTION = 16 * 1024
START_WAIT_S = 10.0

log = logging.getLogger("onehop.tools")


class Tool:
    """A registered tool.

    Attributes:
        entry: what code is told of it.
        spec: with the full name, and what the operator's configuration adds.
        checker: None where its worker checks the arguments itself, with better words.
    """

    __slots__ = ("again", "checker", "entry", "link", "local", "parameters", "spec", "timeout_s")

    def __init__(self, spec: ToolSpec, path: str, source: SourceSpec, link: SourceLink) -> None:
        self.local = spec.name
        self.link = link
        self.spec = msgspec.structs.replace(
            spec,
            name=f"{source.name}.{spec.name}",
            source=source.name,
            description=spec.description[:MAX_DESCRIPTION],
            requires_approval=spec.requires_approval or naming.allowed(spec.name, source.requires_approval),
        )
        self.timeout_s = spec.timeout_s if spec.timeout_s is not None else source.timeout_s
        self.again = spec.idempotent or spec.read_only
        properties = spec.parameters.get("properties")
        self.parameters: dict[str, Any] = properties if isinstance(properties, dict) else {}
        self.checker: Checker | None = None
        if source.kind != "python" or self.spec.requires_approval:
            try:
                self.checker = Checker(spec.parameters, "parameters")
            except InvalidRequestError as error:  # its own side has to check them then
                log.warning("%s: arguments are not checked before a call: %s", self.spec.name, error)
        self.entry = ToolEntry(
            name=self.spec.name,
            path=path,
            description=self.spec.description,
            parameters=spec.parameters,
            returns=spec.returns,
            waits=self.spec.requires_approval,
            read_only=spec.read_only,
        )


@dataclass(slots=True)
class _View:
    """What one catalogue comes to: looked up by its id at every call."""

    tools: dict[str, Tool]
    client: dict[str, tuple[ClientTool, Checker]]
    entries: list[ToolEntry]


class SourceState(msgspec.Struct):
    """A source as it is now.

    Args:
        kind: python, openapi or mcp.
        state: ready, starting, or failed: then `problem` says why.
        tools: how many it offers.
    """

    name: str
    kind: str
    state: str
    tools: int
    problem: str = ""


class Registry:
    """The tools of a server; of use once `attach` was called.

    Args:
        specs: the sources.
    """

    def __init__(self, settings: Settings, specs: Iterable[SourceSpec]) -> None:
        self._settings = settings
        self._specs = {spec.name: spec for spec in specs}
        self._by_source: dict[str, dict[str, Tool]] = {name: {} for name in self._specs}
        self._tools: dict[str, Tool] = {}
        self._by_path: dict[str, str] = {}
        self._views: dict[str, _View] = {}
        self._chosen: dict[tuple[tuple[str, ...], tuple[str, ...] | None], ToolSet] = {}
        self._workers: Workers | None = None

    def attach(self, channel: socket.socket) -> None:
        """Starts all workers by the launcher behind `channel`; to be called in the event loop."""
        self._workers = Workers(channel, self._specs, self._published)

    async def settled(self, timeout_s: float = START_WAIT_S) -> None:
        """Returns when all sources have started or failed to, or after `timeout_s` seconds."""
        if self._workers is not None:
            try:
                await asyncio.wait_for(self._workers.settled(), timeout_s)
            except TimeoutError:
                names = [one.name for one in self.sources() if one.state == "starting"]
                log.warning("sources of tools that are still starting: %s", ", ".join(names))

    def close(self) -> None:
        """Ends all workers."""
        if self._workers is not None:
            self._workers.close()

    @property
    def timeout_s(self) -> float:
        """Seconds that a call may take where neither request nor tool says anything."""
        return self._settings.tool_timeout_s

    # --- what there is --------------------------------------------------------------------------------

    def sources(self) -> list[SourceState]:
        """All sources, by name."""
        found = []
        for name, spec in self._specs.items():
            link = None if self._workers is None else self._workers.sources[name]
            state, problem = "starting", ""
            if link is not None and link.problem:
                state, problem = "failed", link.problem
            elif link is not None and link.tools is not None:
                state = "ready"
            found.append(SourceState(name, spec.kind, state, len(self._by_source[name]), problem))
        return found

    def tools(self, caller: Caller) -> list[Tool]:
        """What the caller may call, by name."""
        return [tool for name, tool in sorted(self._tools.items()) if _may(caller, name)]

    def _published(self, source: str, specs: list[ToolSpec]) -> None:
        assert self._workers is not None
        found: dict[str, Tool] = {}
        paths: set[str] = set()
        for spec in specs:
            if not spec.name or len(spec.name) > 128 or spec.name in found:
                log.warning("%s: a tool of the name %.130r is left out", source, spec.name)
                continue
            path = naming.path_of(source, spec.name, paths)
            paths.add(path)
            tool = Tool(spec, path, self._specs[source], self._workers.sources[source])
            found[spec.name] = tool
        self._by_source[source] = found
        self._tools = {tool.spec.name: tool for tools in self._by_source.values() for tool in tools.values()}
        self._by_path = {tool.entry.path: name for name, tool in self._tools.items()}
        self._views.clear()
        self._chosen.clear()
        log.debug("%s: %d tools", source, len(found))

    # --- what an execution may call -------------------------------------------------------------------

    def toolset(self, wanted: list[ToolChoice], caller: Caller) -> ToolSet:
        """What these choices come to.

        Raises:
            InvalidRequestError: a name that nothing has, a client's tool of a registered one's name or with
                no valid schema.
            ForbiddenError: the key does not allow a tool that is named.
        """
        if len(wanted) > MAX_CHOICES:
            raise InvalidRequestError(f"tools: {len(wanted)} entries; at most {MAX_CHOICES}", field="tools")
        strings = tuple(one for one in wanted if isinstance(one, str))
        client = [one for one in wanted if not isinstance(one, str)]
        kept = self._chosen.get((strings, caller.tools))
        if kept is None:
            names = self._choose(strings, caller)
            entries = [self._tools[name].entry for name in names]
            kept = ToolSet(catalogue=catalogue_id(entries), names=names)
            if len(self._chosen) >= MAX_VIEWS:
                self._chosen.clear()
            self._chosen[strings, caller.tools] = kept
        toolset = msgspec.structs.replace(kept, key=caller.key)
        if client:
            entries = [self._tools[name].entry for name in kept.names] + client_entries(client)
            toolset.catalogue = catalogue_id(entries)
            toolset.client = client
            if toolset.catalogue not in self._views:
                self._check_client(kept.names, client)
        self._view(toolset)
        return toolset

    def _check_client(self, names: list[str], client: list[ClientTool]) -> None:
        taken = {*names, *(self._tools[name].entry.path for name in names)}
        for number, one in enumerate(client):
            if one.name in taken:
                raise InvalidRequestError(f"tools: there are two of the name {one.name!r}", field="tools")
            taken.add(one.name)
            Checker(one.parameters, f"tools[{number}].parameters")

    def _choose(self, strings: tuple[str, ...], caller: Caller) -> list[str]:
        chosen: set[str] = set()
        for text in strings:
            if len(text) > 128:
                raise self._unknown(text)
            if naming.is_pattern(text):
                found = [name for name in self._tools if naming.allowed(name, (text,))]
                if not found and text != "*":
                    raise self._unknown(text)
                chosen.update(name for name in found if _may(caller, name))
                continue
            name = text if text in self._tools else self._by_path.get(text, "")
            # To a key that may not call it, it is not there: the answer is the same for both.
            if not name and _may(caller, text):
                raise self._unknown(text)
            if not name or not _may(caller, name):
                raise ForbiddenError(f"tools: the key does not allow {text[:128]!r}", field="tools")
            chosen.add(name)
        return sorted(chosen)

    def _unknown(self, text: str) -> InvalidRequestError:
        source = text.partition(".")[0]
        if source in self._specs and not self._by_source[source]:
            state = next(one for one in self.sources() if one.name == source)
            why = (
                f"its source {source!r} {'has failed: ' + state.problem if state.problem else 'is starting'}"
            )
        elif source in self._specs and text == source:
            why = f"that is a source; its tools are {source}.*"
        else:
            why = f"GET /api/tools lists them{naming.near(text, [*self._tools, *self._by_path])}"
        return InvalidRequestError(f"tools: there is no tool {text[:128]!r}; {why}", field="tools")

    def _view(self, toolset: ToolSet) -> _View:
        view = self._views.get(toolset.catalogue)
        if view is None:
            view = self._look(toolset)
            if len(self._views) >= MAX_VIEWS:
                del self._views[next(iter(self._views))]
            self._views[toolset.catalogue] = view
        return view

    def _look(self, toolset: ToolSet) -> _View:
        tools = {name: self._tools[name] for name in toolset.names if name in self._tools}
        client = {
            one.name: (one, Checker(one.parameters, f"tools[{number}].parameters"))
            for number, one in enumerate(toolset.client)
        }
        entries = [tool.entry for tool in tools.values()] + client_entries(toolset.client)
        return _View(tools, client, entries)

    # --- the dispatcher's part ------------------------------------------------------------------------

    def catalogue(self, toolset: ToolSet) -> list[ToolEntry]:
        """What the code is told."""
        return self._view(toolset).entries

    def check(self, toolset: ToolSet, name: str, arguments: dict[str, Any]) -> CallError | None:
        """Whether the tool may be called like that, the client's as well."""
        view = self._view(toolset)
        tool = view.tools.get(name)
        if tool is not None:
            checker, properties = tool.checker, tool.parameters
            if checker is None:
                return None
        elif name in view.client:
            one, checker = view.client[name]
            found = one.parameters.get("properties")
            properties = found if isinstance(found, dict) else {}
        else:
            return self._not_found(view, name)
        problems = checker.problems(arguments)
        return CallError("bad_arguments", problems, properties) if problems else None

    def approval(self, toolset: ToolSet, name: str) -> bool:
        """Each call of it waits until the client has approved it."""
        tool = self._view(toolset).tools.get(name)
        return tool is not None and tool.spec.requires_approval

    def repeatable(self, toolset: ToolSet, name: str) -> bool:
        """A call whose outcome was lost may be started once more."""
        tool = self._view(toolset).tools.get(name)
        return tool is not None and tool.again

    def source(self, toolset: ToolSet, name: str) -> str:
        """The source of a tool, "client" for one of the client's, empty for none."""
        view = self._view(toolset)
        tool = view.tools.get(name)
        return tool.spec.source if tool is not None else "client" if name in view.client else ""

    def start(self, toolset: ToolSet, call: Call, done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Runs it; `done` is called exactly once, unless what is returned is called before."""
        view = self._view(toolset)
        tool = view.tools.get(call.name)
        if tool is None:
            done(Outcome(error=self._not_found(view, call.name)))
            return _nothing
        timeout_s = toolset.timeout_s
        if tool.timeout_s is not None:
            # A request can lower what the server says, and then that of the tool as well.
            lowered = timeout_s < self._settings.tool_timeout_s
            timeout_s = min(tool.timeout_s, timeout_s) if lowered else tool.timeout_s

        def answered(frame: RawResultFrame | ErrorFrame) -> None:
            if type(frame) is RawResultFrame:
                done(Outcome(frame.value, None, frame.files))
            else:
                done(Outcome(error=_error(frame, tool)))

        return tool.link.call(tool.local, call.arguments, answered, again=tool.again, timeout_s=timeout_s)

    def _not_found(self, view: _View, name: str) -> CallError:
        known = [*view.tools, *view.client]
        return CallError("not_found", f"there is no tool {name[:128]!r} here{naming.near(name, known)}")


def _may(caller: Caller, name: str) -> bool:
    return caller.tools is None or naming.allowed(name, caller.tools)


def _error(frame: Any, tool: Tool) -> CallError:
    parameters = tool.parameters if frame.kind == "bad_arguments" else {}
    return CallError(frame.kind, frame.message, parameters)


def _nothing() -> None:
    """Cancels what has ended."""
