"""The kernels API of Jupyter Server: a kernel is a session, its channels are a websocket.

Sources: https://jupyter-server.readthedocs.io/en/latest/developers/rest-api.html and
https://jupyter-client.readthedocs.io/en/stable/messaging.html (version 5.3 of the messages), with what the packages
`jupyter_kernel_client` and `smolagents` and Open WebUI send.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.types import Scope

from onehop import errors
from onehop.api.asgi import Header, encode_json
from onehop.api.mounts import Mount, Refusal, Socket
from onehop.sessions import Engine
from onehop.sessions.caller import EXECUTE
from onehop.wires.jupyter.channels import Channels
from onehop.wires.jupyter.kernels import PREFIX, Kernels
from onehop.wires.process import retry_after

TOKEN = b"token "


def mount(engine: Engine) -> Mount:
    """The protocol's routes."""
    channels = Socket(PREFIX + "/api/kernels/{kernel_id}/channels", Channels(engine).serve, EXECUTE)
    return Mount(PREFIX, Kernels(engine).operations(), _refuse, key=_key, sockets=(channels,))


def _key(scope: Scope) -> bytes:
    """`?token=…`, or `Authorization: token …`, as Jupyter's clients send it."""
    for name, value in scope["headers"]:
        if name == b"authorization" and value[: len(TOKEN)].lower() == TOKEN:
            return bytes(value[len(TOKEN) :].strip())
    found = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    return found[-1].encode("utf-8", "replace") if found else b""


def _refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    status = {410: 404, 422: 400, 401: 403}.get(error.status, error.status)
    headers: list[Header] = [(b"content-type", b"application/json"), *retry_after(error)]
    return Refusal(status, encode_json({"message": error.detail, "reason": error.title}), tuple(headers))
