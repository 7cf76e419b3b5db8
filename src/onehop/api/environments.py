"""Which sets of packages a session may name. Adding and removing them is the operator's, on the machine."""

from __future__ import annotations

import msgspec

from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.caller import READ


class EnvironmentSummary(msgspec.Struct):
    """A set of packages.

    Args:
        name: what `environment` of a request names.
        packages: versions by name.
        ready: it is warm; otherwise the first request that names it waits until it is, some seconds.
        default: it is what requests get that name none.
    """

    name: str
    packages: dict[str, str]
    ready: bool
    default: bool


class EnvironmentList(msgspec.Struct):
    """All environments, the default one first."""

    environments: list[EnvironmentSummary]


EXAMPLE = {
    "environments": [
        {"name": "default", "packages": {"numpy": "2.4.0", "pandas": "3.0.1"}, "ready": True, "default": True}
    ]
}


class Environments:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/api/environments",
                self.list,
                "listEnvironments",
                "Server",
                "The environments that a session may name",
                "Also those that were added with `onehop env add` after the server's start.",
                scope=READ,
                answers={
                    200: (Body("The default one first, others by name.", EnvironmentList, example=EXAMPLE),)
                },
            ),
        ]

    async def list(self, call: Call) -> None:
        default = self._engine.settings.environment
        found = [
            EnvironmentSummary(one.name, one.packages, one.ready, one.name == default)
            for one in await self._engine.environments()
        ]
        found.sort(key=lambda one: (not one.default, one.name))
        await call.answer(encode_json(EnvironmentList(found)))
