"""The SDK against a real gateway, as the API's own tests have it; each case for both faces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.api.conftest import gateway, home  # noqa: F401 - fixtures
from tests.api.gateway import Gateway
from tests.client.cutter import Cutter
from tests.client.faces import Face


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


@pytest.fixture
def url(gateway: Gateway) -> str:  # noqa: F811
    return gateway.url


@pytest.fixture
async def session(face: Face, url: str) -> AsyncIterator[Any]:
    async with face.session(url) as session:
        yield session


@pytest.fixture
async def client(face: Face, url: str) -> AsyncIterator[Any]:
    async with face.client(url) as client:
        yield client


@pytest.fixture
def cutter(gateway: Gateway) -> Iterator[Cutter]:  # noqa: F811
    with Cutter(gateway.port) as cutter:
        yield cutter
