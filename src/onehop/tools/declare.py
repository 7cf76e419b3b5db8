"""`onehop.tool`: marks a function of the operator as a tool. It must stay importable without anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

Function = TypeVar("Function", bound=Callable[..., Any])
MARK = "__onehop_tool__"


@dataclass(frozen=True)
class Mark:
    """What the decorator was told; see `tool`."""

    name: str | None = None
    read_only: bool = False
    idempotent: bool = False
    requires_approval: bool = False
    timeout_s: float | None = None


@overload
def tool(function: Function, /) -> Function: ...
@overload
def tool(
    *,
    name: str | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    requires_approval: bool = False,
    timeout_s: float | None = None,
) -> Callable[[Function], Function]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function with type hints a tool, for a module given to `onehop serve --tools`.

    The function itself stays as it is. Without options: `@onehop.tool`.

    Args:
        name: what code calls it by (default: the function's name).
        read_only: it changes nothing.
        idempotent: called twice with the same arguments, it does what one call does; a call that was lost
            may then be run again.
        requires_approval: each call waits until the client has approved it.
        timeout_s: seconds that a call may take (default: the server's setting).
    """
    mark = Mark(**options)

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, MARK, mark)
        return function

    return marked if function is None else marked(function)
