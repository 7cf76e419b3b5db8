"""An executor of smolagents: code runs on onehop, and its tools where the agent runs.

The executors that smolagents brings copy the source of tools into the sandbox, with their packages and their secrets.
Here a call of a tool suspends the code, the tool runs beside the agent, and the code goes on with its result.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from smolagents import Tool
from smolagents.local_python_executor import CodeOutput, PythonExecutor
from smolagents.serialization import SafeSerializer

from onehop import Session

__all__ = ["OnehopExecutor"]

FINAL = "application/vnd.onehop.final+json"
FINAL_ANSWER = "final_answer"
TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict, "any": Any,
}  # fmt: skip
"""Of smolagents; for pictures and sound there is nothing that JSON could carry."""
PREPARE = f'''
class FinalAnswerException(Exception):
    pass


def {FINAL_ANSWER}(answer=None, *more):
    """Ends the task with this answer."""
    import json
    from IPython.display import publish_display_data

    answer = (answer, *more) if more else answer
    try:
        told = json.dumps(answer)
    except (TypeError, ValueError):
        told = json.dumps(str(answer))
    publish_display_data({{{FINAL!r}: told}})
    raise FinalAnswerException
'''


class OnehopExecutor(PythonExecutor):
    """For `CodeAgent(executor=…)`.

    Args:
        session: an onehop.Session; it stays the caller's to close. Without one a session is made, with `options`, which
            `cleanup` ends (the agent calls it).
        timeout_s: seconds that a piece of code may take.
    """

    def __init__(
        self, session: Session | None = None, *, timeout_s: float | None = None, **options: Any
    ) -> None:
        self._own = session is None
        self._session = session if session is not None else Session(**options)
        self._timeout_s = timeout_s
        self._tools: list[Callable[..., Any]] = []
        self._prepared = False

    def send_tools(self, tools: dict[str, Tool]) -> None:
        """Nothing of them is sent but their names, descriptions and inputs."""
        self._tools = [_function(name, one) for name, one in tools.items() if name != FINAL_ANSWER]

    def send_variables(self, variables: dict[str, Any]) -> None:
        """As JSON; raises what SafeSerializer raises for values that JSON cannot carry."""
        if variables:
            told = SafeSerializer.dumps(variables, allow_pickle=False)
            self._run(
                f"{SafeSerializer.get_deserializer_code(False)}\nglobals().update(_deserialize({told!r}))",
                tools=False,
            )

    def __call__(self, code_action: str) -> CodeOutput:
        """Raises RuntimeError with the traceback when the code fails."""
        done = self._run(code_action, tools=True)
        logs = done.stdout + done.stderr
        final = next((one.data[FINAL] for one in done.results if FINAL in one.data), None)
        if final is not None:
            return CodeOutput(output=json.loads(final), logs=logs, is_final_answer=True)
        if done.status not in ("ok", "error"):
            raise RuntimeError(f"{logs}\n{done.status}: {done.reason}")
        if done.error is not None:
            raise RuntimeError(f"{logs}\n{done.error.traceback}")
        output = done.results[-1].text if done.results else None
        return CodeOutput(output=output, logs=logs, is_final_answer=False)

    def cleanup(self) -> None:
        """Ends the session, unless it was the caller's."""
        if self._own:
            self._session.close()

    def _run(self, code: str, *, tools: bool) -> Any:
        if not self._prepared:
            self._session.run(PREPARE).raise_for_error()
            self._prepared = True
        if not tools or not self._tools:
            return self._session.run(code, timeout_s=self._timeout_s)
        names = ", ".join(one.__name__ for one in self._tools)
        return self._session.run(
            f"from tools import {names}\n{code}", timeout_s=self._timeout_s, tools=self._tools
        )


def _function(name: str, tool: Any) -> Callable[..., Any]:
    """A function with the tool's name, inputs and description, from which the request's description is made."""

    def call(**arguments: Any) -> Any:
        return tool(**arguments)

    inputs: dict[str, dict[str, Any]] = getattr(tool, "inputs", {}) or {}
    parameters, lines = [], []
    for key, one in inputs.items():
        kind = one.get("type", "any")
        annotation = TYPES.get(kind if isinstance(kind, str) else "any", Any)
        if one.get("nullable"):
            parameters.append(
                inspect.Parameter(
                    key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation | None
                )
            )
        else:
            parameters.append(
                inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
            )
        lines.append(f"    {key}: {one.get('description', '')}")
    parameters.sort(key=lambda one: one.default is not inspect.Parameter.empty)
    call.__name__ = call.__qualname__ = name
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in parameters],
        return_annotation=Any,
    )
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": Any}
    call.__doc__ = "\n".join(
        [getattr(tool, "description", name), "", "Args:", *lines]
        if lines
        else [str(getattr(tool, "description", name))]
    )
    return call
