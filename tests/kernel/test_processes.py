"""Processes, threads and the standard library's ways to use them."""

from __future__ import annotations

import pytest

from tests.driver import Session
from tests.kernel.reading import value

IMPORTS = "import multiprocessing as mp, os, subprocess, sys, threading\nfrom concurrent.futures import *\ndef double(x): return 2 * x\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("with mp.get_context('fork').Pool(2) as p: print(p.map(double, range(4)))", "[0, 2, 4, 6]\n"),
        ("with mp.get_context('spawn').Pool(2) as p: print(p.map(abs, [-1, 2]))", "[1, 2]\n"),
        ("with mp.get_context('forkserver').Pool(1) as p: print(p.map(abs, [-1, 2]))", "[1, 2]\n"),
        ("p = mp.Process(target=print, args=('child',)); p.start(); p.join(); print(p.exitcode)", "child\n0\n"),
        ("q = mp.Queue(); p = mp.Process(target=q.put, args=(5,)); p.start(); print(q.get(timeout=10)); p.join()", "5\n"),
        ("with ProcessPoolExecutor(2) as p: print(list(p.map(double, range(3))))", "[0, 2, 4]\n"),
        ("with ThreadPoolExecutor(2) as p: print(list(p.map(double, range(3))))", "[0, 2, 4]\n"),
        ("from multiprocessing import shared_memory as s\nm = s.SharedMemory(create=True, size=64); m.buf[0] = 7\n"
         "print(m.buf[0]); m.close(); m.unlink()", "7\n"),
        ("from joblib import Parallel, delayed\nprint(Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(3)))", "[0, 1, 2]\n"),
        ("print(subprocess.run(['tr', 'a', 'b'], input='aXa', capture_output=True, text=True).stdout)", "bXb\n"),
        ("print(subprocess.run('exit 3', shell=True).returncode)", "3\n"),
        ("print(subprocess.check_output([sys.executable, '-c', 'print(6*7)'], text=True), end='')", "42\n"),
        ("r, w = os.pipe(); pid = os.fork()\nif pid == 0:\n    os.write(w, b'x'); os._exit(0)\nos.waitpid(pid, 0); print(os.read(r, 1))",
         "b'x'\n"),
        ("t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()", "thread\n"),
    ],
)  # fmt: skip
def test_they_work(session: Session, code: str, expected: str) -> None:
    outcome = session.run(IMPORTS + code, timeout_s=60)
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", expected, ""), outcome.document()


def test_the_kernel_begins_with_one_thread_and_no_children(session: Session) -> None:
    code = (
        "import threading, os; threading.active_count(), len(os.listdir('/proc/self/task')), os.getpid() != 1"
    )
    assert value(session.run(code)) == "(1, 1, True)"


def test_pickling_what_cells_define(session: Session) -> None:
    session.run(
        "import pickle\nfrom dataclasses import dataclass\ndef f(x): return x + 1\n@dataclass\nclass P:\n    x: int = 1"
    )
    assert value(session.run("pickle.loads(pickle.dumps(f))(2), pickle.loads(pickle.dumps(P(5))), f.__module__")) == (
        "(3, P(x=5), '__main__')")  # fmt: skip


def test_modules_written_by_a_cell(session: Session) -> None:
    assert value(session.run("open('mine.py', 'w').write('V = 5'); import mine; mine.V")) == "5"
    assert value(session.run("__name__, '__file__' in globals(), __spec__")) == "('__main__', False, None)"
