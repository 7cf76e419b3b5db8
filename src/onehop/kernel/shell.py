"""The shell of a kernel: IPython's InteractiveShell with our display, tracebacks and process calls.

A cell with top-level `await` runs on the kernel's event loop; any other runs with no loop running, so
that `asyncio.run()` works in it, which it does not in a Jupyter kernel.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import asyncio
import builtins
import contextlib
import getpass
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from IPython.core import interactiveshell
from IPython.core.compilerop import CachingCompiler
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets import Type
from traitlets.config import Config

from onehop.kernel import charts, display, failures, figures, imports, interrupts, magics
from onehop.kernel.cells import PlainCells
from onehop.kernel.shortcuts import Shortcuts

if TYPE_CHECKING:
    from onehop.kernel.channel import Channel


class Compiler(CachingCompiler):
    """Names cells by their number, which is what a traceback shows."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return f"{failures.CELL_PREFIX}{number}>"


class Shell(InteractiveShell):
    """One user's Python: state, display and the way code runs."""

    displayhook_class = Type(display.DisplayHook)
    display_pub_class = Type(display.DisplayPublisher)
    compiler_class = Type(Compiler)

    if TYPE_CHECKING:  # traits, whose types IPython's own annotations make Optional
        displayhook: Any
        display_formatter: Any
        display_pub: Any
        configurables: Any
        events: Any
        history_manager: Any
        compile: Any
        display_trap: Any
        ast_transformers: Any
        custom_exceptions: Any
        last_execution_succeeded: bool
        register_magic_function: Any

    channel: Channel | None = None
    shortcuts: Shortcuts
    cells: PlainCells
    loop: asyncio.AbstractEventLoop | None = None
    _formatting_raises = False
    _problem: Any = None
    """What transforming the cell raised, as sys.exc_info() gives it."""
    _reported: BaseException | None = None
    """An error that a magic caught and would have printed."""

    @property
    def count(self) -> int:
        """The number of the last cell."""
        return int(self.execution_count) - 1

    def start(self, channel: Channel, home: str) -> None:
        """Ties the shell to its channel, in the fork."""
        self.channel = channel
        self.home_dir = home
        sys.path[:] = ["", *(path for path in sys.path if path)]

    def transform_cell(self, raw_cell: str) -> str:
        if self.shortcuts.is_plain(raw_cell):
            return raw_cell if raw_cell.endswith("\n") else raw_cell + "\n"
        transformed: str = super().transform_cell(raw_cell)
        return transformed

    def run(self, code: str, *, store_history: bool = True) -> BaseException | None:
        """Runs one cell; what it raised, or None."""
        self.displayhook.pending = None
        self._reported = self._problem = None
        if "_oh" not in self.user_ns:
            self.init_user_ns()  # the code before deleted everything
        error: BaseException | None
        try:
            with interrupts.armed():
                if self.shortcuts.is_plain(code) and self.cells.take(code):
                    plain = code if code.endswith("\n") else code + "\n"
                    error = self.cells.run(plain, store_history=store_history) or self._reported
                else:
                    result = self._run_source(code, store_history)
                    error = result.error_before_exec or result.error_in_exec or self._reported
        except KeyboardInterrupt as interrupt:  # it came while IPython's own code ran
            error = interrupt
        try:
            with interrupts.armed():
                figures.flush()
        except (Exception, KeyboardInterrupt) as problem:  # noqa: BLE001 - drawing runs user code
            error = error or problem
        interrupts.disarm()
        if error is not None and isinstance(error, SystemExit) and error.code in (None, 0):
            error = None
        if error is None:
            self.displayhook.publish_pending()
        return error

    def _run_source(self, code: str, store_history: bool) -> ExecutionResult:
        transformed = code
        try:
            transformed = self.transform_cell(code)
        except SyntaxError:
            pass  # the compiler says it better than the tokenizer
        except Exception:  # noqa: BLE001 - a transformer's error is the cell's error
            self._problem = sys.exc_info()
        coroutine = self.run_cell_async(
            code,
            store_history=store_history,
            silent=False,
            transformed_cell=transformed,
            preprocessing_exc_tuple=self._problem,
        )
        if self._problem is None and self.should_run_async(code, transformed_cell=transformed):
            return self._run_on_loop(coroutine)
        return _run_now(coroutine)

    def _run_on_loop(self, coroutine: Coroutine[Any, Any, ExecutionResult]) -> ExecutionResult:
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt as interrupt:
            task.cancel()
            while not task.done():
                try:
                    self.loop.run_until_complete(task)
                except (asyncio.CancelledError, KeyboardInterrupt):
                    pass
            if task.cancelled():
                raise
            result = task.result()
            if isinstance(result.error_in_exec, asyncio.CancelledError):
                # Where the cell was, instead of where the loop was.
                result.error_in_exec = interrupt.with_traceback(result.error_in_exec.__traceback__)
            return result

    def run_cell(self, *args: Any, **kwargs: Any) -> ExecutionResult:
        """A cell within a cell (`%%capture` and others)."""
        result: ExecutionResult = super().run_cell(*args, **kwargs)
        self._reported = result.error_before_exec or result.error_in_exec or self._reported
        figures.flush()
        return result

    def rehearse(self, cells: tuple[str, ...]) -> None:
        """Runs cells that leave no trace in the user's variables or the count of cells."""
        before, hidden = dict(self.user_ns), dict(self.user_ns_hidden)
        for code in cells:
            error = self.run(code, store_history=False)
            if error is not None:
                failures.describe(error)
        self.displayhook.pending = None
        self.user_ns.clear()
        self.user_ns.update(before)
        self.user_ns_hidden.clear()
        self.user_ns_hidden.update(hidden)
        self.user_ns["_oh"].clear()
        for name in ("_", "__", "___"):
            setattr(self.displayhook, name, "")

    # --- what IPython would print, the answer carries instead --------------------------------------

    def showtraceback(
        self, exc_tuple: Any = None, *args: Any, running_compiled_code: bool = False, **kwargs: Any
    ) -> None:
        """Called by IPython with the cell's own end, which its result carries, and with what it would swallow."""
        if running_compiled_code or (exc_tuple is not None and exc_tuple is self._problem):
            return
        if exc_tuple is None:
            self._reported = sys.exc_info()[1] or getattr(sys, "last_value", None)  # %run, %time, %tb
        elif self._formatting_raises:
            raise exc_tuple[1]
        else:  # a value that cannot be shown
            sys.stderr.write(failures.describe(exc_tuple[1]).traceback + "\n")

    @contextlib.contextmanager
    def formatting_raises(self) -> Iterator[None]:
        """Within this block an error in a formatter is an error."""
        self._formatting_raises = True
        try:
            yield
        finally:
            self._formatting_raises = False

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
        command = self.var_expand(cmd, depth=1)
        if magics.answer_command(command):
            self.user_ns["_exit_code"] = 1
            return
        # A negative code says which signal ended it, as in subprocess.
        self.user_ns["_exit_code"] = subprocess.call(["/bin/bash", "-c", command])

    system_piped = system
    system_raw = system

    def ask_exit(self) -> None:
        raise SystemExit(0)

    # --- what IPython leaves to its frontends --------------------------------------------------------

    def init_display_formatter(self) -> None:
        self.display_formatter = display.DisplayFormatter(parent=self)
        self.configurables.append(self.display_formatter)

    def init_user_ns(self) -> None:
        super().init_user_ns()
        # The module's own names are lost on %reset; multiprocessing's spawn looks at __spec__.
        for name, value in (
            ("__name__", "__main__"),
            ("__spec__", None),
            ("__doc__", None),
            ("__builtins__", builtins),
        ):
            self.user_ns.setdefault(name, value)
            self.user_ns_hidden.setdefault(name, value)
        for name in ("exit", "quit"):
            self.user_ns[name] = self.user_ns_hidden[name] = _leave
        # IPython's `open` refuses descriptors 0 to 2, which it needs and we do not.
        self.user_ns.pop("open", None)
        self.user_ns_hidden.pop("open", None)

    def enable_gui(self, gui: str | None = None) -> None:
        pass

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str | None, str]:
        figures.register(self)
        return None, "inline"


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
    figures.register(shell)
    figures.teach(shell)
    charts.register()
    builtins.input = _input
    getpass.getpass = _getpass
    threading.excepthook = _thread_failed
    for name in ("exit", "quit"):
        setattr(builtins, name, _leave)
    # IPython has it there while a cell runs; modules of the user's may rely on it.
    vars(builtins)["get_ipython"] = shell.get_ipython
    vars(interactiveshell)["warn"] = _warn
    shell.shortcuts = Shortcuts(shell)
    shell.cells = PlainCells(shell)
    imports.prepare(shell)
    return shell


def _warn(message: Any, *args: Any, stacklevel: int = 1, **kwargs: Any) -> None:
    if not str(message).startswith("To exit:"):
        emit: Any = warnings.warn
        emit(message, *args, stacklevel=stacklevel + 1, **kwargs)


def _input(prompt: object = "", /) -> str:
    """`input()`: the next line of the request's stdin."""
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError("input() has no line left to read: give the lines in the request's `stdin`")
    return line[:-1] if line.endswith("\n") else line


def _getpass(prompt: str = "Password: ", stream: object = None, **kwargs: Any) -> str:
    return _input(prompt)


def _thread_failed(info: threading.ExceptHookArgs) -> None:
    if info.exc_value is None or isinstance(info.exc_value, SystemExit):
        return
    name = info.thread.name if info.thread is not None else "?"
    sys.stderr.write(f"Exception in thread {name}:\n{failures.describe(info.exc_value).traceback}\n")


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
