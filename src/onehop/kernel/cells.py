"""Runs plain cells as IPython would, without its machinery: what most cells are needs none of it.

IPython's way through a cell that only says `1 + 1` costs 0.2 ms and copies pages in every fork, because
CPython writes to whatever it looks at. The rules are IPython's own (`run_cell_async`, `run_ast_nodes`,
`HistoryManager.store_inputs`, `DisplayHook.update_user_ns` of version 9); as soon as somebody has
customised any of them, or a cell is not plain Python, IPython itself runs it.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import ast
import builtins
import contextlib
import linecache
import sys
from typing import TYPE_CHECKING, Any

from onehop.kernel import failures

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

_ELSEWHERE = ("await", "async", "exit", "quit", "__future__")
"""Words that leave a cell to IPython: its loop, what its history leaves out, flags that stay for later cells."""
_EVENTS = ("pre_execute", "pre_run_cell")
_UNDERSCORES = ("_", "__", "___")


class PlainCells:
    """Knows what the shell looked like when nobody had customised it."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._callbacks = [shell.events.callbacks[name] for name in _EVENTS]
        self._counts = [len(callbacks) for callbacks in self._callbacks]
        self._transformers = shell.ast_transformers
        self._hook = shell.displayhook
        self._trap = shell.display_trap
        self._history = shell.history_manager
        # Traits check, convert and tell on every access. What is kept here is of the right type, and
        # nobody listens.
        self._values: dict[str, Any] = shell._trait_values
        self._inputs: dict[str, Any] = self._history._trait_values

    def take(self, code: str) -> bool:
        """Whether IPython would do no more than `run` with a cell that no transformer changes."""
        shell, values = self._shell, self._values
        return (
            not code.isspace()
            and not any(word in code for word in _ELSEWHERE)
            and shell.ast_transformers is self._transformers
            and not self._transformers
            and values.get("ast_node_interactivity", "last_expr") == "last_expr"
            and not shell.custom_exceptions
            and [len(callbacks) for callbacks in self._callbacks] == self._counts
            and shell.displayhook is self._hook
            and not shell.logger.log_active
        )

    def run(self, code: str, *, store_history: bool) -> BaseException | None:
        """Runs a plain cell; what it raised, or None."""
        shell, hook = self._shell, self._hook
        values = self._values
        count: int = values["execution_count"]
        if store_history:
            values["execution_count"] = count + 1
            self._remember(count, code)
        name = f"{failures.CELL_PREFIX}{count}>"
        shell.compile._filename_map[name] = count
        # Without a time of modification linecache never drops it by itself.
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        hook.says_quiet = ";" in code
        shell.last_execution_succeeded = False
        excepthook, sys.excepthook = sys.excepthook, shell.excepthook
        shell.sys_excepthook = excepthook
        try:
            with self._trap:  # counts how deep it is in: a cell may run others
                for compiled in self._compiled(code, name):
                    exec(compiled, shell.user_global_ns, shell.user_ns)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it ends the cell, not the kernel
            return error
        finally:
            hook.says_quiet = True
            sys.excepthook = excepthook
        shell.last_execution_succeeded = True
        return None

    def _compiled(self, code: str, name: str) -> Any:
        """Code objects to be run one after the other."""
        compiler = self._shell.compile
        body = compiler.ast_parse(code, filename=name).body
        last: list[ast.stmt] = []
        if body and isinstance(body[-1], ast.Expr):
            last = [body.pop()]
        if body:
            together = None
            with contextlib.suppress(SyntaxError):
                together = compiler(ast.Module(body, []), name, "exec")
            if together is not None:
                yield together
            else:
                # Only the compiler sees a return outside a function: what stands before it runs.
                for node in body:
                    yield compiler(ast.Module([node], []), name, "exec")
        if last:
            yield compiler(ast.Interactive(last), name, "single")

    def _remember(self, count: int, code: str) -> None:
        """In, _i, _ii, _iii and _iN, as `store_inputs` does without a database."""
        source = code.rstrip("\n")
        history, inputs = self._history, self._inputs
        history.input_hist_parsed.append(source)
        history.input_hist_raw.append(source)
        inputs["_iii"] = inputs.get("_ii", "")
        inputs["_ii"] = inputs.get("_i", "")
        inputs["_i"] = inputs.get("_i00", "")
        inputs["_i00"] = source
        names = {"_i": inputs["_i"], "_ii": inputs["_ii"], "_iii": inputs["_iii"], f"_i{count}": source}
        self._shell.user_ns.update(names)
        self._shell.user_ns_hidden.update(names)

    def keep(self, value: Any) -> bool:
        """Out, _, __, ___ and _N for a cell's value. False when IPython has to look at it."""
        shell, hook = self._shell, self._hook
        user, hidden = shell.user_ns, shell.user_ns_hidden
        out = user.get("_oh")
        if out is None or value is out or len(out) >= hook.cache_size or "_" in vars(builtins):
            return False
        for name in _UNDERSCORES:
            if name in user and user[name] is not hidden.get(name, user):
                return False  # the user's own variable
        hook.___, hook.__, hook._ = hook.__, hook._, value
        number = self._values["execution_count"] - 1
        names = {"_": value, "__": hook.__, "___": hook.___, f"_{number}": value}
        user.update(names)
        hidden.update(names)
        out[number] = value
        return True
