"""`onehop chat`: a chatbot on a terminal, on the server's own model loop.

Answers come as they are written; code and its output are shown as they happen; pictures and files land in a folder.
Ctrl-C stops an answer and keeps the chat, Ctrl-D leaves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import readline
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onehop import __version__
from onehop.cli import connection, options
from onehop.cli.chatting import Conversation, connect
from onehop.cli.terminal import PICTURES, Stream, printable
from onehop.errors import ConfigurationError, OnehopError

PROMPT = "> "
CYAN, DIM, RED, PLAIN = "\x1b[36m", "\x1b[2m", "\x1b[31m", "\x1b[0m"
HELP = """\
/model [NAME]     the models, or go on with another one
/tools [NAMES]    the tools that code may call; names, patterns, * or none choose
/files            files of the working folder; those that code makes are fetched by themselves
/reset            begin anew: another conversation, another interpreter
/help             this
/exit             leave, as Ctrl-D does
A line that ends with \\ goes on. Ctrl-C stops an answer and keeps the chat. Tab completes commands and models."""
COMMANDS = ("/model", "/tools", "/files", "/reset", "/help", "/exit")
SETTINGS = ("home", "upstreams", "models", "tools")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", default="", help="a model's name (default: the first that there is)"
    )
    parser.add_argument("--ask", metavar="TEXT", help="ask this, show the answer and leave")
    parser.add_argument(
        "--json",
        action="store_true",
        help="with --ask or a piped question: one JSON object in place of the show",
    )
    parser.add_argument(
        "--out",
        default="onehop-chat",
        metavar="FOLDER",
        help="where pictures and files land (default: onehop-chat; made when there are any)",
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("ONEHOP_URL", ""),
        metavar="URL",
        help="a server (default: ONEHOP_URL; without one an engine is started, which ends with the chat); its key "
        "comes from ONEHOP_API_KEY",
    )
    options.add_settings(parser, SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    from onehop.client.clients import Client
    from onehop.client.where import Where

    if not arguments.url:
        _prepare_engine(arguments)
    elif arguments.upstreams or arguments.models or arguments.tools:
        raise ConfigurationError(
            "--upstreams, --models and --tools are for an engine of its own; leave out --url"
        )
    where = Where(arguments.url)
    with connection.ended_by_signals(), contextlib.ExitStack() as stack:
        with connection.telling("starting"):
            place = where.find()
        http = stack.enter_context(connect(place))
        client = stack.enter_context(Client(arguments.url))
        talk = Conversation(http, "", [])
        names = talk.models()
        if not names:
            raise ConfigurationError(
                "the server knows no model; name a server of models, as --upstreams chat=http://127.0.0.1:11434/v1"
            )
        talk.model = arguments.model or names[0]
        if any(talk.known_tools()):
            talk.tools = ["*"]
        chat = Chat(talk, client, Path(arguments.out), names)
        stack.callback(chat.end)
        question = arguments.ask
        if question is None and not sys.stdin.isatty():
            question = sys.stdin.read()
        if question is None and arguments.json:
            raise ConfigurationError("--json is for one question: give it with --ask, or pipe it in")
        if question is None:
            chat.run(arguments.url or "an engine of its own")
        elif not question.strip():
            raise ConfigurationError("there is no question")
        elif arguments.json:
            print(json.dumps(collected(talk, question.strip())))
        else:
            chat.show(question.strip())
    return 0


def collected(talk: Conversation, question: str) -> dict[str, Any]:
    """One answer as an object: `answer`, `work` (objects as docs/wires/openai.md has them), `usage`."""
    answer: dict[str, Any] = {"model": talk.model, "answer": "", "work": [], "usage": {}}
    for kind, data in talk.ask(question):
        if kind == "text":
            answer["answer"] += data
        elif kind == "work":
            answer["work"].append(data)
        else:
            answer["usage"] = data
    return answer


def _prepare_engine(arguments: argparse.Namespace) -> None:
    """The engine of this process gets the settings by its environment."""
    settings = options.load(arguments)
    if not settings.upstreams:
        raise ConfigurationError(
            "no server of models is configured: name one, as --upstreams chat=http://127.0.0.1:11434/v1, or a onehop "
            "server with --url"
        )
    for name in SETTINGS:
        value = getattr(settings, name)
        if value:
            os.environ[f"ONEHOP_{name.upper()}"] = str(value)


class Chat:
    """Reads questions, shows answers.

    Args:
        client: for files.
        folder: where they land.
        names: of models, for completion.
    """

    def __init__(self, talk: Conversation, client: Any, folder: Path, names: list[str]) -> None:
        self._talk = talk
        self._client = client
        self._folder = folder
        self._names = names
        self._out = Stream(sys.stdout)
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._pictures = 0
        self._inside = ""
        """What is being written: `text`, `code`, `output`, or nothing."""

    def run(self, where: str) -> None:
        self._say(f"onehop {__version__}: {self._talk.model} on {where}. /help, Ctrl-D leaves.")
        with self._line_editing():
            while True:
                try:
                    question = self._read()
                except EOFError:
                    print()
                    return
                except KeyboardInterrupt:
                    print()
                    continue
                if question in ("/exit", "/quit"):
                    return
                if question.startswith("/"):
                    self._command(question)
                elif question:
                    self.answer(question)

    def answer(self, question: str) -> None:
        """One question of many: Ctrl-C and a failure end the answer, not the chat."""
        try:
            self.show(question)
        except KeyboardInterrupt:
            self._line()
            self._say("[stopped]")
        except OnehopError as error:
            self._line()
            self._say(f"onehop: {printable(str(error))}", RED)
        finally:
            self._inside = ""

    def show(self, question: str) -> None:
        """Asks, and shows what comes as it comes.

        Raises:
            OnehopError: there was no answer.
        """
        for kind, data in self._talk.ask(question):
            if kind == "text":
                self._begin("text")
                self._out.write(data)
            elif kind == "work":
                self._work(data)
            else:
                self._ended(data)

    def end(self) -> None:
        """The interpreter of the conversation ends with the chat."""
        if self._talk.container:
            with contextlib.suppress(OnehopError):
                self._client.attach(self._talk.container).close()

    # --- what is shown --------------------------------------------------------------------------------

    def _work(self, work: dict[str, Any]) -> None:
        kind = work["type"]
        if kind == "code":
            self._line()
            self._say("── python" if work["kind"] == "python" else f"── {work['kind']}", CYAN)
            self._inside = "code"
        elif kind == "code.delta":
            self._out.write(work["text"])
        elif kind == "code.done":
            self._line()
            self._say("──", CYAN)
            self._inside = ""
        elif kind == "output":
            self._begin("output")
            self._out.write(work["text"])
        elif kind == "result":
            self._begin("output")
            self._shown(work["data"])
        elif kind == "done":
            self._line()
            if error := work.get("error"):
                self._say(f"{printable(error['name'])}: {printable(error['value'])}", RED)
            elif work["status"] not in ("ok", "error"):
                self._say(f"[{work['status'].replace('_', ' ')}]")
            self._fetch(work["files"])
            self._inside = ""

    def _shown(self, data: dict[str, str]) -> None:
        for mime, ending in PICTURES.items():
            if mime in data:
                self._pictures += 1
                raw = data[mime].encode() if ending == ".svg" else b64decode(data[mime])
                path = self._target(f"picture-{self._pictures}{ending}")
                path.write_bytes(raw)
                self._line()
                self._say(f"[picture: {path}]")
                return
        self._out.line(data.get("text/plain", ""))

    def _fetch(self, files: list[dict[str, str]]) -> None:
        for name in [one["path"] for one in files]:
            path = self._target(name.replace("/", "-"))
            try:
                self._client.attach(self._talk.container).files.download(name, path)
            except (OnehopError, OSError) as error:
                self._say(f"[{printable(name)} could not be fetched: {error}]")
            else:
                self._say(f"[file: {path}]")

    def _target(self, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / printable(name).lstrip(".")

    def _ended(self, usage: dict[str, Any]) -> None:
        self._line()
        report = usage.get("onehop") or {}
        parts = [f"{usage['total_tokens']} tokens", f"{report.get('wall_s', 0):.1f} s"]
        if report.get("executions"):
            parts.insert(0, f"{report['turns']} turns, {report['executions']} pieces of code")
        if report.get("cost") is not None:
            parts.append(f"cost {report['cost']:.4f}")
        if report.get("end") not in ("answer", None):
            parts.append(str(report.get("detail") or report["end"]))
        self._say(f"[{', '.join(parts)}]")

    def _begin(self, what: str) -> None:
        if self._inside != what:
            self._line()
            self._inside = what

    def _line(self) -> None:
        if not self._out.at_line_start:
            self._out.write("\n")

    def _say(self, text: str, colour: str = DIM) -> None:
        print(f"{colour}{text}{PLAIN}" if self._colours else text, flush=True)

    # --- what is typed --------------------------------------------------------------------------------

    def _read(self) -> str:
        lines = [input(PROMPT)]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(input("  "))
        return "\n".join(lines).strip()

    @contextlib.contextmanager
    def _line_editing(self) -> Iterator[None]:
        before = readline.get_completer(), readline.get_completer_delims()
        readline.set_completer(self._complete)
        readline.set_completer_delims(" \t\n")
        readline.parse_and_bind("tab: complete")
        try:
            yield
        finally:
            readline.set_completer(before[0])
            readline.set_completer_delims(before[1])

    def _complete(self, text: str, state: int) -> str | None:
        line = readline.get_line_buffer()
        if line.startswith("/model "):
            found = [name for name in self._names if name.startswith(text)]
        else:
            found = [name + " " for name in COMMANDS if name.startswith(text)] if line.startswith("/") else []
        return found[state] if state < len(found) else None

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        try:
            if word == "/model":
                self._model(rest.strip())
            elif word == "/tools":
                self._tools(rest.split())
            elif word == "/files":
                self._files()
            elif word == "/reset":
                self.end()
                self._talk.reset()
                self._say("[a new conversation]")
            elif word == "/help":
                self._say(HELP)
            else:
                self._say(f"there is no {printable(word)}; /help lists the commands", RED)
        except OnehopError as error:
            self._say(f"onehop: {printable(str(error))}", RED)

    def _model(self, name: str) -> None:
        self._names = self._talk.models()
        if not name:
            for one in self._names:
                self._say(f"{'*' if one == self._talk.model else ' '} {printable(one)}")
            return
        self._talk.model = name
        self._say(f"[{printable(name)} goes on]")

    def _tools(self, names: list[str]) -> None:
        if names:
            self._talk.tools = (
                [] if names == ["none"] else [one for name in names for one in name.split(",") if one]
            )
        known = self._talk.known_tools()
        for one in known:
            self._say(f"  {printable(one['name'])}  {printable(one['description'].partition(chr(10))[0])}")
        chosen = ", ".join(self._talk.tools) or "none"
        self._say(f"[code may call: {printable(chosen)}]" if known else "[the server has no tools]")

    def _files(self) -> None:
        if not self._talk.container:
            self._say("[no code has run yet]")
            return
        files = self._client.attach(self._talk.container).files.list()
        for file in files:
            self._say(f"  {printable(file.path)}  {connection.size(file.bytes)}")
        if not files:
            self._say("[there are no files]")
