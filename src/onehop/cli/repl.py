"""`onehop repl`: a shell on a session, with the variables of a notebook and the files of its workspace.

Ctrl-C interrupts what runs and keeps the variables, Ctrl-D leaves. A session that was made for the shell ends
with it; one that was named lives on.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from onehop import __version__
from onehop.cli import connection, options
from onehop.errors import ConfigurationError, OnehopError, ProblemError, SessionEndedError, UnauthorizedError

if TYPE_CHECKING:
    from onehop.cli.reading import Reader
    from onehop.cli.showing import Screen
    from onehop.client.clients import Client
    from onehop.client.sessions import Session

LEAVE = ("exit", "quit", "exit()", "quit()", "%exit", "%quit")
COMPLETION_TIMEOUT_S = 2
MAX_COMPLETIONS = 500
COMPLETER = (
    "print(__import__('json').dumps((lambda found: [found[0], found[1][:{most}]])"
    "(get_ipython().complete(None, {line!r}, {cursor}))))"
)
HELP = """\
%upload PATH [NAME]     send a file of this machine into the workspace
%download NAME [PATH]   fetch a file of the workspace
%files [FOLDER]         list the workspace
%session                what the server knows about the session
%exit                   leave, as Ctrl-D does
Everything else is run in the session: Python, IPython's magics, `!command`, top-level await.
Ctrl-C interrupts what runs and keeps the variables. Tab completes, an empty line ends a block."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--session", metavar="ID", help="a session of a server that exists already")
    parser.add_argument("--env", metavar="NAME", help="environment of a new session")
    parser.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="PATH[:NAME]",
        help="put a file into the workspace first; may be repeated",
    )
    parser.add_argument(
        "--timeout", metavar="TIME", help="of each piece of code (default: the most that is allowed)"
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("ONEHOP_URL", ""),
        metavar="URL",
        help="a server (default: ONEHOP_URL; without one an engine is started, which ends with the shell); "
        "its key comes from ONEHOP_API_KEY",
    )
    options.add_settings(parser, ("home",))


def main(arguments: argparse.Namespace) -> int:
    from onehop.cli.run import upload_argument
    from onehop.client.clients import Client

    uploads = [upload_argument(text) for text in arguments.files]
    timeout_s = None if arguments.timeout is None else connection.seconds(arguments.timeout, "--timeout")
    if arguments.session and arguments.env:
        raise ConfigurationError("--env: a session has its environment already; leave out --session or --env")
    url = arguments.url or (connection.DEFAULT_URL if arguments.session else "")
    if arguments.home is not None:
        os.environ["ONEHOP_HOME"] = str(options.load(arguments).home)
    with connection.ended_by_signals(), contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(url))
        try:
            session = _session(client, arguments)
            stack.callback(_end, session, keep=bool(arguments.session))
            for path, name in uploads:
                with connection.telling(f"sending {path.name}"):
                    session.files.upload(path, name)
            if timeout_s is None:
                timeout_s = client.info()["limits"]["timeout_s"]["maximum"]
            return Shell(session, timeout_s).run(url)
        except UnauthorizedError as error:
            raise UnauthorizedError(f"{error}; put the key into ONEHOP_API_KEY") from None


def _session(client: Client, arguments: argparse.Namespace) -> Session:
    if arguments.session:
        from onehop.cli.sessions import found

        session = client.attach(found(client, arguments.session))
        session.info()
    else:
        session = client.session(**({"environment": arguments.env} if arguments.env else {}))
        with connection.telling("starting"):
            session._enter()
    return session


def _end(session: Session, *, keep: bool) -> None:
    if not keep:
        with contextlib.suppress(OnehopError):
            session.close()


class Shell:
    """Reads, runs and shows until it is left.

    Args:
        timeout_s: wall seconds of each piece of code.
    """

    def __init__(self, session: Session, timeout_s: float) -> None:
        from onehop.cli.reading import Reader, history_path
        from onehop.cli.showing import Screen

        self._session = session
        self._timeout_s = timeout_s
        self._reader: Reader = Reader(history_path(), self._complete)
        self._screen: Screen = Screen()
        self._failed = False

    def run(self, url: str) -> int:
        """The exit code: 0, or 1 when input came from a pipe and the last piece of code failed."""
        if self._reader.interactive:
            where = url or "its own engine"
            self._screen.say(
                f"onehop {__version__}, session {self._session.id[:12]} on {where}. %help, Ctrl-D leaves."
            )
        with self._reader.ready():
            while True:
                try:
                    source = self._reader.read()
                except EOFError:
                    break
                except KeyboardInterrupt:
                    print(file=sys.stderr)
                    continue
                if source.strip() in LEAVE:
                    return 0
                if source.strip():
                    self._take(source)
        if self._reader.interactive:
            print(file=sys.stderr)
            return 0
        return int(self._failed)

    def _take(self, source: str) -> None:
        """One piece of code, or one of our own commands. Raises OnehopError when the session is no more."""
        try:
            word, _, rest = source.strip().partition(" ")
            command = (
                getattr(self, f"_do_{word[1:]}", None)
                if word.startswith("%") and "\n" not in source
                else None
            )
            if command is not None:
                command(*_arguments(command, word, rest))
            else:
                self._execute(source)
        except SessionEndedError as error:
            raise SessionEndedError(f"{error}; start another with: onehop repl") from None
        except (ProblemError, ConfigurationError) as error:
            self._failed = True
            self._screen.say(f"onehop: {error}")
        except OSError as error:
            self._screen.say(f"onehop: {error.filename or ''}: {error.strerror or error}")

    def _execute(self, source: str) -> None:
        with self._interrupting():
            for event in self._session.stream(source, timeout_s=self._timeout_s):
                self._screen.show(event)
                if event.result is not None:
                    self._failed = not event.result.ok

    @contextlib.contextmanager
    def _interrupting(self) -> Iterator[None]:
        """Ctrl-C asks the server to interrupt the code; its events are read on, until its end."""
        asked: list[threading.Thread] = []

        def interrupt() -> None:
            with contextlib.suppress(OnehopError):
                self._session.interrupt()

        def take(number: int, frame: FrameType | None) -> None:
            thread = threading.Thread(target=interrupt, daemon=True)
            asked.append(thread)
            thread.start()

        before = signal.signal(signal.SIGINT, take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            for thread in asked:
                thread.join()

    def _complete(self, line: str, cursor: int) -> tuple[str, list[str]]:
        """Asks the kernel, as a notebook does: only it knows the names and the columns."""
        code = COMPLETER.format(most=MAX_COMPLETIONS, line=line, cursor=cursor)
        try:
            answer = self._session.run(code, timeout_s=COMPLETION_TIMEOUT_S)
            replaced, found = json.loads(answer.stdout.splitlines()[-1])
            if isinstance(replaced, str) and all(isinstance(one, str) for one in found):
                return replaced, found
        except (OnehopError, ValueError, IndexError, TypeError):
            pass  # Tab does nothing then
        return "", []

    # --- commands -------------------------------------------------------------------------------------

    def _do_help(self) -> None:
        self._screen.say(HELP)

    def _do_upload(self, path: str, name: str = "") -> None:
        local = Path(path).expanduser()
        with connection.telling(f"sending {local.name}"):
            file = self._session.files.upload(local, name)
        self._screen.say(f"[{file.path}, {connection.size(file.bytes)}]")

    def _do_download(self, name: str, path: str = "") -> None:
        with connection.telling(f"fetching {name}"):
            target = self._session.files.download(name, Path(path).expanduser() if path else "")
        self._screen.say(f"[{target}, {connection.size(target.stat().st_size)}]")

    def _do_files(self, folder: str = "") -> None:
        from onehop.cli.files import line

        files = self._session.files.list(folder)
        for file in files:
            print(line(file))
        if not files or files.truncated:
            self._screen.say("[there are more]" if files.truncated else "[there are no files]")

    def _do_session(self) -> None:
        for key, value in connection.plain(self._session.info()).items():
            self._screen.say(f"{key:<16}{value}")


def _arguments(command: Callable[..., None], name: str, text: str) -> list[str]:
    """The words of `text`, if `command` takes as many."""
    try:
        words = shlex.split(text)
        inspect.signature(command).bind(*words)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{name}: {error}; see %help") from None
    return words
