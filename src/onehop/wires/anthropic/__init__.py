"""Anthropic's protocol below /anthropic. Each module brings its own routes; errors look alike in all of them."""

from __future__ import annotations

from onehop.agent.service import Agent
from onehop.api.mounts import Mount
from onehop.api.resources import Operation
from onehop.wires.anthropic import errors
from onehop.wires.anthropic.files import FilesApi
from onehop.wires.anthropic.messages import Messages

PREFIX = "/anthropic"


def mount(agent: Agent) -> Mount:
    """All routes. `agent` need not have been entered yet."""
    operations: list[Operation] = [
        *Messages(agent).operations(),
        *FilesApi(agent).operations(),
    ]
    return Mount(PREFIX, operations, errors.refuse)
