"""The model loop's memory: owners apart, durable, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onehop.agent import memory as module
from onehop.agent.memory import Memory
from onehop.errors import TooLargeError
from onehop.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open("", tmp_path)
    yield store
    store.close()


async def test_what_is_put_is_there_at_once_and_for_another_gateway(store: Store, tmp_path: Path) -> None:
    first = Memory(store)
    await first.put("a", "turn", "one", b"data", 60)
    await first.put("a", "turn", "one", b"newer", 60)
    assert await first.get("a", "turn", "one") == b"newer"
    other = Store.open("", tmp_path)  # as after kill -9 of this one: nothing was flushed on purpose
    try:
        assert await Memory(other).get("a", "turn", "one") == b"newer"
    finally:
        other.close()


async def test_owners_and_kinds_are_apart(store: Store) -> None:
    memory = Memory(store)
    await memory.put("a", "turn", "one", b"of a", 60)
    for fresh in (memory, Memory(store)):  # from the cache, and from the database
        assert await fresh.get("b", "turn", "one") is None
        assert await fresh.get("a", "response", "one") is None
        assert await fresh.list("b", "turn") == []
        assert not await fresh.delete("b", "turn", "one")
    assert await memory.get("a", "turn", "one") == b"of a"


async def test_deleted_is_gone(store: Store) -> None:
    memory = Memory(store)
    await memory.put("a", "turn", "one", b"data", 60)
    assert await memory.delete("a", "turn", "one")
    assert not await memory.delete("a", "turn", "one")
    assert await memory.get("a", "turn", "one") is None


async def test_what_has_expired_is_gone(store: Store) -> None:
    memory = Memory(store)
    await memory.put("a", "turn", "one", b"data", 0.05)
    await asyncio.sleep(0.06)
    assert await memory.get("a", "turn", "one") is None
    assert await Memory(store).get("a", "turn", "one") is None
    assert await memory.list("a", "turn") == []


async def test_pages_are_newest_first(store: Store) -> None:
    memory = Memory(store)
    for number in range(5):
        await memory.put("a", "turn", f"n{number}", b"%d" % number, 60)
    first = await memory.list("a", "turn", limit=2)
    assert first == [("n4", b"4"), ("n3", b"3")]
    assert await memory.list("a", "turn", after="n3", limit=2) == [("n2", b"2"), ("n1", b"1")]
    assert await memory.list("a", "turn", after="n0") == []
    assert await memory.list("a", "turn", after="never was") == []


async def test_too_much_is_refused_and_the_oldest_make_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHRINK_EVERY", 1)
    monkeypatch.setattr(module, "MAX_OWNER_BYTES", 1000)
    monkeypatch.setattr(module, "MAX_BYTES", 500)
    memory = Memory(store)
    with pytest.raises(TooLargeError):
        await memory.put("a", "turn", "huge", bytes(501), 60)
    await memory.put("b", "turn", "other", bytes(400), 60)
    for number in range(4):
        await memory.put("a", "turn", f"n{number}", bytes(400), 60)
    assert [name for name, _ in await memory.list("a", "turn")] == ["n3", "n2"]
    assert await memory.list("b", "turn") == [("other", bytes(400))]


async def test_the_cache_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_BYTES", 1000)
    memory = Memory(store)
    for number in range(5):
        await memory.put("a", "turn", f"n{number}", bytes(300), 60)
    assert sum(len(row.data) for row in memory._cached.values()) == memory._cached_bytes == 900
    assert await memory.get("a", "turn", "n0") == bytes(300)
    assert memory._cached_bytes == 900
