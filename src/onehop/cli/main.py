"""The command `onehop`. It loads the module of the chosen command only, so that `onehop --help` is quick.

Errors are one line on stderr that says what to do next. Exit codes that all commands share: 2 for a
wrong call or setting, 3 when the engine could not do it, 130 for Ctrl-C; docs/cli.md has the others.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from onehop import __version__
from onehop.errors import ConfigurationError, OnehopError

COMMANDS = {
    "serve": "serve the API on this machine",
    "run": "run a file or a piece of code and fetch what it made",
    "repl": "a Python shell on a session",
    "chat": "talk to a model that runs code",
    "mcp": "serve the Model Context Protocol on stdin and stdout",
    "sessions": "list, show, extend and delete a server's sessions",
    "files": "list, fetch, send, move and delete files of a session's workspace",
    "env": "add, list and remove environments: sets of packages that sessions can name",
    "config": "print the effective settings and where each came from",
    "tools": "list, check and call the tools that code may use",
    "models": "list and check the models that clients may name",
    "keys": "make, list and revoke API keys",
    "usage": "say what was used, by day and key",
    "bench": "measure a server for a few seconds",
    "doctor": "say which protections this machine gives, and how to get the missing ones",
    "completion": "print the completion script of a shell",
}
USAGE_EXIT = 2
ENGINE_EXIT = 3
INTERRUPTED_EXIT = 130


def parser(command: str | None) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of `command` only."""
    top = argparse.ArgumentParser(
        prog="onehop",
        description="Runs AI-written Python in warm, jailed interpreters.",
        epilog="onehop help COMMAND says more about one; docs/cli.md has the exit codes.",
    )
    top.add_argument("--version", action="version", version=f"onehop {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
        )
        if name == command:
            module = importlib.import_module(f"onehop.cli.{name}")
            module.add_arguments(sub)
            sub.set_defaults(main=module.main)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal of another encoding must not stop anything
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    chosen = arguments[0] if arguments and arguments[0] in COMMANDS else None
    options = parser(chosen).parse_args(arguments)
    try:
        code: int = options.main(options)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _fail(error, USAGE_EXIT)
    except OnehopError as error:
        return _fail(error, ENGINE_EXIT)
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    except BrokenPipeError:
        # Nobody reads on, as in `onehop … | head`; the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as if by SIGPIPE
    return code


def _fail(error: Exception, code: int) -> int:
    text = " ".join(str(error).split())
    print(f"onehop: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
