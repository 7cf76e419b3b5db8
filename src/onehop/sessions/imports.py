"""Import rules as a client asks for them: guard rails for its own code, which the kernel keeps, and no wall."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from onehop import protocol
from onehop.errors import InvalidRequestError

ModuleName = Annotated[
    str, Meta(max_length=255, pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*(?![\s\S])", examples=["numpy", "os.path"])
]


class ImportRules(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which modules code may import, by one of two lists; a module's name covers its submodules.

    What an allowed module imports itself is not refused. A guard rail, no wall.

    Args:
        allow: only these, and modules of the workspace.
        deny: all but these.
    """

    allow: Annotated[list[ModuleName], Meta(max_length=1000)] | None = None
    deny: Annotated[list[ModuleName], Meta(max_length=1000)] | None = None


def import_rules(asked: ImportRules | None) -> protocol.ImportRules | None:
    """What the kernel is told. Raises InvalidRequestError unless there is exactly one list."""
    if asked is None:
        return None
    if (asked.allow is None) == (asked.deny is None):
        raise InvalidRequestError("imports: give one list, either allow or deny", field="imports")
    return protocol.ImportRules(allow=asked.allow, deny=asked.deny or [])
