"""Contexts of a sandbox: kernels with variables of their own, made, started anew and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onehop.errors import ConflictError, TooManyError
from onehop.supervisor.commands import check_folder, refusal
from onehop.supervisor.messages import ContextInfo

if TYPE_CHECKING:
    from onehop.supervisor.sandbox import Sandbox

FOLDER_TIMEOUT_S = 20.0


def info(sandbox: Sandbox, name: str) -> ContextInfo:
    """What it is doing now. Raises ContextNotFoundError."""
    link, found = sandbox.link(name), sandbox.contexts[name]
    found.status = "busy" if name in sandbox.executions.running else "idle" if link.ready else "starting"
    return found


async def create(sandbox: Sandbox, name: str, cwd: str, most: int) -> ContextInfo:
    """Another kernel.

    Args:
        cwd: folder of the workspace where it starts, empty for the workspace itself.
        most: contexts that there may be.

    Raises:
        ConflictError, TooManyError, InvalidRequestError, UnavailableError: there will be none.
    """
    sandbox.check_assigned()
    check_folder(cwd)
    if cwd:
        answer, _ = await sandbox.init.request({"do": "folder", "path": cwd}, timeout_s=FOLDER_TIMEOUT_S)
        if answer["event"] != "folder":
            raise refusal(answer, f"cwd: there is no folder {cwd!r} in the workspace", "cwd")
        sandbox.check_assigned()
    if name in sandbox.contexts:
        raise ConflictError(f"there is a context {name!r} already")
    if len(sandbox.contexts) >= most:
        raise TooManyError(f"there are {len(sandbox.contexts)} contexts already, the most allowed")
    sandbox.add_context(name, cwd)
    sandbox.new_kernel(name)
    return info(sandbox, name)


def restart(sandbox: Sandbox, name: str) -> ContextInfo:
    """A new kernel in the place of another: its variables are gone, the files stay."""
    sandbox.stop_kernel(name, "its context was started anew")
    sandbox.new_kernel(name)
    return info(sandbox, name)


def delete(sandbox: Sandbox, name: str) -> None:
    """Raises ContextNotFoundError; ConflictError for the one that every session has."""
    if name == "main":
        raise ConflictError("the context 'main' stays as long as its session; it can be restarted")
    sandbox.stop_kernel(name, "its context was deleted")
    sandbox.drop_context(name)
