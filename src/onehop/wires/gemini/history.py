"""A conversation as a client of Google's protocol sends it, in the loop's words.

The work of our interpreter comes back as the parts that we gave out (executableCode, codeExecutionResult, pictures),
and becomes the calls and results that it was. Answers to functions often carry no id: they are matched by name.
"""

from __future__ import annotations

import json
from typing import Any

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
from onehop.agent.upstreams.gemini import RESPONSE
from onehop.agent.upstreams.gemini_reader import SIGNATURE
from onehop.errors import InvalidRequestError
from onehop.wires.gemini.members import camels, listed, member, struct, wrong

PYTHON = "python"
NEVER_ENDED = "[it was stopped before it gave a result]"


def messages(contents: Any, *, hosted: bool = False) -> list[Message]:
    """Raises InvalidRequestError naming the part.

    Args:
        hosted: the code was, and will be, run by the upstream's own interpreter: it gets its parts back as they are.
    """
    given = listed(contents, "contents")
    if not given:
        raise InvalidRequestError("contents: at least one is needed", field="contents")
    history = _History(hosted=hosted)
    for number, content in enumerate(given):
        where = f"contents[{number}]"
        content = struct(content, where)
        role = content.get("role") or "user"
        if role not in ("user", "model", "function"):
            raise InvalidRequestError(
                f"{where}.role: expected user or model, got {str(role)[:40]!r}", field=f"{where}.role"
            )
        for place, part in enumerate(listed(content.get("parts"), f"{where}.parts")):
            history.add(role == "model", part, f"{where}.parts[{place}]")
        history.content_ended()
    return history.ended()


def system(instruction: Any) -> list[Message]:
    """systemInstruction: a content, or (some clients) a text."""
    if instruction is None:
        return []
    if isinstance(instruction, str):
        return [Message("system", [TextPart(instruction)])]
    parts = listed(struct(instruction, "systemInstruction").get("parts"), "systemInstruction.parts")
    found: list[Part] = []
    for number, part in enumerate(parts):
        where = f"systemInstruction.parts[{number}]"
        text = struct(part, where).get("text")
        if not isinstance(text, str):
            raise wrong(f"{where}.text", "a text")
        found.append(TextPart(text))
    return [Message("system", found)] if found else []


class _History:
    """Messages that grow part by part."""

    def __init__(self, *, hosted: bool) -> None:
        self._hosted = hosted
        self._messages: list[Message] = []
        self._pending: list[CallPart] = []
        """Calls of functions that have no answer yet."""
        self._codes: dict[str, str] = {}
        """Code without a result: its id, as the client knows it, and the call's."""
        self._last_result: ResultPart | None = None
        self._count = 0

    def add(self, model: bool, part: Any, where: str) -> None:
        document = camels(struct(part, where))
        if not document:
            return
        if model:
            self._of_model(document, where)
        else:
            self._of_user(document, where)

    def content_ended(self) -> None:
        self._last_result = None

    def ended(self) -> list[Message]:
        """All of it; code that never got a result, and that the conversation went beyond, gets one."""
        results = {
            part.id for message in self._messages for part in message.parts if isinstance(part, ResultPart)
        }
        last = max((at for at, one in enumerate(self._messages) if one.role == "assistant"), default=-1)
        for at in range(last - 1, -1, -1):
            message = self._messages[at]
            open_ = [
                ResultPart(id=part.id, name=PYTHON, content=[TextPart(NEVER_ENDED)], error=True)
                for part in message.parts
                if isinstance(part, CallPart) and part.id in self._codes and part.id not in results
            ]
            if not open_ or message.role != "assistant":
                continue
            if self._messages[at + 1].role == "user":
                self._messages[at + 1].parts[:0] = open_
            else:
                self._messages.insert(at + 1, Message("user", list(open_)))
        return self._messages

    def _put(self, role: Any, part: Part) -> None:
        last = self._messages[-1] if self._messages else None
        if last is None or last.role != role:
            last = Message(role, [])
            self._messages.append(last)
        before = last.parts[-1] if last.parts else None
        if (
            role == "assistant"
            and isinstance(part, TextPart)
            and isinstance(before, TextPart)
            and not before.extra
            and (part.text or part.extra)
        ):  # a stream's pieces
            last.parts[-1] = TextPart(before.text + part.text, part.extra)
            return
        if isinstance(part, TextPart) and not part.text and not part.extra and role == "assistant":
            if not last.parts:
                self._messages.pop()
            return
        last.parts.append(part)

    def _of_model(self, document: dict[str, Any], where: str) -> None:
        signature = {SIGNATURE: document[SIGNATURE]} if document.get(SIGNATURE) else {}
        if self._hosted and document.keys() & {"executableCode", "codeExecutionResult"}:
            self._put("assistant", RawPart(dialect="gemini", raw=document))
        elif "executableCode" in document:
            self._code(struct(document["executableCode"], f"{where}.executableCode"), signature)
        elif "codeExecutionResult" in document:
            self._code_result(
                struct(document["codeExecutionResult"], f"{where}.codeExecutionResult"), document, where
            )
        elif self._last_result is not None and document.keys() == {"inlineData"}:
            self._last_result.content.append(_media(document, f"{where}.inlineData"))
        elif "functionCall" in document:
            self._last_result = None
            self._call(struct(document["functionCall"], f"{where}.functionCall"), signature, where)
        elif document.get("thought") is True and "text" in document:
            text = _text(document, where)
            self._put("assistant", ReasoningPart(text=text, dialect="gemini", raw=document))
        elif "text" in document:
            self._last_result = None
            self._put("assistant", TextPart(_text(document, where), signature))
        elif document.keys() == {SIGNATURE}:
            self._put("assistant", TextPart("", signature))
        else:
            self._put("assistant", RawPart(dialect="gemini", raw=document))

    def _code(self, code: dict[str, Any], signature: dict[str, Any]) -> None:
        self._last_result = None
        name = self._name(code.get("id"), "code")
        self._codes[name] = name
        arguments = json.dumps({"code": str(code.get("code") or "")}, ensure_ascii=False)
        self._put("assistant", CallPart(id=name, name=PYTHON, arguments=arguments, extra=signature))

    def _code_result(self, result: dict[str, Any], document: dict[str, Any], where: str) -> None:
        given = result.get("id")
        name = given if given in self._codes else next(reversed(self._codes), None)
        if name is None:  # of the model's own interpreter, or cut off from its code
            self._put("assistant", RawPart(dialect="gemini", raw=document))
            return
        output = result.get("output") or ""
        if not isinstance(output, str):
            raise wrong(f"{where}.codeExecutionResult.output", "a text")
        self._last_result = ResultPart(
            id=name,
            name=PYTHON,
            content=[TextPart(output)],
            error=result.get("outcome") not in ("OUTCOME_OK", "outcome_ok", None),
        )
        self._put("user", self._last_result)

    def _call(self, call: dict[str, Any], signature: dict[str, Any], where: str) -> None:
        name = call.get("name")
        if not isinstance(name, str) or not name:
            raise wrong(f"{where}.functionCall.name", "a text")
        arguments = struct(call.get("args") or {}, f"{where}.functionCall.args")
        part = CallPart(
            id=self._name(call.get("id"), "call"),
            name=name,
            arguments=json.dumps(arguments, ensure_ascii=False),
            extra=signature,
        )
        self._pending.append(part)
        self._put("assistant", part)

    def _of_user(self, document: dict[str, Any], where: str) -> None:
        if "functionResponse" in document:
            response = camels(struct(document["functionResponse"], f"{where}.functionResponse"))
            self._put("user", self._response(response, f"{where}.functionResponse"))
        elif document.keys() <= {"text", SIGNATURE}:
            self._put("user", TextPart(_text(document, where)))
        elif document.keys() == {"inlineData"} or document.keys() == {"fileData"}:
            self._put("user", _media(document, where))
        elif "functionCall" in document:
            raise InvalidRequestError(
                f"{where}: calls of functions stand in contents of the role model", field=where
            )
        else:
            self._put("user", RawPart(dialect="gemini", raw=document))

    def _response(self, response: dict[str, Any], where: str) -> ResultPart:
        name, given = response.get("name"), response.get("id")
        call = next((one for one in self._pending if given and one.id == given), None)
        if call is None:
            call = next((one for one in self._pending if not given and one.name == name), None)
        if call is None and not given:
            raise InvalidRequestError(
                f"{where}: there is no call of {str(name)[:64]!r} that waits for an answer", field=where
            )
        if call is not None:
            self._pending.remove(call)
        value = struct(response.get("response") or {}, f"{where}.response")
        content: list[TextPart | ImagePart | RawPart] = [TextPart(_said(value))]
        for number, part in enumerate(listed(response.get("parts"), f"{where}.parts")):
            place = f"{where}.parts[{number}]"
            content.append(_media(camels(struct(part, place)), place))
        return ResultPart(
            id=call.id if call is not None else str(given),
            name=call.name if call is not None else str(name or ""),
            content=content,
            error=value.keys() == {"error"},
            extra={RESPONSE: response},
        )

    def _name(self, given: Any, kind: str) -> str:
        """The client's id, or one that is the same whenever the same conversation comes."""
        if isinstance(given, str) and given:
            return given
        self._count += 1
        return f"{kind}_{self._count}"


def _said(value: dict[str, Any]) -> str:
    """An answer as text: `output` (Google's word), `result` (what its SDK says) or `error` alone, or all of it."""
    if len(value) == 1:
        name, only = next(iter(value.items()))
        if name in ("output", "result", "error"):
            return only if isinstance(only, str) else json.dumps(only, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _text(document: dict[str, Any], where: str) -> str:
    text = document.get("text")
    if not isinstance(text, str):
        raise wrong(f"{where}.text", "a text")
    return text


def _media(document: dict[str, Any], where: str) -> ImagePart | RawPart:
    """A picture in our words; other media only Google's own models take."""
    if "inlineData" in document:
        blob = struct(document["inlineData"], f"{where}.inlineData")
        kind, data = member(blob, "mimeType"), blob.get("data")
        if not isinstance(kind, str) or not isinstance(data, str):
            raise wrong(f"{where}.inlineData", "mimeType and data")
        if kind.startswith("image/") and document.keys() == {"inlineData"}:
            # Google's SDK writes the alphabet of URLs, others the usual one.
            return ImagePart(media_type=kind, data=data.replace("-", "+").replace("_", "/"))
    elif "fileData" in document:
        file = struct(document["fileData"], f"{where}.fileData")
        kind, uri = member(file, "mimeType"), member(file, "fileUri")
        if (
            isinstance(kind, str)
            and isinstance(uri, str)
            and kind.startswith("image/")
            and uri.startswith(("http://", "https://"))
            and ".googleapis.com/" not in uri
            and document.keys() == {"fileData"}
        ):
            return ImagePart(media_type=kind, url=uri)
    return RawPart(dialect="gemini", raw=document)
