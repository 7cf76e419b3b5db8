"""The code that every peer runs, and what must come out of it. A wrong answer has no time."""

from __future__ import annotations

from dataclasses import dataclass


class WrongAnswerError(Exception):
    """A peer did not give the answer that the cell has."""


@dataclass(frozen=True)
class Cell:
    """One piece of code.

    Args:
        name: short, for tables.
        code: ends in an expression or prints; for peers with a cell's last value.
        script: the same for peers that only show what is printed.
        expected: must occur in what comes back.
        packages: whether it needs numpy and pandas.
    """

    name: str
    code: str
    script: str
    expected: str
    packages: bool

    def check(self, answer: str) -> None:
        """Raises WrongAnswerError unless `answer` holds what is expected."""
        if self.expected not in answer:
            raise WrongAnswerError(f"{self.name}: expected {self.expected!r} in {answer[-500:]!r}")


_DESCRIBE = """\
import pandas as pd
frame = pd.DataFrame({"a": range(100), "b": [x * 0.5 for x in range(100)]})
print(frame.describe())
"""

ADD = Cell("1+1", "1+1", "print(1+1)", "2", packages=False)
DESCRIBE = Cell("describe()", _DESCRIBE, _DESCRIBE, "29.011492", packages=True)  # column a's deviation
IMPORTS = Cell(
    "import numpy, pandas",
    "import numpy, pandas\nprint('ready')",
    "import numpy, pandas\nprint('ready')",
    "ready",
    packages=True,
)
