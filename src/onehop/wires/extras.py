"""What every wire takes beyond its vendor's protocol: headers `Onehop-*`, and the member `onehop` of a body.

A header says the same as the member of that name, for clients that cannot add to the body; the body counts more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from onehop.agent.events import ContainerChoice, Limits, LoopEnd, LoopRequest
from onehop.api.asgi import Call, Header
from onehop.errors import InvalidRequestError

CONVERSATION = b"onehop-conversation"
EXPIRED = b"onehop-expired"
TOOLS = b"onehop-tools"

Positive = Annotated[float, Meta(gt=0)]
PositiveInt = Annotated[int, Meta(ge=1)]


class LimitFields(msgspec.Struct, forbid_unknown_fields=True):
    """Most of each that the request may use; see the settings `loop_*`."""

    turns: PositiveInt | None = None
    wall_s: Positive | None = None
    tokens: PositiveInt | None = None
    tool_calls: PositiveInt | None = None
    cost: Positive | None = None


class Extras(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The member `onehop`.

    Args:
        code: whether the model gets the Python tool, where the protocol has no word for it.
        conversation: which conversation's container the code runs in; it is made when it is not there.
        container: this container's id instead.
        expired: a container that has expired is an error (as when nothing is said), or replaced (`restart`), and the
            model is told.
        tools: registered tools (names, patterns) that the code may call.
        code_callable: names of the request's own functions that the code may call.
        limits: of this request.
        show: the work is shown in the answer, where an ordinary client would not see it.
    """

    code: bool | None = None
    conversation: str = ""
    container: str = ""
    expired: Literal["error", "restart"] | None = None
    tools: list[str] = []
    code_callable: list[str] = []
    limits: LimitFields | None = None
    show: bool = False


def read(call: Call, given: Extras | None) -> Extras:
    """The body's, completed from the headers. Raises InvalidRequestError."""
    extras = given or Extras()
    if extras.conversation and extras.container:
        raise InvalidRequestError(
            "onehop: `conversation` and `container` both name where the code runs; leave out one",
            field="onehop.container",
        )
    if not extras.conversation and not extras.container and (text := _text(call, CONVERSATION)):
        extras.conversation = text
    if not extras.tools and (text := _text(call, TOOLS)):
        extras.tools = [name.strip() for name in text.split(",") if name.strip()]
    if extras.expired is None and (text := _text(call, EXPIRED)):
        if text not in ("error", "restart"):
            raise InvalidRequestError(
                f"Onehop-Expired: expected error or restart, got {text[:40]!r}", field="Onehop-Expired"
            )
        extras.expired = "restart" if text == "restart" else "error"
    return extras


def apply(extras: Extras, request: LoopRequest) -> None:
    """Tells the loop's request."""
    request.tools = extras.tools
    request.container.restart = extras.expired == "restart"
    if extras.conversation:
        request.container.conversation = extras.conversation
    if extras.limits is not None:
        request.limits = Limits(**msgspec.structs.asdict(extras.limits))
    known = {one.name: one for one in request.request.tools}
    for name in extras.code_callable:
        if name not in known:
            raise InvalidRequestError(
                f"onehop.code_callable: the request has no function {name[:64]!r}",
                field="onehop.code_callable",
            )
        request.code_callable.append(known[name])


def report(end: LoopEnd) -> dict[str, Any]:
    """Our own block of the usage."""
    found: dict[str, Any] = {"end": end.reason, **msgspec.structs.asdict(end.report)}
    if end.detail:
        found["detail"] = end.detail
    if end.container is not None:
        found["container"] = end.container.session
        found["container_expires_at"] = end.container.expires_at
    return found


def headers(end: LoopEnd) -> list[Header]:
    """Of an answer that is not streamed."""
    found: list[Header] = [(b"onehop-end", end.reason.encode())]
    if end.container is not None:
        found.append((b"onehop-container", end.container.session.encode()))
    return found


def choice(extras: Extras) -> ContainerChoice:
    """What the extras say of the container."""
    return ContainerChoice(
        session=extras.container,
        conversation=extras.conversation,
        restart=extras.expired == "restart",
    )


def _text(call: Call, name: bytes) -> str:
    return call.header(name).decode("latin-1").strip()
