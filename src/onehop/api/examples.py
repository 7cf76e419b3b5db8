"""The examples in the API's documentation. A test decodes each against its schema."""

from __future__ import annotations

from typing import Any

EXECUTE_ONCE: dict[str, Any] = {
    "code": "import pandas as pd\npd.read_csv('sales.csv').groupby('region').sum()",
    "files": {"sales.csv": "region,amount\nnorth,3\nsouth,4\nnorth,5\n"},
    "timeout_s": 30,
}
BATCH: dict[str, Any] = {
    "items": [{"execute": {"code": "sum(range(10))"}}, {"execute": {"code": "print('hi')", "timeout_s": 5}}],
    "parallel": 2,
}
A_KEY = "oh_3q2hV8vYkzqXWJ7jH3mXoXn1y3u5VbQm3m8d1t9yK2s"
KEY_REQUEST: dict[str, Any] = {
    "name": "research assistant",
    "scopes": ["execute"],
    "expires_in_s": 7_776_000,
    "limits": {"max_sessions": 5, "executions_per_minute": 120, "cpu_s_per_hour": 600},
}
KEY: dict[str, Any] = {
    "id": "key_5f0c1d2e3a4b5968",
    "name": "research assistant",
    "owner": "key_5f0c1d2e3a4b5968",
    "prefix": "oh_3q2hV",
    "state": "active",
    "scopes": ["execute"],
    "limits": {
        "max_sessions": 5,
        "executions_per_minute": 120,
        "cpu_s_per_hour": 600,
        "max_memory_mb": None,
        "max_workspace_mb": None,
        "tools": None,
    },
    "created_at": "2026-11-22T12:00:00.000Z",
    "expires_at": "2027-02-20T12:00:00.000Z",
    "revoked_at": None,
    "last_used_at": None,
}
USAGE: dict[str, Any] = {
    "usage": [
        {
            "day": "2026-11-22",
            "key": "key_5f0c1d2e3a4b5968",
            "owner": "key_5f0c1d2e3a4b5968",
            "executions": 120,
            "cpu_s": 31.5,
            "memory_mb_s": 4210.0,
            "tool_calls": 0,
            "cost": 0.012,
        }
    ],
    "currency": "EUR",
}
LAMBDA: dict[str, Any] = {
    "code": "lambda x: sum(x) if isinstance(x, list) else 0",
    "args": [[1, 2, 3]],
}
ARGUMENTS: dict[str, Any] = {"args": [[1, 2, 3]]}
FUNCTION_REQUEST: dict[str, Any] = {"code": LAMBDA["code"]}
FUNCTION: dict[str, Any] = {
    "name": "total",
    "engine": "monty",
    "routed": "",
    "created_at": "2026-11-20T09:30:00.000Z",
    "updated_at": "2026-11-20T09:30:00.000Z",
    "code": LAMBDA["code"],
}
FUNCTION_LIST: dict[str, Any] = {
    "functions": [{name: value for name, value in FUNCTION.items() if name != "code"}]
}
LAMBDA_ANSWER: dict[str, Any] = {
    "status": "ok",
    "value": 6,
    "engine": "monty",
    "routed": "",
    "error": None,
    "reason": "",
    "stdout": "",
    "usage": {"wall_ms": 0.31, "cpu_ms": 0.22, "peak_memory_bytes": -1},
    "execution": None,
}
EXECUTE: dict[str, Any] = {"code": "total = sum(range(10))\ntotal"}
ISOLATION = {"level": "process", "memory": "cgroup", "pids": "cgroup", "network": "none"}
ANSWER: dict[str, Any] = {
    "id": "exe_dJ0c8vYkzqXWJ7jH3mXoXn1y3u5VbQm3m8d1t9yK2sA",
    "session": "ses_J2m9v0Yx5sT1hQe8rKd3bWc7fLp4nUz6aGi0oXyEwDk",
    "status": "ok",
    "stdout": "",
    "stderr": "",
    "results": [{"text/plain": "45"}],
    "error": None,
    "files": [],
    "files_truncated": False,
    "tool_calls": [],
    "usage": {"wall_ms": 1.9, "cpu_ms": 1.2, "peak_memory_bytes": 91226112},
    "isolation": ISOLATION,
    "truncated": False,
    "output_file": None,
    "variables": "kept",
    "reason": "",
}
TOOL_RESULTS: dict[str, Any] = {
    "results": [{"id": "call_2", "result": {"celsius": 4.5}}, {"id": "call_3", "error": "no such city"}]
}
TOOL_CALLS: dict[str, Any] = {
    "tool_calls": [
        {
            "id": "call_2",
            "number": 2,
            "name": "weather.forecast",
            "key": "",
            "arguments_sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "bytes_out": 38,
            "bytes_in": 17,
            "started_at": "2026-11-22T12:00:00.000Z",
            "ms": 0.21,
            "status": "ok",
            "error": "",
        }
    ]
}
EVENTS = (
    'id: 1\nevent: stdout\ndata: {"text":"hello\\n"}\n\n'
    'id: 2\nevent: result\ndata: {"data":{"text/plain":"45"},"final":true}\n\n'
)
BATCH_ANSWER: dict[str, Any] = {
    "answers": [
        ANSWER,
        {
            "type": "urn:onehop:problem:session-not-found",
            "title": "No such session",
            "status": 404,
            "detail": "there is no such session",
            "request_id": "req_5f0c1d2e3a4b_1",
        },
    ]
}
BATCH_EVENTS = (
    'id: 1\nevent: stdout\ndata: {"item":1,"execution":"exe_dJ0c…","number":1,"data":{"text":"hi\\n"}}\n\n'
    'id: 2\nevent: batch_end\ndata: {"items":2}\n\n'
)
SESSION_REQUEST: dict[str, Any] = {
    "memory_mb": 2048,
    "idle_timeout_s": 600,
    "metadata": {"project": "demo"},
    "env": {"REGION": "north"},
}
SESSION: dict[str, Any] = {
    "id": "ses_J2m9v0Yx5sT1hQe8rKd3bWc7fLp4nUz6aGi0oXyEwDk",
    "status": "idle",
    "environment": "default",
    "created_at": "2026-11-22T12:00:00.000Z",
    "expires_at": "2026-11-22T12:10:00.000Z",
    "idle_timeout_s": 600,
    "max_age_s": 86400,
    "pinned": False,
    "metadata": {"project": "demo"},
    "env": ["REGION"],
    "executions": [],
    "limits": {"memory_mb": 2048, "processes": 64, "workspace_mb": 256, "workspace_inodes": 16384},
    "isolation": ISOLATION,
}
CONTEXT: dict[str, Any] = {
    "name": "plots",
    "status": "idle",
    "cwd": "",
    "created_at": "2026-11-22T12:00:00.000Z",
}
COMMAND: dict[str, Any] = {
    "id": ANSWER["id"],
    "command": "ls -l",
    "status": "ok",
    "exit_code": 0,
    "pid": 7,
    "background": False,
    "stdin_open": False,
    "started_at": "2026-11-22T12:00:00.000Z",
    "ended_at": "2026-11-22T12:00:00.012Z",
}
COMMAND_ANSWER: dict[str, Any] = {**ANSWER, "stdout": "total 0\n", "results": [], "exit_code": 0}
FILE = {"path": "out.csv", "bytes": 812, "modified_at": "2026-11-22T12:00:00.000Z"}
MOVE: dict[str, Any] = {"move_to": "results/out.csv", "overwrite": True}
FILE_LIST = {"files": [FILE], "truncated": False}
INFO: dict[str, Any] = {
    "version": "0.1.0",
    "default_environment": "default",
    "environments": {"default": {}},
    "isolation": ISOLATION,
    "protections": [],
    "limits": {"timeout_s": {"default": 60, "maximum": 3600}},
    "counts": {"sessions": 1, "running": 0, "unstored": 0},
}
PROBLEM: dict[str, Any] = {
    "type": "urn:onehop:problem:invalid-request",
    "title": "The request is not valid",
    "status": 422,
    "detail": "there is no field 'cod' here",
    "field": "cod",
    "request_id": "req_5f0c6f2f9d0b4a4b8c1d2e3f",
}
