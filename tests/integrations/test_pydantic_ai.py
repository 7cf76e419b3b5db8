"""pydantic-ai-onehop: Pydantic AI's suite for workspace backends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic_ai.workspaces import WorkspaceBackend, WorkspaceRef
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite
from pydantic_ai_onehop import OnehopWorkspace

from onehop import AsyncClient
from tests.api.gateway import Gateway


async def destroy(backend: WorkspaceBackend, url: str) -> None:
    if backend.ref is not None:
        async with AsyncClient(url) as client:
            await client.attach(backend.ref.id).close()


@pytest.mark.compat("pydantic-ai", "WorkspaceBackendSuite")
class TestOnehopWorkspace(WorkspaceBackendSuite):
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def has_real_posix_shell(self) -> bool:
        return True

    @pytest.fixture
    def can_detect_exit_with_inherited_output_pipes(self) -> bool:
        return True

    @pytest.fixture
    async def made(self, gateway: Gateway, anyio_backend: str) -> AsyncIterator[list[OnehopWorkspace]]:
        """All backends of a test; what is still there at its end goes."""
        several: list[OnehopWorkspace] = []
        yield several
        for one in several:
            await one.aclose()
        names = {one.ref.id for one in several if one.ref is not None}
        async with AsyncClient(gateway.url) as client:
            for session in await client.sessions():
                if session.id in names:
                    await client.attach(session.id).close()

    @pytest.fixture
    def backend(self, gateway: Gateway, made: list[OnehopWorkspace]) -> WorkspaceBackend:
        made.append(OnehopWorkspace(url=gateway.url))
        return made[-1]

    @pytest.fixture
    def fresh_backend(self, gateway: Gateway, made: list[OnehopWorkspace]) -> Callable[[], WorkspaceBackend]:
        def fresh() -> WorkspaceBackend:
            made.append(OnehopWorkspace(url=gateway.url))
            return made[-1]

        return fresh

    @pytest.fixture
    def attach_backend(
        self, gateway: Gateway, made: list[OnehopWorkspace]
    ) -> Callable[[WorkspaceRef], WorkspaceBackend]:
        def attach(ref: WorkspaceRef) -> WorkspaceBackend:
            made.append(OnehopWorkspace(ref, url=gateway.url))
            return made[-1]

        return attach

    @pytest.fixture
    def destroy_environment(self, gateway: Gateway) -> Callable[[WorkspaceBackend], Awaitable[None]]:
        return lambda backend: destroy(backend, gateway.url)


def test_a_workspace_of_somebody_else() -> None:
    with pytest.raises(ValueError, match="not of onehop"):
        OnehopWorkspace(WorkspaceRef(provider="local", id="x"))
