"""A session's shell commands. Each is an execution: its output, events and answer are had as those of code."""

from __future__ import annotations

import msgspec

from onehop import errors
from onehop.api import examples, replay
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.executions import ACCEPT, EVENTS, EXECUTE_PROBLEMS, EXECUTION_HEADER, HEADERS, Executions
from onehop.api.resources import Body, Operation
from onehop.config import MIB
from onehop.sessions import Engine
from onehop.sessions.answers import Answer, CommandInfo, CommandList
from onehop.sessions.bounds import signal_number
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.claims import Replay
from onehop.sessions.requests import CommandRequest, SignalRequest, decode
from onehop.sessions.run import Run, new_id

BODY_BYTES = 4 * MIB
STDIN_BYTES = MIB
OCTETS = b"application/octet-stream"
PATH = "/api/sessions/{session_id}/commands"

_GONE = (errors.SessionNotFoundError, errors.SessionEndedError)
_ONE = (*_GONE, errors.CommandNotFoundError)
_decode = msgspec.json.Decoder(CommandRequest)
_decode_signal = msgspec.json.Decoder(SignalRequest)


class Commands:
    """Args:
    executions: answers for commands as for code.
    """

    def __init__(self, engine: Engine, executions: Executions) -> None:
        self._engine = engine
        self._executions = executions

    def operations(self) -> list[Operation]:
        one = Body("The command.", CommandInfo, example=examples.COMMAND)
        several = Body(
            "Those that run, and the last of those that have ended.",
            CommandList,
            example={"commands": [examples.COMMAND]},
        )
        ended = Body("It has ended; `exit_code` says how.", Answer, example=examples.COMMAND_ANSWER)
        return [
            Operation(
                "POST",
                PATH,
                self.run,
                "runCommand",
                "Commands",
                "Run a shell command",
                "By bash, in the session's sandbox, beside its code. In the background it answers at once.",
                scope=EXECUTE,
                body=Body(
                    "The command and its limits.",
                    CommandRequest,
                    example={"command": "ls -l", "timeout_s": 10},
                ),
                answers={200: (ended, EVENTS), 202: (one,)},
                problems=(*EXECUTE_PROBLEMS, errors.SessionNotFoundError, errors.SessionEndedError),
                parameters=(ACCEPT, replay.PARAMETER),
                headers=HEADERS,
            ),
            Operation(
                "GET",
                PATH,
                self.list,
                "listCommands",
                "Commands",
                "The session's commands",
                scope=READ,
                answers={200: (several,)},
                problems=_GONE,
            ),
            Operation(
                "GET",
                PATH + "/{command_id}",
                self.get,
                "getCommand",
                "Commands",
                "One command",
                "Its output is that of the execution of the same id.",
                scope=READ,
                answers={200: (one,)},
                problems=_ONE,
            ),
            Operation(
                "POST",
                PATH + "/{command_id}/stdin",
                self.feed,
                "feedCommand",
                "Commands",
                "Send more stdin",
                scope=EXECUTE,
                body=Body("What it shall read.", media_type=OCTETS.decode()),
                answers={204: ()},
                problems=(
                    *_ONE,
                    errors.InvalidRequestError,
                    errors.ConflictError,
                    errors.TooLargeError,
                    errors.TooManyError,
                    errors.UnsupportedMediaTypeError,
                ),
                parameters=(
                    {
                        "name": "close",
                        "in": "query",
                        "description": "Nothing comes after this.",
                        "schema": {"type": "boolean", "default": False},
                    },
                ),
            ),
            Operation(
                "POST",
                PATH + "/{command_id}/signal",
                self.signal,
                "signalCommand",
                "Commands",
                "Send a signal",
                "To the process group of the command.",
                scope=EXECUTE,
                body=Body("The signal.", SignalRequest, example={"signal": "SIGTERM"}),
                answers={204: ()},
                problems=(
                    *_ONE,
                    errors.InvalidJsonError,
                    errors.InvalidRequestError,
                    errors.ConflictError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                ),
            ),
            Operation(
                "DELETE",
                PATH + "/{command_id}",
                self.kill,
                "killCommand",
                "Commands",
                "Kill a command",
                "With its process group. One that has ended stays as it is.",
                scope=EXECUTE,
                answers={204: ()},
                problems=_ONE,
            ),
        ]

    async def run(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await call.body(BODY_BYTES)
        request = decode(_decode, body)
        session, name = call.path["session_id"], new_id("exe")

        async def begin() -> Run:
            return await self._engine.executions.start_command(session, request, call.caller, name=name)

        run = await replay.once(call, self._engine, body, name, begin, session=session)
        if not request.background:
            await self._executions.answer(call, run, interrupt=request.on_disconnect == "interrupt")
            return
        made = run.made if isinstance(run, Replay) else run.id
        info = await self._engine.commands.get(session, made, call.caller)
        headers = [JSON, (EXECUTION_HEADER, made.encode())]
        if isinstance(run, Replay):
            headers.append(replay.REPLAYED)
        await call.answer(encode_json(info), status=202, headers=headers)

    async def list(self, call: Call) -> None:
        found = await self._engine.commands.list(call.path["session_id"], call.caller)
        await call.answer(encode_json(CommandList(found)))

    async def get(self, call: Call) -> None:
        session, name = call.path["session_id"], call.path["command_id"]
        await call.answer(encode_json(await self._engine.commands.get(session, name, call.caller)))

    async def feed(self, call: Call) -> None:
        call.require_type(OCTETS)
        close = call.query_flag("close")
        data = bytes(await call.body(STDIN_BYTES))
        session, name = call.path["session_id"], call.path["command_id"]
        await self._engine.commands.feed(session, name, data, call.caller, close=close)
        await call.empty()

    async def signal(self, call: Call) -> None:
        call.require_type(b"application/json")
        number = signal_number(decode(_decode_signal, await call.body(BODY_BYTES)))
        session, name = call.path["session_id"], call.path["command_id"]
        await self._engine.commands.signal(session, name, number, call.caller)
        await call.empty()

    async def kill(self, call: Call) -> None:
        await self._engine.commands.kill(call.path["session_id"], call.path["command_id"], call.caller)
        await call.empty()
