"""One-shot executions: a sandbox each, made for the execution and discarded after it."""

from __future__ import annotations

import asyncio
import logging

from onehop.config import Settings
from onehop.crash import reached
from onehop.errors import EngineError, InvalidRequestError, OnehopError, TooManyError
from onehop.protocol import Entry
from onehop.sessions import bounds, files
from onehop.sessions.answers import FileInfo
from onehop.sessions.caller import Caller, label
from onehop.sessions.calls import ToolSet
from onehop.sessions.journal import Journal
from onehop.sessions.quotas import Quotas
from onehop.sessions.requests import ExecuteOnceRequest
from onehop.sessions.run import Run
from onehop.sessions.tasks import Tasks
from onehop.sessions.tooling import Tooling
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import ExecutionSpec, SandboxSpec
from onehop.supervisor.porter import Porter

log = logging.getLogger("onehop.sessions")


class OneShots:
    def __init__(
        self,
        settings: Settings,
        client: SupervisorClient,
        journal: Journal,
        tasks: Tasks,
        quotas: Quotas,
        tooling: Tooling,
    ) -> None:
        self._tooling = tooling
        self._settings = settings
        self._client = client
        self._journal = journal
        self._tasks = tasks
        self._quotas = quotas
        self.running = 0

    async def start(self, request: ExecuteOnceRequest, caller: Caller, name: str) -> Run:
        """Starts code in a new sandbox. Raises TooManyError, and what the checks of `requests` raise."""
        if request.context != "main":
            raise InvalidRequestError(
                "context: a sandbox of its own has only 'main'; make a session for more", field="context"
            )
        spec = bounds.execution_spec(request, self._settings, name, grace_s=0.0)
        box_spec = bounds.sandbox_spec(
            request, self._settings, owner=label(caller), one_shot=True, limits=caller.limits
        )
        toolset = self._tooling.toolset(request, (), caller, spec)
        contents = bounds.contents(request, box_spec.workspace_bytes) if request.files else {}
        if self.running >= self._settings.max_concurrent:
            raise TooManyError(f"{self.running} executions run already; try again when one has ended")
        self._quotas.admit(caller, spec, sandbox=True)
        self.running += 1
        one = _OneShot(self, caller, toolset, return_files=request.return_files)
        return await self._tasks.finish(one.start(spec, box_spec, contents))

    def discard(self, sandbox: str) -> None:
        try:
            self._client.discard_sandbox(sandbox)
        except EngineError:
            pass  # it went with the supervisor


class _OneShot:
    """From the request to the discarded sandbox."""

    def __init__(
        self, owner: OneShots, caller: Caller, toolset: ToolSet | None, *, return_files: bool
    ) -> None:
        self._toolset = toolset
        self._owner = owner
        self._caller = caller
        self._client = owner._client
        self._journal = owner._journal
        self._return_files = return_files
        self._uploaded: dict[str, Entry] = {}
        self._porter: Porter | None = None

    async def start(self, spec: ExecutionSpec, box_spec: SandboxSpec, contents: dict[str, bytes]) -> Run:
        run = Run(spec.id, None, owner=self._caller.owner, key=self._caller.key, on_violation=self._violated)
        self._owner._tooling.equip(run, self._toolset)
        try:
            if contents:
                box = await self._client.create_sandbox(box_spec)
                run.sandbox = box.id
                self._porter = await self._client.open_porter(box.id)
                self._uploaded = {entry.path: entry for entry in await files.put(self._porter, contents, {})}
                self._journal.began(run)
                reached("execution-claimed")
                await self._client.execute(box.id, spec, run.take)
            else:
                self._journal.began(run)
                reached("execution-claimed")
                box = await self._client.execute_once(box_spec, spec, run.take)
        except BaseException:
            self._journal.refused(run)
            self._release(run)
            raise
        run.sandbox, run.isolation = box.id, box.isolation
        reached("execution-started")
        # The end may have come together with the reply: then this calls at once.
        run.when_ended(self._ended)
        return run

    def _violated(self, run: Run) -> None:
        if run.sandbox:  # else it is discarded when the end has come
            self._owner.discard(run.sandbox)

    def _ended(self, run: Run) -> None:
        assert run.end is not None
        if run.end.workspace_used and run.end.session == "alive":
            self._owner._tasks.spawn(self._collect(run))
        else:
            self._close(run, [], truncated=False)

    async def _collect(self, run: Run) -> None:
        assert run.end is not None
        changes: list[FileInfo] = []
        truncated = True
        try:
            async with asyncio.timeout(files.LISTING_TIMEOUT_S):
                if self._porter is None:
                    self._porter = await self._client.open_porter(run.sandbox)
                entries, truncated = await self._porter.list()
            leave_out = "" if self._return_files else run.end.spill_file
            changes = files.changed(entries, self._uploaded, since_s=run.started_at, leave_out=leave_out)
            if self._return_files:
                await files.fill(self._porter, changes, self._owner._settings.return_files_bytes)
        except (OnehopError, TimeoutError) as error:
            log.warning(
                "%s: its files could not be listed: %r", run.id[:24], error, extra={"execution": run.id}
            )
        finally:
            self._close(run, changes, truncated=truncated)

    def _close(self, run: Run, changes: list[FileInfo], *, truncated: bool) -> None:
        self._release(run)
        run.complete(changes, files_truncated=truncated)
        self._journal.ended(run)

    def _release(self, run: Run) -> None:
        self._owner.running -= 1
        self._owner._quotas.release(self._caller.key)
        if self._porter is not None:
            self._porter.close()
        if run.sandbox:
            self._owner.discard(run.sandbox)
