"""`onehop run`: one piece of code, its output as it comes, and what it made in a folder.

On a server that is named, or on an engine of its own that ends with it. What the code sends is
hostile: it decides neither where files are written nor what a terminal does.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onehop.cli import options
from onehop.cli.terminal import PICTURES, PRINTED
from onehop.errors import ConfigurationError, OnehopError

if TYPE_CHECKING:
    from onehop.cli.backends import Backend
    from onehop.cli.folder import Folder

EXIT_CODES = {"ok": 0, "error": 1, "timeout": 124, "interrupted": 130}
SANDBOX_ENDED_EXIT = 4
"""All other terminal statuses: the sandbox ended, not the code."""
TERMINATED_EXIT = 128 + signal.SIGTERM

SETTINGS = (
    "home",
    "environment",
    "memory_mb",
    "processes",
    "workspace_mb",
    "strict",
    "allow_no_namespaces",
    "uid_base",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    code = parser.add_mutually_exclusive_group(required=True)
    code.add_argument("path", nargs="?", metavar="FILE", help="Python source; - reads it from standard input")
    code.add_argument("-c", dest="code", metavar="CODE", help="the code itself")
    parser.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="PATH[:NAME]",
        help="put a file into the workspace, under its own name or NAME; may be repeated",
    )
    parser.add_argument(
        "--out",
        default="onehop-out",
        metavar="DIR",
        help="folder for what the code makes (default: onehop-out)",
    )
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="stop the code after this long (default: 60)"
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("ONEHOP_URL", ""),
        metavar="URL",
        help="a server to run it on (default: ONEHOP_URL; without one an engine is started)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the answer as one JSON document, and nothing else"
    )
    options.add_settings(parser, SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    code = _code(arguments)
    uploads = [upload_argument(text) for text in arguments.files]
    if arguments.timeout is not None and not 0 < arguments.timeout < float("inf"):
        raise ConfigurationError(f"--timeout: must be more than 0 seconds, got {arguments.timeout:g}")
    from onehop.cli import backends, folder

    backend: AbstractAsyncContextManager[Backend]
    out = folder.Folder(Path(arguments.out))
    if arguments.url:
        given = {
            name: value
            for name in ("environment", "memory_mb", "processes", "workspace_mb")
            if (value := getattr(arguments, name)) is not None
        }
        backend = backends.remote(arguments.url, given)
    else:
        backend = _local(arguments)
    return asyncio.run(_until_signal(backend, code, uploads, out, arguments))


def _local(arguments: argparse.Namespace) -> AbstractAsyncContextManager[Backend]:
    from onehop.cli import backends, engine

    fixed: dict[str, Any] = {}
    if arguments.timeout is not None:
        fixed = {"timeout_s": arguments.timeout, "max_timeout_s": max(3600.0, arguments.timeout)}
    settings = options.load(arguments, **fixed)
    return backends.local(settings, engine.environment(settings, _say))


async def _until_signal(
    backend: AbstractAsyncContextManager[Backend],
    code: str,
    uploads: list[tuple[Path, str]],
    out: Folder,
    arguments: argparse.Namespace,
) -> int:
    """Runs it; Ctrl-C interrupts the code first, and ends all the second time."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    run = Execution(out, as_json=arguments.json)
    ended_by: list[int] = []

    def stop(number: int) -> None:
        if number == signal.SIGINT and not ended_by and run.running is not None:
            ended_by.append(number)
            _say("interrupting the code; Ctrl-C again ends everything")
            run.interrupting = loop.create_task(run.running.interrupt())
            return
        ended_by.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        async with backend as ready:
            return await run.perform(ready, code, uploads, arguments.timeout)
    except asyncio.CancelledError:
        if not ended_by:
            raise
        return 128 + ended_by[-1]


class Execution:
    """One piece of code from upload to the written files.

    Attributes:
        running: the backend, while code runs on it.
    """

    def __init__(self, out: Folder, *, as_json: bool) -> None:
        self.running: Backend | None = None
        self.interrupting: asyncio.Task[None] | None = None
        self._out = out
        self._json = as_json
        self._pictures: list[tuple[str, bytes]] = []
        self._digests: set[bytes] = set()

    async def perform(
        self, backend: Backend, code: str, uploads: list[tuple[Path, str]], timeout_s: float | None
    ) -> int:
        """Returns the exit code."""
        from onehop.cli.terminal import Stream

        out, err = Stream(sys.stdout), Stream(sys.stderr)
        for path, name in uploads:
            await backend.upload(path, name)
        end: dict[str, Any] = {}
        self.running = backend
        try:
            async for kind, data in backend.execute(code, timeout_s):
                if kind == "end":
                    end = data
                elif kind == "result":
                    self._take_result(data["data"], out)
                elif self._json:
                    continue
                elif kind == "error":
                    err.line(data["traceback"] or f"{data['name']}: {data['value']}")
                elif kind in ("stdout", "stderr"):
                    (out if kind == "stdout" else err).write(data["text"])
        finally:
            self.running = None
            if self.interrupting is not None:
                with contextlib.suppress(OnehopError):
                    await self.interrupting
        status = end["status"]
        if end["truncated"]:
            kept = end["output_file"]
            _say(
                "the output was longer than allowed"
                + (f"; all of its rest is in {kept['path']!r}" if kept else "")
            )
        await self._fetch(backend, end)
        if self._json:
            print(json.dumps(await backend.answer(end["id"])))
        for line in self._out.listing():
            print(line, file=sys.stderr)
        if status not in ("ok", "error"):
            _say(
                f"{status.replace('_', ' ')}: {end['reason']}" if end["reason"] else status.replace("_", " ")
            )
        return EXIT_CODES.get(status, SANDBOX_ENDED_EXIT)

    def _take_result(self, data: dict[str, str], out: Any) -> None:
        pictures = [(suffix, data[mime]) for mime, suffix in PICTURES.items() if mime in data]
        for suffix, content in pictures:
            raw = content.encode() if suffix == ".svg" else base64.b64decode(content)
            self._pictures.append((suffix, raw))
        if pictures:
            return
        text = next((data[mime] for mime in PRINTED if mime in data), None)
        if text is None and "text/html" in data:
            self._pictures.append((".html", data["text/html"].encode()))
        elif not self._json:
            out.line(text if text is not None else next(iter(data.values()), ""))

    async def _fetch(self, backend: Backend, end: dict[str, Any]) -> None:
        for file in end["files"]:
            digest = hashlib.sha256()

            async def read(path: str = file["path"], digest: Any = digest) -> AsyncIterator[bytes]:
                async for chunk in backend.download(path):
                    digest.update(chunk)
                    yield chunk

            try:
                await self._out.write(file["path"], read())
            except OnehopError as error:
                _say(f"{file['path']!r} could not be fetched: {error}")
            else:
                self._digests.add(digest.digest())
        if end["files_truncated"]:
            _say("there are more files than were listed; those were not fetched")
        for number, (suffix, content) in enumerate(self._pictures, 1):
            # savefig() and the figure shown at the end of the code are often the same picture.
            if hashlib.sha256(content).digest() not in self._digests:
                await self._out.write(
                    f"{'result' if suffix == '.html' else 'figure'}-{number}{suffix}", _once(content)
                )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _code(arguments: argparse.Namespace) -> str:
    if arguments.code is not None:
        text: str = arguments.code
        return text
    try:
        raw = sys.stdin.buffer.read() if arguments.path == "-" else Path(arguments.path).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{arguments.path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{arguments.path} is not UTF-8 text: {error}") from None


def upload_argument(text: str) -> tuple[Path, str]:
    """PATH or PATH:NAME; a path that exists as it stands may hold colons."""
    from onehop.protocol import check_path

    path, name = Path(text), ""
    if not path.exists() and ":" in text:
        first, _, name = text.rpartition(":")
        path = Path(first)
    if not path.is_file():
        raise ConfigurationError(f"--file: there is no file {str(path)!r}")
    name = name or path.name
    problem = check_path(name)
    if problem:
        raise ConfigurationError(f"--file: the name {name!r} {problem}")
    return path, name


def _say(line: str) -> None:
    print(f"onehop: {line}", file=sys.stderr, flush=True)
