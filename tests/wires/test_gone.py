"""Clients that hang up before a word has come: the model is stopped at once, and nothing goes wrong for it."""

from __future__ import annotations

import httpx2
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Gate, Pause
from tests.wires.conftest import Models


@pytest.mark.parametrize("stream", [True, False])
def test_before_the_first_word(gateway: Gateway, models: Models, stream: bool) -> None:
    models.play([[Pause(Gate())]])
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(gateway.url + "/v1/chat/completions", json=body, timeout=1)
    assert models.server.wait(1).gone.wait(10)
    # An answer to somebody else comes later than whatever the server has to say to that.
    assert httpx2.get(gateway.url + "/v1/models", timeout=10).status_code == 200
    assert "Traceback" not in gateway.log.read_text()
