"""`python -m onehop.environments.lock`: write default.lock anew from default.in, with today's versions."""

from __future__ import annotations

import sys

from onehop.environments.locking import DEFAULT_LOCK, compile_default, direct_requirements
from onehop.errors import EnvironmentBuildError


def main() -> int:
    try:
        lock = compile_default(lambda line: None)
    except EnvironmentBuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    DEFAULT_LOCK.write_text(lock, encoding="utf-8")
    sys.stdout.write(f"{DEFAULT_LOCK}: {len(direct_requirements(lock))} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
