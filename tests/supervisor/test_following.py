"""Executions outlive those who follow them: attach, read again, acknowledge."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from onehop.errors import ContextNotFoundError, ExecutionNotFoundError, InvalidRequestError, SessionBusyError
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import Event, ExecutionSpec, SandboxSpec, decode_end
from onehop.supervisor.spawn import SupervisorHandle
from tests.driver import Driver, Session
from tests.kernel.reading import value
from tests.supervisor.machine import eventually

SLOW = "import os, time\nprint('first')\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('last')\n7"


class Follower:
    """Collects events until the end."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = asyncio.Event()
        self.lost = False

    def __call__(self, event: Event | None) -> None:
        if event is None:
            self.lost = True
            self.ended.set()
            return
        self.events.append(event)
        if event.kind == "end":
            self.ended.set()

    async def wait(self) -> list[Event]:
        async with asyncio.timeout(20):
            await self.ended.wait()
        return self.events


async def release(client: SupervisorClient, sandbox: str) -> None:
    async def content() -> Any:
        yield b"x"

    async with await client.open_porter(sandbox) as porter:
        await porter.write("go", content())


def test_events_can_be_read_again_from_any_number(
    driver: Driver, session: Session, supervisor: SupervisorHandle
) -> None:
    async def work() -> None:
        first = Follower()
        spec = ExecutionSpec(id="again", code="for i in range(5):\n    print(i, flush=True); display(i)\n'v'")
        await driver.client.execute(session.id, spec, first)
        events = await first.wait()
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert len(events) == 12
        other = await SupervisorClient.connect(supervisor.path)
        for after in (0, 1, 7, len(events) - 1):
            again = Follower()
            await other.attach("again", again, after=after)
            assert await again.wait() == events[after:]
        (info,) = [info for info in await other.sandboxes() if info.id == session.id]
        assert info.executions == ["again"]
        other.acknowledge("again")
        with pytest.raises(ExecutionNotFoundError):
            await other.attach("again", Follower())
        await other.close()

    driver.wait(work())


def test_a_follower_that_hangs_up_stops_nothing(driver: Driver, supervisor: SupervisorHandle) -> None:
    async def work() -> None:
        leaver = await SupervisorClient.connect(supervisor.path)
        info = await leaver.create_sandbox(SandboxSpec(owner="somebody"))
        follower = Follower()
        await leaver.execute(info.id, ExecutionSpec(id="left", code=SLOW), follower)
        while not follower.events:
            await asyncio.sleep(0.01)
        await leaver.close()
        assert follower.lost
        (kept,) = [one for one in await driver.client.sandboxes() if one.id == info.id]
        assert (kept.owner, kept.executions) == ("somebody", ["left"])
        again = Follower()
        await driver.client.attach("left", again, after=len(follower.events) - 0)
        await release(driver.client, info.id)
        rest = await again.wait()
        events = [event for event in follower.events if event.number <= len(follower.events)] + rest
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert b"".join(event.payload for event in events if event.kind == "stdout") == b"first\nlast\n"
        assert decode_end(events[-1].payload).status == "ok"
        driver.client.acknowledge("left")
        await driver.client.destroy_sandbox(info.id)

    driver.wait(work())


def test_one_execution_at_a_time_and_one_id(driver: Driver, session: Session) -> None:
    async def work() -> None:
        follower = Follower()
        await driver.client.execute(session.id, ExecutionSpec(id="one", code=SLOW), follower)
        with pytest.raises(SessionBusyError):
            await driver.client.execute(session.id, ExecutionSpec(id="two", code="1"), Follower())
        with pytest.raises(InvalidRequestError):
            await driver.client.execute(session.id, ExecutionSpec(id="one", code="1"), Follower())
        with pytest.raises(InvalidRequestError):
            await driver.client.execute_once(
                SandboxSpec(one_shot=True), ExecutionSpec(id="one", code="1"), Follower()
            )
        with pytest.raises(ContextNotFoundError):
            await driver.client.execute(
                session.id, ExecutionSpec(id="3", code="1"), Follower(), kernel="nosuch"
            )
        await release(driver.client, session.id)
        assert decode_end((await follower.wait())[-1].payload).status == "ok"
        driver.client.acknowledge("one")

    before = len(driver.wait(driver.client.sandboxes()))
    driver.wait(work())
    assert value(session.run("6 * 7")) == "42"
    assert len(driver.wait(driver.client.sandboxes())) == before, "a refused execute_once left its sandbox"


def test_acknowledged_executions_are_forgotten(driver: Driver, session: Session) -> None:
    for _ in range(20):
        session.run("1")
    eventually(lambda: driver.wait(driver.client.describe())["executions"] == 0)


def test_broken_messages_end_the_connection_and_nothing_else(
    driver: Driver, supervisor: SupervisorHandle
) -> None:
    async def work() -> None:
        for raw in (
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x01\xc1",
            b"\x00\x00\x00\x05hello",
            b"\x00\x00\x00\x02\x92\x01",
        ):
            reader, writer = await asyncio.open_unix_connection(supervisor.path)
            writer.write(raw)
            async with asyncio.timeout(30):
                try:
                    assert await reader.read() == b""
                except ConnectionError:
                    pass
            writer.close()

    driver.wait(work())
    assert value(driver.run_once("1 + 1")) == "2"


def test_requests_of_wrong_shape_are_refused(driver: Driver) -> None:
    for operation, arguments in (("nosuch", {}), ("_call", {}), ("interrupt", {}), ("attach", {"execution": "x"}),
                                 ("attach", {"execution": "x", "after": "y"}), ("execute", {"sandbox": 5}), ("create", {}),
                                 ("destroy", {}), ("porter", {})):  # fmt: skip
        with pytest.raises(
            InvalidRequestError if operation != "attach" else (InvalidRequestError, ExecutionNotFoundError)
        ):
            driver.wait(driver.client._call(operation, arguments), 30)
    assert value(driver.run_once("1 + 1")) == "2"
