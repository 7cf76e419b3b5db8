"""`onehop files`: the workspace of a session, from a shell. What comes out of it decides no path here."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onehop.cli import connection
from onehop.cli.sessions import found
from onehop.cli.terminal import printable
from onehop.errors import ConfigurationError

if TYPE_CHECKING:
    from onehop.client.records import File
    from onehop.client.sessions import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = connection.action(
        actions, "list", "the files, with size and time", perform=list_files, aliases=["ls"]
    )
    getting = connection.action(actions, "get", "fetch a file, or a folder with -r", perform=get)
    putting = connection.action(actions, "put", "send a file, or a folder with all in it", perform=put)
    removing = connection.action(actions, "rm", "delete files, or folders with -r", perform=remove)
    moving = connection.action(actions, "mv", "give a file or folder another path", perform=move)
    for one in (listing, getting, putting, removing, moving):
        one.add_argument("session", metavar="SESSION", help="its id, or how it begins")
    listing.add_argument("path", nargs="?", default="", metavar="FOLDER", help="of the workspace")
    getting.add_argument("path", metavar="PATH", help="in the workspace; with -r a folder, `.` is all of it")
    getting.add_argument(
        "local", nargs="?", default="", metavar="TO", help="here; - writes the file to standard output"
    )
    putting.add_argument("local", metavar="FROM", help="a file or folder here; - reads standard input")
    putting.add_argument("path", nargs="?", default="", metavar="PATH", help="in the workspace")
    removing.add_argument("paths", nargs="+", metavar="PATH")
    moving.add_argument("path", metavar="FROM")
    moving.add_argument("to", metavar="TO")
    moving.add_argument("--overwrite", action="store_true", help="replace what is at TO")
    for one in (getting, removing):
        one.add_argument("-r", "--recursive", action="store_true", help="a folder and all in it")
    for one in (listing, getting, putting, removing, moving):
        connection.add_arguments(one)


def main(arguments: argparse.Namespace) -> int:
    with connection.client(arguments) as client:
        session = client.attach(found(client, arguments.session))
        try:
            arguments.perform(session, arguments)
        except BrokenPipeError:
            raise
        except OSError as error:  # of this machine's files; those of connections are other classes
            raise ConfigurationError(
                f"{error.filename or arguments.local}: {error.strerror or error}"
            ) from None
    return 0


def list_files(session: Session, arguments: argparse.Namespace) -> None:
    files = session.files.list(arguments.path)
    if arguments.json:
        connection.print_json({"files": list(files), "truncated": files.truncated})
        return
    for file in files:
        print(line(file))
    if files.truncated:
        print("onehop: there are more; name a FOLDER", file=sys.stderr)


def get(session: Session, arguments: argparse.Namespace) -> None:
    with connection.telling(f"fetching {printable(arguments.path)}"):
        if arguments.recursive:
            folder = "" if arguments.path in (".", "/") else arguments.path.rstrip("/")
            local = arguments.local or folder.rpartition("/")[2] or "."
            paths = session.files.download_tree(local, folder)
        elif arguments.local == "-":
            if arguments.json:
                raise ConfigurationError("--json and the file itself cannot both go to standard output")
            with tempfile.TemporaryDirectory(prefix="onehop-") as scratch:
                with session.files.download(arguments.path, Path(scratch, "file")).open("rb") as file:
                    shutil.copyfileobj(file, sys.stdout.buffer)
            return
        else:
            paths = [session.files.download(arguments.path, arguments.local)]
    if arguments.json:
        connection.print_json(
            {"files": [{"path": str(path), "bytes": path.stat().st_size} for path in paths]}
        )
    else:
        for path in paths:
            print(printable(str(path)))


def put(session: Session, arguments: argparse.Namespace) -> None:
    local = Path(arguments.local)
    with connection.telling(f"sending {printable(arguments.local)}"):
        if arguments.local == "-":
            if not arguments.path:
                raise ConfigurationError("standard input has no name: give it a PATH in the workspace")
            files = [session.files.write(arguments.path, sys.stdin.buffer)]
        elif local.is_dir():
            files = session.files.upload_tree(local, arguments.path or local.resolve().name)
        else:
            path = arguments.path
            files = [session.files.upload(local, path + local.name if path.endswith("/") else path)]
    if arguments.json:
        connection.print_json({"files": files})
    else:
        for file in files:
            print(line(file))


def remove(session: Session, arguments: argparse.Namespace) -> None:
    for path in arguments.paths:
        session.files.delete(path, recursive=arguments.recursive)
    if arguments.json:
        connection.print_json({"deleted": arguments.paths})


def move(session: Session, arguments: argparse.Namespace) -> None:
    file = session.files.move(arguments.path, arguments.to, overwrite=arguments.overwrite)
    if arguments.json:
        connection.print_json(file)


def line(file: File) -> str:
    """Size, time and path of a file."""
    when = file.modified_at.astimezone().strftime("%Y-%m-%d %H:%M") if file.modified_at else " " * 16
    return f"{connection.size(file.bytes):>8}  {when}  {printable(file.path)}"
