"""Forms with one file (multipart/form-data, RFC 7578), read as they come.

The file is handed on piece by piece: it must never be in memory whole, and neither may what a client says
besides it grow without bound. File names are the client's words and are no paths here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from onehop.api.asgi import Call
from onehop.errors import InvalidRequestError, TooLargeError, UnsupportedMediaTypeError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM = "multipart/form-data"
MAX_FIELDS = 64
MAX_FIELD_BYTES = 64 * 1024
"""Of all fields together, names included."""
MAX_HEADERS = 8
"""Of one part."""
FRAME_BYTES = 64 * 1024
"""Room for the form around a file: boundaries and headers of parts."""

# It warns of each malformed form, and clients must not fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class FilePart:
    """The form's file: the field that it stands in, its name ("" for none) and the type that the client gives."""

    field: str
    name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class _Headers:
    field: str
    file: FilePart | None


class _End:
    """A part is over."""


_END = _End()
_Piece = _Headers | bytes | _End


def is_form(call: Call) -> bool:
    return call.header(b"content-type").partition(b";")[0].strip().lower() == FORM.encode()


class Form:
    """One request's form.

    Attributes:
        fields: those that have come; all of them once `content` has ended.
        file: its file, None when it has none.
    """

    def __init__(self, call: Call, file_bytes: int) -> None:
        kind, parameters = parse_options_header(call.header(b"content-type").decode("latin-1"))
        boundary = parameters.get(b"boundary", b"")
        if kind != FORM.encode() or not boundary:
            raise UnsupportedMediaTypeError(f"send a form with a boundary, as Content-Type: {FORM}")
        self.fields: dict[str, str] = {}
        self.file: FilePart | None = None
        self._field_bytes = 0
        self._pieces: deque[_Piece] = deque()
        self._header: list[bytearray] = [bytearray(), bytearray()]
        self._headers: dict[bytes, bytes] = {}
        self._complete = False
        limit_bytes = file_bytes + MAX_FIELD_BYTES + FRAME_BYTES
        call.declared_length(limit_bytes)
        self._body = call.chunks(limit_bytes)
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_part_data": lambda data, start, end: self._pieces.append(data[start:end]),
            "on_part_end": lambda: self._pieces.append(_END),
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks, max_header_count=MAX_HEADERS)
        except FormParserError as error:
            raise _malformed(error) from None

    @classmethod
    async def read(cls, call: Call, file_bytes: int) -> Form:
        """The form up to its file's content, or the whole of it when there is no file.

        Args:
            file_bytes: longest file that will be taken; longer bodies are refused at once.

        Raises:
            UnsupportedMediaTypeError: the body is no form.
            InvalidRequestError: it is malformed, or has too many fields.
            TooLargeError: it is too long.
        """
        form = cls(call, file_bytes)
        await form._read_fields()
        return form

    async def content(self) -> AsyncIterator[bytes]:
        """The file's content. Then the rest of the form is read, so that `fields` is complete.

        Raises:
            InvalidRequestError: the form is malformed, or a second file follows.
            TooLargeError: it is too long.
            ClientDisconnect: it was broken off.
        """
        first = self.file
        async for piece in self._content():
            yield piece
        await self._read_fields()
        if self.file is not first:
            raise InvalidRequestError("the form has two files; send one in a request", field="file")

    async def files(self) -> AsyncIterator[tuple[FilePart, AsyncIterator[bytes]]]:
        """All its files, one after the other; each one's content is to be read before the next. Raises as `content`."""
        while self.file is not None:
            content = self._content()
            yield self.file, content
            async for _ in content:
                pass
            self.file = None
            await self._read_fields()

    async def _content(self) -> AsyncIterator[bytes]:
        while isinstance(piece := await self._next(), bytes):
            yield piece

    async def _read_fields(self) -> None:
        """Until a file begins, or the form ends."""
        while (piece := await self._next()) is not None:
            if isinstance(piece, _Headers):
                if piece.file is not None:
                    self.file = piece.file
                    return
                await self._read_field(piece.field)

    async def _read_field(self, name: str) -> None:
        value = bytearray()
        self._field_bytes += len(name)
        while isinstance(piece := await self._next(), bytes):
            value += piece
            if self._field_bytes + len(value) > MAX_FIELD_BYTES:
                raise TooLargeError(
                    f"the form's fields have more than {MAX_FIELD_BYTES} bytes", limit_bytes=MAX_FIELD_BYTES
                )
        self._field_bytes += len(value)
        if len(self.fields) >= MAX_FIELDS:
            raise InvalidRequestError(f"the form has more than {MAX_FIELDS} fields")
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(f"{name[:64]}: the field is no UTF-8", field=name[:64]) from None

    async def _next(self) -> _Piece | None:
        """None at the end of the form."""
        while not self._pieces:
            chunk = await anext(self._body, b"")
            if not chunk:
                if not self._complete:
                    raise InvalidRequestError("the form has no end: its last boundary is missing")
                return None
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _malformed(error) from None
        return self._pieces.popleft()

    def _on_part(self) -> None:
        self._headers = {}

    def _on_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = [bytearray(), bytearray()]

    def _on_headers(self) -> None:
        given = self._headers.get(b"content-disposition", b"")
        _, parameters = parse_options_header(given.decode("latin-1"))
        if b"name" not in parameters:
            raise InvalidRequestError("a part of the form has no name")
        field = _text(parameters[b"name"])
        media_type = self._headers.get(b"content-type", b"").decode("latin-1").strip()
        if b"filename" in parameters:
            file = FilePart(field, _text(parameters[b"filename"]), media_type)
            self._pieces.append(_Headers(field, file))
        else:
            self._pieces.append(_Headers(field, None))

    def _on_end(self) -> None:
        self._complete = True


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("a name in the form is no UTF-8") from None


def _malformed(error: FormParserError) -> InvalidRequestError:
    return InvalidRequestError(f"the form is malformed: {error}")
