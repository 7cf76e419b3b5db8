"""Runs AI-written Python beside the model, the data and the tools: one request instead of one per tool call."""

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost more than all of this

if TYPE_CHECKING:
    from onehop.client.clients import AsyncClient, AsyncKeys, Client, Keys
    from onehop.client.commands import AsyncCommand, AsyncCommands, Command, Commands
    from onehop.client.contexts import AsyncContexts, Contexts
    from onehop.client.core import SessionOptions
    from onehop.client.files import AsyncFiles, Files
    from onehop.client.lambdas import AsyncFunctions, Evaluation, FunctionInfo, Functions
    from onehop.client.oneshot import run
    from onehop.client.records import (
        CommandInfo,
        ContextInfo,
        DayUsage,
        EnvironmentInfo,
        File,
        FileList,
        KeyInfo,
        SessionInfo,
    )
    from onehop.client.results import ErrorInfo, Event, Output, OutputFile, Result, ToolCall, Usage
    from onehop.client.sessions import AsyncSession, Session
    from onehop.errors import ExecutionFailedError, OnehopError, ProblemError, UnreachableError
    from onehop.tools.declare import tool

_WHERE = {
    "AsyncClient": "client.clients",
    "AsyncCommand": "client.commands",
    "AsyncCommands": "client.commands",
    "AsyncContexts": "client.contexts",
    "AsyncFiles": "client.files",
    "AsyncFunctions": "client.lambdas",
    "AsyncKeys": "client.clients",
    "AsyncSession": "client.sessions",
    "Client": "client.clients",
    "Command": "client.commands",
    "CommandInfo": "client.records",
    "Commands": "client.commands",
    "ContextInfo": "client.records",
    "Contexts": "client.contexts",
    "DayUsage": "client.records",
    "EnvironmentInfo": "client.records",
    "ErrorInfo": "client.results",
    "Evaluation": "client.lambdas",
    "Event": "client.results",
    "ExecutionFailedError": "errors",
    "File": "client.records",
    "FileList": "client.records",
    "Files": "client.files",
    "FunctionInfo": "client.lambdas",
    "Functions": "client.lambdas",
    "KeyInfo": "client.records",
    "Keys": "client.clients",
    "OnehopError": "errors",
    "Output": "client.results",
    "OutputFile": "client.results",
    "ProblemError": "errors",
    "Result": "client.results",
    "Session": "client.sessions",
    "SessionInfo": "client.records",
    "SessionOptions": "client.core",
    "UnreachableError": "errors",
    "ToolCall": "client.results",
    "Usage": "client.results",
    "run": "client.oneshot",
    "tool": "tools.declare",
}
"""Where each public name is; it is loaded when it is first asked for."""

__all__ = [
    "AsyncClient",
    "AsyncCommand",
    "AsyncCommands",
    "AsyncContexts",
    "AsyncFiles",
    "AsyncFunctions",
    "AsyncKeys",
    "AsyncSession",
    "Client",
    "Command",
    "CommandInfo",
    "Commands",
    "ContextInfo",
    "Contexts",
    "DayUsage",
    "EnvironmentInfo",
    "ErrorInfo",
    "Evaluation",
    "Event",
    "ExecutionFailedError",
    "File",
    "FileList",
    "Files",
    "FunctionInfo",
    "Functions",
    "KeyInfo",
    "Keys",
    "OnehopError",
    "Output",
    "OutputFile",
    "ProblemError",
    "Result",
    "Session",
    "SessionInfo",
    "SessionOptions",
    "ToolCall",
    "UnreachableError",
    "Usage",
    "__version__",
    "run",
    "tool",
]


if not TYPE_CHECKING:  # or every name would exist for a type checker

    def __getattr__(name: str):
        if name not in _WHERE:
            raise AttributeError(f"module 'onehop' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"onehop.{_WHERE[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
