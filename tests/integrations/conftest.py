"""The packages in integrations/, against a gateway without keys."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.wires.conftest import client, gateway, home, models, server

__all__ = ["client", "gateway", "home", "models", "server"]

ROOT = Path(__file__).parents[2]
for folder in sorted((ROOT / "integrations").glob("*/src")):
    sys.path.insert(0, str(folder))
