"""Tenants for tests: keys put into a gateway's database before it starts, and clients that use them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from onehop.sessions import Limits
from onehop.sessions.keys import make_key
from onehop.store import KeyRow, keys
from onehop.store.database import open_database


def store_keys(home: Path, *rows: KeyRow) -> None:
    """As `onehop keys create` does, also while a gateway runs."""
    engine = open_database("", home / "state")
    with engine.begin() as connection:
        for row in rows:
            keys.add(connection, row)
    engine.dispose()


def revoke(home: Path, key_id: str) -> bool:
    engine = open_database("", home / "state")
    with engine.begin() as connection:
        found = keys.revoke(connection, key_id)
    engine.dispose()
    return found


def tenant(home: Path, owner: str, *scopes: str, **limits: Any) -> str:
    """A key of that owner."""
    key, row = make_key(owner=owner, scopes=scopes or ("execute",), limits=Limits(**limits))
    store_keys(home, row)
    return key


def expired(home: Path, owner: str) -> str:
    key, row = make_key(owner=owner)
    store_keys(home, replace(row, expires_at=time.time() - 1))
    return key


def until(condition: Callable[[], bool], timeout_s: float = 30) -> float:
    """Seconds until it held."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < timeout_s
        time.sleep(0.02)
    return time.monotonic() - began_s


def client(url: str, key: str | None) -> httpx2.Client:
    """To be closed by the test."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx2.Client(base_url=url, timeout=60, headers=headers)
