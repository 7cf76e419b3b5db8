"""smolagents on onehop: the agent's code runs in a sandbox, its tools run here.

    onehop serve
    export ONEHOP_URL=http://127.0.0.1:8000 OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_API_KEY=unused
    python examples/smolagents_executor.py MODEL

`stock` reads a dictionary of this process: the sandbox has neither that nor the function's source. Each call in the
code waits, alive, until the function has returned.
"""

from __future__ import annotations

import os
import sys

from smolagents import CodeAgent, OpenAIModel, tool
from smolagents_onehop import OnehopExecutor

SHELVES = {"apples": 7, "pears": 0, "plums": 12}


@tool
def stock(item: str) -> int:
    """How many there are of an item.

    Args:
        item: the item's name, in the plural.
    """
    print(f"(looked up {item} in process {os.getpid()})")
    return SHELVES.get(item, 0)


def main(model: str) -> None:
    executor = OnehopExecutor()
    agent = CodeAgent(
        tools=[stock], model=OpenAIModel(model), executor=executor, max_steps=3, verbosity_level=0
    )
    try:
        print("answer:", agent.run("How many apples, pears and plums are there together?"))
    finally:
        executor.cleanup()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
