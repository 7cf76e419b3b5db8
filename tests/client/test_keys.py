"""Keys and usage through the SDK, on a gateway of its own: the first key ends the time without keys."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from onehop import errors
from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.client.faces import Face


@pytest.fixture(scope="module")
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


@pytest.fixture
def own(own_supervisor: SupervisorHandle, tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(own_supervisor.path, tmp_path) as gateway:
        yield gateway


async def test_keys_scopes_and_usage(face: Face, own: Gateway) -> None:
    async with face.client(own.url) as client:
        admin = await client.keys.create("boss", scopes=["admin", "execute"])
        assert (admin.state, admin.name, admin.key.startswith("oh_")) == ("active", "boss", True)
        assert admin.key not in repr(admin)
        with pytest.raises(errors.UnauthorizedError, match="key") as caught:
            await client.run("1")
        assert caught.value.status == 401
    async with face.client(own.url, admin.key) as boss:
        assert (await boss.run("1 + 1")).text == "2"
        reader = await boss.keys.create("reader", scopes=["read"], expires_in_s=60)
        few = await boss.keys.create("few", limits={"executions_per_minute": 1})
        async with face.client(own.url, reader.key) as client:
            with pytest.raises(errors.ForbiddenError):
                await client.run("1")
            assert await client.sessions() == []
        async with face.client(own.url, few.key) as client:
            assert (await client.run("1")).ok
            with pytest.raises(errors.TooManyError) as many:
                await client.run("1")
            assert many.value.retry_after_s is not None
            assert 1 <= many.value.retry_after_s <= 60
        await boss.keys.revoke(reader.id)
        assert {one.name: one.state for one in await boss.keys.list()} == {
            "boss": "active",
            "reader": "revoked",
            "few": "active",
        }
        today = datetime.datetime.now(datetime.UTC).date()
        used = await boss.usage(
            start=today - datetime.timedelta(days=1), end=today + datetime.timedelta(days=1)
        )
        assert {one.key: one.executions for one in used} == {admin.id: 1, few.id: 1}
        assert all(one.cpu_s >= 0 and one.cost is None for one in used)
