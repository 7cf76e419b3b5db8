"""The shell of a kernel: IPython's InteractiveShell with our display, tracebacks and process calls.

A cell with top-level `await` runs on the kernel's event loop; any other runs with no loop running, so
that `asyncio.run()` works in it, which it does not in a Jupyter kernel.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import asyncio
import builtins
import linecache
import os
import subprocess
import sys
import traceback
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets import Type
from traitlets.config import Config

from onehop.kernel import display, figures, interrupts, magics
from onehop.protocol import Failure

if TYPE_CHECKING:
    from onehop.kernel.main import Channel

MAX_TRACEBACK_CHARS = 32_768
MAX_MESSAGE_CHARS = 8_192
CELL_PREFIX = "<cell "


class Compiler(CachingCompiler):
    """Names cells by their number, which is what a traceback shows."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return f"{CELL_PREFIX}{number}>"


class Shell(InteractiveShell):
    """One user's Python: state, display and the way code runs."""

    displayhook_class = Type(display.DisplayHook)
    display_pub_class = Type(display.DisplayPublisher)
    compiler_class = Type(Compiler)

    channel: Channel | None = None
    loop: asyncio.AbstractEventLoop | None = None

    @property
    def count(self) -> int:
        """The number of the last cell."""
        return int(self.execution_count) - 1

    def start(self, channel: Channel, home: str) -> None:
        """Ties the shell to its channel, in the fork."""
        self.channel = channel
        self.home_dir = home
        sys.path[:] = ["", *(path for path in sys.path if path)]

    def run(self, code: str) -> Failure | None:
        """Runs one cell; what it raised, or None."""
        self.displayhook.pending = None
        transformed, problem = code, None
        try:
            transformed = self.transform_cell(code)
        except Exception:  # noqa: BLE001 - a transformer's error is the cell's error
            problem = sys.exc_info()
        coroutine = self.run_cell_async(code, store_history=True, silent=False, transformed_cell=transformed,
                                        preprocessing_exc_tuple=problem)
        with interrupts.armed():
            if problem is None and self.should_run_async(code, transformed_cell=transformed,
                                                         preprocessing_exc_tuple=problem):
                result = self._run_on_loop(coroutine)
            else:
                result = _run_now(coroutine)
        with interrupts.armed():
            figures.flush(self)
        error = result.error_before_exec or result.error_in_exec
        failure = None if error is None or _clean_exit(error) else describe(error)
        if failure is None:
            self.displayhook.publish_pending()
        return failure

    def _run_on_loop(self, coroutine: Coroutine[Any, Any, ExecutionResult]) -> ExecutionResult:
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            while not task.done():
                try:
                    self.loop.run_until_complete(task)
                except (asyncio.CancelledError, KeyboardInterrupt):
                    pass
            raise

    def warm_up(self) -> None:
        """Runs small cells of the usual kind, so that the first real one finds its pages copied."""
        for code in magics.WARM_UP:
            self.run(code)
        self.displayhook.pending = None
        self.reset(new_session=True, aggressive=False)
        self.execution_count = 1

    # --- what IPython would print, the answer carries instead --------------------------------------

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        pass

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _showtraceback(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _format_exception_for_storage(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # IPython would build its own long traceback for a history that we do not keep: 60 ms a time.
        return {}

    # --- processes ----------------------------------------------------------------------------------

    def system(self, cmd: str) -> None:
        """`!cmd`: bash, writing straight to our pipes."""
        sys.stdout.flush()
        sys.stderr.flush()
        # A negative code says which signal ended it, as in subprocess.
        self.user_ns["_exit_code"] = subprocess.call(["/bin/bash", "-c", self.var_expand(cmd, depth=1)])

    system_piped = system
    system_raw = system

    def ask_exit(self) -> None:
        raise SystemExit(0)


def create() -> Shell:
    """The one shell of this process, with nothing of a terminal and no history database."""
    config = Config()
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.autocall = 0
    config.InteractiveShell.cache_size = 1000
    config.InteractiveShell.history_length = 0
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.Completer.use_jedi = False
    os.environ.setdefault("IPYTHONDIR", "/tmp/.ipython")
    shell = Shell.instance(config=config)
    shell.logger.log_active = False
    magics.register(shell)
    figures.register()
    for name in ("exit", "quit"):
        shell.user_ns[name] = _leave
        setattr(builtins, name, _leave)
    shell.user_ns_hidden.update(shell.user_ns)
    return shell


def _leave(code: object = None) -> None:
    """Ends the cell, not the kernel."""
    raise SystemExit(code)


def _run_now(coroutine: Coroutine[Any, Any, ExecutionResult]) -> ExecutionResult:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: ExecutionResult = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a cell without await waited for something")


def _clean_exit(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and error.code in (None, 0)


def describe(error: BaseException) -> Failure:
    """Name, message and traceback of what a cell raised, without the shell's own frames."""
    if isinstance(error, UsageError):
        return Failure(name="UsageError", value=str(error), traceback=f"UsageError: {error}")
    name = type(error).__name__
    try:
        value = str(error)
    except Exception:  # noqa: BLE001 - user code's __str__
        value = "<the exception's text cannot be had>"
    try:
        linecache.checkcache()
        entry = error.__traceback__
        while entry is not None and not entry.tb_frame.f_code.co_filename.startswith(CELL_PREFIX):
            entry = entry.tb_next
        if entry is None and not isinstance(error, SyntaxError):
            entry = error.__traceback__
        _drop_own_end(entry)
        lines = traceback.TracebackException(type(error), error, entry, compact=True).format()
        text = "".join(lines).rstrip("\n")
    except Exception:  # noqa: BLE001 - user code's __repr__, __cause__ loops and the like
        text = f"{name}: {value}"
    return Failure(name=name, value=_cut(value, MAX_MESSAGE_CHARS), traceback=_cut(text, MAX_TRACEBACK_CHARS))


def _drop_own_end(entry: TracebackType | None) -> None:
    """An interrupt ends in our signal handler, which is nobody's business."""
    while entry is not None and entry.tb_next is not None:
        if entry.tb_next.tb_frame.f_code.co_filename.endswith("onehop/kernel/interrupts.py"):
            entry.tb_next = None
            return
        entry = entry.tb_next


def _cut(text: str, most: int) -> str:
    """Cut in the middle: the beginning says where, the end says what."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
