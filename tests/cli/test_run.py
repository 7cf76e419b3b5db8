"""`onehop run` for real: with an engine of its own, and on a server."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.processes import END_S, ONEHOP, START_S, Server, onehop, variables, wait_until

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SQUARE = """
import matplotlib.pyplot as plt
text = open("numbers.csv").read()
open("squares.txt", "w").write("".join(f"{int(n) ** 2}\\n" for n in text.split()))
plt.plot([int(n) for n in text.split()])
print("squared")
text.count("\\n")
"""


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `onehop run` without waiting for it; what still runs at the end of the test is killed."""
    runs: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, **more: str) -> subprocess.Popen[bytes]:
        run = subprocess.Popen(
            [*ONEHOP, "run", *arguments],
            cwd=tmp_path,
            env=variables(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        runs.append(run)
        return run

    yield begin
    for run in runs:
        run.kill()
        run.wait()
        for pipe in (run.stdout, run.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.csv"
    path.write_text("1\n2\n3\n")
    return path


def test_the_example_writes_two_pictures_and_a_table(tmp_path: Path, onehop_home: Path) -> None:
    done = onehop(
        "run", str(EXAMPLES / "analysis.py"), "--file", str(EXAMPLES / "co2.csv"), cwd=tmp_path,
        ONEHOP_HOME=str(onehop_home),
    )  # fmt: skip
    assert "Mauna Loa, March 1958 to December 2001" in done.stdout
    out = tmp_path / "onehop-out"
    assert {path.name for path in out.iterdir()} - {".onehop-run.json"} == {
        "by_year.csv",
        "season.png",
        "trend.png",
    }
    for name in ("season.png", "trend.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert re.search(rf"^  {name} +[\d.]+ kB$", done.stderr, re.MULTILINE)
    assert (out / "by_year.csv").read_text().startswith("year,")


def test_files_figures_and_values(tmp_path: Path, numbers: Path, onehop_home: Path) -> None:
    done = onehop("run", "-c", SQUARE, "--file", str(numbers), cwd=tmp_path, ONEHOP_HOME=str(onehop_home))
    assert done.stdout == "squared\n3\n"
    assert (tmp_path / "onehop-out/squares.txt").read_text() == "1\n4\n9\n"
    assert (tmp_path / "onehop-out/figure-1.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "onehop-out/numbers.csv").exists()


def test_the_engine_of_a_run_leaves_nothing(tmp_path: Path, onehop_home: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = onehop(
        "run", "-c", "1/0", cwd=tmp_path, code=1, ONEHOP_HOME=str(onehop_home), TMPDIR=str(temporary)
    )
    assert done.stdout == ""
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "onehop-out").exists()


def test_killed_in_the_middle_it_leaves_nothing(tmp_path: Path, onehop_home: Path, start: Start) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = "print('on', flush=True); import time; time.sleep(60)"
    run = start("-c", code, ONEHOP_HOME=str(onehop_home), TMPDIR=str(temporary))
    assert read_line(run) == b"on\n"
    assert list(temporary.iterdir()) != []
    run.kill()
    wait_until(lambda: not list(temporary.iterdir()), END_S, f"{temporary} is empty")


def test_on_a_server(tmp_path: Path, numbers: Path, shared_server: Server) -> None:
    done = onehop(
        "run",
        "-c",
        SQUARE,
        "--file",
        f"{numbers}:numbers.csv",
        "--out",
        "there",
        "--url",
        shared_server.url,
        cwd=tmp_path,
    )
    assert done.stdout == "squared\n3\n"
    assert (tmp_path / "there/squares.txt").read_text() == "1\n4\n9\n"
    assert (tmp_path / "there/figure-1.png").read_bytes().startswith(b"\x89PNG")
    assert shared_server.call("GET", "/api/sessions") == {"sessions": []}


def test_code_from_standard_input_and_the_server_from_the_environment(
    tmp_path: Path, shared_server: Server
) -> None:
    done = onehop("run", "-", cwd=tmp_path, stdin="print(6 * 7)", ONEHOP_URL=shared_server.url)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_json_is_the_answer_and_nothing_else(tmp_path: Path, shared_server: Server) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); open('a.txt', 'w').write('a'); 6 * 7"
    done = onehop("run", "-c", code, "--json", "--url", shared_server.url, cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["stdout"], answer["stderr"]) == ("ok", "out\n", "err\n")
    assert answer["results"] == [{"text/plain": "42"}]
    assert answer["files"] == [{"path": "a.txt", "bytes": 1}]


def test_a_timeout_is_exit_code_124(tmp_path: Path, shared_server: Server) -> None:
    code = "print('before', flush=True)\nwhile True: pass"
    done = onehop("run", "-c", code, "--timeout", "0.5", "--url", shared_server.url, cwd=tmp_path, code=124)
    assert done.stdout == "before\n"
    assert "onehop: timeout" in done.stderr


def test_a_sandbox_that_ends_is_exit_code_4(tmp_path: Path, shared_server: Server) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = onehop("run", "-c", code, "--url", shared_server.url, cwd=tmp_path, code=4)
    assert "onehop: kernel died" in done.stderr


def test_a_problem_of_the_server_is_one_line(tmp_path: Path, shared_server: Server) -> None:
    done = onehop(
        "run", "-c", "1", "--environment", "absent", "--url", shared_server.url, cwd=tmp_path, code=3
    )
    assert done.stderr.count("\n") == 1
    assert "There is no such environment" in done.stderr


def test_ctrl_c_interrupts_the_code_and_fetches_its_files(
    tmp_path: Path, shared_server: Server, start: Start
) -> None:
    code = "import time; open('half.txt', 'w').write('half'); print('on', flush=True); time.sleep(60)"
    run = start("-c", code, "--url", shared_server.url)
    assert read_line(run) == b"on\n"  # it comes while the code runs
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=END_S)
    assert run.returncode == 130, err
    assert b"KeyboardInterrupt" in err
    assert (tmp_path / "onehop-out/half.txt").read_text() == "half"
    assert shared_server.call("GET", "/api/sessions") == {"sessions": []}


def test_a_second_ctrl_c_ends_everything(shared_server: Server, start: Start) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('no', flush=True)); print('on', flush=True)\n"
        "while True: time.sleep(1)"
    )
    run = start("-c", code, "--url", shared_server.url)
    assert read_line(run) == b"on\n"
    run.send_signal(signal.SIGINT)
    assert read_line(run) == b"no\n"
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=END_S)
    assert run.returncode == 130
    assert shared_server.call("GET", "/api/sessions") == {"sessions": []}


def test_a_run_goes_on_when_the_gateway_is_killed(shared_server: Server, start: Start) -> None:
    code = "import time\nfor n in range(40): print(n, flush=True); time.sleep(0.1)"
    run = start("-c", code, "--url", shared_server.url)
    first = read_line(run)
    os.kill(shared_server.gateway(), signal.SIGKILL)
    rest, err = run.communicate(timeout=START_S)
    assert run.returncode == 0, err
    assert first + rest == b"".join(b"%d\n" % n for n in range(40))


def read_line(run: subprocess.Popen[bytes]) -> bytes:
    assert run.stdout is not None
    assert select.select([run.stdout], [], [], START_S)[0], "no output"
    return os.read(run.stdout.fileno(), 65536)
