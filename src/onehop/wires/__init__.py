"""Other companies' protocols, thin: translate a request, ask the loop or the sessions, translate the answer back."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from onehop.agent.service import Agent
from onehop.api.mounts import Mount
from onehop.sessions import Engine
from onehop.tools.registry import Registry
from onehop.wires import (
    anthropic,
    awslambda,
    dify,
    e2b,
    gemini,
    jupyter,
    librechat,
    mcp,
    openai,
    otari,
    sandboxai,
    tutorial,
)


class Wires:
    """All of them, for one engine.

    Args:
        keys: of the models' servers, by the names of these; None: they are read from files and the environment.

    Attributes:
        agent: what they share.
        mounts: one per protocol.
    """

    def __init__(
        self, engine: Engine, registry: Registry | None = None, keys: Mapping[str, str] | None = None
    ) -> None:
        self.agent = Agent(engine, registry, keys)
        self._mcp = mcp.Mcp(engine, registry)
        self.mounts: list[Mount] = [
            openai.mount(self.agent),
            anthropic.mount(self.agent),
            gemini.mount(self.agent),
            otari.mount(engine),
            sandboxai.mount(engine),
            librechat.mount(self.agent),
            dify.mount(engine),
            tutorial.mount(engine),
            *e2b.mounts(engine),
            awslambda.mount(self.agent),
            jupyter.mount(engine),
            self._mcp.mount,
        ]

    async def __aenter__(self) -> Wires:
        await self.agent.__aenter__()
        await self._mcp.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._mcp.__aexit__(kind, error, traceback)
        await self.agent.__aexit__(kind, error, traceback)
