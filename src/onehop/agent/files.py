"""Ids of files in containers: they say where the file is, and need no table. They are no permission."""

from __future__ import annotations

import base64


def file_id(session: str, path: str, prefix: str = "cfile_") -> str:
    """The id of a file in a session's workspace."""
    place = f"{session.removeprefix('ses_')}/{path}".encode()
    return prefix + base64.urlsafe_b64encode(place).rstrip(b"=").decode()
