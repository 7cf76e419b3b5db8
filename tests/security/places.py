"""Other places in a sandbox than its first kernel, in which the same probes must meet the same walls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onehop.supervisor.messages import SandboxSpec
from tests.driver import Driver, Outcome, Session


class Place(Driver):
    """Stands where a probe expects a driver; its code runs in `inner`, which the test owns."""

    def __init__(self, session: Session) -> None:
        self.inner = session


class InCommand(Place):
    """A program that a shell command has started."""

    def run_once(
        self, code: str, *, sandbox: SandboxSpec | None = None, timeout_s: float = 20.0, **limits: Any
    ) -> Outcome:
        return self.inner.command("exec python3 -I -", stdin=code, timeout_s=timeout_s, **limits)


class InContext(Place):
    """The kernel of a second context."""

    def __init__(self, session: Session, name: str = "second") -> None:
        super().__init__(session)
        if name not in session.contexts():
            session.create_context(name)
        self.name = name

    def run_once(
        self, code: str, *, sandbox: SandboxSpec | None = None, timeout_s: float = 20.0, **limits: Any
    ) -> Outcome:
        return self.inner.begin(code, context=self.name, timeout_s=timeout_s, **limits).wait()


PLACES: dict[str, Callable[[Session], Place]] = {"command": InCommand, "second context": InContext}
