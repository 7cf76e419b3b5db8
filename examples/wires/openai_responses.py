"""OpenAI's own SDK, unmodified: any model of the server gets a code interpreter by the Responses API.

    onehop serve --upstreams chat=http://127.0.0.1:11434/v1      # or any other server of models
    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=unused
    python examples/wires/openai_responses.py MODEL

The code is shown while the model writes it. The second question goes on where the first one stopped.
"""

from __future__ import annotations

import sys

import openai

TOOLS = [{"type": "code_interpreter", "container": {"type": "auto"}}]


def main(model: str) -> None:
    client = openai.OpenAI()
    previous = None
    for question in (
        "Simulate 1000 throws of two dice with the seed 7. Keep them.",
        "How often was the sum 7?",
    ):
        print(f"\n> {question}")
        with client.responses.stream(
            model=model,
            input=question,
            tools=TOOLS,
            include=["code_interpreter_call.outputs"],
            previous_response_id=previous or openai.omit,
        ) as stream:
            for event in stream:
                if event.type == "response.code_interpreter_call.in_progress":
                    print("\n--- code")
                elif event.type in (
                    "response.code_interpreter_call_code.delta",
                    "response.output_text.delta",
                ):
                    print(event.delta, end="", flush=True)
                elif event.type == "response.output_item.done" and event.item.type == "code_interpreter_call":
                    logs = [one.logs for one in event.item.outputs or [] if one.type == "logs"]
                    print(f"\n--- output\n{''.join(logs)}")
            response = stream.get_final_response()
        previous = response.id
        print(f"\n({response.usage.total_tokens} tokens of all turns)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
