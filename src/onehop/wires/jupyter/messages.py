"""Messages of Jupyter's protocol, as JSON over a websocket: one object per message, with its channel's name in it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

VERSION = "5.3"


class Message(msgspec.Struct):
    """Of a client. Its header goes back as the parent of every answer."""

    header: dict[str, Any]
    content: dict[str, Any] = {}
    channel: str = "shell"
    parent_header: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        return str(self.header.get("msg_type", ""))


decode = msgspec.json.Decoder(Message).decode
encode = msgspec.json.Encoder().encode


class Writer:
    """Makes answers of one kernel to one client."""

    def __init__(self, kernel: str) -> None:
        self._session = kernel

    def message(self, channel: str, kind: str, content: dict[str, Any], parent: Message) -> str:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "username": "kernel",
            "session": self._session,
            "date": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "version": VERSION,
        }
        return encode({
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": kind,
            "parent_header": parent.header,
            "metadata": {},
            "content": content,
            "buffers": [],
            "channel": channel,
        }).decode()  # fmt: skip
