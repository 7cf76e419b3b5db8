"""OpenAI's own SDK, unmodified, by Chat Completions: a program of a few years ago gains a code interpreter.

    onehop serve --upstreams chat=http://127.0.0.1:11434/v1      # or any other server of models
    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=unused
    python examples/wires/openai_chat.py MODEL

`extra_body` is the one thing beyond the protocol: it names the conversation, so that the variables stay, and asks to
see the work. Without it the answers are the same; the second question has to make the data again.
"""

from __future__ import annotations

import secrets
import sys

import openai


def main(model: str) -> None:
    client = openai.OpenAI()
    ours = {"onehop": {"conversation": f"dice-{secrets.token_hex(8)}", "show": True}}
    messages = []
    for question in (
        "Simulate 1000 throws of two dice with the seed 7. Keep them.",
        "How often was the sum 7?",
    ):
        print(f"\n> {question}")
        messages.append({"role": "user", "content": question})
        answer = ""
        for chunk in client.chat.completions.create(
            model=model,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=ours,
        ):
            if chunk.usage:
                print(f"\n({chunk.usage.total_tokens} tokens of all turns)")
            for choice in chunk.choices:
                work = getattr(choice.delta, "onehop", None) or {"type": ""}
                if work["type"] == "code":
                    print("\n--- code")
                elif work["type"] == "code.done":
                    print("\n--- output")
                text = choice.delta.content or ""
                answer += text
                print(text or work.get("text", ""), end="", flush=True)
        messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
