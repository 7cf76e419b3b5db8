"""Floods of output, results and events: bounded, marked, the rest in a file of the workspace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from onehop.supervisor.spawn import SupervisorHandle
from tests.driver import Driver, Session

Watched = Callable[[], AbstractContextManager[None]]
MIB = 1 << 20
SPILL = (
    "import glob, os; names = glob.glob('output-*.txt'); print(names, [os.path.getsize(n) for n in names])"
)


def supervisor_rss_bytes(supervisor: SupervisorHandle) -> int:
    """Resident memory of the supervisor, the shim's only child."""
    shim = supervisor.process.pid
    child = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()[0]
    for line in Path(f"/proc/{child}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS line")


def test_a_flood_is_cut_and_the_rest_is_in_a_named_file(session: Session, watched: Watched) -> None:
    with watched():
        outcome = session.run(
            "import os\nfor n in range(320): os.write(1, bytes([97 + n % 26]) * 65536)", timeout_s=30
        )
    assert (outcome.status, outcome.end.truncated) == ("ok", True)
    assert len(outcome.stdout) == MIB
    assert outcome.end.spilled_bytes == 320 * 65536 - MIB
    assert outcome.end.spill_file.startswith("output-")
    check = session.run(f"""
import os
data = open({outcome.end.spill_file!r}, 'rb').read()
print(len(data), data[:1] == bytes([97 + 16 % 26]), data[-1:] == bytes([97 + 319 % 26]))
""")
    assert check.stdout == f"{outcome.end.spilled_bytes} True True\n"


def test_a_flood_that_fills_the_quota_is_output_limit(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session(workspace_bytes=4 * MIB) as session:
        outcome = session.run("import os\nwhile True: os.write(1, b'x' * 65536)", timeout_s=30, grace_s=1)
        assert outcome.status == "output_limit", outcome.document()
        assert outcome.end.truncated
        assert outcome.end.spilled_bytes <= 4 * MIB


@pytest.mark.parametrize(
    "trick",
    ["open(name, 'w').write('mine')", "os.symlink('/etc/passwd', name)", "os.mkfifo(name)", "os.mkdir(name)",
     "os.symlink('elsewhere', name)", "open('victim', 'w').write('v'); os.link('victim', name)"],
)  # fmt: skip
def test_a_spill_file_that_is_there_already_is_not_touched(driver: Driver, trick: str) -> None:
    """Its name can be guessed by nobody, but here by the test."""
    from onehop.supervisor.messages import ExecutionSpec

    with driver.session() as session:
        number = next(driver._numbers) + 2
        name = f"output-{ExecutionSpec(id=f'test-{number}', code='').id}.txt"
        made = session.run(f"import os; name = {name!r}; {trick}; before = os.lstat(name)")
        assert made.status == "ok", made.document()
        outcome = session.run("for n in range(64): os.write(1, b'x' * 65536)", timeout_s=20, grace_s=1)
        assert outcome.events[0].execution == f"test-{number}"
        assert outcome.status == "output_limit", outcome.document()
        after = session.run(
            "now = os.lstat(name); print((now.st_size, now.st_mode) == (before.st_size, before.st_mode))"
        )
        assert after.stdout == "True\n", after.document()


def test_a_spill_file_that_is_taken_away_meanwhile(session: Session, watched: Watched) -> None:
    code = """
import glob, os
for n in range(64):
    os.write(1, b'x' * 65536)
    for name in glob.glob('output-*'):
        os.rename(name, 'taken'); os.symlink('/etc/passwd', name)
"""
    with watched():
        assert session.run(code, timeout_s=20).status == "ok"
    assert session.run("open('/etc/passwd').read(4)").results == [{"text/plain": "'root'"}]


def test_events_are_merged_beyond_a_bound(
    session: Session, watched: Watched, supervisor: SupervisorHandle
) -> None:
    with watched():
        before = supervisor_rss_bytes(supervisor)
        code = "import os, time\nfor n in range(100_000): os.write(1 + n % 2, b'x')"
        outcome = session.run(code, timeout_s=60)
        assert outcome.status == "ok"
        assert len(outcome.events) <= 20_001
        assert supervisor_rss_bytes(supervisor) - before < 64 * MIB


def test_results_are_bounded(session: Session, watched: Watched, supervisor: SupervisorHandle) -> None:
    before = supervisor_rss_bytes(supervisor)
    with watched():
        code = "from IPython.display import display, HTML\nfor n in range(60): display(HTML('x' * (1 << 20)))"
        outcome = session.run(code, timeout_s=60)
        assert (outcome.status, outcome.end.truncated) == ("ok", True)
        assert sum(len(r.get("text/html", "")) for r in outcome.results) <= 32 * MIB
    assert supervisor_rss_bytes(supervisor) - before < 160 * MIB


def test_late_output_is_bounded(driver: Driver, session: Session, supervisor: SupervisorHandle) -> None:
    """What is written after a cell's end is kept for the next one, up to 64 KiB."""
    before = supervisor_rss_bytes(supervisor)
    session.run("""
import os, time
if os.fork() == 0:
    for n in range(1000): os.write(1, b'late ' * 13107)
    open('flooded', 'w').close()
    os._exit(0)
""")
    done = session.run(
        "import os, time\nwhile not os.path.exists('flooded'): time.sleep(0.01)\nprint('end')", timeout_s=30
    )
    assert done.status == "ok", done.document()
    assert len(done.stdout) <= MIB + 65536
    assert supervisor_rss_bytes(supervisor) - before < 32 * MIB
