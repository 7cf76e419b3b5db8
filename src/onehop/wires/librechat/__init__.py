"""LibreChat's code API: programs, programs that call the chat's tools, and files between them.

Sources: LibreChat-AI/agents (src/tools/CodeExecutor.ts, ProgrammaticToolCalling.ts) and danny-avila/LibreChat
(api/server/services/Files/Code), which are its clients.
"""

from __future__ import annotations

from onehop import errors
from onehop.agent.service import Agent
from onehop.api.asgi import Header, encode_json
from onehop.api.mounts import Mount, Refusal
from onehop.wires.librechat.files import Shelf
from onehop.wires.librechat.programs import Programs
from onehop.wires.librechat.routes import PREFIX, operations
from onehop.wires.process import retry_after


def mount(agent: Agent) -> Mount:
    """The protocol's routes."""
    shelf = Shelf(agent)
    return Mount(PREFIX, operations(agent, shelf, Programs(agent.engine, shelf)), _refuse)


def _refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    status = 404 if isinstance(error, errors.SessionEndedError) else error.status
    document: dict[str, object] = {"error": error.type, "message": error.detail, "request_id": request_id}
    if isinstance(error, errors.TooManyError):
        status = 429
        document["error"] = "rate_limited"
        if error.retry_after_s is not None:
            document["retry_after_seconds"] = error.retry_after_s
    headers: list[Header] = [(b"content-type", b"application/json"), *retry_after(error)]
    return Refusal(status, encode_json(document), tuple(headers))
