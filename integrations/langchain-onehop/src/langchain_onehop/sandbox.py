"""A session of onehop as a sandbox backend: commands, and files anywhere that its user may write."""

from __future__ import annotations

import posixpath
import secrets
import shlex
from typing import Any

from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
from deepagents.backends.sandbox import BaseSandbox

from onehop import OnehopError, ProblemError, Session

WORKSPACE = "/workspace"
OUTPUT_BYTES = 4 * 1024 * 1024
MISSING, FOLDER, DENIED = 44, 45, 46
"""Exit codes of the script that makes a file ready to be fetched."""


class OnehopSandbox(BaseSandbox):
    """Args:
    session: an onehop.Session; it stays the caller's to close. Without one a session is made, with `options`, which
        `close` ends.
    timeout_s: seconds that a command may take when the call says nothing; the server's default when left out.
    """

    def __init__(
        self, session: Session | None = None, *, timeout_s: float | None = None, **options: Any
    ) -> None:
        self._own = session is None
        self._session = session if session is not None else Session(**options)
        self._timeout_s = timeout_s

    @property
    def id(self) -> str:
        """The session's id."""
        return self._session.info().id

    @property
    def session(self) -> Session:
        """For what deepagents has no word for, such as running Python with its state kept."""
        return self._session

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Runs a shell command; stdout, then stderr."""
        done = self._session.commands.run(
            command, timeout_s=timeout if timeout is not None else self._timeout_s, output_bytes=OUTPUT_BYTES
        )
        output = done.stdout + done.stderr
        if done.status not in ("ok", "error"):
            output += f"\n{done.status}: {done.reason}"
        code = done.exit_code if done.exit_code is not None else 124 if done.status == "timeout" else 137
        return ExecuteResponse(output=output, exit_code=code, truncated=done.truncated)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Each by itself: one that cannot be written keeps none of the others."""
        return [FileUploadResponse(path=path, error=self._upload(path, content)) for path, content in files]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Each by itself."""
        return [self._download(path) for path in paths]

    def close(self) -> None:
        """Ends the session, unless it was the caller's."""
        if self._own:
            self._session.close()

    def __enter__(self) -> OnehopSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _upload(self, path: str, content: bytes) -> str | None:
        if not path.startswith("/") or "\0" in path:
            return "invalid_path"
        part = f".upload-{secrets.token_hex(8)}"
        try:
            self._session.files.write(part, content)
        except ProblemError as error:
            return error.detail
        target, source = shlex.quote(posixpath.normpath(path)), f"{WORKSPACE}/{part}"
        done = self._session.commands.run(
            f"[ -d {target} ] && exit {FOLDER}; mkdir -p -- {shlex.quote(posixpath.dirname(path))} && "
            f"mv -f -- {source} {target}",
            cwd="",
        )
        if done.exit_code == 0:
            return None
        self._session.commands.run(f"rm -f -- {source}")
        return "is_directory" if done.exit_code == FOLDER else "permission_denied"

    def _download(self, path: str) -> FileDownloadResponse:
        if not path.startswith("/") or "\0" in path:
            return FileDownloadResponse(path=path, error="invalid_path")
        part, source = f".download-{secrets.token_hex(8)}", shlex.quote(posixpath.normpath(path))
        done = self._session.commands.run(
            f"[ -e {source} ] || exit {MISSING}; [ -d {source} ] && exit {FOLDER}; [ -r {source} ] || exit {DENIED}; "
            f"cp -- {source} {WORKSPACE}/{part}"
        )
        if done.exit_code != 0:
            known = {MISSING: "file_not_found", FOLDER: "is_directory", DENIED: "permission_denied"}
            return FileDownloadResponse(
                path=path, error=known.get(done.exit_code or 0, done.stderr.strip() or "failed")
            )
        try:
            return FileDownloadResponse(path=path, content=self._session.files.read(part))
        finally:
            try:
                self._session.files.delete(part)
            except OnehopError:
                pass  # the sandbox has ended, and the file with it
