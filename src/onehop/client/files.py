"""A session's workspace: its files, one by one and as trees."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from onehop.client import transfers
from onehop.client.core import Part
from onehop.client.methods import awaiting, blocking
from onehop.client.records import File, FileList
from onehop.client.requests import OCTETS, Waiting, check, document, get, post, send
from onehop.client.steps import Op, Pause, Request, open_stream, read
from onehop.client.transfers import Data
from onehop.errors import UnreachableError

TAR = {"Content-Type": "application/x-tar"}


def write(self: Part, path: str, data: Data) -> Op[File]:
    """Creates or replaces a file, whole or not at all; folders on the way are made.

    Args:
        path: in the workspace.
        data: text, bytes, a Path, an open binary file, or pieces of bytes; large ones are streamed.

    Raises:
        InvalidPathError: the path is absolute or climbs out.
        QuotaExceededError, TooLargeError: there is no room for it.
    """
    target = yield from self._path("files", path)
    reply = yield from send(Request("PUT", target, headers=OCTETS, body=transfers.source(data)))
    return File.of(document(reply))


def read_bytes(self: Part, path: str) -> Op[bytes]:
    """The content of a file. Raises FileNotFoundInWorkspaceError."""
    target = yield from self._path("files", path)
    return (yield from send(Request("GET", target))).body


def list_files(self: Part, path: str = "") -> Op[FileList]:
    """The files of the workspace, or of a folder in it, with sizes and times."""
    target = yield from self._path("files")
    found = yield from get(target, {"path": path or None})
    files = FileList(File.of(one) for one in found["files"])
    files.truncated = found["truncated"]
    return files


def upload(self: Part, local: str | os.PathLike[str], path: str = "") -> Op[File]:
    """Sends a file of this machine in constant memory.

    Args:
        local: its path here.
        path: in the workspace; its own name when left out.
    """
    source = Path(local)
    return (yield from write(self, path or source.name, source))


def download(self: Part, path: str, local: str | os.PathLike[str] = "") -> Op[Path]:
    """Fetches a file in constant memory, whole or not at all.

    Args:
        path: in the workspace.
        local: where it shall be; under its own name in the current folder when left out; into a folder
            that exists under its own name.
    """
    name = path.rpartition("/")[2]
    target = Path(local or name)
    if target.is_dir():
        target /= name
    source = yield from self._path("files", path)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".onehop-", delete=False) as scratch:
        try:
            yield from _fetch(Request("GET", source), scratch)
            scratch.flush()
            os.replace(scratch.name, target)
        except BaseException:
            os.unlink(scratch.name)
            raise
    return target


def move(self: Part, path: str, to: str, *, overwrite: bool = False) -> Op[File]:
    """Gives a file or folder another path. Raises ConflictError when `to` is taken and not to be overwritten."""
    target = yield from self._path("files", path)
    reply = yield from send(post(target, {"move_to": to, "overwrite": overwrite}))
    return File.of(document(reply))


def delete(self: Part, path: str, *, recursive: bool = False) -> Op[None]:
    """Deletes a file, or with `recursive` a folder and all in it."""
    target = yield from self._path("files", path)
    yield from send(Request("DELETE", target, {"recursive": "true"} if recursive else {}))


def upload_tree(self: Part, folder: str | os.PathLike[str], path: str = "") -> Op[list[File]]:
    """Sends a folder of this machine, streamed as a tar; links in it are left out.

    Args:
        folder: its path here.
        path: the folder of the workspace that its content goes into; the workspace itself when left out.
    """
    target = yield from self._path("archive")
    body = transfers.tree(Path(folder))
    reply = yield from send(Request("PUT", target, {"path": path} if path else {}, TAR, body))
    return [File.of(one) for one in document(reply)["files"]]


def download_tree(self: Part, folder: str | os.PathLike[str], path: str = "") -> Op[list[Path]]:
    """Fetches all files of the workspace, or of a folder in it; files of the same names are replaced.

    Args:
        folder: where they go here; made if need be. Nothing is written outside it or through links in it.
        path: the folder of the workspace; all of it when left out.
    """
    source = yield from self._path("archive")
    params = {"format": "tar", **({"path": path} if path else {})}
    with tempfile.TemporaryFile() as scratch:
        yield from _fetch(Request("GET", source, params), scratch)
        scratch.seek(0)
        return transfers.unpack(scratch, Path(folder))


def _fetch(request: Request, target: Any) -> Op[None]:
    """Writes the body of a GET into a file; begins anew when the connection breaks."""
    waiting = Waiting()
    while True:
        target.seek(0)
        target.truncate()
        try:
            check((yield from open_stream(request)))
            while chunk := (yield from read()):
                target.write(chunk)
            return
        except UnreachableError as error:
            if not waiting.allows(error):
                raise
        yield Pause(waiting.next_pause_s())


class Files(Part):
    """The files of a session's workspace."""

    write = blocking(write)
    read = blocking(read_bytes)
    list = blocking(list_files)
    upload = blocking(upload)
    download = blocking(download)
    move = blocking(move)
    delete = blocking(delete)
    upload_tree = blocking(upload_tree)
    download_tree = blocking(download_tree)


class AsyncFiles(Part):
    """The files of a session's workspace."""

    write = awaiting(write)
    read = awaiting(read_bytes)
    list = awaiting(list_files)
    upload = awaiting(upload)
    download = awaiting(download)
    move = awaiting(move)
    delete = awaiting(delete)
    upload_tree = awaiting(upload_tree)
    download_tree = awaiting(download_tree)
