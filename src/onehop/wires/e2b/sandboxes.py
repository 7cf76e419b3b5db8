"""The API that makes, finds and ends sandboxes. Their labels are the session's; those in E2B's own name are ours."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta

from onehop import errors
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import CommandRequest, SessionChange, SessionRequest, decode
from onehop.wires.e2b.errors import UnsupportedError

TAG = "E2B"
BODY_BYTES = 64 * 1024
ENVD_VERSION = "0.6.4"
"""What is inside answers like that version of E2B's daemon: clients ask older ones in other ways."""
CLIENT = "onehop"
TEMPLATE = "e2b.template"
"""A label: what the client asked for."""
DEFAULT_TEMPLATES = frozenset({"", "base", "code-interpreter", "code-interpreter-v1"})
TIMEOUT_S = 300
"""The clients' own default."""
MAX_PAGE = 100

Seconds = Annotated[int, Meta(ge=0)]


class NewSandbox(msgspec.Struct, rename="camel"):
    """A sandbox to be made. That the internet is allowed is what clients say when their user says nothing."""

    template_id: str = msgspec.field(name="templateID")
    timeout: Seconds = TIMEOUT_S
    metadata: dict[str, str] | None = None
    env_vars: dict[str, str] | None = None
    auto_pause: bool = False
    network: Any = None
    mcp: Any = None
    iam: Any = None
    volume_mounts: Any = None


class Timeout(msgspec.Struct):
    """Seconds from now until it ends."""

    timeout: Seconds = TIMEOUT_S


_decode_new = msgspec.json.Decoder(NewSandbox)
_decode_timeout = msgspec.json.Decoder(Timeout)


class Sandboxes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self, prefix: str) -> list[Operation]:
        made = Body("The sandbox.", NewSandbox)
        found: list[Operation] = []
        for version, name in (("", ""), ("/v2", "V2")):
            every = f"{prefix}{version}/sandboxes"
            connect = every + "/{sandbox_id}/connect"
            found += [
                Operation("POST", every, self.create, f"e2bCreate{name}", TAG, "Make one", scope=EXECUTE, body=made),
                Operation("GET", every, self.list, f"e2bList{name}", TAG, "The live ones", scope=READ),
                Operation(
                    "POST", connect, self.connect, f"e2bConnect{name}", TAG, "Use one for longer", scope=EXECUTE,
                    body=Body("How much longer.", Timeout),
                ),
            ]  # fmt: skip
        one = prefix + "/sandboxes/{sandbox_id}"
        found += [
            Operation("GET", one, self.get, "e2bGet", TAG, "One sandbox", scope=READ),
            Operation("DELETE", one, self.kill, "e2bKill", TAG, "End one", scope=EXECUTE),
            Operation("GET", one + "/metrics", self.metrics, "e2bMetrics", TAG, "What one uses now", scope=EXECUTE),
            Operation(
                "POST", one + "/timeout", self.set_timeout, "e2bTimeout", TAG, "Set its end", scope=EXECUTE,
                body=Body("When.", Timeout),
            ),
        ]  # fmt: skip
        for method, path in (
            ("POST", "pause"), ("POST", "resume"), ("POST", "fork"), ("POST", "snapshots"), ("PUT", "network"),
            ("GET", "logs"),
        ):  # fmt: skip
            name = f"e2b{path.capitalize()}"
            found.append(
                Operation(method, f"{one}/{path}", self.later, name, TAG, "Not supported", scope=EXECUTE)
            )
        return found

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        asked = decode(_decode_new, await call.body(BODY_BYTES))
        self._check(asked)
        token = secrets.token_urlsafe(32)
        template = asked.template_id
        request = SessionRequest(
            environment=None if template in DEFAULT_TEMPLATES else template,
            pinned=True,
            max_age_s=self._engine.settings.max_age_s,
            metadata={**(asked.metadata or {}), TEMPLATE: template},
            env={"E2B_SANDBOX": "true", "E2B_TEMPLATE_ID": template, **(asked.env_vars or {})},
        )
        ends_in_s = self._seconds(asked.timeout)
        made = await self._engine.sessions.create(request, call.caller, token=token)
        try:
            made = await self._engine.sessions.change(
                made.id, SessionChange(ends_in_s=ends_in_s), call.caller
            )
        except BaseException:
            await self._engine.sessions.delete(made.id, call.caller)
            raise
        await call.answer(encode_json(_sandbox(made, token)), status=201)

    def _check(self, asked: NewSandbox) -> None:
        if asked.auto_pause:
            raise UnsupportedError("lifecycle: a sandbox ends with its time; it cannot be paused here")
        if asked.network:
            raise UnsupportedError("network: code has no network here, so there is nothing to configure")
        for name in ("mcp", "iam", "volume_mounts"):
            if getattr(asked, name):
                raise UnsupportedError(f"{name}: there are none here")
        if asked.metadata and TEMPLATE in asked.metadata:
            raise errors.InvalidRequestError(f"metadata: the label {TEMPLATE!r} is taken", field="metadata")

    def _seconds(self, timeout: int) -> float:
        """Raises InvalidRequestError for more than a session may live."""
        longest = self._engine.settings.max_age_s
        if timeout > longest:
            raise errors.InvalidRequestError(
                f"timeout: at most {longest:g} seconds here; who runs the server sets max_age_s",
                field="timeout",
            )
        return max(float(timeout), 0.001)

    async def get(self, call: Call) -> None:
        found = await self._engine.sessions.get(call.path["sandbox_id"], call.caller)
        token = await self._engine.sessions.token(found.id, call.caller)
        await call.answer(encode_json({**self._listed(found), "envdAccessToken": token}))

    async def kill(self, call: Call) -> None:
        await self._engine.sessions.delete(call.path["sandbox_id"], call.caller)
        await call.empty()

    async def set_timeout(self, call: Call) -> None:
        call.require_type(b"application/json")
        change = SessionChange(
            ends_in_s=self._seconds(decode(_decode_timeout, await call.body(BODY_BYTES)).timeout)
        )
        await self._engine.sessions.change(call.path["sandbox_id"], change, call.caller)
        await call.empty()

    async def connect(self, call: Call) -> None:
        """A sandbox that would live longer anyway keeps its end."""
        call.require_type(b"application/json")
        seconds = self._seconds(decode(_decode_timeout, await call.body(BODY_BYTES) or b"{}").timeout)
        name = call.path["sandbox_id"]
        found = await self._engine.sessions.get(name, call.caller)
        left_s = datetime.fromisoformat(found.expires_at).timestamp() - datetime.now(UTC).timestamp()
        if seconds > left_s:
            found = await self._engine.sessions.change(name, SessionChange(ends_in_s=seconds), call.caller)
        token = await self._engine.sessions.token(name, call.caller)
        await call.answer(encode_json(_sandbox(found, token)))

    async def list(self, call: Call) -> None:
        states = call.query("state")
        if states and "running" not in states.split(","):
            await call.answer(b"[]")  # nothing is ever paused
            return
        # The clients quote names and values before they make a query string of them.
        pairs = parse_qsl(call.query("metadata"), keep_blank_values=True)
        labels = {unquote(name): unquote(value) for name, value in pairs}
        limit = min(call.query_int("limit") or MAX_PAGE, MAX_PAGE)
        found = sorted(
            self._engine.sessions.find(labels, call.caller), key=lambda one: (one.created_at, one.id)
        )
        found = [one for one in found if TEMPLATE in one.metadata]
        after = call.query("nextToken")
        if after:
            found = [one for one in found if f"{one.created_at}_{one.id}" > after]
        page, rest = found[:limit], found[limit:]
        headers = [JSON]
        if rest:
            headers.append((b"x-next-token", f"{page[-1].created_at}_{page[-1].id}".encode()))
        await call.answer(encode_json([self._listed(one) for one in page]), headers=headers)

    async def metrics(self, call: Call) -> None:
        """Measured now, from outside of the sandbox; nothing is kept of earlier times."""
        name = call.path["sandbox_id"]
        found = await self._engine.sessions.get(name, call.caller)
        command = CommandRequest(command="sleep 0.1; df -B1 --output=used,size /workspace | tail -n 1")
        run = await self._engine.executions.start_command(name, command, call.caller)
        answer = await run.wait()
        disk = [int(word) for word in answer.stdout.split() if word.isdigit()]
        usage, cpus = answer.usage, _cpus()
        if usage is None or len(disk) != 2:
            raise errors.UnavailableError("the sandbox cannot be measured at this moment; try again")
        now = datetime.now(UTC)
        await call.answer(encode_json([{
            "timestamp": now.isoformat().replace("+00:00", "Z"),
            "timestampUnix": int(now.timestamp()),
            "cpuCount": cpus,
            "cpuUsedPct": round(max(usage.cpu_ms, 0) / max(usage.wall_ms, 1) * 100 / cpus, 2),
            "memUsed": max(usage.peak_memory_bytes, 0),
            "memTotal": found.limits.memory_mb * 1024 * 1024,
            "memCache": 0,
            "diskUsed": disk[0],
            "diskTotal": disk[1],
        }]))  # fmt: skip

    async def later(self, call: Call) -> None:
        await self._engine.sessions.get(call.path["sandbox_id"], call.caller)
        what = call.scope["path"].rpartition("/")[2]
        raise UnsupportedError(f"{what}: sandboxes run until they end here; there is no {what}")

    def _listed(self, session: SessionInfo) -> dict[str, Any]:
        metadata = {name: value for name, value in session.metadata.items() if name != TEMPLATE}
        return {
            "sandboxID": session.id,
            "templateID": session.metadata.get(TEMPLATE, session.environment),
            "clientID": CLIENT,
            "startedAt": session.created_at,
            "endAt": session.expires_at,
            "envdVersion": ENVD_VERSION,
            "cpuCount": _cpus(),
            "memoryMB": session.limits.memory_mb,
            "diskSizeMB": session.limits.workspace_mb,
            "state": "running",
            "metadata": metadata,
        }


def _sandbox(session: SessionInfo, token: str) -> dict[str, Any]:
    return {
        "sandboxID": session.id,
        "templateID": session.metadata.get(TEMPLATE, session.environment),
        "clientID": CLIENT,
        "envdVersion": ENVD_VERSION,
        "envdAccessToken": token,
        "trafficAccessToken": token,
    }


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0))
