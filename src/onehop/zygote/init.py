"""The first process of a sandbox: raises its walls, starts porters and other processes in it, reaps.

It holds the sandbox's namespaces and is their PID 1, so its death ends everything inside. It listens
to the supervisor only and never reads anything that user code wrote. Messages are JSON on a
SOCK_SEQPACKET socket, descriptors come and go with them.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import time
from typing import Any

from onehop.jail import enter, syscalls
from onehop.zygote import birth, commands, porter

UID = enter.UID
MESSAGE_BYTES = 65536
SPILL_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


SANDBOX = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
)


def fork(own: list[int], request: dict[str, Any], fds: list[int], template: birth.Template) -> int:
    """One new sandbox: its init is a child of the supervisor (CLONE_PARENT), which reaps it.

    Called in the seed, or, where there are no namespaces, in the zygote. `fds` are the init's control socket,
    and there the descriptors of its first kernel, too; `own` are the caller's, which the child closes.
    """
    pid = syscalls.clone(syscalls.CLONE_PARENT | (SANDBOX if template.namespaces else 0))
    if pid == 0:
        try:
            for fd in own:
                os.close(fd)
            main(template, request, fds)
        except BaseException as error:  # noqa: BLE001 - the process must end here, whatever happened
            report_failure(fds[0], error)
        finally:
            os._exit(1)
    if template.namespaces:
        # The child waits on its control socket for "go", which the supervisor sends after our reply.
        inner = f"{UID} {request['id']} 1".encode()
        for name in ("uid_map", "gid_map"):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, inner)
            finally:
                os.close(fd)
    return pid


def report_failure(control_fd: int, error: BaseException) -> None:
    """The last word of an init that could not raise its walls."""
    try:
        with socket.socket(fileno=os.dup(control_fd)) as control:
            control.send(
                json.dumps({"event": "failed", "detail": f"{type(error).__name__}: {error}"[:2000]}).encode()
            )
    except OSError:
        pass


def main(template: birth.Template, request: dict[str, Any], fds: list[int]) -> None:
    """Waits for "go", raises the walls and serves until the supervisor hangs up.

    What it needs to know came with the request, read by the seed: here, in a young fork, each function that is
    called for the first time costs copied pages.
    """
    signal.set_wakeup_fd(-1)
    gc.enable()
    control = socket.socket(fileno=fds[0])
    raw, doors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 8)
    if not raw:
        os._exit(0)  # the supervisor is gone
    enter.enter_groups(doors)
    Init(template, control, request["go"], fds[1:]).serve()


class Init:
    def __init__(
        self, template: birth.Template, control: socket.socket, go: dict[str, Any], kernel_fds: list[int]
    ) -> None:
        self.template = template
        self.control = control
        self.go = go
        self.kernels: dict[int, str] = {}
        self.commands: dict[int, str] = {}
        if go["nice"]:
            os.nice(go["nice"])
        if template.namespaces:
            self.home = enter.WORKSPACE
            self.workspace, self.ruleset = enter.enter_sandbox(
                workspace_bytes=go["workspace_bytes"],
                workspace_inodes=go["workspace_inodes"],
                tmp_bytes=go["tmp_bytes"],
                shm_bytes=go["shm_bytes"],
                abi=template.abi,
                last_capability=template.last_capability,
            )
        else:
            self.home = f"{go['directory']}/workspace"
            go["environ"] = {**go.get("environ", {}), **enter.own_places(f"{go['directory']}/tmp")}
            self.workspace, self.ruleset = enter.enter_without_namespaces(
                go["directory"], template.spec["environment"], template.spec["base_prefix"], template.abi
            )
        self._wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if kernel_fds:
            self.start_kernel({"kernel": "main"}, kernel_fds)
        # The zygote's kernels restrict themselves by the same ruleset.
        own = [self.ruleset] if template.namespaces and self.ruleset >= 0 else []
        self._send({"event": "ready"}, [self.workspace, *own])

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                    continue
                try:
                    raw, fds, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES, 8)
                except ConnectionResetError:  # the supervisor died before it had read what we told it
                    raw, fds = b"", []
                if not raw:
                    self._end()
                request = json.loads(raw)
                try:
                    getattr(self, "on_" + request["do"])(request, fds)
                except OSError as error:
                    self._send(
                        {
                            "event": "refused",
                            "do": request["do"],
                            "ticket": request.get("ticket"),
                            "errno": error.errno,
                            "detail": str(error),
                        }
                    )
                finally:
                    for received in fds:
                        os.close(received)

    def _end(self) -> None:
        """The supervisor is gone. A PID namespace ends with its first process; without one it is our work."""
        if not self.template.namespaces:
            deadline_s = time.monotonic() + 2
            while (found := _descendants()) and time.monotonic() < deadline_s:
                for number in (signal.SIGSTOP, signal.SIGKILL):
                    for pid in found:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, number)
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
        os._exit(0)

    # --- requests ---------------------------------------------------------------------------------

    def on_kernel(self, request: dict[str, Any], fds: list[int]) -> None:
        self.start_kernel(request, fds, keep=True)

    def on_kill(self, request: dict[str, Any], fds: list[int]) -> None:
        """SIGKILL for a kernel and the processes of its group."""
        for pid, name in self.kernels.items():
            if name == request["kernel"]:
                os.killpg(pid, signal.SIGKILL)

    def on_resize(self, request: dict[str, Any], fds: list[int]) -> None:
        if self.template.namespaces:
            enter.resize_workspace(request["workspace_bytes"], request["workspace_inodes"])
        self.go.update(request)
        self._send({"event": "resized", "ticket": request["ticket"]})

    def on_limits(self, request: dict[str, Any], fds: list[int]) -> None:
        """For processes that are started from now on; the supervisor changes those of running ones."""
        self.go["limits"] = request["limits"]

    def on_porter(self, request: dict[str, Any], fds: list[int]) -> None:
        """A process that serves the workspace's files on a socket that came with the request."""
        pid = os.fork()
        if pid == 0:
            try:
                # Copied upwards first: what came with the request may have any of these numbers.
                high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (fds[0], self.workspace)]
                ruleset = fcntl.fcntl(self.ruleset, fcntl.F_DUPFD_CLOEXEC, 16) if self.ruleset >= 0 else -1
                for target, fd in enumerate(high, 3):
                    os.dup2(fd, target, inheritable=False)
                if ruleset >= 0:
                    ruleset = os.dup2(ruleset, 5, inheritable=False)
                os.closerange(6, 4096)
                os.set_blocking(3, True)  # the supervisor's event loop had it before
                os.setsid()
                enter.drop_privileges(ruleset, self.template.seccomp, self.go["limits"])
                porter.serve(3, 4)
            finally:
                os._exit(0)

    def on_spill(self, request: dict[str, Any], fds: list[int]) -> None:
        """A new file in the workspace for output that is too much to return; opened here, with the sandbox's ids."""
        fd = os.open(request["name"], SPILL_FLAGS, 0o644, dir_fd=self.workspace)
        try:
            self._send({"event": "spill", "ticket": request["ticket"]}, [fd])
        finally:
            os.close(fd)

    # --- commands ---------------------------------------------------------------------------------

    def on_folder(self, request: dict[str, Any], fds: list[int]) -> None:
        """Whether the workspace has such a folder."""
        os.close(commands.open_folder(self.workspace, request["path"]))
        self._send({"event": "folder", "ticket": request["ticket"]})

    def on_command(self, request: dict[str, Any], fds: list[int]) -> None:
        """Starts bash; `fds` are its stdin, stdout and stderr, and the file that says what it is to do."""
        folder = commands.open_folder(self.workspace, request["cwd"])
        # What is sent to it before it is bash waits until then, and none of our handlers answers.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    commands.become(fds, folder, self.home, self.template, self.ruleset, self.go)
                finally:
                    os._exit(126)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(folder)
        self.commands[pid] = request["command"]
        pidfd = os.pidfd_open(pid)
        try:
            self._send({"event": "command", "ticket": request["ticket"], "pid": pid}, [pidfd])
        finally:
            os.close(pidfd)

    # --- kernels ----------------------------------------------------------------------------------

    def start_kernel(self, request: dict[str, Any], fds: list[int], *, keep: bool = False) -> None:
        """Forks a kernel where the zygote cannot do it later.

        `fds` are its channel, stdout and stderr, closed here afterwards unless `keep`.
        """
        pid = os.fork()
        if pid == 0:
            try:
                born = {"home": self.home, "limits": self.go["limits"], "environ": self.go["environ"]}
                birth.become_kernel(self.template, born, fds, self.ruleset)
            finally:
                os._exit(1)
        self.kernels[pid] = request["kernel"]
        pidfd = os.pidfd_open(pid)
        try:
            self._send({"event": "kernel", "kernel": request["kernel"], "pid": pid}, [pidfd])
        finally:
            os.close(pidfd)
        if not keep:
            for fd in fds:
                os.close(fd)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            command = self.commands.pop(pid, None)
            if command is not None:
                code = os.waitstatus_to_exitcode(status)
                cpu_ns = int((used.ru_utime + used.ru_stime) * 1e9)
                self._send(
                    {
                        "event": "command_exit",
                        "command": command,
                        "code": code,
                        "cpu_ns": cpu_ns,
                        "peak_bytes": used.ru_maxrss * 1024,
                    }
                )
                continue
            name = self.kernels.pop(pid, None)
            if name is not None:
                # What is left of its group must not go on unseen.
                try:
                    os.killpg(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                self._send(
                    {
                        "event": "kernel_exit",
                        "kernel": name,
                        "pid": pid,
                        "code": os.waitstatus_to_exitcode(status),
                    }
                )

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(message).encode()], fds or [])
        except OSError:
            self._end()


def _descendants() -> list[int]:
    """All processes below this one, from the children lists of proc(5)."""
    found: list[int] = []
    unseen = [os.getpid()]
    while unseen:
        pid = unseen.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    children = [int(child) for child in file.read().split()]
                found += children
                unseen += children
    return found
