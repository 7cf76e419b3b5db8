"""The conversation behind `onehop chat`: requests to the server's own loop, and all that was said and run so far.

What the model ran stands in the conversation as calls of its tool with their results, so that it knows of them later.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import httpx2

from onehop.client.where import Place
from onehop.errors import EngineError, UnauthorizedError

PATH = "/v1/chat/completions"
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 120.0
"""Between two signs of life; the server sends one every ten seconds."""
MAX_RESULT_CHARACTERS = 8000
TOOL = "python"

Told = tuple[str, Any]
"""`text` with a text, `work` with an object as docs/wires/openai.md has them, `end` with the usage's block of ours."""


def connect(place: Place) -> httpx2.Client:
    """A client for a server, or for the engine of this process."""
    return httpx2.Client(
        base_url=place.url,
        transport=httpx2.HTTPTransport(uds=place.socket) if place.socket else None,
        headers={"authorization": f"Bearer {place.api_key}"} if place.api_key else {},
        timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        trust_env=not place.is_local,
    )


class Conversation:
    """Args:
    http: see `connect`.
    model: its name.
    tools: names and patterns of registered tools for the code.
    """

    def __init__(self, http: httpx2.Client, model: str, tools: list[str]) -> None:
        self.model = model
        self.tools = tools
        self.container = ""
        self._http = http
        self._name = ""
        self._messages: list[dict[str, Any]] = []
        self.reset()

    def reset(self) -> None:
        """Begins anew, with another container."""
        self._name = f"chat-{secrets.token_hex(12)}"
        self._messages.clear()
        self.container = ""

    def models(self) -> list[str]:
        """Names that the server knows."""
        return [str(one["id"]) for one in self._get("/v1/models")["data"]]

    def known_tools(self) -> list[dict[str, Any]]:
        """The registered tools, as the native API has them."""
        found: list[dict[str, Any]] = self._get("/api/tools")["tools"]
        return found

    def ask(self, question: str) -> Iterator[Told]:
        """Asks, and gives what comes as it comes; whoever stops listening stops the answer, which is kept as it is.

        Raises:
            EngineError: the server refuses, or breaks off; UnauthorizedError: it wants a key.
        """
        turn = _Turn(question)
        body = {
            "model": self.model,
            "messages": [*self._messages, *turn.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "onehop": {
                "show": True,
                "code": True,
                "conversation": self._name,
                "expired": "restart",
                "tools": self.tools,
            },
        }
        try:
            with self._http.stream("POST", PATH, json=body) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise _problem(answer)
                for line in answer.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        yield from self._told(json.loads(line[6:]), turn)
        except httpx2.HTTPError as error:
            raise EngineError(f"the connection to the server broke: {error}") from error
        finally:
            turn.close()
            self._messages += turn.messages

    def _told(self, chunk: dict[str, Any], turn: _Turn) -> Iterator[Told]:
        if "error" in chunk:
            raise EngineError(str(chunk["error"].get("message") or "the answer was broken off"))
        for choice in chunk["choices"]:
            delta = choice["delta"]
            text = delta.get("content") or delta.get("refusal")
            if text:
                turn.said(text)
                yield "text", text
            work = delta.get("onehop")
            if work:
                if work["type"] == "container":
                    self.container = work["id"]
                turn.worked(work)
                yield "work", work
        if chunk.get("usage"):
            yield "end", chunk["usage"]

    def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = self._http.get(path)
        except httpx2.HTTPError as error:
            raise EngineError(f"the server does not answer: {error}") from error
        if answer.status_code != 200:
            raise _problem(answer)
        found: dict[str, Any] = answer.json()
        return found


class _Turn:
    """One question, and what became of it, as messages."""

    def __init__(self, question: str) -> None:
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        self._text = ""
        self._calls: dict[str, str] = {}
        self._results: dict[str, str] = {}
        self._done: set[str] = set()

    def said(self, text: str) -> None:
        self._text += text

    def worked(self, work: dict[str, Any]) -> None:
        kind, call = work["type"], work.get("call", "")
        if kind == "code.done" and work["kind"] == TOOL:
            self._calls[call] = work["code"]
            self._results[call] = ""
        elif call not in self._results:
            return
        elif kind == "output":
            self._results[call] += work["text"]
        elif kind == "result":
            self._results[call] += work["data"].get("text/plain", "[a picture]") + "\n"
        elif kind == "done":
            if error := work.get("error"):
                self._results[call] += f"{error['name']}: {error['value']}\n"
            self._done.add(call)
            if self._done == set(self._calls):
                self._settle()

    def _settle(self) -> None:
        """All calls of one turn have their results."""
        calls = [
            {
                "id": name,
                "type": "function",
                "function": {"name": TOOL, "arguments": json.dumps({"code": code})},
            }
            for name, code in self._calls.items()
        ]
        self.messages.append({"role": "assistant", "content": self._text or None, "tool_calls": calls})
        for name in self._calls:
            text = self._results[name]
            if len(text) > MAX_RESULT_CHARACTERS:
                text = text[:MAX_RESULT_CHARACTERS] + "\n[… cut]"
            self.messages.append({"role": "tool", "tool_call_id": name, "content": text or "[no output]"})
        self._text = ""
        self._calls, self._results, self._done = {}, {}, set()

    def close(self) -> None:
        """What was broken off stands as far as it came."""
        if self._calls:
            self._done = set(self._calls)
            self._settle()
        if self._text or len(self.messages) == 1:
            self.messages.append({"role": "assistant", "content": self._text or "[stopped]"})


def _problem(answer: httpx2.Response) -> EngineError | UnauthorizedError:
    try:
        document = answer.json()
        text = document["error"]["message"] if "error" in document else document["detail"]
    except (ValueError, KeyError, TypeError):
        text = f"the server answered with status {answer.status_code}"
    if answer.status_code == 401:
        return UnauthorizedError(f"{text}; put the key into ONEHOP_API_KEY")
    return EngineError(str(text))
