"""What a kernel is asked besides running cells: completion, inspection, whether code is complete.

Each is a small execution of its own in the kernel's interpreter, which prints JSON.
"""

from __future__ import annotations

import json
from typing import Any

from onehop import errors
from onehop.sessions import Engine
from onehop.sessions.caller import Caller
from onehop.sessions.requests import ExecuteRequest

TIMEOUT_S = 10.0
MOST = 500
COMPLETE = """\
print(__import__('json').dumps((lambda found: [found[0], found[1][:{most}]])(
    get_ipython().complete(None, {line!r}, {cursor}))))"""
INSPECT = """\
def __onehop_inspect(code, cursor, level):
    import json
    from IPython.utils.tokenutil import token_at_cursor
    try:
        found = get_ipython().object_inspect_mime(token_at_cursor(code, cursor), detail_level=level)
    except KeyError:
        found = None
    print(json.dumps(found))
__onehop_inspect({code!r}, {cursor}, {level}); del __onehop_inspect"""
WHOLE = "print(__import__('json').dumps(get_ipython().input_transformer_manager.check_complete({code!r})))"

Content = dict[str, Any]


class Asker:
    """Methods give the content of a reply; they raise ProblemError when the kernel cannot be asked."""

    def __init__(self, engine: Engine, kernel: str, caller: Caller) -> None:
        self._engine = engine
        self._kernel = kernel
        self._caller = caller

    async def complete(self, code: str, cursor: int | None) -> Content:
        end = len(code) if cursor is None else max(0, min(cursor, len(code)))
        before, after = code[:end], code[end:].partition("\n")[0]
        line = before.rpartition("\n")[2]
        told = await self._ask(COMPLETE.format(most=MOST, line=line + after, cursor=len(line)))
        text, matches = (told or ["", []])[:2]
        return {
            "status": "ok", "matches": matches, "cursor_start": end - len(text), "cursor_end": end, "metadata": {},
        }  # fmt: skip

    async def inspect(self, code: str, cursor: int | None, level: int) -> Content:
        end = len(code) if cursor is None else max(0, min(cursor, len(code)))
        told = await self._ask(INSPECT.format(code=code, cursor=end, level=1 if level else 0))
        return {"status": "ok", "found": told is not None, "data": told or {}, "metadata": {}}

    async def is_complete(self, code: str) -> Content:
        told = await self._ask(WHOLE.format(code=code))
        status, indent = (told or ["unknown", None])[:2]
        return {"status": status, "indent": " " * (indent or 0)}

    async def _ask(self, code: str) -> Any:
        request = ExecuteRequest(code=code, timeout_s=TIMEOUT_S)
        run = await self._engine.executions.start_in_turn(self._kernel, request, self._caller)
        answer = await run.wait()
        try:
            return json.loads(answer.stdout)
        except ValueError:
            raise errors.UnavailableError(f"the kernel gave no answer: {answer.status}") from None
