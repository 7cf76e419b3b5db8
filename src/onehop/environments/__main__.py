"""`python -m onehop.environments`: build the default environment into ONEHOP_HOME, saying what it does."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from onehop.environments.build import ensure
from onehop.environments.model import DEFAULT_NAME
from onehop.errors import OnehopError


def main() -> int:
    home = os.environ.get("ONEHOP_HOME")
    directory = Path(home).expanduser() if home else Path.home() / ".local" / "share" / "onehop"
    started = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {line}", flush=True)

    try:
        ensure(DEFAULT_NAME, directory.absolute(), progress=tell)
    except OnehopError as error:
        print(f"onehop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("onehop: interrupted; nothing was changed", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
