"""Other companies' protocols, thin: translate a request, ask the loop or the sessions, translate the answer back."""

from __future__ import annotations

from types import TracebackType

from onehop.api.mounts import Mount
from onehop.sessions import Engine
from onehop.wires import otari


class Wires:
    """All of them, for one engine.

    Attributes:
        mounts: one per protocol.
    """

    def __init__(self, engine: Engine) -> None:
        self.mounts: list[Mount] = [otari.mount(engine)]

    async def __aenter__(self) -> Wires:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
