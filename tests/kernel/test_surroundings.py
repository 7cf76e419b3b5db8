"""What a cell finds around itself: variables, chance, place, time; and what it cannot break."""

from __future__ import annotations

import ast

import pytest

from tests.driver import Driver, Session
from tests.kernel.reading import value


def test_variables_of_one_execution(session: Session) -> None:
    code = "import os; os.environ.get('A'), os.popen('echo $A').read(), os.environ['HOME']"
    session.run("import os; os.environ['HOME'] = '/elsewhere'")
    assert value(session.run(code, env={"A": "1 =é", "HOME": "/tmp"})) == "('1 =é', '1 =é\\n', '/tmp')"
    assert value(session.run(code)) == "(None, '\\n', '/elsewhere')"
    assert session.run("1 / 0", env={"A": "2"}).status == "error"
    assert value(session.run(code)) == "(None, '\\n', '/elsewhere')"


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
def test_variables_that_cannot_be_set(session: Session, name: str) -> None:
    assert session.run("1", env={name: "x"}).status == "error"
    assert value(session.run("1 + 1")) == "2"


def test_sandboxes_draw_different_numbers(driver: Driver) -> None:
    code = ("import random, uuid, secrets, numpy as np, tempfile\n"
            "[random.random(), float(np.random.rand()), float(np.random.default_rng().random()), str(uuid.uuid4()), "
            "secrets.token_hex(8), random.Random().random(), next(tempfile._get_candidate_names())]")  # fmt: skip
    drawn = [ast.literal_eval(value(driver.run_once(code))) for _ in range(3)]
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == 3, numbers
    session_code = "import random; random.seed(1); random.random()"
    assert value(driver.run_once(session_code)) == value(driver.run_once(session_code))


def test_place_time_and_language(session: Session) -> None:
    code = "import os, sys, locale, time, datetime, tempfile\n"
    assert value(session.run(code + "os.getcwd(), os.path.expanduser('~'), tempfile.gettempdir(), os.listdir()")) == (
        "('/workspace', '/workspace', '/tmp', [])")  # fmt: skip
    assert (
        value(session.run("locale.getpreferredencoding(), locale.setlocale(locale.LC_ALL, '')"))
        == "('UTF-8', 'C.UTF-8')"
    )
    assert (
        value(session.run("time.tzname, datetime.datetime.now().astimezone().tzname()"))
        == "(('UTC', 'UTC'), 'UTC')"
    )
    assert value(session.run("from zoneinfo import ZoneInfo; "
                             "datetime.datetime(2024, 7, 1, tzinfo=ZoneInfo('Europe/Berlin')).isoformat()")) == (
        "'2024-07-01T00:00:00+02:00'")  # fmt: skip
    assert value(session.run("sys.argv, sys.path[0], open.__module__")) == "([''], '', 'io')"


def test_sqlite_and_temporary_files(session: Session) -> None:
    code = ("import sqlite3, tempfile\nc = sqlite3.connect('x.db'); c.execute('create table t (a)')\n"
            "c.execute('insert into t values (1)'); c.commit()\n"
            "with tempfile.TemporaryDirectory() as d: open(d + '/f', 'w').close()\nc.execute('select * from t').fetchall()")  # fmt: skip
    assert value(session.run(code)) == "[(1,)]"


def test_nothing_of_ours_can_be_imported_or_seen(session: Session) -> None:
    for name in ("onehop", "onehop.kernel", "onehop.protocol"):
        outcome = session.run(f"import {name}")
        assert (outcome.error or {})["name"] == "ModuleNotFoundError"
    found = value(session.run("import os, sys; [p for p in sys.path if 'onehop' in p], os.listdir('/opt'), "
                              "os.path.exists('/opt/onehop/src')"))  # fmt: skip
    assert found in ("([], ['env', 'onehop'], False)", "([], ['onehop', 'env'], False)")
    assert value(session.run("[n for n in os.environ if 'onehop' in (n + os.environ[n]).lower()]")) == "[]"
    assert (
        value(session.run("[n for n in ('GLIBC_TUNABLES', 'PYTHONMALLOC', 'LD_PRELOAD') if n in os.environ]"))
        == "[]"
    )


def test_a_fresh_session_has_no_variables(session: Session) -> None:
    assert session.run("%who").stdout == "Interactive namespace is empty.\n"
    assert (
        value(session.run("_, __, In[-1], Out, _ih[:1]"))
        == "('', '', '_, __, In[-1], Out, _ih[:1]', {}, [''])"
    )


@pytest.mark.parametrize(
    "damage",
    [
        "for name in list(globals()):\n    if not name.startswith('__'): del globals()[name]",
        "globals().clear()",
        "%reset -f",
        "del In, Out, _oh, _ih, _dh",
        "_oh = Out = 5",
        "In = 5",
        "import sys; sys.displayhook = None",
        "import sys; sys.modules['__main__'] = None",
        "import builtins; del builtins.print, builtins.len, builtins.isinstance",
        "import builtins; builtins.display = builtins.get_ipython = None",
        "get_ipython().user_ns = {}",
        "import gc; gc.disable(); import sys; sys.settrace(lambda *a: None)",
        "import os; os.mkdir('/tmp/gone'); os.chdir('/tmp/gone'); os.rmdir('/tmp/gone')",
        "import shutil; shutil.rmtree('/workspace', ignore_errors=True); shutil.rmtree('/tmp', ignore_errors=True)",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))",
        "import os; [os.open('/dev/null', 0) for _ in range(200)]",
        "import warnings; warnings.simplefilter('error')",
        "import linecache, traceback; linecache.clearcache(); linecache.checkcache = None; traceback.TracebackException = None",
        "import asyncio; asyncio.get_event_loop_policy().new_event_loop().close()\nawait asyncio.sleep(0)\nasyncio.get_event_loop().stop()",
        "import socket; socket.socket = None; import os; os.fork = os.getpid = None",
        "import threading; threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()",
        "import sys; sys.exc_info = None",
        "get_ipython().events.register('post_run_cell', lambda *a: 1 / 0)",
        "get_ipython().ast_transformers.append(None)",
    ],
)
def test_the_session_survives(driver: Driver, session: Session, damage: str) -> None:
    """Damage to one's own kernel may cost the kernel, never the session or the supervisor."""
    session.run(damage, timeout_s=10)
    for _ in range(3):
        outcome = session.run("kept = 40; kept + 2", timeout_s=10)
        assert outcome.end.session == "alive", outcome.document()
        if outcome.status == "ok":
            break
        session.run("import os; os._exit(0)")  # as a user would: a new kernel
    assert value(session.run("1 + 1")) == "2"
