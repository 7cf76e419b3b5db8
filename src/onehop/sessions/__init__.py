"""Sessions, executions, files and limits, on top of the supervisor and the store. No HTTP in here."""

from onehop.sessions.answers import Answer
from onehop.sessions.caller import LOCAL, Caller, Limits
from onehop.sessions.engine import Engine
from onehop.sessions.requests import ExecuteOnceRequest, ExecuteRequest, SessionRequest

__all__ = [
    "LOCAL",
    "Answer",
    "Caller",
    "Engine",
    "ExecuteOnceRequest",
    "ExecuteRequest",
    "Limits",
    "SessionRequest",
]
