"""Google's protocol (Gemini API) below /gemini: what its SDK `google-genai` sends.

Keys come as `x-goog-api-key` or `?key=`; neither is ever logged.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.types import Scope

from onehop.agent.service import Agent
from onehop.api.mounts import Mount
from onehop.wires.gemini import errors
from onehop.wires.gemini.generate import PREFIX, Generate

KEY_HEADER = b"x-goog-api-key"


def mount(agent: Agent) -> Mount:
    """The protocol's routes. `agent` need not have been entered yet."""
    return Mount(PREFIX, Generate(agent).operations(), errors.refuse, _key)


def _key(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == KEY_HEADER:
            return bytes(value)
    query: bytes = scope["query_string"]
    if b"key=" not in query:
        return b""
    return parse_qs(query.decode("latin-1")).get("key", [""])[-1].encode("latin-1", "replace")
