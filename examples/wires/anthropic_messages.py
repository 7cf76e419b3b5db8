"""Anthropic's own SDK, unmodified: any model of the server gets code execution.

    onehop serve --upstreams chat=http://127.0.0.1:11434/v1      # or any other server of models
    export ANTHROPIC_BASE_URL=http://127.0.0.1:8000/anthropic ANTHROPIC_API_KEY=unused
    python examples/wires/anthropic_messages.py MODEL

The second question uses the same container: variables and files are there.
"""

from __future__ import annotations

import sys

import anthropic

TOOLS = [{"type": "code_execution_20260120", "name": "code_execution"}]


def main(model: str) -> None:
    client = anthropic.Anthropic()
    messages: list = []
    container = None
    for question in (
        "Simulate 1000 throws of two dice with the seed 7. Keep them.",
        "How often was the sum 7?",
    ):
        print(f"\n> {question}")
        messages.append({"role": "user", "content": question})
        more = {"container": container} if container else {}
        with client.beta.messages.stream(
            model=model, max_tokens=4000, messages=messages, tools=TOOLS, **more
        ) as stream:
            for event in stream:
                if event.type == "text":
                    print(event.text, end="", flush=True)
                elif event.type == "content_block_stop":
                    block = event.content_block
                    if block.type == "server_tool_use":
                        print(f"\n--- code\n{block.input.get('code', block.input)}")
                    elif block.type == "code_execution_tool_result":
                        print(f"--- output\n{block.content.stdout}{block.content.stderr}")
            message = stream.get_final_message()
        container = message.container.id
        messages.append({"role": "assistant", "content": message.content})
        print(f"\n({message.usage.input_tokens + message.usage.output_tokens} tokens of all turns)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
