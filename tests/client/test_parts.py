"""Contexts and commands through the SDK, on both faces."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from onehop import errors
from tests.client.cutter import Cutter
from tests.client.faces import Face


async def test_contexts_have_their_own_variables_and_the_same_files(session: Any) -> None:
    await session.files.write("sub/a.txt", "a")
    made = await session.contexts.create("second", cwd="sub")
    assert (made.name, made.cwd, made.created_at.tzinfo is not None) == ("second", "sub", True)
    await session.run("x = 1")
    other = await session.run("x = 2; open('a.txt').read()", context="second")
    assert other.text == "'a'"
    assert [(await session.run("x", context=name)).text for name in ("main", "second")] == ["1", "2"]
    random = await session.contexts.create()
    assert {one.name for one in await session.contexts.list()} == {"main", "second", random.name}
    assert (await session.contexts.restart("second")).name == "second"
    assert (await session.run("x", context="second")).error.name == "NameError"
    with pytest.raises(errors.ConflictError):
        await session.contexts.create("second")
    await session.contexts.delete("second")
    with pytest.raises(errors.NotFoundError) as caught:
        await session.contexts.get("second")
    assert caught.value.type == "context-not-found"
    with pytest.raises(errors.ConflictError):
        await session.contexts.delete("main")


async def test_contexts_run_side_by_side_and_are_interrupted_one_by_one(session: Any) -> None:
    await session.contexts.create("other")
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(
        session.run(
            "print('on', flush=True)\nwhile True: pass",
            context="other",
            on_stdout=lambda _: loop.call_soon_threadsafe(began.set),
        )
    )
    await began.wait()
    assert (await session.run("1 + 1")).text == "2"
    assert (await session.contexts.get("other")).status == "busy"
    assert await session.interrupt() is False
    assert await session.interrupt(context="other") is True
    assert (await task).status == "interrupted"


async def test_a_command_and_its_arguments(session: Any) -> None:
    await session.files.write("sub/a.txt", "a")
    seen: list[str] = []
    done = await session.commands.run(
        "cat; echo $NAME; ls; echo bad >&2; exit 3",
        cwd="sub",
        env={"NAME": "value"},
        stdin="fed\n",
        timeout_s=20,
        on_stdout=seen.append,
    )
    assert (done.stdout, done.stderr) == ("fed\nvalue\na.txt\n", "bad\n")
    assert (done.status, done.exit_code) == ("error", 3)
    assert "".join(seen) == done.stdout
    assert (await session.commands.run("true")).exit_code == 0
    late = await session.commands.run("sleep 60", timeout_s=0.3)
    assert (late.status, late.exit_code) == ("timeout", None)


async def test_a_started_command_is_fed_followed_and_found_again(session: Any) -> None:
    command = await session.commands.start("cat; echo end", stdin_open=True)
    await command.write("one\n")
    await command.write(b"two\n")
    found = await session.commands.get(command.id)
    assert (found.id, found.info.command, found.info.background) == (command.id, "cat; echo end", True)
    assert {one.id: one.status for one in await session.commands.list()} == {command.id: "running"}
    await found.close_stdin()
    events = [event async for event in found.stream()]
    assert "".join(event.text for event in events) == "one\ntwo\nend\n"
    assert (events[-1].result.status, events[-1].result.exit_code) == ("ok", 0)
    seen: list[str] = []
    assert (await command.wait(on_stdout=seen.append)).stdout == "".join(seen) == "one\ntwo\nend\n"
    with pytest.raises(errors.ConflictError):
        await command.write("three")
    assert (await session.commands.get(command.id)).info.status == "ok"
    with pytest.raises(errors.NotFoundError):
        await session.commands.get("exe_nobody")


@pytest.mark.parametrize("how", ["SIGTERM", 15, signal.SIGINT, "kill"])
async def test_a_started_command_is_signalled(session: Any, how: Any) -> None:
    command = await session.commands.start("sleep 1000")
    await (command.kill() if how == "kill" else command.signal(how))
    ended = await command.wait()
    assert (ended.ok, ended.exit_code) == (False, None)


async def test_a_caller_that_gives_up_ends_its_command(session: Any) -> None:
    def refuse(text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError):
        await session.commands.run("echo a; sleep 1000", on_stdout=refuse)
    (command,) = await session.commands.list()
    assert (await (await session.commands.get(command.id)).wait()).ok is False


async def test_a_lost_answer_starts_no_command_twice(face: Face, cutter: Cutter) -> None:
    async with face.session(cutter.url) as session:
        await session.run("1")
        async with face.attach(session.id, cutter.url) as other:
            cutter.cuts += [0]
            assert (await other.commands.run("echo x >> runs; cat runs")).stdout == "x\n"
            command = await other.commands.start("echo y >> runs; cat runs")
            assert (await command.wait()).stdout == "x\ny\n"
        async with face.attach(session.id, cutter.url) as other:
            cutter.cuts += [0]
            command = await other.commands.start("echo z >> runs; cat runs")
            assert (await command.wait()).stdout == "x\ny\nz\n"
    assert cutter.cuts == []
