"""What the server says about itself: whether it is well, and what it is."""

from __future__ import annotations

from typing import Any

import msgspec

from onehop import __version__, errors
from onehop.api import examples
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import PUBLIC, Body, Operation
from onehop.config import Settings
from onehop.sessions import Engine
from onehop.sessions.caller import READ


class Health(msgspec.Struct):
    """`ok`, or `starting` while requests still wait for the engine; otherwise a problem document with status 503."""

    status: str


class Limit(msgspec.Struct):
    """What holds when a request says nothing, and the most that it may ask for."""

    default: float
    maximum: float


class Info(msgspec.Struct):
    """The server.

    Args:
        environments: by name, with the numbers of their pools.
        isolation: what a sandbox is walled with.
        protections: what is active, weaker or missing on this machine.
        limits: per field of a request.
        counts: what is there now.
    """

    version: str
    default_environment: str
    environments: dict[str, Any]
    isolation: dict[str, str]
    protections: Any
    limits: dict[str, Limit]
    counts: dict[str, int]


class Service:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/healthz",
                self.health,
                "health",
                "Server",
                "Whether it works",
                scope=PUBLIC,
                answers={200: (Body("It does.", Health, example={"status": "ok"}),)},
            ),
            Operation(
                "GET",
                "/api/info",
                self.info,
                "info",
                "Server",
                "Version, environments, protections and limits",
                scope=READ,
                answers={200: (Body("The server.", Info, example=examples.INFO),)},
            ),
        ]

    async def health(self, call: Call) -> None:
        if self._engine.lost.is_set():
            raise errors.UnavailableError("the engine has lost its supervisor and starts again")
        await call.answer(encode_json(Health("ok" if self._engine.ready.is_set() else "starting")))

    async def info(self, call: Call) -> None:
        about = await self._engine.describe()
        info = Info(
            version=__version__,
            default_environment=self._engine.settings.environment,
            environments=about["environments"],
            isolation=about["isolation"],
            protections=about["protections"],
            limits=limits(self._engine.settings),
            counts=self._engine.statistics(),
        )
        await call.answer(encode_json(info))


def limits(settings: Settings) -> dict[str, Limit]:
    """Defaults and ceilings of what a request may ask for, by field."""
    names = ("timeout_s", "memory_mb", "processes", "workspace_mb", "output_bytes")
    found = {name: Limit(getattr(settings, name), getattr(settings, f"max_{name}")) for name in names}
    found["idle_timeout_s"] = Limit(settings.idle_timeout_s, settings.max_age_s)
    found["max_age_s"] = Limit(settings.max_age_s, settings.max_age_s)
    return found
