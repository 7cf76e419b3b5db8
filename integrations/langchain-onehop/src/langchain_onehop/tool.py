"""Python as a tool of LangChain: variables stay, figures come back as pictures."""

from __future__ import annotations

from typing import Any

from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from onehop import Session

PICTURES = ("image/png", "image/jpeg")


class _Arguments(BaseModel):
    code: str = Field(description="Python source. The value of the last line is shown, as in a notebook.")


class OnehopTool(BaseTool):
    """Runs code in one session, made at the first call.

    Args:
        session: an onehop.Session; it stays the caller's to close. Without one a session is made, which `close` ends.
        timeout_s: seconds that a call may take; the server's default when left out.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str = "python"
    description: str = (
        "Runs Python in a sandbox with pandas, numpy and matplotlib. Variables, imports and files of earlier calls "
        "are there. Shows what the code prints, the value of its last line, its figures, and its error if it fails."
    )
    args_schema: Any = _Arguments
    response_format: str = "content_and_artifact"  # type: ignore[assignment]
    timeout_s: float | None = None
    _session: Session = PrivateAttr()
    _own: bool = PrivateAttr(default=False)

    def __init__(self, session: Session | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self._own = session is None
        self._session = session if session is not None else Session()

    def _run(self, code: str, **_: Any) -> tuple[Any, Any]:
        done = self._session.run(code, timeout_s=self.timeout_s)
        parts = [done.stdout, done.stderr, *(one.text for one in done.results if one.text)]
        if done.error is not None:
            parts.append(done.error.traceback)
        elif done.status != "ok":
            parts.append(f"{done.status}: {done.reason}")
        text = "\n".join(part.rstrip("\n") for part in parts if part) or "(it ran and showed nothing)"
        pictures = [
            {"type": "image", "base64": one.data[kind], "mime_type": kind}
            for one in done.results
            for kind in PICTURES
            if kind in one.data
        ]
        return ([{"type": "text", "text": text}, *pictures] if pictures else text), done

    def close(self) -> None:
        """Ends the session, unless it was the caller's."""
        if self._own:
            self._session.close()
