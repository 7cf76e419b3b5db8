"""Gives executions their tools: what a request asks for, what the key may have, within the server's bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from onehop.config import MIB, Settings
from onehop.errors import InvalidRequestError
from onehop.sessions.bounds import at_most
from onehop.sessions.caller import Caller
from onehop.sessions.calling import Calls
from onehop.sessions.calls import Dispatcher, ToolChoice, ToolSet, decode_toolset
from onehop.sessions.requests import ExecuteRequest
from onehop.sessions.run import Run
from onehop.store import Store, ToolCallRow
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import ExecutionSpec


class Tooling:
    def __init__(
        self, settings: Settings, client: SupervisorClient, store: Store, dispatcher: Dispatcher
    ) -> None:
        self._settings = settings
        self._client = client
        self._store = store
        self._dispatcher = dispatcher
        self.outcomes: Counter[str] = Counter()
        """Calls that have ended, by status, since this gateway started."""

    def _recorded(self, row: ToolCallRow) -> None:
        self.outcomes[row.status] += 1
        self._store.called(row)

    def check(self, wanted: Sequence[ToolChoice], caller: Caller) -> None:
        """Raises InvalidRequestError, ForbiddenError for what an execution could not have, either."""
        if wanted:
            self._dispatcher.toolset(list(wanted), caller)

    def path(self, name: str, arguments: dict[str, Any], caller: Caller) -> str:
        """How code reaches one registered tool below `tools`.

        Raises:
            InvalidRequestError, ForbiddenError: there is no such tool, it is not for this key, or it cannot be
                called like that.
        """
        toolset = self._dispatcher.toolset([name], caller)
        entries = self._dispatcher.catalogue(toolset)
        if len(entries) != 1 or name not in (entries[0].name, entries[0].path):
            raise InvalidRequestError("tool: give the whole name of one tool", field="tool")
        problem = self._dispatcher.check(toolset, entries[0].name, arguments)
        if problem is not None:
            raise InvalidRequestError(f"arguments: {problem.message}", field="arguments")
        return entries[0].path

    def toolset(
        self, request: ExecuteRequest, usual: Sequence[ToolChoice], caller: Caller, spec: ExecutionSpec
    ) -> ToolSet | None:
        """What an execution may call; `spec` is told of it.

        Args:
            usual: the session's tools, for a request that says nothing.

        Raises:
            InvalidRequestError, ForbiddenError: there is no such tool, or it is not for this key.
        """
        wanted = usual if request.tools is None else request.tools
        if not wanted:
            return None
        settings = self._settings
        toolset = self._dispatcher.toolset(list(wanted), caller)
        toolset.max_calls = settings.max_tool_calls
        if request.max_tool_calls is not None:
            toolset.max_calls = int(
                at_most("max_tool_calls", request.max_tool_calls, settings.max_tool_calls)
            )
        toolset.results_timeout_s = settings.tool_results_timeout_s
        if request.tool_results_timeout_s is not None:
            toolset.results_timeout_s = at_most(
                "tool_results_timeout_s", request.tool_results_timeout_s, settings.max_tool_results_timeout_s
            )
        toolset.max_parallel = settings.max_parallel_calls
        toolset.timeout_s = settings.tool_timeout_s
        toolset.max_bytes_in = toolset.max_bytes_out = settings.tool_bytes_mb * MIB
        spec.catalogue = toolset.catalogue
        spec.context_data = toolset.encoded()
        return toolset

    def equip(self, run: Run, toolset: ToolSet | None, *, held_until: int = 0) -> None:
        """From now on the run takes calls."""
        if toolset is not None:
            run.calls = Calls(
                toolset,
                self._dispatcher,
                self._client,
                execution=run.id,
                owner=run.owner,
                on_suspended=run.yielded,
                on_recorded=self._recorded,
                held_until=held_until,
            )

    def resume(self, run: Run, context_data: bytes, events: int) -> None:
        """The same for one that an earlier gateway has begun.

        Args:
            context_data: of its ExecutionSpec.
            events: that there are already.
        """
        if context_data:
            self.equip(run, decode_toolset(context_data), held_until=events)
