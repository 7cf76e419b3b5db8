"""Unpacks an archive into a folder of the workspace: all of it, or nothing.

Everything is first written into a folder of our own in the workspace, where the quota counts it, and moved
to its place only when the last byte was right. What is replaced is swapped out and comes back if a later
step fails. Nothing of the archive decides where something is written before its path was checked.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from onehop import protocol
from onehop.jail import syscalls
from onehop.protocol import Entry, PorterReply, PorterRequest
from onehop.zygote import untar, unzip, workspace
from onehop.zygote.untar import Member, Read, bad
from onehop.zygote.workspace import Refused

MAX_MEMBERS = 1_000_000
MAX_REPLY_BYTES = protocol.MAX_PORTER_FRAME_BYTES - 65_536
LAST_S = 1 << 33
"""Modification times are cut to this many seconds, in the year 2242."""


def unpack(read: Read, root: int, request: PorterRequest) -> PorterReply:
    """Takes an archive of `request.format` from `read` into the folder `request.path` of the workspace.

    Raises:
        Refused, OSError: nothing has changed.
    """
    if request.path:
        workspace.check(request.path)
    made: list[str] = []
    staging = Staging(root, request.path)
    try:
        if request.format == "zip":
            spool = _spooled(read, root)
            try:
                staging.take(unzip.members(spool))
            finally:
                os.close(spool)
        elif request.format in ("tar", "tar.gz"):
            opened = untar.Gunzipped(read) if request.format == "tar.gz" else read
            staging.take(untar.members(opened))
            untar.finish(opened)
        else:
            raise Refused("failed", f"unknown format {request.format!r}")
        target = _target(root, request.path, made)
        try:
            _Merge(staging.fd, target).run()
        finally:
            os.close(target)
    except BaseException:
        workspace.unmake(root, made)
        raise
    finally:
        staging.close()
    return staging.reply()


def _target(root: int, path: str, made: list[str]) -> int:
    if not path:
        return os.dup(root)
    parent, name = workspace.open_parent(root, path, made)
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
        made.append(path)
    except FileExistsError:
        pass
    finally:
        os.close(parent)
    return workspace.open_folder(root, path)


def _spooled(read: Read, root: int) -> int:
    """What comes, in a file without a name: a zip archive's directory stands at its end."""
    name = workspace.own_name()
    fd = workspace.new_file(root, name)
    try:
        os.unlink(name, dir_fd=root)
        while piece := read(untar.PIECE_BYTES):
            workspace.write_all(fd, piece)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Staging:
    """The folder of our own; `entries` are the files in it, by the paths that they will have below `prefix`."""

    def __init__(self, root: int, prefix: str) -> None:
        self.root = root
        self.prefix = prefix
        self.name = workspace.own_name()
        self.entries: list[Entry] = []
        self.truncated = False
        self._reply_bytes = 0
        os.mkdir(self.name, 0o755, dir_fd=root)
        self.fd = syscalls.openat2(root, os.fsencode(self.name), workspace.DIRECTORY, 0, workspace.RESOLVE)

    def close(self) -> None:
        os.close(self.fd)
        try:
            workspace.remove_tree(self.root, self.name)
        except (OSError, Refused):
            pass  # user code took it, or keeps filling it: it is in its quota

    def reply(self) -> PorterReply:
        return PorterReply(entries=self.entries, truncated=self.truncated)

    def take(self, members: Iterator[Member]) -> None:
        """Writes every member. Raises Refused, OSError."""
        most = min(MAX_MEMBERS, os.fstatvfs(self.fd).f_files or MAX_MEMBERS)
        for number, member in enumerate(members, 1):
            if number > most:
                raise OSError(errno.ENOSPC, f"it has more than {most} files and folders")
            self._check(member)
            if member.path:
                self._folder(member) if member.folder else self._file(member)
            for _ in member.content:
                pass

    def _check(self, member: Member) -> None:
        path = member.path
        if not path and member.folder:
            return
        reason = protocol.check_path(path)
        if reason is None and len(path) + len(self.prefix) >= protocol.MAX_PATH_BYTES:
            reason = protocol.check_path(f"{self.prefix}/{path}" if self.prefix else path)
        if reason is None and path.count("/") > workspace.MAX_DEPTH:
            reason = f"is more than {workspace.MAX_DEPTH} folders deep"
        if reason is not None:
            raise bad(f"its entry {path[:200]!r}: the path {reason}")
        there = os.fstatvfs(self.fd)
        if member.size_bytes > there.f_bavail * there.f_frsize:
            raise OSError(errno.ENOSPC, f"{path!r} does not fit")

    def _folder(self, member: Member) -> None:
        made: list[str] = []
        try:
            parent, name = workspace.open_parent(self.fd, member.path, made)
        except NotADirectoryError:
            raise self._twice(member) from None
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise self._twice(member) from None
        finally:
            os.close(parent)

    def _file(self, member: Member) -> None:
        made: list[str] = []
        try:
            parent, name = workspace.open_parent(self.fd, member.path, made)
        except NotADirectoryError:
            raise self._twice(member) from None
        try:
            fd = workspace.new_file(parent, name, 0o755 if member.executable else 0o644)
        except FileExistsError:
            raise self._twice(member) from None
        finally:
            os.close(parent)
        try:
            for piece in member.content:
                workspace.write_all(fd, piece)
            if member.modified_s is not None:
                seconds = min(member.modified_s, LAST_S)
                os.utime(fd, (seconds, seconds))
            self._note(member.path, os.fstat(fd))
        finally:
            os.close(fd)

    def _note(self, path: str, status: os.stat_result) -> None:
        path = f"{self.prefix}/{path}" if self.prefix else path
        self._reply_bytes += len(path.encode()) + 48
        if self._reply_bytes > MAX_REPLY_BYTES:
            self.truncated = True
        else:
            self.entries.append(workspace.entry(path, status))

    @staticmethod
    def _twice(member: Member) -> Refused:
        return bad(f"{member.path[:200]!r} is in it twice, or once as a file and once as a folder")


class _Merge:
    """Moves what is in one folder into another; folders that are in both are merged, files replaced."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.done: list[tuple[str, int]] = []

    def run(self) -> None:
        try:
            self._folder(self.source, self.target, "")
        except BaseException:
            self._undo()
            raise

    def _folder(self, source: int, target: int, prefix: str) -> None:
        for name in sorted(os.listdir(source)):
            raw = os.fsencode(name)
            try:
                syscalls.renameat2(source, raw, target, raw, syscalls.RENAME_NOREPLACE)
                self.done.append((prefix + name, syscalls.RENAME_NOREPLACE))
                continue
            except FileExistsError:
                pass
            new, old = (
                stat.S_IFMT(os.stat(name, dir_fd=one, follow_symlinks=False).st_mode)
                for one in (source, target)
            )
            if new == old == stat.S_IFREG:
                syscalls.renameat2(source, raw, target, raw, syscalls.RENAME_EXCHANGE)
                self.done.append((prefix + name, syscalls.RENAME_EXCHANGE))
            elif new == old == stat.S_IFDIR:
                ours = syscalls.openat2(source, raw, workspace.DIRECTORY, 0, workspace.RESOLVE)
                try:
                    theirs = syscalls.openat2(target, raw, workspace.DIRECTORY, 0, workspace.RESOLVE)
                    try:
                        self._folder(ours, theirs, f"{prefix}{name}/")
                    finally:
                        os.close(theirs)
                finally:
                    os.close(ours)
            else:
                raise Refused("exists", f"something of another kind is at {prefix + name!r} already")

    def _undo(self) -> None:
        for path, how in reversed(self.done):
            try:
                ours, name = workspace.open_parent(self.source, path)
                try:
                    theirs, _ = workspace.open_parent(self.target, path)
                    try:
                        raw = os.fsencode(name)
                        syscalls.renameat2(theirs, raw, ours, raw, how)
                    finally:
                        os.close(theirs)
                finally:
                    os.close(ours)
            except OSError:
                continue  # user code changed it meanwhile; the rest still goes back
