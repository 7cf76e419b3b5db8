"""OpenAI's protocol below /v1. Each module brings its own routes; errors look alike in all of them."""

from __future__ import annotations

from onehop.agent.service import Agent
from onehop.api.mounts import Mount, Socket
from onehop.api.resources import Operation
from onehop.sessions.caller import EXECUTE
from onehop.wires.openai import errors, models
from onehop.wires.openai.chat import Chat
from onehop.wires.openai.compaction import Compaction
from onehop.wires.openai.containers import ContainersApi
from onehop.wires.openai.files import FilesApi
from onehop.wires.openai.responses import PATH, Responses
from onehop.wires.openai.responses_socket import ResponsesSocket

PREFIX = "/v1"


def mount(agent: Agent) -> Mount:
    """All routes. `agent` need not have been entered yet."""
    responses = Responses(agent)
    operations: list[Operation] = [
        *Chat(agent).operations(),
        *Compaction(agent, responses).operations(),  # before an id takes its place in the path
        *responses.operations(),
        *ContainersApi(agent).operations(),
        *FilesApi(agent).operations(),
        *models.operations(PREFIX, agent.models),
    ]
    socket = ResponsesSocket(responses, agent.engine)
    return Mount(PREFIX, operations, errors.refuse, sockets=(Socket(PATH, socket.serve, EXECUTE),))
