"""A real gateway process on a real supervisor, on a loopback port of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

START_TIMEOUT_S = 60
END_TIMEOUT_S = 30


class Gateway:
    """Started on construction; `stop` is graceful, `kill` is not."""

    def __init__(self, supervisor_path: str, home: Path, **settings: object) -> None:
        self.log = home / "gateway.log"
        home.mkdir(parents=True, exist_ok=True)
        ready, write = os.pipe()
        variables = {name: value for name, value in os.environ.items() if not name.startswith("ONEHOP_")}
        variables |= {f"ONEHOP_{name.upper()}": str(value) for name, value in settings.items()}
        variables |= {"ONEHOP_HOME": str(home), "ONEHOP_READY_FD": str(write)}
        variables.setdefault("ONEHOP_PORT", "0")
        with self.log.open("ab") as log:
            self.process = self._start(supervisor_path, variables, write, log)
        os.close(write)
        try:
            readable, _, _ = select.select([ready], [], [], START_TIMEOUT_S)
            self.url = os.read(ready, 200).decode().strip() if readable else ""
        finally:
            os.close(ready)
        if not self.url:
            self.kill()
            raise AssertionError(f"the gateway did not start: {self.log.read_text()}")

    @staticmethod
    def _start(path: str, variables: dict[str, str], ready: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "onehop.wires", path]
        return subprocess.Popen(command, env=variables, pass_fds=(ready,), stdout=log, stderr=log)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
