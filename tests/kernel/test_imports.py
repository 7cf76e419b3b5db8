"""Import rules: what is refused, in which words, and what goes on as if there were none."""

from __future__ import annotations

import pytest

from onehop.protocol import ImportRules
from tests.driver import Outcome, Session
from tests.kernel.reading import value

ALLOW = ImportRules(allow=["numpy", "pandas", "time", "matplotlib.pyplot"])
DENY = ImportRules(deny=["os", "subprocess", "xml.dom", "importlib.metadata"])


def refused(outcome: Outcome, module: str) -> None:
    assert outcome.status == "error", outcome.document()
    assert outcome.error is not None
    assert outcome.error["name"] == "ImportError", outcome.document()
    assert outcome.error["value"].startswith(f"{module!r} may not be imported here: the import rule ")
    assert "_checked" not in outcome.error["traceback"]  # no frame of ours


@pytest.mark.parametrize(
    "code",
    [
        "import numpy, pandas\nint(numpy.ones(3).sum() + pandas.DataFrame({'a': [1]}).a.sum())",
        "import numpy.linalg\nint(numpy.linalg.norm([3, 4])) - 1",
        "from numpy import random\n4",
        "from matplotlib import pyplot\n4",
        "import matplotlib.pyplot as plt\n4",
        "from __future__ import annotations\n4",
        "import time\ntime.strptime('2026', '%Y').tm_mon + 3",  # C code imports _strptime
        "import pandas as pd\nlen(pd.read_csv('t.csv')) + 3",  # a library imports what it needs
        "__import__('numpy').array([4])[0].item()",
        "import helper\nhelper.four",  # the user's own module
        "%timeit -n 1 -r 1 import numpy\n4",
    ],
)
def test_allowed(session: Session, code: str) -> None:
    session.run("open('helper.py', 'w').write('import numpy\\nfour = 4\\n')")
    session.run("open('t.csv', 'w').write('a\\n1\\n')")
    assert value(session.run(code, imports=ALLOW)) == "4"


@pytest.mark.parametrize(
    ("code", "module"),
    [
        ("import os", "os"),
        ("import os.path as p", "os.path"),
        ("from os import path", "os"),
        ("import numpy, subprocess", "subprocess"),
        ("from matplotlib import pyplot, cm", "matplotlib"),
        ("from matplotlib import *", "matplotlib"),
        ("import numpyx.os as numpy", "numpyx"),
        ("def f():\n    import os\nf()", "os"),
        ("exec('import os')", "os"),
        ("exec('import os', {})", "os"),
        ("eval('__import__(\"os\")')", "os"),
        ("__import__('os')", "os"),
        ("__import__('os', globals(), locals(), [], 0)", "os"),
        ("list(map(__import__, ['os']))", "os"),
        ("import bad", "subprocess"),
        ("%run script.py", "subprocess"),
        ("%run -m json.tool", "json.tool"),
        ("%load_ext subprocess", "subprocess"),
        ("%timeit -n 1 -r 1 import os", "os"),
        ("%prun import os", "os"),
        ("%time import os", "os"),
        ("await __import__('asyncio').sleep(0)", "asyncio"),
    ],
)
def test_not_allowed(session: Session, code: str, module: str) -> None:
    if module == "numpyx":
        # what does not exist is Python's to refuse
        outcome = session.run(code, imports=ALLOW)
        assert outcome.error is not None
        assert outcome.error["name"] == "ModuleNotFoundError"
        return
    for name in ("bad.py", "script.py"):
        session.run(f"open({name!r}, 'w').write('import subprocess\\n')")
    outcome = session.run(code, imports=ALLOW)
    refused(outcome, module)
    assert outcome.error is not None
    assert outcome.error["value"].endswith(
        "allows only numpy, pandas, time, matplotlib.pyplot, and modules of the workspace (imports.allow)"
    )


@pytest.mark.parametrize(
    ("code", "module"),
    [
        ("import os", "os"),
        ("from os.path import join", "os.path"),
        ("import importlib\nimportlib.import_module('os')", "os"),
        ("from importlib import import_module\nimport_module('subprocess')", "subprocess"),
        ("from importlib import metadata", "importlib.metadata"),
        ("from xml.dom import minidom", "xml.dom"),
        ("import helper", "os"),
    ],
)
def test_denied(session: Session, code: str, module: str) -> None:
    session.run("open('helper.py', 'w').write('import os\\n')")
    outcome = session.run(code, imports=DENY)
    refused(outcome, module)
    assert outcome.error is not None
    assert outcome.error["value"].endswith(
        "denies os, subprocess, xml.dom, importlib.metadata (imports.deny)"
    )


def test_what_is_not_denied_may_be_imported(session: Session) -> None:
    assert value(session.run("import xml.etree, importlib.util, numpy, json\n1", imports=DENY)) == "1"


def test_nothing_may_be_imported(session: Session) -> None:
    outcome = session.run("import math", imports=ImportRules(allow=[]))
    refused(outcome, "math")
    assert outcome.error is not None
    assert outcome.error["value"].endswith("allows no module (imports.allow)")
    assert value(session.run("1 + 1", imports=ImportRules(allow=[]))) == "2"


def test_a_rule_ends_with_its_execution(session: Session) -> None:
    refused(session.run("import os", imports=ALLOW), "os")
    assert value(session.run("import os, builtins\nbuiltins.__import__.__name__")) == "'__import__'"
    # a function of an execution without rules is held to those of the execution that runs
    session.run("def f():\n    import subprocess\n    return 1")
    refused(session.run("f()", imports=ALLOW), "subprocess")
    assert value(session.run("f()")) == "1"


def test_threads_and_references_are_held_to_the_rule_of_their_time(session: Session) -> None:
    session.run(
        "from importlib import import_module as kept\nimport threading, builtins\nheld = builtins.__import__"
    )
    refused(session.run("kept('os')", imports=ALLOW), "os")
    code = """
def work():
    try:
        import os
    except ImportError as error:
        print(error.name)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert session.run(code, imports=ALLOW).stdout == "os\n"


def test_a_wrapper_around_it_outlives_it_harmlessly(session: Session) -> None:
    code = """
import builtins
inner = builtins.__import__
def wrapper(*args, **kwargs):
    return inner(*args, **kwargs)
builtins.__import__ = wrapper
"""
    assert session.run(code, imports=ImportRules(deny=["os"])).status == "ok"
    assert value(session.run("import os\nos.name")) == "'posix'"
