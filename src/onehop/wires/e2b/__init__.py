"""E2B's protocols: the API that makes sandboxes, the code interpreter inside of one, and its files and commands.

Sources: the packages `e2b` 2.63.0 and 2.50.0 and `e2b-code-interpreter` 2.11.5 and 2.10.0, and the Connect protocol
(https://connectrpc.com/docs/protocol) with JSON, which is all that they send.

A sandbox is a session; its id is the session's. What E2B's clients send to a host of the sandbox's own comes here with
the header `E2b-Sandbox-Id` and the token that the session was made with, which opens this session and nothing else.
"""

from __future__ import annotations

from onehop.api.mounts import Mount
from onehop.sessions import Engine
from onehop.wires.e2b import errors
from onehop.wires.e2b.access import Access
from onehop.wires.e2b.files import Files
from onehop.wires.e2b.filesystem import Filesystem
from onehop.wires.e2b.interpreter import Interpreter
from onehop.wires.e2b.process import Process
from onehop.wires.e2b.sandboxes import Sandboxes

PREFIX = "/e2b"


def mounts(engine: Engine) -> list[Mount]:
    """The protocols' routes; signed addresses of files stand at the root, as the clients make them."""
    access = Access(engine)
    inside = [*Interpreter(engine, access).operations(PREFIX), *Files(engine, access).operations(PREFIX)]
    prefixes = sorted({operation.path.removeprefix(PREFIX).split("/")[1] for operation in inside})
    remote = (
        Process(engine, access).operations(PREFIX),
        Filesystem(engine, access).operations(PREFIX),
    )
    return [
        *(Mount(_service(one[0].path), one, errors.refuse_call, caller=access.caller) for one in remote),
        *(
            Mount(
                f"{PREFIX}/{name}",
                [one for one in inside if one.path.startswith(f"{PREFIX}/{name}")],
                errors.refuse_inside,
                caller=access.caller,
            )
            for name in prefixes
        ),
        Mount("/files", Files(engine, access).operations(""), errors.refuse_inside, caller=access.caller),
        Mount(PREFIX, Sandboxes(engine).operations(PREFIX), errors.refuse),
    ]


def _service(path: str) -> str:
    return path.rpartition("/")[0]
