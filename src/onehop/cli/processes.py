"""The master's part: starts supervisor and gateway side by side, watches both, and ends both.

The gateway may die at any time and is started again; the supervisor keeps the sessions meanwhile, and
the listening socket stays open here, so clients wait instead of being refused. When the supervisor
dies, everything is started again. This process must never touch a request.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from onehop.cli.engine import service_uid, supervisor_settings
from onehop.cli.gateway import BEAT, READY, SUPERVISOR_LOST_EXIT
from onehop.config import Settings
from onehop.errors import ConfigurationError, EngineError, OnehopError
from onehop.jail import service
from onehop.supervisor import spawn

if TYPE_CHECKING:
    from onehop.environments.model import Environment
    from onehop.tools import launcher

READY_TIMEOUT_S = 60.0
GATEWAY_STOP_S = 3.0
SUPERVISOR_STOP_S = 5.0
SUPERVISOR_LOST_S = 2.0
STEADY_S = 30.0
"""Who has run this long is started again without delay."""
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 10.0
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where the certificates are that servers of models are checked by; the gateway has to be able to read them."""
PASSED_ON = (
    *("PATH", "LANG", "LC_ALL", "TZ", "PYTHONDONTWRITEBYTECODE", "ONEHOP_CRASH_AT"),
    *AUTHORITIES,
)
"""All that a gateway keeps of the caller's environment, besides the settings."""


Report = dict[str, Any]


class Readable(Protocol):
    def fileno(self) -> int: ...


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as something to wait for; `asked()` once one came.

    Args:
        also: a descriptor that means the same once it can be read (a pidfd: when that process has ended).
    """

    def __init__(self, also: int = -1) -> None:
        self._asked = False
        self._also = also
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._either = select.epoll()
        for one in (self._read, also):
            if one >= 0:
                self._either.register(one, select.EPOLLIN)

    def __enter__(self) -> Interrupts:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup means it
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._take) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._either.close()
        os.close(self._read)
        os.close(self._write)

    def _take(self, *_: object) -> None:
        self._asked = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"!")

    def asked(self) -> bool:
        return self._asked or (self._also >= 0 and _ready(self._also))

    def fileno(self) -> int:
        return self._either.fileno()


def wait(*what: Readable | int, timeout_s: float | None = None) -> None:
    """Until one of them can be read (a pidfd: the process has ended), or `timeout_s` seconds passed."""
    poll = select.poll()
    for one in what:
        poll.register(one, select.POLLIN)
    poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)


class Child:
    """A started process that can be waited for together with others."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.started_s = time.monotonic()
        self._pidfd = os.pidfd_open(process.pid)

    def fileno(self) -> int:
        return self._pidfd

    @property
    def code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def how(self) -> str:
        """How it ended, for people."""
        code = self.code
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def end(self, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL after `timeout_s` seconds."""
        if self.code is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.close()

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class Gateway(Child):
    """The gateway's process, and what it says about itself while it starts."""

    def __init__(
        self, process: subprocess.Popen[bytes], report_fd: int, tools: launcher.Launched | None
    ) -> None:
        super().__init__(process)
        self._tools = tools
        self.report_fd = report_fd
        self.serves = False
        """It has said that it and its engine are ready."""
        self._said = b""
        self._row = b""
        self._heard_s = self.started_s
        self._beats = False

    @classmethod
    def start(cls, settings: Settings, *, listener: socket.socket | None, supervisor: str) -> Gateway:
        """Starts it; with no `listener` it only shows how well it can be confined, and ends."""
        uid = service_uid(settings)
        if uid is not None and listener is not None:
            try:
                service.own_directory(settings.state, uid)
            except OSError as error:
                raise EngineError(f"the state cannot be kept in {settings.state}: {error}") from error
        keys_fd = _keys(settings) if listener is not None else -1
        try:
            tools = _start_tools(settings) if listener is not None else None
        except BaseException:
            _close(keys_fd)
            raise
        read_fd, write_fd = os.pipe()
        spec = {
            "uid": uid,
            "parent": os.getpid(),
            "readable": [*([supervisor] if supervisor else []), *_authorities()],
            "writable": [str(settings.state)] if listener else [],
            "allow_no_namespaces": settings.allow_no_namespaces,
            "supervisor_path": supervisor,
            "listen_fd": listener.fileno() if listener else -1,
            "tools_fd": tools.channel.fileno() if tools else -1,
            "keys_fd": keys_fd,
            "report_fd": write_fd,
            "check_only": listener is None,
        }
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        variables |= settings.environ() | {
            "ONEHOP_CONFIG": os.devnull,  # the file has been read, and may be closed to the service user
            "ONEHOP_GATEWAY_SPEC": json.dumps(spec),
            "HOME": str(settings.state),
        }
        try:
            process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-m", "onehop.cli.gateway"],
                env=variables,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                pass_fds=[
                    write_fd,
                    *([keys_fd] if keys_fd >= 0 else []),
                    *(one.fileno() for one in (listener, tools and tools.channel) if one),
                ],
                start_new_session=True,  # Ctrl-C is for the master, which then ends everything in order
            )
        except OSError as error:
            os.close(read_fd)
            if tools is not None:
                tools.end()
            raise EngineError(f"the gateway cannot be started: {error}") from error
        finally:
            os.close(write_fd)
            _close(keys_fd)
        if tools is not None:
            tools.channel.close()  # it is the gateway's now, and ends with it
        return cls(process, read_fd, tools)

    def row(self, timeout_s: float = 10.0) -> Report:
        """Its line among the protections. Raises EngineError when it could not be confined."""
        deadline_s = time.monotonic() + timeout_s
        while not self._row and self.report_fd >= 0 and time.monotonic() < deadline_s:
            self.listen(deadline_s - time.monotonic())
        if not self._row:
            raise EngineError(f"the gateway did not start ({self.how()}); the lines above have the reason")
        row: Report = json.loads(self._row)
        if "error" in row:
            raise EngineError(row["error"])
        return row

    def listen(self, timeout_s: float = 0.0) -> None:
        """Takes what it says on `report_fd`, which is -1 once it has said all."""
        if self.report_fd < 0 or not select.select([self.report_fd], [], [], max(0.0, timeout_s))[0]:
            return
        chunk = os.read(self.report_fd, 65536)
        if not chunk:
            self._hang_up()
            return
        self._heard_s = time.monotonic()
        *lines, self._said = (self._said + chunk).split(b"\n")
        for line in lines:
            if not self._row:
                self._row = line
            self.serves = self.serves or line == READY
            self._beats = self._beats or line == BEAT

    def silent_s(self) -> float:
        """Seconds since it last said that its loop turns; 0 before it said so for the first time."""
        return time.monotonic() - self._heard_s if self._beats else 0.0

    def _hang_up(self) -> None:
        if self.report_fd >= 0:
            os.close(self.report_fd)
            self.report_fd = -1

    def close(self) -> None:
        super().close()
        self._hang_up()
        if self._tools is not None:
            self._tools.end()
            self._tools = None


def _keys(settings: Settings) -> int:
    """A descriptor with the keys of the models' servers; read here, where their files and variables are."""
    if not settings.upstreams:
        return -1
    from onehop.agent.upstreams import config

    keys: dict[str, str] = {}
    for spec in config.upstreams(settings):
        try:
            keys |= config.read_keys([spec])
        except ConfigurationError as error:
            # Checked before the start: a file that went away since is no reason to end sessions.
            print(f"onehop: {error}", file=sys.stderr)
    fd = os.memfd_create("onehop-keys")
    with os.fdopen(os.dup(fd), "w") as file:
        json.dump(keys, file)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _authorities() -> list[str]:
    return [path for name in AUTHORITIES if (path := os.environ.get(name)) and os.path.exists(path)]


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _start_tools(settings: Settings) -> launcher.Launched | None:
    """Started here, and not by the gateway: it needs our privileges, and the secrets are none of the gateway's."""
    from onehop.tools import configure, launcher

    specs = configure.sources(settings)
    if not specs:
        return None
    uid = service_uid(settings)
    try:
        return launcher.start(
            specs,
            first_uid=None if uid is None else uid + 1,
            allow_no_namespaces=settings.allow_no_namespaces,
        )
    except OSError as error:
        raise EngineError(f"the launcher of the tools' workers cannot be started: {error}") from error


def listen(host: str, port: int) -> socket.socket:
    """The socket that all gateways of this server accept from. Raises ConfigurationError when it is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except BaseException:
            listener.close()
            raise
    except PermissionError:
        raise ConfigurationError(f"port: {port} is for root only; take another with --port") from None
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}; take another with --port"
        ) from None
    return listener


class Master:
    """Runs supervisor and gateway until it is interrupted.

    Args:
        show: called once both serve, with all rows of protections and the supervisor's report.
        say: called with a line about everything unusual.
        interrupts: entered by the caller; its own when left out.
    """

    def __init__(
        self,
        settings: Settings,
        environments: tuple[Environment, ...],
        listener: socket.socket,
        *,
        show: Callable[[list[Report], Report], None],
        say: Callable[[str], None],
        interrupts: Interrupts | None = None,
    ) -> None:
        self._settings = settings
        self._environments = environments
        self._listener = listener
        self._show = show
        self._say = say
        self._served = False
        self._gateway: Gateway | None = None
        self._interrupts = interrupts or Interrupts()
        self._enter: contextlib.AbstractContextManager[object] = (
            contextlib.nullcontext() if interrupts else self._interrupts
        )

    def run(self) -> None:
        """Returns after SIGINT, SIGTERM or SIGHUP. Raises OnehopError when the first start fails."""
        with self._enter:
            delay_s = 0.0
            while not self._interrupts.asked():
                started_s = time.monotonic()
                try:
                    self._life()
                    reason = "the supervisor ended, and all sessions with it"
                except OnehopError as error:
                    if not self._served:
                        raise
                    reason = str(error)
                if self._interrupts.asked():
                    return
                delay_s = _next_delay(delay_s, time.monotonic() - started_s)
                self._say(f"{reason}; starting everything again" + (f" in {delay_s:g} s" if delay_s else ""))
                wait(self._interrupts, timeout_s=delay_s)

    def _life(self) -> None:
        """One supervisor, from its start to its end, with as many gateways as it takes."""
        handle = spawn.launch(supervisor_settings(self._settings, self._environments, for_gateway=True))
        with contextlib.ExitStack() as stack:
            stack.callback(handle.stop, timeout_s=SUPERVISOR_STOP_S)
            supervisor = Child(handle.process)
            stack.callback(supervisor.close)
            stack.callback(self._end_gateway)
            gateway = self._start_gateway(handle.path)
            if self._wait_ready(handle, gateway):
                self._show([*handle.report["protections"], gateway.row()], handle.report)
                self._served = True
                self._watch(handle.path, supervisor, gateway)

    def _start_gateway(self, supervisor: str) -> Gateway:
        self._gateway = Gateway.start(self._settings, listener=self._listener, supervisor=supervisor)
        return self._gateway

    def _end_gateway(self) -> None:
        if self._gateway is not None:
            self._gateway.end(GATEWAY_STOP_S)

    def _wait_ready(self, handle: spawn.SupervisorHandle, gateway: Gateway) -> bool:
        """Until both serve; False when interrupted. Raises EngineError when one of them ended instead."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        warm = False
        while not self._interrupts.asked():
            if time.monotonic() > deadline_s:
                raise EngineError(f"the gateway did not get ready within {READY_TIMEOUT_S:g} s")
            reports = [fd for fd in (handle.report_fd, gateway.report_fd) if fd >= 0]
            wait(self._interrupts, gateway, *reports, timeout_s=deadline_s - time.monotonic())
            if not warm and _ready(handle.report_fd):
                handle.wait_ready(timeout_s=5)
                warm = True
            gateway.listen()
            if gateway.code is not None:
                gateway.row()  # has its reason, if it could not be confined
                if not warm:
                    handle.wait_ready(timeout_s=5)  # the supervisor's reason comes first
                raise EngineError(
                    f"the gateway did not start ({gateway.how()}); the lines above have the reason"
                )
            if warm and gateway.serves:
                return True
        return False

    def _watch(self, path: str, supervisor: Child, gateway: Gateway) -> None:
        """Until the supervisor ends or we are interrupted."""
        delay_s, patience_s = 0.0, self._settings.watchdog_s
        while True:
            reports = [gateway.report_fd] if gateway.report_fd >= 0 else []
            wait(self._interrupts, supervisor, gateway, *reports, timeout_s=patience_s or None)
            gateway.listen()
            if self._interrupts.asked() or supervisor.code is not None:
                return
            if gateway.code is None:
                if patience_s and gateway.silent_s() > patience_s:
                    self._say(f"the gateway has not moved for {patience_s:g} s; ending it")
                    gateway.process.kill()
                    gateway.process.wait()
                continue
            if gateway.code == SUPERVISOR_LOST_EXIT:
                wait(supervisor, self._interrupts, timeout_s=SUPERVISOR_LOST_S)
                return
            # One that served was no false start: what ended it came from outside, and clients wait.
            lived_s = time.monotonic() - gateway.started_s
            delay_s = FIRST_DELAY_S if gateway.serves else _next_delay(delay_s, lived_s)
            later = f" in {delay_s:g} s" if delay_s else ""
            self._say(f"the gateway ended ({gateway.how()}); starting it again{later}, all sessions live on")
            gateway.close()
            wait(self._interrupts, supervisor, timeout_s=delay_s)
            gateway = self._start_gateway(path)


def _ready(what: Readable | int) -> bool:
    return bool(select.select([what], [], [], 0)[0])


def _next_delay(delay_s: float, lived_s: float) -> float:
    return 0.0 if lived_s >= STEADY_S else min(MAX_DELAY_S, delay_s * 2 or FIRST_DELAY_S)
