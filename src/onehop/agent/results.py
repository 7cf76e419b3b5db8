"""What a model is told of an execution: text first, short, pictures where it can see them."""

from __future__ import annotations

import binascii
from base64 import b64decode

from onehop.agent.model import ImagePart, RawPart, ResultPart, TextPart
from onehop.sessions.answers import Answer

MAX_CHARACTERS = 20_000
"""Of one result; what is longer is cut in the middle."""
MAX_TRACEBACK = 4_000
MAX_FILES = 50
MAX_IMAGES = 4
MAX_IMAGE_BYTES = 4 * 1024 * 1024
IMAGES = ("image/png", "image/jpeg")
TEXTS = ("text/plain", "text/markdown", "text/latex")


def result(name: str, call: str, answer: Answer, *, images: bool) -> ResultPart:
    """For the call `call` of the function `name`.

    Args:
        images: the model takes pictures.
    """
    pieces: list[str] = []
    if answer.stdout:
        pieces.append(answer.stdout.rstrip("\n"))
    pictures: list[ImagePart] = []
    for shown in answer.results:
        mime = next((mime for mime in IMAGES if mime in shown), None)
        text = next((shown[mime] for mime in TEXTS if mime in shown), "")
        if mime is None:
            pieces.append(text or f"[shown to the user: {', '.join(shown)}]")
        elif images and len(pictures) < MAX_IMAGES and _bytes(shown[mime]) <= MAX_IMAGE_BYTES:
            pictures.append(ImagePart(media_type=mime, data=shown[mime]))
            pieces.append(f"[picture {len(pictures)}]")
        else:
            pieces.append("[a picture, shown to the user]")
    if answer.stderr:
        pieces.append("[stderr]\n" + answer.stderr.rstrip("\n"))
    output = cut("\n".join(pieces), MAX_CHARACTERS, _rest(answer))
    ends: list[str] = []
    if answer.error is not None:
        ends.append(cut(answer.error.traceback.rstrip("\n"), MAX_TRACEBACK, ""))
    if answer.status not in ("ok", "error"):
        ends.append(f"[{answer.status}: {answer.reason}]" if answer.reason else f"[{answer.status}]")
    if answer.exit_code:
        ends.append(f"[exit status {answer.exit_code}]")
    if answer.variables == "lost":
        ends.append("[the interpreter was started again: variables and imports are gone, files are there]")
    if answer.files:
        named = ", ".join(f"{one.path} ({one.bytes} bytes)" for one in answer.files[:MAX_FILES])
        more = f" and {len(answer.files) - MAX_FILES} more" if len(answer.files) > MAX_FILES else ""
        ends.append(f"[files made or changed: {named}{more}]")
    text = "\n".join([*([output] if output else []), *ends]) or "[no output]"
    content: list[TextPart | ImagePart | RawPart] = [TextPart(text), *pictures]
    return ResultPart(id=call, name=name, content=content, error=answer.status != "ok")


def cut(text: str, most: int, rest: str) -> str:
    """Both ends of a text that is too long; `rest` says where all of it is."""
    if len(text) <= most:
        return text
    half = most // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out} characters left out{rest} …]\n{text[-half:]}"


def _rest(answer: Answer) -> str:
    if answer.output_file is not None:
        return f"; what did not fit into the answer is in the file {answer.output_file.path}"
    return "; print less, or write it to a file and read it piece by piece"


def _bytes(data: str) -> int:
    try:
        return len(b64decode(data, validate=False))
    except (binascii.Error, ValueError):
        return MAX_IMAGE_BYTES + 1
