"""OpenAI's protocol below /v1. Each module brings its own routes; errors look alike in all of them."""

from __future__ import annotations

from onehop.agent.service import Agent
from onehop.api.mounts import Mount
from onehop.api.resources import Operation
from onehop.wires.openai import errors, models
from onehop.wires.openai.chat import Chat
from onehop.wires.openai.containers import ContainersApi
from onehop.wires.openai.files import FilesApi
from onehop.wires.openai.responses import Responses

PREFIX = "/v1"


def mount(agent: Agent) -> Mount:
    """All routes. `agent` need not have been entered yet."""
    operations: list[Operation] = [
        *Chat(agent).operations(),
        *Responses(agent).operations(),
        *ContainersApi(agent).operations(),
        *FilesApi(agent).operations(),
        *models.operations(PREFIX, agent.models),
    ]
    return Mount(PREFIX, operations, errors.refuse)
