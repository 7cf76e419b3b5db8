"""Programmatic tool calling with Anthropic's own SDK, for any model of the server: code calls the client's tool.

    export ANTHROPIC_BASE_URL=http://127.0.0.1:8000/anthropic ANTHROPIC_API_KEY=unused
    python examples/wires/anthropic_programmatic.py MODEL

The model writes one program. Each call of `sales` suspends it, alive, until this client has sent the result; the
model is not asked in between, and the results never stand in its context.
"""

from __future__ import annotations

import json
import sys

import anthropic

SALES = {"north": [3, 9, 4], "south": [8, 8, 7], "west": [1, 2, 6]}
TOOLS = [
    {"type": "code_execution_20260120", "name": "code_execution"},
    {
        "name": "sales",
        "description": "Sales of a region (north, south or west), a list of numbers.",
        "input_schema": {
            "type": "object",
            "properties": {"region": {"type": "string"}},
            "required": ["region"],
        },
        "allowed_callers": ["code_execution_20260120"],
    },
]


def main(model: str) -> None:
    client = anthropic.Anthropic()
    messages: list = [{"role": "user", "content": "Which region has sold most?"}]
    requests = 0
    while True:
        message = client.beta.messages.create(model=model, max_tokens=4000, messages=messages, tools=TOOLS)
        requests += 1
        messages.append({"role": "assistant", "content": message.content})
        results = []
        for block in message.content:
            if block.type == "server_tool_use":
                print(f"--- code\n{block.input['code']}")
            elif block.type == "tool_use":
                print(f"--- called by {block.caller.type}: {block.name}({block.input})")
                found = json.dumps(SALES[block.input["region"]])
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": found})
            elif block.type == "code_execution_tool_result":
                print(f"--- output\n{block.content.stdout}{block.content.stderr}")
            elif block.type == "text":
                print(block.text)
        if message.stop_reason != "tool_use":
            break
        messages.append({"role": "user", "content": results})
    print(f"({requests} requests)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
