"""Cells that nobody sees: some are run in the zygote before it forks, fewer in every kernel that waits.

CPython 3.11 rewrites a function's bytecode while it learns what the function does, and every cache that
is filled on first use is a write, too. Done in the zygote, once, it is shared by all forks: a first
`describe()` in a fork then copies 7 MB instead of 10. What is left, reference counts, only a cell in
the fork itself can pay for ahead of time.

Nothing in here may start a thread, open a descriptor that stays, or load a font: the zygote's thread
list is checked afterwards, and forks would share a descriptor's position.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import sys

ROUNDS = 12
"""Adaptive bytecode settles after 8 to 16 calls (PEP 659)."""

_PLAIN = (
    "x = [n * n for n in range(10)]\nprint(f'{sum(x):.2f}', x)\nlen(x)",
    "import json, math, re, datetime, collections, random, statistics, itertools, functools, os, io, csv, time\n"
    "def area(radius: float) -> float:\n    return math.pi * radius ** 2\n"
    "class Point:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n"
    "points = {str(n): Point(n, area(n)) for n in range(3)}\n"
    "json.loads(json.dumps({'a': [1, 2.5, None, 'x']}))\nre.findall(r'\\d+', 'a1b22')\n"
    "collections.Counter('hello').most_common(2)\ndatetime.date(2024, 1, 31).isoformat()\n"
    "sorted(points, key=lambda name: points[name].y)",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(type(error).__name__, error)",
    "raise ValueError('rehearsal')",
)
_NUMPY = (
    "import numpy as np\na = np.arange(12.0).reshape(3, 4)\nprint(a.mean(axis=0), a @ a.T, np.linalg.norm(a))\na",
)
_PANDAS = (
    "import pandas as pd\nframe = pd.DataFrame({'n': [1, 2.5, 3], 'g': ['a', 'b', 'a'], 'k': [1, 2, 3]})\n"
    "print(frame)\nprint(frame.head(2))\nprint(frame.describe())\nframe['k'].mean()",
    "import io\ntable = pd.read_csv(io.StringIO('x,y\\n1,2\\n3,4\\n'))\ntable['z'] = table['x'] * 2\n"
    "print(table[table['z'] > 2])\nprint(table.sort_values('x').to_string())\n"
    "table.groupby('x')['y'].agg(['mean', 'sum'])",
)
_WAITING = ("x = [n * n for n in range(10)]\nprint(end='')\nsum(x)",)
_WAITING_PANDAS = ("import pandas as pd\nframe = pd.DataFrame({'n': [1, 2.5]})\nrepr(frame.describe())",)


def in_zygote() -> tuple[str, ...]:
    """What the zygote runs, ROUNDS times over."""
    cells: tuple[str, ...] = _PLAIN
    if "numpy" in sys.modules:
        cells += _NUMPY
    if "pandas" in sys.modules:
        cells += _PANDAS
    return cells


def in_kernel() -> tuple[str, ...]:
    """What a waiting kernel runs once: a plain cell, and a small data frame where pandas is loaded anyway."""
    return _WAITING + _WAITING_PANDAS if "pandas" in sys.modules else _WAITING
