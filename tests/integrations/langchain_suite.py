"""LangChain's own suite for sandboxes on ours; run by test_langchain.py with the packages that it was made for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_onehop import OnehopSandbox
from langchain_tests.integration_tests import SandboxIntegrationTests


class TestOnehopSandbox(SandboxIntegrationTests):
    @pytest.fixture(scope="class")
    def sandbox(self) -> Iterator[OnehopSandbox]:
        with OnehopSandbox() as made:
            yield made
