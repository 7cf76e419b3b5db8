"""An order to crash is carried out or taken back, never both: else a gateway would die in a test's quiet time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from onehop import crash


class _Slow(crash._Armed):
    """Its test takes the order back just when it has been read."""

    def _read(self) -> None:
        super()._read()
        Path(self._file).unlink()


@pytest.mark.parametrize(("kind", "dies"), [(crash._Armed, True), (_Slow, False)])
def test_an_order_is_carried_out_or_taken_back(
    kind: type[crash._Armed], dies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *how: killed.append(how))
    order = tmp_path / "crash-at"
    order.write_text("before-commit")
    kind(f"@{order}")("before-commit")
    assert killed == ([(os.getpid(), signal.SIGKILL)] if dies else [])
    assert [file.name for file in tmp_path.iterdir()] == ([f"crash-at.{os.getpid()}"] if dies else [])
