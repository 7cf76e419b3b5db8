"""The gateway's process: one event loop, uvicorn, an engine, until a signal or the loss of the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
import uvloop

from onehop import config
from onehop.api import logs, patience
from onehop.api.app import create_app
from onehop.api.mounts import MakeWires, Wires
from onehop.config import UID_RANGE, Settings, is_loopback
from onehop.errors import ConfigurationError, EngineError, OnehopError
from onehop.sessions import Engine
from onehop.store import Store
from onehop.supervisor.client import SupervisorClient
from onehop.tools import configure, launcher
from onehop.tools.registry import Registry

EXIT_SUPERVISOR_LOST = 75
"""The exit status that tells the parent to start supervisor and gateway again (EX_TEMPFAIL)."""
GRACE_S = 3
"""Seconds that running requests get to end after SIGTERM."""
KEEP_ALIVE_S = 75
"""Longer than the pools of common clients keep a connection: whoever closes first should be the client."""
BACKLOG = 2048
LOST_GRACE_S = 0.5
BEAT_S = 0.5

log = logging.getLogger("onehop.api")


def serve(
    settings: Settings,
    supervisor_path: str,
    *,
    listener: socket.socket | None = None,
    on_ready: Callable[[str], None] | None = None,
    on_beat: Callable[[], None] | None = None,
    tools: socket.socket | None = None,
    wires: MakeWires | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status.

    Args:
        supervisor_path: the supervisor's unix socket.
        listener: a bound socket, instead of the host and port of the settings.
        on_ready: called with the server's URL once it answers requests.
        on_beat: called every BEAT_S seconds by the event loop, as a sign that it turns.
        tools: the socket of the workers' launcher; left out, it is started here if there are sources.
        wires: makes what serves other protocols than the native one.

    Raises:
        ConfigurationError: the address is taken, or no loopback address and there is no key, or the
            database cannot be opened.
        EngineError: there is no supervisor.
    """
    return uvloop.run(_serve(settings, supervisor_path, listener, on_ready, on_beat, tools, wires))


def keyless(settings: Settings) -> ConfigurationError:
    """Why nobody listens on an address that others can reach."""
    return ConfigurationError(
        f"host (from {settings.sources.get('host', 'default')}): {settings.host!r} is not a loopback address, "
        "and without a key anybody who reaches it could run code; make one first: onehop keys create"
    )


def listen(settings: Settings) -> socket.socket:
    """A socket bound to the settings' host and port. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"port (from {settings.sources.get('port', 'default')}): cannot listen on "
            f"{settings.host}:{settings.port}: {error.strerror}"
        ) from error
    return listener


def websockets(**options: Any) -> asyncio.Protocol:
    """What uvicorn speaks with a client that asks for a websocket: loaded then, as most servers never see one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**options)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own way ends the process by the same signal again, before the engine is closed.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.should_exit = True


async def _serve(
    settings: Settings,
    supervisor_path: str,
    listener: socket.socket | None,
    on_ready: Callable[[str], None] | None,
    on_beat: Callable[[], None] | None,
    tools: socket.socket | None,
    make_wires: MakeWires | None,
) -> int:
    async with contextlib.AsyncExitStack() as stack:
        if listener is not None:
            stack.callback(listener.close)
        registry = _registry(settings, tools, stack)
        client = await SupervisorClient.connect(supervisor_path)
        stack.push_async_callback(client.close)
        store = Store.open(settings.database_url, settings.state)
        stack.callback(store.close)
        engine = Engine(settings, client, store, registry)
        if listener is None:
            if not is_loopback(settings.host) and not engine.keyring.usable:
                raise keyless(settings)
            listener = listen(settings)
            stack.callback(listener.close)
        wires = make_wires(engine, registry) if make_wires is not None else None
        await _run(engine, registry, settings, listener, on_ready, on_beat, wires)
        lost = engine.lost.is_set()
    return EXIT_SUPERVISOR_LOST if lost else 0


def _registry(
    settings: Settings, channel: socket.socket | None, stack: contextlib.AsyncExitStack
) -> Registry | None:
    """The registered tools, their workers started; None when no source is configured."""
    specs = configure.sources(settings)
    if not specs:
        return None
    if channel is None:
        configure.check(specs)
        launched = launcher.start(
            specs,
            first_uid=settings.uid_base + UID_RANGE if os.geteuid() == 0 else None,
            allow_no_namespaces=settings.allow_no_namespaces,
        )
        stack.callback(launched.end)
        channel = launched.channel
    registry = Registry(settings, specs)
    registry.attach(channel)
    stack.callback(registry.close)
    return registry


async def _run(
    engine: Engine,
    registry: Registry | None,
    settings: Settings,
    listener: socket.socket,
    on_ready: Callable[[str], None] | None,
    on_beat: Callable[[], None] | None,
    wires: Wires | None,
) -> None:
    """Serves with the engine, and before it: /healthz answers while the supervisor is still starting."""
    app = create_app(engine, settings, registry, wires.mounts if wires is not None else None)
    server = _Server(
        uvicorn.Config(
            app,
            http=patience.PatientProtocol,
            ws=websockets,  # type: ignore[arg-type]  # it is only ever called
            ws_max_size=settings.body_bytes,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    patience.keep_alive(listener)
    failures: list[OnehopError] = []
    served = asyncio.Event()

    async def operate() -> None:
        try:
            if registry is not None:
                await registry.settled()
            async with engine, app.lane, wires or contextlib.nullcontext():
                if on_ready is not None:
                    on_ready(_url(listener))
                await served.wait()
        except OnehopError as error:
            failures.append(error)
            server.should_exit = True

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(_stop_when_lost(engine, server))
        operator = group.create_task(operate())
        others = [
            group.create_task(patience.watch(server.server_state.connections, settings.client_patience_s)),
            *([group.create_task(_beat(on_beat))] if on_beat is not None else []),
        ]
        await server.serve(sockets=[listener])
        watcher.cancel()
        served.set()
        for other in others:
            other.cancel()
        if not engine.ready.is_set():
            operator.cancel()
    if failures and not engine.lost.is_set():
        raise failures[0]


async def _beat(on_beat: Callable[[], None]) -> None:
    while True:
        on_beat()
        await asyncio.sleep(BEAT_S)


async def _stop_when_lost(engine: Engine, server: uvicorn.Server) -> None:
    await engine.lost.wait()
    log.error("the supervisor is lost: the gateway stops")
    server.should_exit = True
    await asyncio.sleep(LOST_GRACE_S)  # answers say `outcome_unknown`; who does not take his holds up nobody
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def _url(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main(arguments: list[str], wires: MakeWires | None = None) -> int:
    """`python -m onehop.wires SUPERVISOR_SOCKET`, settings from the environment."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m onehop.wires SUPERVISOR_SOCKET\n")
        return 2
    try:
        settings = config.load()
        logs.configure(settings)
        return serve(settings, arguments[0], on_ready=_tell, wires=wires)
    except OnehopError as error:
        sys.stderr.write(f"onehop: {error}\n")
        return EXIT_SUPERVISOR_LOST if isinstance(error, EngineError) else 1


def _tell(url: str) -> None:
    """One line for the parent, on the descriptor it named."""
    fd = os.environ.get("ONEHOP_READY_FD")
    if fd:
        os.write(int(fd), f"{url}\n".encode())
        os.close(int(fd))
