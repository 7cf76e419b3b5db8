"""The items of a request's input in the loop's words. Source: `openai.types.responses.response_input_param`."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import msgspec

from onehop.agent.model import (
    CallPart,
    ImagePart,
    Message,
    Part,
    RawPart,
    ReasoningPart,
    ResultPart,
    TextPart,
)
from onehop.agent.prompts import NAMES
from onehop.errors import InvalidRequestError, UnsupportedParameterError
from onehop.wires.openai import members
from onehop.wires.openai.members import DATA_URL

IN_PLACE = "[The file {name} is in the working folder of the Python tool.]"


SUMMARY = "onehop."
"""What the content of our own compaction items begins with."""
SUMMARY_HEAD = "[Your summary of the conversation so far:]"


class File(msgspec.Struct, kw_only=True):
    """A file in the input; it belongs in the container when there is one."""

    name: str
    upload: str = ""
    data: str = ""
    part: list[Part]
    """The message's parts, in which it stands."""
    at: int


def read(item: Any, where: str, messages: list[Message], files: list[File]) -> None:
    """Adds what an item says to `messages`, and its files to `files`.

    Args:
        where: the item's place in the request, for errors.

    Raises:
        InvalidRequestError: naming the member (UnsupportedParameterError is one).
    """
    if not isinstance(item, dict):
        raise members.wrong(where, "an object")
    kind = item.get("type", "message")
    if kind == "message":
        _message(item, where, messages, files)
    elif kind == "function_call":
        call = CallPart(
            id=_member(item, "call_id", where),
            name=_member(item, "name", where),
            arguments=_member(item, "arguments", where),
        )
        _last(messages, "assistant").parts.append(call)
    elif kind == "function_call_output":
        _last(messages, "user").parts.append(_output(item, where, files))
    elif kind == "code_interpreter_call":
        _code(item, where, messages)
    elif kind == "reasoning":
        pieces = [*(item.get("summary") or []), *(item.get("content") or [])]
        text = "\n\n".join(str(one.get("text") or "") for one in pieces if isinstance(one, dict))
        _last(messages, "assistant").parts.append(ReasoningPart(text=text, dialect="responses", raw=item))
    elif kind == "compaction" and str(item.get("encrypted_content")).startswith(SUMMARY):
        _last(messages, "user").parts.append(TextPart(_summary(item["encrypted_content"], where)))
    elif kind == "item_reference":
        raise UnsupportedParameterError(
            f"{where}: item references are not known here; use previous_response_id", field=where
        )
    else:
        _last(messages, "assistant").parts.append(RawPart(dialect="responses", raw=item))


def _message(item: dict[str, Any], where: str, messages: list[Message], files: list[File]) -> None:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise InvalidRequestError(
            f"{where}.role: expected user, assistant, system or developer, got {str(role)[:40]!r}",
            field=f"{where}.role",
        )
    parts = _content(item.get("content"), f"{where}.content", files)
    if role == "assistant":
        _last(messages, "assistant").parts.extend(parts)
    elif role == "user":
        message = Message("user", parts)
        messages.append(message)
    else:
        messages.append(Message("system", parts, {"role": role} if role == "developer" else {}))


def _content(content: Any, where: str, files: list[File]) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise members.wrong(where, "a text or a list of parts")
    parts: list[Part] = []
    for number, part in enumerate(content):
        _part(part, f"{where}[{number}]", parts, files)
    return parts


def _part(part: Any, where: str, parts: list[Part], files: list[File]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict):
        raise members.wrong(where, "an object")
    if kind in ("input_text", "output_text", "text"):
        parts.append(TextPart(_member(part, "text", where)))
    elif kind == "refusal":
        parts.append(TextPart(_member(part, "refusal", where), {"refusal": True}))
    elif kind == "input_image":
        url = part.get("image_url")
        extra = {"detail": part["detail"]} if isinstance(part.get("detail"), str) else {}
        if isinstance(part.get("file_id"), str):
            files.append(File(name="", upload=part["file_id"], part=parts, at=len(parts)))
            parts.append(ImagePart(extra=extra))
            return
        if not isinstance(url, str):
            raise members.wrong(f"{where}.image_url", "a text")
        found = DATA_URL.match(url)
        if found is None:
            parts.append(ImagePart(url=url, extra=extra))
        else:
            parts.append(ImagePart(media_type=found[1], data=url[found.end() :], extra=extra))
    elif kind == "input_file":
        if part.get("file_url"):
            raise UnsupportedParameterError(
                f"{where}.file_url: files are not fetched from elsewhere; send file_data or a file_id",
                field=f"{where}.file_url",
            )
        data = part.get("file_data")
        file = File(
            name=str(part.get("filename") or ""),
            upload=str(part.get("file_id") or ""),
            data=str(data or "").partition(",")[2]
            if str(data or "").startswith("data:")
            else str(data or ""),
            part=parts,
            at=len(parts),
        )
        if not file.upload and not file.data:
            raise InvalidRequestError(f"{where}: file_id or file_data is needed", field=where)
        files.append(file)
        parts.append(RawPart(dialect="responses", raw=part))
    else:
        raise InvalidRequestError(f"{where}.type: there is no part {str(kind)[:40]!r}", field=f"{where}.type")


def _output(item: dict[str, Any], where: str, files: list[File]) -> ResultPart:
    parts = _content(item.get("output"), f"{where}.output", files)
    content = [one for one in parts if isinstance(one, TextPart | ImagePart | RawPart)]
    return ResultPart(id=_member(item, "call_id", where), content=content)


def _code(item: dict[str, Any], where: str, messages: list[Message]) -> None:
    """Our own work, sent back by a client that stores its conversations itself."""
    name, code = _member(item, "id", where), item.get("code")
    arguments = json.dumps({"code": code if isinstance(code, str) else ""})
    _last(messages, "assistant").parts.append(CallPart(id=name, name=NAMES["python"], arguments=arguments))
    logs = [
        str(one.get("logs") or "")
        for one in item.get("outputs") or []
        if isinstance(one, dict) and one.get("type") == "logs"
    ]
    content: list[TextPart | ImagePart | RawPart] = [TextPart("\n".join(logs) or "[output not sent back]")]
    _last(messages, "user").parts.append(ResultPart(id=name, name=NAMES["python"], content=content))


def _summary(content: str, where: str) -> str:
    """Of our own compaction; another's goes to its own server as it is."""
    try:
        text = urlsafe_b64decode(content.removeprefix(SUMMARY).encode("ascii")).decode()
    except ValueError:
        raise InvalidRequestError(
            f"{where}.encrypted_content: it was changed on its way", field=f"{where}.encrypted_content"
        ) from None
    return f"{SUMMARY_HEAD}\n{text}"


def _last(messages: list[Message], role: str) -> Message:
    """The last message if it is of that role and fits, else a new one."""
    last = messages[-1] if messages else None
    if last is not None and last.role == role:
        results = any(isinstance(part, ResultPart) for part in last.parts)
        if role == "assistant" or results:
            return last
    new = Message("assistant" if role == "assistant" else "user", [])
    messages.append(new)
    return new


def _member(item: dict[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{where}.{name}: a text is needed", field=f"{where}.{name}")
    return value
