"""What the supervisor holds: the pools of all environments, the sandboxes handed out, and what ran in them."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path
from typing import Any

from onehop.environments.model import DEFAULT_NAME
from onehop.errors import (
    EnvironmentInUseError,
    ExecutionNotFoundError,
    SessionNotFoundError,
    TooManyError,
    UnknownEnvironmentError,
)
from onehop.supervisor.catalogue import Catalogue
from onehop.supervisor.execution import Execution
from onehop.supervisor.link import Link
from onehop.supervisor.messages import (
    EnvironmentInfo,
    ExecutionInfo,
    SandboxInfo,
    SandboxSpec,
)
from onehop.supervisor.pool import DESCRIPTORS_PER_SANDBOX, Pool, Slots, room_for_sandboxes
from onehop.supervisor.sandbox import Sandbox
from onehop.supervisor.spawn import describe_environment
from onehop.supervisor.surroundings import Surroundings, protections

TICK_S = 0.1
MAX_KEPT_EXECUTIONS = 10_000
"""Ended executions that no gateway acknowledged; the oldest are forgotten beyond this."""


class Service:
    """All pools and all sandboxes that were handed out."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.around = Surroundings(settings, self._watch)
        most = min(settings["max_sandboxes"], room_for_sandboxes())
        if most < settings["max_sandboxes"]:
            self.around.log(f"the limit on open files (ulimit -Hn) leaves room for {most} sandboxes")
        self.slots = Slots(most, separate_uids=settings["namespaces"] and settings["user"] == 0)
        self.pools: dict[str, Pool] = {}
        self.retired: list[Pool] = []
        """Of environments that were removed or replaced, as long as sandboxes of them live."""
        self.assigned: dict[str, Sandbox] = {}
        self.executions: dict[str, tuple[Sandbox, Execution]] = {}
        self._watched: set[Sandbox] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._given: list[dict[str, Any]] = settings["environments"]
        self.catalogue = Catalogue(Path(self._given[0]["path"]).parent.parent)

    def start(self) -> None:
        for environment in self._given:
            self._open(environment)
        self._loop.call_later(1.0, self._housekeeping)

    def close(self) -> None:
        for pool in self.all_pools():
            pool.close()

    def all_pools(self) -> list[Pool]:
        return [*self.pools.values(), *self.retired]

    def _open(self, environment: dict[str, Any]) -> Pool:
        pool = Pool(environment, self.around, self.slots, on_gone=self._gone)
        pool.start()
        self.pools[pool.name] = pool
        return pool

    def _housekeeping(self) -> None:
        for pool in self.pools.values():
            pool.shrink()
        if self.catalogue.look():
            self._follow_catalogue()
        for pool in [pool for pool in self.retired if not pool.in_use]:
            pool.close()
            self.retired.remove(pool)
        if self.around.polled:
            for sandbox in self.assigned.values():
                self._watch(sandbox)  # what was left running in the background counts, too
        self.around.children.reap()  # orphans that came to us as PID 1
        self._loop.call_later(1.0, self._housekeeping)

    # --- environments ---------------------------------------------------------------------------------

    def _follow_catalogue(self) -> None:
        """Pools of environments that are gone or were built anew take no more requests."""
        given = {environment["name"]: environment["path"] for environment in self._given}
        for name, pool in list(self.pools.items()):
            now = self.catalogue.found.get(name)
            path = str(now.path) if now is not None else given.get(name, "")
            # The default one changes with onehop itself: what is running keeps what it came with.
            if name != DEFAULT_NAME and path != pool.environment["path"]:
                self.around.log(f"the environment {name} was {'replaced' if now else 'removed'}")
                self.retired.append(self.pools.pop(name))
                pool.retire()

    def _pool(self, name: str) -> Pool:
        """Its zygote is started by whoever first names an environment that came after us."""
        if (pool := self.pools.get(name)) is not None:
            return pool
        self.catalogue.look()
        found = self.catalogue.found.get(name)
        if found is not None:
            try:
                return self._open(describe_environment(found))
            except EnvironmentInUseError:
                pass  # it is being removed
        known = ", ".join(sorted({*self.pools, *self.catalogue.found} - {name}))
        raise UnknownEnvironmentError(
            f"there is no environment {name!r}; there are: {known}. The operator adds one with: onehop env add"
        )

    def environments(self) -> list[EnvironmentInfo]:
        """All that a request may name, the first first."""
        if self.catalogue.look():
            self._follow_catalogue()
        paths = {name: pool.environment["path"] for name, pool in self.pools.items()}
        paths |= {
            name: str(one.path) for name, one in sorted(self.catalogue.found.items()) if name not in paths
        }
        return [
            EnvironmentInfo(
                name,
                self.catalogue.packages(path),
                ready=name in self.pools and self.pools[name].zygote.ready,
            )
            for name, path in paths.items()
        ]

    # --- the watcher ----------------------------------------------------------------------------------

    def _watch(self, sandbox: Sandbox) -> None:
        self._watched.add(sandbox)
        if self._ticking is None:
            self._ticking = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        for sandbox in list(self._watched):
            if self.around.polled and sandbox.state == "assigned":
                limit = sandbox.spec.memory_bytes
                pidfds = [link.pidfd for link in sandbox.links.values() if isinstance(link, Link)]
                if self.around.private_bytes(sandbox.pid, limit // 2, pidfds) > limit:
                    sandbox.out_of_memory()
            if not sandbox.tick():
                self._watched.discard(sandbox)
        if self._watched:
            self._ticking = self._loop.call_later(TICK_S, self._tick)

    # --- operations -----------------------------------------------------------------------------------

    async def create(self, spec: SandboxSpec) -> Sandbox:
        pool = self.pools.get(spec.environment) or self._pool(spec.environment)
        sandbox = await pool.take(spec, spec.owner)
        self.assigned[sandbox.id] = sandbox
        return sandbox

    def check_descriptors(self) -> None:
        """Raises TooManyError when one more context or command could leave the sandboxes that are there without."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(os.listdir("/proc/self/fd")) > soft - soft // 8 - DESCRIPTORS_PER_SANDBOX:
            raise TooManyError(
                "the server has no open files left for more contexts and commands (ulimit -Hn); end some"
            )

    def sandbox(self, name: str) -> Sandbox:
        try:
            return self.assigned[name]
        except KeyError:
            raise SessionNotFoundError(f"there is no sandbox {name!r}") from None

    def execution(self, name: str) -> tuple[Sandbox, Execution]:
        try:
            return self.executions[name]
        except KeyError:
            raise ExecutionNotFoundError(f"there is no execution {name!r}") from None

    def remember(self, sandbox: Sandbox, execution: Execution) -> None:
        self.executions[execution.spec.id] = (sandbox, execution)
        if len(self.executions) > MAX_KEPT_EXECUTIONS:
            for name, (_, old) in self.executions.items():
                if old.end is not None:
                    self.forget(name)
                    break

    def forget(self, name: str) -> None:
        found = self.executions.pop(name, None)
        if found is not None:
            found[0].executions.known.pop(name, None)

    def _gone(self, sandbox: Sandbox) -> None:
        self._watched.discard(sandbox)
        self.assigned.pop(sandbox.id, None)

    def info(self, sandbox: Sandbox) -> SandboxInfo:
        return SandboxInfo(
            id=sandbox.id,
            environment=sandbox.spec.environment,
            owner=sandbox.owner_id,
            one_shot=sandbox.spec.one_shot,
            isolation=sandbox.isolation(),
            executions=list(sandbox.executions.known),
            places={name: execution.place for name, execution in sandbox.executions.known.items()},
            running=[execution.spec.id for execution in sandbox.executions.running.values()],
        )

    def unacknowledged(self) -> list[ExecutionInfo]:
        """Also those whose sandbox is gone: a gateway that died had no time to store them."""
        return [
            ExecutionInfo(
                name,
                sandbox.owner_id,
                sandbox.spec.one_shot,
                sandbox.isolation(),
                execution.end.status
                if execution.end is not None and execution.end.session == "ended"
                else "",
                execution.spec.context_data,
                execution.last,
            )
            for name, (sandbox, execution) in self.executions.items()
        ]

    def describe(self) -> dict[str, Any]:
        return {
            "isolation": dict(self.around.isolation),
            "protections": protections(self.around),
            "environments": {name: pool.statistics() for name, pool in self.pools.items()},
            "sandboxes": self.slots.used,
            "assigned": len(self.assigned),
            "executions": len(self.executions),
        }
