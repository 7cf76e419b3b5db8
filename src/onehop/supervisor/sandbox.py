"""One sandbox as the supervisor sees it: its init, its control group, its kernels, its end.

State goes one way: `forking` → `preparing` → `ready` → `assigned` → `dying` → `gone`. Every step has
one owner here; whatever goes wrong ends in `die`, which frees everything once the init is reaped.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from onehop.errors import (
    ContextNotFoundError,
    InvalidRequestError,
    UnavailableError,
)
from onehop.jail import cgroups
from onehop.protocol import Kind
from onehop.supervisor.births import Birth
from onehop.supervisor.calls import Calls
from onehop.supervisor.command import Command
from onehop.supervisor.commands import Commands
from onehop.supervisor.executions import Executions
from onehop.supervisor.inits import InitChannel
from onehop.supervisor.link import Link
from onehop.supervisor.messages import ContextInfo, SandboxSpec
from onehop.supervisor.outputs import Outputs
from onehop.supervisor.pipes import Pipes
from onehop.supervisor.surroundings import Surroundings, exiting

EXIT_REPORT_S = 0.08
"""How long init may take to tell a dead kernel's exit code before the end is reported without it."""
START_TIMEOUT_S = 20.0


class Sandbox:
    def __init__(
        self,
        slot: int,
        spec: SandboxSpec,
        around: Surroundings,
        *,
        fork_kernel: Callable[[Birth], None],
        on_ready: Callable[[Sandbox], None],
        on_warm: Callable[[Sandbox], None],
        on_gone: Callable[[Sandbox], None],
    ) -> None:
        self.slot = slot
        self.id = f"sbx{slot}"
        self.spec = spec
        self.state = "forking"
        self.started = False
        self.warmth = "cold"
        """`cold`, `warming` or `warm`: whether the first kernel has run small cells already."""
        self.pid = -1
        self.owner_id = ""
        self.death_reason = ""
        self.created_s = time.monotonic()
        self.links: dict[str, Link | Command] = {}
        """By name of the context, and `!` with the id of a command."""
        self.commands = Commands(self)
        self.contexts: dict[str, ContextInfo] = {}
        """What was asked for; what each does now, says `supervisor/contexts.py`."""
        self.executions = Executions(self)
        self.restarting: set[str] = set()
        self.oom_kills = 0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.around = around
        self.group: cgroups.Group | None = None
        self.ruleset: list[int] = []
        """The descriptor of its Landlock ruleset, where there is one."""
        self._fork_kernel = fork_kernel
        self._on_ready, self._on_warm, self._on_gone = on_ready, on_warm, on_gone
        self.loop = self._loop = asyncio.get_running_loop()
        self._workspace = -1
        self.outputs = Outputs(self)
        self._free_inodes = -1
        self._ready_event = False
        self.calls = Calls(self)
        """Of tools."""
        self._directory = ""
        self._porters = 0
        self.init = InitChannel(self._loop, on_event=self._on_init, on_broken=self.die)
        self.add_context("main", "")
        self._start_timer = self._loop.call_later(START_TIMEOUT_S, self.die, "it did not start in time")

    # --- birth --------------------------------------------------------------------------------------

    def fork_fds(self) -> list[int]:
        """What the new init gets; `forked` or `die` closes our copies."""
        if self.around.namespaces:
            return [self.init.theirs]
        return [self.init.theirs, *self.link("main").kernel_fds]

    @property
    def init_pidfd(self) -> int:
        return self.around.children.pidfd(self.pid)

    async def forked(self, pid: int) -> None:
        """The init exists and waits for "go": put it into its control group, then let it go."""
        self.pid = pid
        self.init.given()
        if not self.around.namespaces:
            self.link("main").given()
        if self.state == "dying":
            self._kill_init()
            return
        self.state = "preparing"
        try:
            self.group, doors = await self._loop.run_in_executor(None, self._make_group)
        except OSError as error:
            self.die(f"its control group cannot be made: {error}")
            return
        if self.state == "preparing":
            self.init.listen()
            self.init.tell({"do": "go"}, doors)
        else:
            self._kill_init()
        for fd in doors:
            os.close(fd)

    def _make_group(self) -> tuple[cgroups.Group | None, list[int]]:
        self._directory = self.around.make_directory(self.id)
        if not self.around.cgroups.controllers:
            return None, []
        group = cgroups.Group(self.around.cgroups, self.id)
        try:
            group.create(
                memory_bytes=self.spec.memory_bytes, processes=self.spec.processes, cpus=self.spec.cpus
            )
            return group, group.doors()
        except OSError:
            self.group = group  # what was made is removed when the init is reaped
            raise

    def start_request(self) -> dict[str, Any]:
        """What the new init is told; see zygote/init.py."""
        return {
            "workspace_bytes": self.spec.workspace_bytes,
            "workspace_inodes": self.spec.workspace_inodes,
            "tmp_bytes": self.around.settings["tmp_bytes"],
            "shm_bytes": self.around.settings["shm_bytes"],
            "limits": self.around.limits(self.spec),
            "environ": {},
            "directory": self.around.directory(self.id),
            "nice": self.around.nice,
        }

    # --- init ---------------------------------------------------------------------------------------

    def check_assigned(self) -> None:
        """Raises UnavailableError unless a session has it."""
        if self.state != "assigned":
            raise UnavailableError(f"the sandbox has ended: {self.death_reason}")

    def _on_init(self, message: dict[str, Any], fds: list[int]) -> list[int]:
        """What init tells by itself; the descriptors that are not taken."""
        match message["event"]:
            case "kernel":
                link = self.links.get(message["kernel"])
                if isinstance(link, Link) and link.alive and link.pidfd < 0:
                    link.pidfd, fds = fds[0], []
                    link.inner_pid = message["pid"]
            case "ready":
                if self._workspace < 0:
                    self._workspace, *self.ruleset = fds
                    fds = []
                    self._free_inodes = os.fstatvfs(self._workspace).f_ffree
                    if self.around.namespaces and self.state == "preparing":
                        self.start_kernel(self.link("main"))
                self._maybe_ready()
            case "kernel_exit":
                link = self.links.get(message["kernel"])
                if isinstance(link, Link) and link.inner_pid == message["pid"]:
                    self.kernel_exit(message["kernel"], message["code"], link)
            case "command_exit":
                self.commands.exited(
                    message["command"], message["code"], message["cpu_ns"], message["peak_bytes"]
                )
            case "failed":
                self.die(message["detail"])
            case "refused" if message["do"] == "kernel":
                self.die(f"no new kernel can be started in it: {message['detail']}")
        return fds

    def _maybe_ready(self) -> None:
        if self.state == "preparing" and self._workspace >= 0 and self.link("main").ready:
            self._start_timer.cancel()
            self.state = "ready"
            self.started = True
            self._on_ready(self)

    def warm_up(self) -> None:
        """Has the waiting kernel run small cells; an execution that comes meanwhile follows after them."""
        self.warmth = "warming"
        self.link("main").send(Kind.WARM_UP, 0)

    # --- handing out --------------------------------------------------------------------------------

    async def assign(self, spec: SandboxSpec, owner_id: str) -> None:
        """Gives a ready sandbox to a session, with its own limits."""
        before, self.spec = self.spec, spec
        self.state = "assigned"
        self.owner_id = owner_id
        self.contexts["main"].created_at = time.time()
        group = self.group
        asked = (spec.memory_bytes, spec.processes, spec.cpus)
        if group is not None and asked != (before.memory_bytes, before.processes, before.cpus):
            await self._loop.run_in_executor(
                None,
                lambda: group.set_limits(
                    memory_bytes=spec.memory_bytes, processes=spec.processes, cpus=spec.cpus
                ),
            )
        if (spec.workspace_bytes, spec.workspace_inodes) != (before.workspace_bytes, before.workspace_inodes):
            resized: asyncio.Future[str] = self._loop.create_future()

            def answer(message: dict[str, Any], fds: list[int]) -> None:
                if not resized.done():
                    resized.set_result(message.get("detail", ""))

            self.init.ask(
                {
                    "do": "resize",
                    "workspace_bytes": spec.workspace_bytes,
                    "workspace_inodes": spec.workspace_inodes,
                    "limits": self.around.limits(spec),
                },
                answer,
            )
            async with asyncio.timeout(5):
                problem = await resized
            if problem:
                raise InvalidRequestError(f"the workspace cannot have that size: {problem}")
            self._free_inodes = os.fstatvfs(self._workspace).f_ffree
        self._relimit(self.around.limits(before), self.around.limits(spec))

    def _relimit(self, before: dict[str, int], limits: dict[str, int]) -> None:
        """rlimits of the processes to come, and of the kernel that waited in the pool."""
        if limits == before:
            return
        self.init.tell({"do": "limits", "limits": limits})
        link = self.link("main")
        if any(value > before[name] for name, value in limits.items()):
            # Raising a hard limit takes CAP_SYS_RESOURCE on the host, which an ordinary user and many a
            # container's root do not have. A new kernel gets them from init, which is bound by none.
            link.signal(signal.SIGKILL)
            self.new_kernel("main")
        elif link.pidfd >= 0:
            self.around.apply_limits(link.pidfd, limits)

    def isolation(self) -> dict[str, str]:
        return dict(self.around.isolation)

    # --- contexts -----------------------------------------------------------------------------------

    def link(self, kernel: str) -> Link:
        """Raises ContextNotFoundError."""
        link = self.links.get(kernel)
        if not isinstance(link, Link):
            raise ContextNotFoundError(f"there is no context {kernel!r}")
        return link

    def add_context(self, name: str, cwd: str) -> ContextInfo:
        self.links[name] = Link(self, self._loop, name)
        info = self.contexts[name] = ContextInfo(name, cwd, "starting", time.time())
        return info

    def drop_context(self, name: str) -> None:
        """Its kernel was stopped."""
        self.links.pop(name).close()
        del self.contexts[name]
        self.outputs.take_late(name)

    def stop_kernel(self, name: str, reason: str) -> None:
        """What runs in it ends as `killed`, for `reason`. Raises UnavailableError, ContextNotFoundError."""
        self.check_assigned()
        link = self.link(name)
        link.drain_all()
        self.check_assigned()
        link.signal(signal.SIGKILL)
        self.executions.stop_kernel(name, reason)

    # --- what a link tells --------------------------------------------------------------------------

    def on_frame(self, link: Link, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.READY:
            if link.ready or number != 0:
                self.on_violation(link, "a second READY")
                return
            link.ready = True
            self.restarting.discard(link.name)
            if self.contexts[link.name].cwd:
                link.send(Kind.ENTER, 0, os.fsencode(self.contexts[link.name].cwd))
            self.executions.kernel_ready(link.name)
            self._maybe_ready()
            return
        if kind == Kind.WARM:
            if self.warmth != "warming" or number != 0:
                self.on_violation(link, "a WARM that nobody asked for")
                return
            self.warmth = "warm"
            self._on_warm(self)
            return
        if violation := self.executions.take(link, kind, number, payload):
            self.on_violation(link, violation)

    def on_output(self, link: Pipes, stream: str, data: bytes) -> None:
        self.outputs.written(link, stream, data)

    def on_violation(self, link: Link, what: str) -> None:
        """A kernel that does not keep to the protocol is not talked to again; its session ends."""
        self.die(f"the kernel sent {what}, which no kernel of ours sends", status="protocol_error")

    def on_channel_closed(self, link: Link) -> None:
        """Dead, or about to be. Init tells the exit code; we wait for it a moment, not longer."""
        if link.exit_code is None and link.alive:
            link.signal(signal.SIGKILL)  # a kernel without its channel is of no use, even if it lives
            self._loop.call_later(EXIT_REPORT_S, self.kernel_exit, link.name, None, link)

    def kernel_exit(self, kernel: str, code: int | None, link: Link) -> None:
        if self.links.get(kernel) is not link or not link.alive or self.state in ("dying", "gone"):
            return
        link.drain_all()
        if self.state in ("dying", "gone") or not link.alive:
            return
        link.exit_code = code
        if code in (None, -signal.SIGKILL) and exiting(self.pid):
            self.die("its init was ended")  # and every process of its PID namespace with it, in this order
            return
        if self.state == "preparing":
            self.die("its kernel ended while it was warmed up")
            return
        if self.check_oom():
            return
        self.executions.kernel_died(kernel, _why(code))
        if self.state == "ready":
            self.die("its kernel ended while it waited in the pool")
        elif self.spec.one_shot:
            self.links[kernel].close()
        else:
            self.new_kernel(kernel)

    def new_kernel(self, kernel: str) -> None:
        """Another kernel in the same sandbox: the files stay, the variables do not."""
        if kernel in self.links:
            self.links[kernel].close()
        try:
            link = self.links[kernel] = Link(self, self._loop, kernel)
        except OSError as error:
            self.die(f"no new kernel can be made in it: {error}")
            return
        self.restarting.add(kernel)
        self.start_kernel(link)

    def start_kernel(self, link: Link) -> None:
        """A kernel at the other end of `link`: from the zygote, or from init where nobody else can enter."""
        if self.around.namespaces:
            self._fork_kernel(Birth(self, link))
            return
        self.init.tell({"do": "kernel", "kernel": link.name}, link.kernel_fds)
        if self.state == "assigned":
            link.given()

    def check_oom(self) -> bool:
        """True when the sandbox ran out of memory; then it dies whole."""
        if self.group is None:
            return False
        try:
            kills = self.group.out_of_memory_kills()
        except (OSError, ValueError):
            return False
        if kills <= self.oom_kills:
            return False
        self.oom_kills = kills
        self.out_of_memory()
        return True

    def out_of_memory(self) -> None:
        self.die(
            f"it needed more than its {self.spec.memory_bytes >> 20} MiB of memory", status="out_of_memory"
        )

    # --- the watcher's tick ---------------------------------------------------------------------------

    def tick(self) -> bool:
        """Looks after what no event tells. False when nothing runs any more."""
        if self.state != "assigned" or self.check_oom():
            return False
        return self.executions.look()

    # --- files --------------------------------------------------------------------------------------

    def open_porter(self, fd: int) -> None:
        """Init starts a porter on `fd`, a connected stream socket that stays the caller's to close."""
        self.check_assigned()
        self.init.tell({"do": "porter"}, [fd])

    def workspace_used(self) -> bool:
        """Whether there is or was anything in the workspace."""
        return self._workspace >= 0 and self.around.workspace_used(self._workspace, self._free_inodes)

    # --- death --------------------------------------------------------------------------------------

    def die(self, reason: str, *, status: str = "killed") -> None:
        """Ends everything inside, at once. Safe to call in any state, any number of times."""
        if self.state in ("dying", "gone"):
            return
        before, self.state = self.state, "dying"
        self.death_reason = reason
        self._start_timer.cancel()
        self.executions.finish_all(status, reason)
        if before == "forking":
            return  # the zygote's answer, or its death, brings us on
        self._kill_init()

    def _kill_init(self) -> None:
        if self.pid > 0:
            self.around.kill_tree(self.pid)

    def fork_failed(self, detail: str) -> None:
        """The zygote made no process."""
        self.state = "dying"
        self.death_reason = self.death_reason or detail
        self._start_timer.cancel()
        self._release()

    def reaped(self, code: int) -> None:
        """The init is gone, and with it every process of its PID namespace."""
        if self.state not in ("dying", "gone"):
            self.die(f"its init ended with {code}")
        self._release()

    def _release(self) -> None:
        if self.state == "gone":
            return
        self.state = "gone"
        self.init.given()
        for link in self.links.values():
            link.close()
        self.commands.close()
        if self._workspace >= 0:
            for fd in (self._workspace, *self.ruleset):
                os.close(fd)
            self._workspace, self.ruleset = -1, []
        self.init.close()
        group, self.group = self.group, None
        self._loop.run_in_executor(None, self._remove_traces, group).add_done_callback(self._removed)

    def _remove_traces(self, group: cgroups.Group | None) -> str:
        problem = ""
        if group is not None:
            try:
                group.remove()
            except OSError as error:
                problem = str(error)
        self.around.remove_directory(self._directory)
        return problem

    def _removed(self, done: asyncio.Future[str]) -> None:
        problem = done.result()
        if problem:
            self.around.log(f"{self.id}: its control group stays: {problem}")
        self._on_gone(self)
        if not self.gone.done():
            self.gone.set_result(None)


def _why(code: int | None) -> str:
    if code is None:
        return "the kernel died"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"the kernel was ended by {name}"
    return f"the kernel exited with code {code}"
