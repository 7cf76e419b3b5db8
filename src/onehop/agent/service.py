"""Everything of the model loop for one engine; what the wires are given."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from onehop.agent.containers import Containers
from onehop.agent.loop import Loop
from onehop.agent.memory import Memory
from onehop.agent.uploads import Uploads
from onehop.agent.upstreams.router import Models
from onehop.sessions import Engine
from onehop.tools.registry import Registry


class Agent:
    """Use as `async with agent`, inside of the engine.

    Attributes:
        engine: runs the code.
        registry: of the operator's tools, None when there are none.
        models: that the loop asks.
        memory: what a request leaves for a later one.
        uploads: files of clients.
        containers: sessions that the loop's code runs in.
        files: uploads and files in containers, by id.
        loop: carries out requests.

    Args:
        keys: of the upstreams, by their names; None: they are read from files and the environment.
    """

    def __init__(
        self, engine: Engine, registry: Registry | None = None, keys: Mapping[str, str] | None = None
    ) -> None:
        self.engine = engine
        self.registry = registry
        self.models = Models(engine.settings, keys)
        self.memory = Memory(engine.store)
        self.uploads = Uploads(engine.settings, engine.store)
        self.containers = Containers(engine, self.memory, self.uploads)
        self.files = self.containers.files
        self.loop = Loop(engine, self.models, self.containers, self.memory, registry)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Agent:
        await self._stack.enter_async_context(self.uploads)
        await self._stack.enter_async_context(self.models)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
