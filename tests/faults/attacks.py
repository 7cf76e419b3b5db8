"""Each attack on the machine's resources as code, and what a neighbour notices of it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.faults.deaths import session
from tests.faults.server import FaultServer, post

# One piece of code for each attack of THREATS.md, "Resources". Those that would end by themselves begin again.
ATTACKS = {
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "threads": "import threading\nwhile True:\n    try: threading.Thread(target=lambda: threading.Event().wait(60), daemon=True).start()\n    except RuntimeError: pass",
    "memory": "hold = []\nwhile True: hold.append(b'x' * (4 << 20))",
    "memory of tmpfs": "n = 0\nwhile True:\n    n += 1\n    try: open(f'/tmp/{n % 40}', 'wb').write(b'x' * (8 << 20))\n    except OSError: pass",
    "pipe buffers": "import os\nheld = []\nwhile True:\n    try:\n        r, w = os.pipe2(os.O_NONBLOCK); held.append((r, w))\n        while True: os.write(w, b'x' * 65536)\n    except OSError: pass",
    "disk": "n = 0\nwhile True:\n    n += 1\n    try: open(f'f{n % 60}', 'wb').write(b'x' * (8 << 20))\n    except OSError: pass",
    "inodes": "n = 0\nwhile True:\n    n += 1\n    try: open(f'f{n}', 'w').close()\n    except OSError: pass",
    "sparse file": "import os\nfd = os.open('sparse', os.O_RDWR | os.O_CREAT)\nwhile True:\n    try: os.ftruncate(fd, 1 << 50)\n    except OSError: pass",
    "deep folders": "import os\nwhile True:\n    try:\n        os.mkdir('d' * 200); os.chdir('d' * 200)\n    except OSError: os.chdir('/workspace')",
    "descriptors": "import os\nheld = []\nwhile True:\n    try: held.append(os.open('/dev/null', 0))\n    except OSError: pass",
    "spin on every core": "import os\nfor n in range(20):\n    if os.fork() == 0: break\nwhile True: pass",
    "system calls": "import os\nfor n in range(8):\n    if os.fork() == 0: break\nwhile True: os.stat('/')",
    "stopped": "import os, signal\nfor n in range(20):\n    if os.fork() == 0: break\nos.kill(os.getpid(), signal.SIGSTOP)",
    "output": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "results": "while True: display('x' * 100_000)",
    "zombies": "import os\nwhile True:\n    try:\n        if os.fork() == 0: os._exit(0)\n    except OSError: pass",
    "signals to everything": "import os\nwhile True:\n    for n in (1, -1):\n        try: os.kill(n, 9)\n        except OSError: pass",
}  # fmt: skip
ATTACK_TIMEOUT_S = 60.0
PAUSE_S = 0.02


@dataclass
class Noticed:
    """Milliseconds of the neighbour's `1+1`, without and with the attack, and what the gateway took meanwhile."""

    quiet_ms: list[float] = field(default_factory=list)
    noisy_ms: list[float] = field(default_factory=list)
    gateway_growth_bytes: int = 0
    ended: str = ""


def percentile(values: list[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def neighbour(client: httpx2.Client, path: str, seconds: float) -> list[float]:
    """Runs `1+1` now and then; every answer must be right."""
    taken = []
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        started_s = time.perf_counter()
        answer = post(client, f"{path}/execute", {"code": "1+1"})
        taken.append((time.perf_counter() - started_s) * 1000)
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"] == [{"text/plain": "2"}], answer.text
        time.sleep(PAUSE_S)
    return taken


def attack(server: FaultServer, client: httpx2.Client, name: str, seconds: float) -> Noticed:
    """Lets one session attack while another works, for so many seconds each way."""
    noticed = Noticed()
    quiet, loud = session(client), session(client)
    gateway = server.gateway()

    def run() -> None:
        with server.client(timeout_s=2 * ATTACK_TIMEOUT_S) as another:
            answer = post(another, f"{loud}/execute", {"code": ATTACKS[name], "timeout_s": ATTACK_TIMEOUT_S})
            noticed.ended = answer.json().get("status", str(answer.status_code))

    neighbour(client, quiet, min(1.0, seconds / 4))
    noticed.quiet_ms = neighbour(client, quiet, seconds)
    before = resident(gateway)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        noticed.noisy_ms = neighbour(client, quiet, seconds)
        noticed.gateway_growth_bytes = resident(gateway) - before
    finally:
        ended = client.delete(loud)
        thread.join(ATTACK_TIMEOUT_S)
    assert ended.status_code in (204, 410), ended.text
    assert not thread.is_alive()
    assert client.delete(quiet).status_code == 204
    assert server.gateway() == gateway
    return noticed
