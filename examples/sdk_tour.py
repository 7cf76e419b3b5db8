"""A tour of the Python SDK: every public call once. On the server that ONEHOP_URL names, or on an engine of its own.

Run it with `python examples/sdk_tour.py`. What it prints is what README.md shows and a test compares.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import tempfile
from pathlib import Path

import onehop
from onehop import errors

TABLE = """
import pandas as pd
pd.DataFrame({"city": ["Oslo", "Rome"], "°C": [4, 17]})
"""
PLOT = """
import matplotlib.pyplot as plt
plt.plot([1, 4, 9])
plt.show()
"""


def one_shot() -> None:
    print("1. One piece of code, in a sandbox that is gone afterwards")
    print(onehop.run("sum(range(10))"))
    result: onehop.Result = onehop.run("print('hello'); 1 / 0")
    assert isinstance(result.error, onehop.ErrorInfo)
    print(f"{result.status}: {result.error.name}, stdout {result.stdout!r}, ok {result.ok}")
    try:
        result.raise_for_error()
    except onehop.ExecutionFailedError as error:
        print(f"raised: {error}")


def code(session: onehop.Session) -> None:
    print("\n2. A session keeps variables, imports and files")
    session.run("x = 20")
    print(session.run("x + 22").text)
    print(session.run(TABLE))
    output: onehop.Output = session.run(PLOT).results[0]
    print(f"a picture: {output.png is not None and output.png.startswith(b'PNG', 1)}")
    result = session.run(
        "import os; os.environ['WHO'], input()", env={"WHO": "me"}, stdin="line\n", timeout_s=5
    )
    print(result.text)
    assert isinstance(result.usage, onehop.Usage)
    print(f"measured from outside: {result.usage.cpu_ms >= 0}")
    result = session.run("print('a' * 100_000)", output_bytes=1000)
    rest = result.output_file
    assert isinstance(rest, onehop.OutputFile)
    print(f"long output: {len(result.stdout) <= 1000}, the rest in a file: {rest.bytes > 90_000}")
    session.files.delete(rest.path)


def streaming(session: onehop.Session) -> None:
    print("\n3. Output as it comes")
    pieces: list[str] = []
    session.run("for i in range(3): print(i)", on_stdout=pieces.append)
    print(f"  callbacks got {''.join(pieces)!r}")
    event: onehop.Event
    for event in session.stream("print('first'); 'last'"):
        shown = event.output or event.text or (event.result and event.result.status)
        print(f"  event {event.number} {event.kind} {shown!r}")
    for event in session.stream("x = 1\nprint('on', flush=True)\nwhile True: pass"):
        if event.kind == "stdout":
            print(f"  interrupted: {session.interrupt()}")
        elif event.result is not None:
            print(f"  {event.result.status}, variables {event.result.variables}: x = {session.run('x').text}")


def files(session: onehop.Session) -> None:
    print("\n4. Files and folders")
    workspace: onehop.Files = session.files
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "data").mkdir()
        (here / "data" / "numbers.csv").write_text("n\n1\n2\n")
        workspace.write("note.txt", "three")
        workspace.upload(here / "data" / "numbers.csv")
        print([file.path for file in workspace.upload_tree(here / "data", "tree")])
        print(workspace.move("note.txt", "kept/note.txt").path, workspace.read("kept/note.txt"))
        print(workspace.download("numbers.csv", here / "back.csv").read_text().split())
        print(sorted(path.name for path in workspace.download_tree(here / "all")))
        workspace.delete("tree", recursive=True)
        listed: onehop.FileList = workspace.list()
        file: onehop.File = next(one for one in listed if one.path == "numbers.csv")
        print([one.path for one in listed], file.bytes)


def contexts(session: onehop.Session) -> None:
    print("\n5. Contexts: more interpreters beside the same files")
    group: onehop.Contexts = session.contexts
    made: onehop.ContextInfo = group.create("second")
    session.run("y = 'second only'", context=made.name)
    print(session.run("y", context="second").text, session.run("'y' in dir()").text)
    print(sorted(one.name for one in group.list()), group.get("second").status)
    group.restart("second")
    print(session.run("'y' in dir()", context="second").text)
    group.delete("second")


def commands(session: onehop.Session) -> None:
    print("\n6. Shell commands")
    group: onehop.Commands = session.commands
    done = group.run("echo $NAME; exit 3", env={"NAME": "shell"}, cwd="kept")
    print(f"{done.stdout!r} {done.status} {done.exit_code}")
    command: onehop.Command = group.start("cat", stdin_open=True)
    command.write("line\n")
    command.close_stdin()
    print([event.text for event in command.stream() if event.kind == "stdout"], command.wait().exit_code)
    sleeping = group.start("sleep 1000")
    listed: list[onehop.CommandInfo] = group.list()
    print([one.command for one in listed if one.status == "running"])
    group.get(sleeping.id).signal("SIGTERM")
    print(f"ended by a signal: {sleeping.wait().exit_code is None}")
    sleeping = group.start("sleep 1000")
    sleeping.kill()
    print(f"killed: {not sleeping.wait().ok}")


def life(client: onehop.Client) -> None:
    print("\n7. A session's life")
    options: onehop.SessionOptions = {
        "memory_mb": 512,
        "idle_timeout_s": 600,
        "metadata": {"for": "the tour"},
    }
    session = client.session(**options)
    info: onehop.SessionInfo = session.info()
    print(info.status, info.limits["memory_mb"], info.metadata)
    print(f"pinned: {session.pin().pinned}, {session.pin(False).pinned}")
    print(
        f"ends within the hour: {session.extend(3600).expires_at - info.created_at < datetime.timedelta(hours=1.01)}"
    )
    print(session.change(metadata={"for": "everybody"}).metadata)
    print(client.attach(session.id).run("'the same one'").text)
    session.close()
    try:
        session.run("1")
    except errors.SessionEndedError as error:
        print(f"{error.status} {error.type}", isinstance(error, onehop.ProblemError | onehop.OnehopError))
    try:
        onehop.Client("http://127.0.0.1:1").run("1")
    except onehop.UnreachableError as error:
        print(error)


def tools(client: onehop.Client) -> None:
    """Code calls functions of this process; what nobody here can answer comes back as a pending call."""
    print("\n8. Tools of the client")

    @onehop.tool(read_only=True)  # as in a module for the server; here it changes nothing
    def price(item: str, count: int = 1) -> float:
        """What so many of an item cost."""
        return {"tea": 2.5, "cake": 4.0}[item] * count

    print(client.run("sum(tools.price(item, count=3) for item in ('tea', 'cake'))", tools=[price]).text)
    failed = client.run("tools.price('coffee')", tools=[price])
    print(failed.error and failed.error.value)
    ask = {"name": "ask", "parameters": {"type": "object", "properties": {"who": {"type": "integer"}}}}
    waiting = client.run("f'{tools.ask(who=1)}!'", tools=[ask])
    call: onehop.ToolCall = waiting.tool_calls[0]
    print(waiting.status, call.name, call.arguments)
    print(client.submit(waiting.id, [{"id": call.id, "result": "goes on"}]).text)


def server(client: onehop.Client) -> None:
    print("\n9. The server")
    print(f"version {client.info()['version']} here, too: {onehop.__version__ == client.info()['version']}")
    environments: list[onehop.EnvironmentInfo] = client.environments()
    print([one.name for one in environments if one.default])
    first = client.run("'asked twice'")
    print(client.execution(first.id) == first, client.wait(first.id).text)
    print([event.kind for event in client.events(first.id)])
    outcomes = client.batch(["'first'", "'second'", {"session": "ses_of_nobody", "execute": {"code": "1"}}])
    print([one.text if isinstance(one, onehop.Result) else type(one).__name__ for one in outcomes])
    print(f"live sessions: {len(client.sessions())}")
    used: list[onehop.DayUsage] = client.usage()
    print(f"counted: {sum(day.executions for day in used) > 10}")


def lambdas(client: onehop.Client) -> None:
    print("\n11. Lambdas: in Monty where they fit it, else in a sandbox")
    found: onehop.Evaluation = client.evaluate(
        "lambda xs, start=0: sum(xs) + start", [1, 2], kwargs={"start": 10}
    )
    print(found.status, found.value)
    print(client.evaluate("import re\nlambda s: re.findall(r'[0-9]+', s)", "a1b22").raise_for_error().value)
    failed = client.evaluate("{1, 2}")
    assert failed.error is not None
    print(failed.ok, failed.error.name)
    functions: onehop.Functions = client.functions
    stored: onehop.FunctionInfo = functions.put("double", "lambda x: x * 2")
    print(stored.name, functions.get("double").code, [one.name for one in functions.list()])
    print(functions.call("double", 21).value)
    functions.delete("double")


def keys(client: onehop.Client) -> None:
    """Last, because the first key ends the time without keys."""
    print("\n12. Keys")
    group: onehop.Keys = client.keys
    key: onehop.KeyInfo = group.create("tour", scopes=["execute", "admin"])
    with onehop.Client(api_key=key.key) as owner:
        print(owner.run("1 + 1").text, [one.name for one in owner.keys.list()])
        owner.keys.revoke(key.id)


async def in_asyncio() -> None:
    print("\n10. The same in asyncio")
    async with onehop.AsyncClient() as client, client.session() as session:
        assert isinstance(session, onehop.AsyncSession)
        results = await asyncio.gather(session.run("'in a session'"), client.run("'beside it'"))
        print([result.text for result in results])
        async for event in session.stream("print('streamed')"):
            print(f"  event {event.number} {event.kind}")
        parts = (session.files, session.contexts, session.commands, client.keys, client.functions)
        kinds = (
            onehop.AsyncFiles,
            onehop.AsyncContexts,
            onehop.AsyncCommands,
            onehop.AsyncKeys,
            onehop.AsyncFunctions,
        )
        print(all(isinstance(part, kind) for part, kind in zip(parts, kinds, strict=True)))
        command: onehop.AsyncCommand = await session.commands.start("echo started")
        print((await command.wait()).stdout.strip())


def main() -> None:
    one_shot()
    with onehop.Session() as session:
        code(session)
        streaming(session)
        files(session)
        contexts(session)
        commands(session)
        with onehop.Session.attach(session.id) as again:
            print(f"\nattached: {again.run('x').text}")
    with onehop.Client() as client:
        life(client)
        tools(client)
        server(client)
        asyncio.run(in_asyncio())
        lambdas(client)
        if "ONEHOP_URL" not in os.environ:
            keys(client)  # on the engine of this process only: a server's keys are its operator's


if __name__ == "__main__":
    main()
