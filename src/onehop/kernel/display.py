"""Rich output: what `display()` and a cell's value become on the channel."""
# runs inside the wall: standard library only

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from IPython.core.displayhook import DisplayHook as BaseDisplayHook
from IPython.core.displaypub import DisplayPublisher as BaseDisplayPublisher
from IPython.core.formatters import DisplayFormatter as BaseDisplayFormatter

from onehop.kernel import figures

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell

BINARY = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
MAX_TEXT_CHARS = 4 * 1024 * 1024


def bundle(data: dict[str, Any]) -> dict[str, str | bytes]:
    """IPython's format data with binary types as bytes and everything else as text."""
    out: dict[str, str | bytes] = {}
    for key, value in data.items():
        mime = str(key)
        if isinstance(value, bytes):
            out[mime] = value
        elif isinstance(value, str):
            if mime in BINARY:
                try:
                    out[mime] = base64.b64decode(value, validate=False)
                    continue
                except ValueError:
                    pass
            out[mime] = value if len(value) <= MAX_TEXT_CHARS else value[:MAX_TEXT_CHARS] + "…"
        else:
            try:
                out[mime] = json.dumps(value)
            except (TypeError, ValueError):
                continue
    # Lone surrogates cannot be sent as UTF-8.
    return {
        mime.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
        if isinstance(value, str)
        else value
        for mime, value in out.items()
    }


class DisplayFormatter(BaseDisplayFormatter):
    """Remembers figures that were shown by `display()` or as a value."""

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> Any:
        if figures.is_figure(obj):
            figures.note(obj)
        return super().format(obj, include, exclude)


class DisplayPublisher(BaseDisplayPublisher):
    """`display()`: sent at once, in order with the text."""

    shell: Shell

    def publish(
        self,
        data: Any,
        metadata: Any = None,
        source: Any = None,
        *,
        transient: Any = None,
        update: Any = False,
        **kwargs: Any,
    ) -> None:
        channel = self.shell.channel
        if channel is not None and data:
            channel.display(bundle(data))

    def clear_output(self, wait: bool = False) -> None:
        pass  # the answer keeps everything that was shown


class DisplayHook(BaseDisplayHook):
    """The value of a cell's last expression: held until the cell's figures are shown, so that it comes last."""

    shell: Shell
    pending: dict[str, str | bytes] | None = None
    says_quiet = True
    """False when the running cell has no `;` that could keep its value from being shown."""

    def quiet(self) -> bool:
        return self.says_quiet and bool(super().quiet())

    def update_user_ns(self, result: Any) -> None:
        if not self.shell.cells.keep(result):
            super().update_user_ns(result)

    def cull_cache(self) -> None:
        """Forgets the oldest values of a long session; IPython warns of it in the midst of a cell's output."""
        out = self.shell.user_ns.get("_oh", {})
        for number in sorted(out)[: max(int(len(out) * self.cull_fraction), 2)]:
            self.shell.user_ns.pop(f"_{number}", None)
            del out[number]

    def log_output(self, format_dict: dict[str, Any]) -> None:
        pass  # IPython would keep every output for ever, pictures too

    def write_output_prompt(self) -> None:
        pass

    def compute_format_data(self, result: Any) -> Any:
        text = self.shell.shortcuts.text_of(result)
        if text is not None:
            return {"text/plain": text}, {}
        if figures.is_figure(result) and figures.was_shown(result):
            return {"text/plain": repr(result)}, {}  # plt.show() or display() showed it: once is enough
        return super().compute_format_data(result)

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        if self.pending and self.shell.channel is not None:
            self.shell.channel.display(self.pending)  # a cell that shows all its values, not only the last
        self.pending = bundle(format_dict)

    def finish_displayhook(self) -> None:
        pass

    def publish_pending(self) -> None:
        """Sends the value, if the cell had one."""
        pending, self.pending = self.pending, None
        if pending and self.shell.channel is not None:
            self.shell.channel.display(pending, final=True)
