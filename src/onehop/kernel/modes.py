"""Whether a call blocks or gives an awaitable: the code that makes it decides, by the cell or file it stands in.

A cell or file is asynchronous when it awaits something, or names `asyncio`. Where there is no source, a running
event loop decides.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import ast
import asyncio
import linecache

_known: dict[str, bool] = {}
_WAITING = (ast.Await, ast.AsyncFor, ast.AsyncWith)


def forget() -> None:
    """Before a cell: files may have changed."""
    _known.clear()


def awaits(filename: str) -> bool:
    """Whether code of this file or cell gets awaitables."""
    known = _known.get(filename)
    if known is None:
        source = "".join(linecache.getlines(filename))
        if not source:
            return asyncio._get_running_loop() is not None
        known = _known[filename] = is_asynchronous(source)
    return known


def is_asynchronous(source: str) -> bool:
    """Whether it awaits, or names asyncio."""
    if "await" not in source and "async" not in source:
        return False
    try:
        tree = compile(
            source, "<source>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
    except (SyntaxError, ValueError, RecursionError):
        return asyncio._get_running_loop() is not None
    return any(_says(node) for node in ast.walk(tree))


def _says(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="asyncio"):
            return True
        case ast.Import(names=names):
            return any(one.name.partition(".")[0] == "asyncio" for one in names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] == "asyncio"
        case ast.comprehension(is_async=flag):
            return bool(flag)
    return isinstance(node, _WAITING)
