"""Kernels by REST: made, listed, interrupted, restarted, ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from onehop import errors
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import SessionRequest, decode

PREFIX = "/jupyter"
TAG = "Jupyter"
BODY_BYTES = 64 * 1024
LABEL = "jupyter.kernel"
"""Of a session that is a kernel; its value is the kernel's name."""
DEFAULT = "python3"
API_VERSION = "2.17.0"
"""Of the Jupyter Server whose API this is."""


class NewKernel(msgspec.Struct):
    """A kernel to be made: `python3` is the default environment, other names are environments."""

    name: str | None = None
    path: str | None = None
    env: dict[str, str] | None = None


_decode = msgspec.json.Decoder(NewKernel)


class Kernels:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._since = datetime.now(UTC)

    def operations(self) -> list[Operation]:
        every = PREFIX + "/api/kernels"
        one = every + "/{kernel_id}"
        new = Body("The kernel.", NewKernel, required=False)
        return [
            Operation(
                "GET", PREFIX + "/api", self.version, "jupyterVersion", TAG, "The API's version", scope=READ
            ),
            Operation(
                "GET", PREFIX + "/api/status", self.status, "jupyterStatus", TAG, "What there is", scope=READ
            ),
            Operation(
                "GET",
                PREFIX + "/api/kernelspecs",
                self.specs,
                "jupyterSpecs",
                TAG,
                "Environments",
                scope=READ,
            ),
            Operation("GET", every, self.list, "jupyterList", TAG, "The kernels", scope=READ),
            Operation(
                "POST", every, self.create, "jupyterCreate", TAG, "Make a kernel", scope=EXECUTE, body=new
            ),
            Operation("GET", one, self.get, "jupyterGet", TAG, "One kernel", scope=READ),
            Operation("DELETE", one, self.delete, "jupyterDelete", TAG, "End a kernel", scope=EXECUTE),
            Operation(
                "POST",
                one + "/interrupt",
                self.interrupt,
                "jupyterInterrupt",
                TAG,
                "Interrupt",
                scope=EXECUTE,
            ),
            Operation(
                "POST", one + "/restart", self.restart, "jupyterRestart", TAG, "Start it anew", scope=EXECUTE
            ),
        ]

    async def version(self, call: Call) -> None:
        await call.answer(encode_json({"version": API_VERSION}))

    async def status(self, call: Call) -> None:
        mine = self._mine(call)
        running = sum(1 for one in mine if one.executions)
        told = {
            "started": _time(self._since.isoformat()),
            "last_activity": _time(datetime.now(UTC).isoformat()),
            "kernels": len(mine),
            "connections": running,
        }
        await call.answer(encode_json(told))

    async def specs(self, call: Call) -> None:
        names = [one.name for one in await self._engine.environments()]
        default = self._engine.settings.environment
        known = {DEFAULT: default, **{name: name for name in names if name != default}}
        specs = {
            name: {
                "name": name,
                "spec": {
                    "argv": [], "env": {}, "display_name": f"Python 3 ({environment})", "language": "python",
                    "interrupt_mode": "message", "metadata": {},
                },
                "resources": {},
            }
            for name, environment in known.items()
        }  # fmt: skip
        await call.answer(encode_json({"default": DEFAULT, "kernelspecs": specs}))

    def _mine(self, call: Call) -> list[SessionInfo]:
        return [one for one in self._engine.sessions.list(call.caller) if LABEL in one.metadata]

    async def list(self, call: Call) -> None:
        await call.answer(encode_json([_model(one) for one in self._mine(call)]))

    async def create(self, call: Call) -> None:
        asked = decode(_decode, await call.body(BODY_BYTES) or b"{}")
        name = asked.name or DEFAULT
        request = SessionRequest(
            environment=None if name == DEFAULT else name, metadata={LABEL: name}, env=asked.env or {}
        )
        made = await self._engine.sessions.create(request, call.caller)
        location = (b"location", f"{PREFIX}/api/kernels/{made.id}".encode())
        await call.answer(encode_json(_model(made)), status=201, headers=[JSON, location])

    async def get(self, call: Call) -> None:
        await call.answer(encode_json(_model(await self._found(call))))

    async def _found(self, call: Call) -> SessionInfo:
        found = await self._engine.sessions.get(call.path["kernel_id"], call.caller)
        if LABEL not in found.metadata:
            raise errors.SessionNotFoundError("there is no such kernel")
        return found

    async def delete(self, call: Call) -> None:
        await self._engine.sessions.delete((await self._found(call)).id, call.caller)
        await call.empty()

    async def interrupt(self, call: Call) -> None:
        await self._engine.executions.interrupt((await self._found(call)).id, call.caller)
        await call.empty()

    async def restart(self, call: Call) -> None:
        found = await self._found(call)
        await self._engine.contexts.restart(found.id, "main", call.caller)
        await call.answer(encode_json(_model(await self._found(call))))


def _model(session: SessionInfo) -> dict[str, Any]:
    return {
        "id": session.id,
        "name": session.metadata[LABEL],
        "last_activity": _time(session.created_at),
        "execution_state": "busy" if session.executions else "idle",
        "connections": 0,
    }


def _time(text: str) -> str:
    """With a Z, as the clients read it."""
    return text.replace("+00:00", "Z")
