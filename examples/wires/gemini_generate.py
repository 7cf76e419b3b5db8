"""Google's own SDK, unmodified: any model of the server gets a code interpreter whose variables stay.

    onehop serve --upstreams https://generativelanguage.googleapis.com      # or any other server of models
    export GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8000/gemini GEMINI_API_KEY=unused
    python examples/wires/gemini_generate.py MODEL

Pictures that the code draws land in the folder where it is run.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from google import genai
from google.genai import types


def show(parts: list[types.Part]) -> None:
    """What the model says, the code that it runs, and what that gives."""
    for part in parts:
        if part.executable_code:
            print(f"\n--- code\n{part.executable_code.code}")
        elif part.code_execution_result:
            print(f"--- {part.code_execution_result.outcome}\n{part.code_execution_result.output}")
        elif part.inline_data and part.inline_data.data:
            path = Path(f"picture-{uuid.uuid4().hex[:8]}.png")
            path.write_bytes(part.inline_data.data)
            print(f"--- picture: {path}")
        elif part.text:
            print(part.text, end="", flush=True)


def main(model: str) -> None:
    # Variables and files stay for all messages of one conversation; its name is the client's choice.
    headers = {"Onehop-Conversation": f"example-{uuid.uuid4()}"}
    config = types.GenerateContentConfig(
        tools=[types.Tool(code_execution=types.ToolCodeExecution())],
        http_options=types.HttpOptions(headers=headers),
    )
    with genai.Client() as client:
        chat = client.chats.create(model=model, config=config)
        for question in (
            "Draw 1000 steps of a random walk, starting from the seed 7. Keep the walk.",
            "How far from its start did it end?",
        ):
            print(f"\n> {question}")
            last = None
            for chunk in chat.send_message_stream(question):
                show(chunk.parts or [])
                last = chunk
            if last is not None and last.usage_metadata is not None:
                print(f"\n({last.usage_metadata.total_token_count} tokens of all turns)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
