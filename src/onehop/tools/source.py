"""What a source of tools is to its worker process: a class with three methods, chosen by its kind.

A source runs in a process of its own, with the secrets named for it and no others. It must never hold back
an error: a call gives a value or raises.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable
from typing import Any

from onehop.errors import ConfigurationError
from onehop.tools.model import SourceSpec, ToolSpec

KINDS = {
    "python": ("onehop.tools.python", "PythonSource"),
    "openapi": ("onehop.tools.openapi.source", "OpenApiSource"),
    "mcp": ("onehop.tools.mcp.source", "McpSource"),
}
"""Where the class of each kind is; only the worker imports it."""

Publish = Callable[[list[ToolSpec]], None]


class Source(abc.ABC):
    """Tools that come from one place.

    Args:
        spec: what the operator configured.
        secrets: values of the variables in `spec.secrets`, by name. They are in os.environ as well.
    """

    def __init__(self, spec: SourceSpec, secrets: dict[str, str]) -> None:
        self.spec = spec
        self.secrets = secrets

    @abc.abstractmethod
    async def start(self, publish: Publish) -> None:
        """Gets ready, and publishes the tools before it returns; later again, whenever they change.

        Raises:
            ConfigurationError: it cannot be used as configured; the text is for the operator.
        """

    @abc.abstractmethod
    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Runs a tool; cancelled when nobody waits any more.

        Returns:
            Data: what onehop.tools.plain makes plain. Bytes and `Blob`s in it land as files.

        Raises:
            CallFailedError: it gave no value.
        """

    async def close(self) -> None:
        """Gives back what it holds; calls may still be running, and are cancelled before."""
        return

    def here(self, tool: str) -> Callable[[dict[str, Any]], Any] | None:
        """The tool as a function that may block, or None when it has to be awaited by `call`.

        Only asked of a source that has `threads`: such a function is called in the thread that read the
        frame, which saves it the way to another.
        """
        return None

    threads = False
    """Its functions may block: frames are read by threads, not by the event loop."""


def make(spec: SourceSpec, secrets: dict[str, str]) -> Source:
    """The source for `spec`. Raises ConfigurationError when there is no such kind."""
    if spec.kind not in KINDS:
        raise ConfigurationError(f"kind: expected one of {', '.join(KINDS)}, got {spec.kind!r}")
    module, name = KINDS[spec.kind]
    kind: type[Source] = getattr(importlib.import_module(module), name)
    return kind(spec, secrets)
