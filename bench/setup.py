"""Everything that rows measure, started once per run, and how each peer's one execution is called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from bench import jupyter, processes, server
from bench.cells import ADD, Cell
from bench.client import Client, body, run
from bench.measure import ONEHOP, Contender
from onehop.environments import DEFAULT_NAME, Environment, ensure

LIVE = "onehop, live session"
JUPYTER_NEW = "jupyter_client, new kernel"
JUPYTER_LIVE = "jupyter_client, live kernel"
RESTRICTED = "RestrictedPython"
MONTY = "Monty"
NOOP = "no-op route"
CLIENTS = 8


@dataclass
class Setup:
    """What runs during the benchmark.

    Args:
        onehop: None with --peers.
        models: the scripted server that onehop asks.
        bwrap: the peer, or why there is none.
        rounds: per row.
        scale: of the counts per round.
    """

    environment: Environment
    onehop: server.Server | None
    models: server.Server
    peers: server.Server
    kernels: jupyter.Kernels
    python: processes.ProcessPeer
    bwrap: processes.ProcessPeer | str
    rounds: int
    scale: float
    cleanup: contextlib.ExitStack
    _live_kernel: jupyter.Kernel | None = field(default=None, repr=False)

    def count(self, wanted: int) -> int:
        return max(1, round(wanted * self.scale))

    # --- contenders -----------------------------------------------------------------------------------

    def http(
        self,
        name: str,
        port: int,
        path: str,
        cell: Cell,
        count: int,
        *,
        pace_s: float = 0,
        clients: int = 1,
        **extra: str,
    ) -> Contender:
        """One request per execution, from one connection per client."""
        connections = [self.cleanup.enter_context(Client(port)) for _ in range(clients)]
        request = body(code=cell.code, **extra)

        def call(client: int) -> None:
            run(connections[client], path, request, cell)

        def prepare(client: int) -> None:
            connections[client].connect()

        return Contender(name, call, self.count(count), pace_s, clients, prepare)

    def fresh(self, cell: Cell, count: int, *, pace_s: float = 0, clients: int = 1) -> list[Contender]:
        """onehop with a new sandbox per request; empty with --peers."""
        if self.onehop is None:
            return []
        return [
            self.http(ONEHOP, self.onehop.port, "/api/execute", cell, count, pace_s=pace_s, clients=clients)
        ]

    def live(self, cell: Cell, count: int, *, pace_s: float = 0, name: str = LIVE) -> list[Contender]:
        """onehop with one session for all requests; empty with --peers."""
        if self.onehop is None:
            return []
        session = self.cleanup.enter_context(self.session())
        return [
            self.http(name, self.onehop.port, f"/api/sessions/{session}/execute", cell, count, pace_s=pace_s)
        ]

    @contextlib.contextmanager
    def session(self) -> Iterator[str]:
        """A session's id; it is deleted at the end."""
        assert self.onehop is not None
        with Client(self.onehop.port) as client:
            name: str = client.post("/api/sessions", b"{}")["id"]
        try:
            yield name
        finally:
            with Client(self.onehop.port) as client:
                client.request("DELETE", f"/api/sessions/{name}")

    def process(
        self, peer: processes.ProcessPeer, cell: Cell, count: int, *, pace_s: float = 0, clients: int = 1
    ) -> Contender:
        return Contender(peer.name, lambda client: peer.run(cell), self.count(count), pace_s, clients)

    def new_kernels(self, cell: Cell, count: int, *, clients: int = 1) -> Contender:
        """A kernel per execution; it is shut down when the clock of this execution has stopped."""
        running: dict[int, jupyter.Kernel] = {}

        def call(client: int) -> None:
            running[client] = self.kernels.start()
            running[client].run(cell)

        def after(client: int) -> None:
            kernel = running.pop(client, None)
            if kernel is not None:
                kernel.close()

        return Contender(JUPYTER_NEW, call, self.count(count), clients=clients, after=after)

    def live_kernel(self, cell: Cell, count: int, *, pace_s: float = 0) -> Contender:
        """The run's one kernel that stays."""
        if self._live_kernel is None:
            self._live_kernel = self.kernels.start()
            self.cleanup.callback(self._live_kernel.close)
        kernel = self._live_kernel
        return Contender(JUPYTER_LIVE, lambda client: kernel.run(cell), self.count(count), pace_s)

    def restricted(
        self, cell: Cell, count: int, *, pace_s: float = 0, clients: int = 1, live: bool = False
    ) -> Contender:
        extra = {"session": self._peer_session("/restricted/sessions")} if live else {}
        make = partial(self.http, RESTRICTED, self.peers.port, "/restricted", cell, count)
        return make(pace_s=pace_s, clients=clients, **extra)

    def monty(
        self, cell: Cell, count: int, *, pace_s: float = 0, clients: int = 1, live: bool = False
    ) -> Contender:
        extra = {"session": self._peer_session("/monty/sessions")} if live else {}
        make = partial(self.http, MONTY, self.peers.port, "/monty", cell, count)
        return make(pace_s=pace_s, clients=clients, **extra)

    def noop(self, count: int) -> Contender:
        """What client, HTTP and JSON cost alone."""
        return self.http(NOOP, self.peers.port, "/noop", ADD, count)

    def _peer_session(self, path: str) -> str:
        with Client(self.peers.port) as client:
            name: str = client.post(path, b"{}")["id"]
        return name

    def packages_in_peer_server(self) -> str:
        """Empty when the peer server can import the environment's packages, else why not."""
        if server.same_python(self.environment):
            return ""
        return f"the environment is for Python {self.environment.python_version}, the server runs on another"


@contextlib.contextmanager
def start(*, quick: bool, with_onehop: bool, say: Callable[[str], None]) -> Iterator[Setup]:
    """Starts what is measured; everything has ended when the context is left."""
    environment = ensure(DEFAULT_NAME, server.real_home(), progress=say)
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(server.models_server())
        onehop = None
        if with_onehop:
            home = stack.enter_context(server.Home())
            onehop = stack.enter_context(server.onehop_server(home, models))
            say(f"onehop serve answered /healthz after {onehop.start_s:.1f} s")
        peers = stack.enter_context(server.peer_server(environment))
        kernels = stack.enter_context(jupyter.Kernels(environment))
        cleanup = stack.enter_context(contextlib.ExitStack())
        bwrap = processes.bwrap_peer(environment)
        if isinstance(bwrap, str):
            say(f"{processes.BWRAP} is left out: {bwrap}")
        yield Setup(
            environment,
            onehop,
            models,
            peers,
            kernels,
            processes.python_peer(environment),
            bwrap,
            rounds=2 if quick else 5,
            scale=0.25 if quick else 1.0,
            cleanup=cleanup,
        )
