"""Containers of the model loop: ordinary sessions, never silently empty ones."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from onehop import config
from onehop.agent.containers import LABEL, RENEWED, Containers, private, public
from onehop.agent.events import ContainerChoice
from onehop.agent.memory import Memory
from onehop.agent.uploads import Uploads
from onehop.environments import Environment
from onehop.errors import (
    InvalidRequestError,
    SessionEndedError,
    SessionNotFoundError,
    UploadNotFoundError,
)
from onehop.sessions import Engine
from onehop.sessions.caller import Caller
from onehop.sessions.requests import ExecuteRequest
from onehop.store import Store
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.spawn import SupervisorHandle
from tests.api.conftest import start_supervisor

A, B = Caller(owner="a"), Caller(owner="b")


@pytest.fixture(scope="module")
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    """A gateway that starts discards sandboxes that it does not know: no other may use it."""
    with start_supervisor(environment) as supervisor:
        yield supervisor


class Parts:
    """An engine, and what containers are made of."""

    def __init__(self, engine: Engine, uploads: Uploads) -> None:
        self.engine = engine
        self.uploads = uploads
        self.containers = Containers(engine, Memory(engine.store), uploads)

    async def run(self, session: str, code: str, caller: Caller = A) -> str:
        run = await self.engine.executions.start(session, ExecuteRequest(code=code), caller)
        return (await run.wait()).stdout


@pytest.fixture
async def parts(own_supervisor: SupervisorHandle, tmp_path: Path) -> AsyncIterator[Parts]:
    settings = dataclasses.replace(config.load(environ={}), home=tmp_path)
    client = await SupervisorClient.connect(own_supervisor.path)
    store = Store.open("", settings.state)
    try:
        engine = Engine(settings, client, store)
        async with engine, Uploads(settings, store) as uploads:
            yield Parts(engine, uploads)
            for caller in (A, B):
                for session in engine.sessions.list(caller):
                    await engine.sessions.delete(session.id, caller)
    finally:
        store.close()
        await client.close()


async def of(text: bytes) -> AsyncIterator[bytes]:
    yield text


async def test_a_container_is_a_session_that_everybody_can_see(parts: Parts) -> None:
    container, note = await parts.containers.open(ContainerChoice(memory_mb=256, idle_timeout_s=100.0), A)
    (session,) = parts.engine.sessions.list(A)
    assert (container.session, container.expires_at, container.made, note) == (
        session.id, session.expires_at, True, "",
    )  # fmt: skip
    assert (session.limits.memory_mb, session.idle_timeout_s, LABEL in session.metadata) == (256, 100.0, True)
    again, _ = await parts.containers.open(ContainerChoice(session=container.session), A)
    assert (again.session, again.made) == (container.session, False)
    assert again.expires_at >= container.expires_at


async def test_its_public_name_is_the_sessions(parts: Parts) -> None:
    container, _ = await parts.containers.open(ContainerChoice(), A)
    name = public(container.session, "cntr")
    assert name.startswith("cntr_")
    assert private(name) == private(public(container.session, "container")) == container.session
    for foreign in ("", "cntr_", "cntr_nothing", "nothing"):
        with pytest.raises(SessionNotFoundError):
            await parts.containers.open(ContainerChoice(session=private(foreign)), A)


async def test_uploads_are_in_it(parts: Parts) -> None:
    row = await parts.uploads.create(A, "../data.txt", of(b"hello"))
    container, _ = await parts.containers.open(ContainerChoice(files=[row.id]), A)
    assert await parts.run(container.session, "print(open('data.txt').read())") == "hello\n"
    with pytest.raises(UploadNotFoundError):
        await parts.containers.open(ContainerChoice(files=[row.id]), B)
    assert parts.engine.sessions.list(B) == []


async def test_another_owner_gets_what_is_not_there(parts: Parts) -> None:
    container, _ = await parts.containers.open(ContainerChoice(conversation="talk"), A)
    with pytest.raises(SessionNotFoundError):
        await parts.containers.open(ContainerChoice(session=container.session, restart=True), B)
    other, _ = await parts.containers.open(ContainerChoice(conversation="talk"), B)
    assert other.session != container.session


async def test_what_has_expired_is_told(parts: Parts) -> None:
    container, _ = await parts.containers.open(ContainerChoice(), A)
    await parts.engine.sessions.delete(container.session, A)
    choice = ContainerChoice(session=container.session)
    with pytest.raises(SessionEndedError) as told:
        await parts.containers.open(choice, A)
    assert told.value.extra["reason"] == "deleted"
    assert parts.engine.sessions.list(A) == []
    choice.restart = True
    new, note = await parts.containers.open(choice, A)
    assert (new.made, note) == (True, RENEWED)


async def test_a_conversation_keeps_its_container(parts: Parts) -> None:
    first, _ = await parts.containers.open(ContainerChoice(conversation="talk"), A)
    await parts.run(first.session, "x = 42")
    # A gateway that was started again knows it, too.
    fresh = Containers(parts.engine, Memory(parts.engine.store), parts.uploads)
    again, note = await fresh.open(ContainerChoice(conversation="talk"), A)
    assert (again.session, again.made, note) == (first.session, False, "")
    other, _ = await fresh.open(ContainerChoice(conversation="another"), A)
    assert other.session != first.session
    await parts.engine.sessions.delete(first.session, A)
    with pytest.raises(SessionEndedError):
        await fresh.open(ContainerChoice(conversation="talk"), A)
    new, note = await fresh.open(ContainerChoice(conversation="talk", restart=True), A)
    assert (new.made, note) == (True, RENEWED)
    same, note = await fresh.open(ContainerChoice(conversation="talk"), A)
    assert (same.session, note) == (new.session, "")


async def test_two_first_requests_make_one_container(parts: Parts) -> None:
    choice = ContainerChoice(conversation="talk")
    found = await asyncio.gather(*(parts.containers.open(choice, A) for _ in range(5)))
    assert len({container.session for container, _ in found}) == 1
    assert [container.made for container, _ in found].count(True) == 1
    assert parts.containers._locks == {}


async def test_a_conversation_has_a_short_name(parts: Parts) -> None:
    with pytest.raises(InvalidRequestError):
        await parts.containers.open(ContainerChoice(conversation="x" * 201), A)
