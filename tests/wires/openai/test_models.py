"""The list of models, by OpenAI's own SDK, and what a client is told about one that is not there."""

from __future__ import annotations

import openai
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Text
from tests.wires.conftest import Models


@pytest.fixture
def sdk(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0)


def test_list_and_retrieve(sdk: openai.OpenAI) -> None:
    with sdk:
        found = {one.id: one for one in sdk.models.list()}
        assert {"chat", "blind"} <= set(found)
        one = found["chat"]
        assert (one.object, one.owned_by) == ("model", "chat")
        assert sdk.models.retrieve("chat") == one


def test_a_name_with_a_slash_addresses_an_upstream(sdk: openai.OpenAI, models: Models) -> None:
    models.play([[Text("ok")]])
    with sdk:
        answer = sdk.chat.completions.create(model="chat/chat", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "ok"
    assert models.sent[0]["model"] == "chat"


def test_an_unknown_model_is_told_with_one_that_is_like_it(sdk: openai.OpenAI) -> None:
    with sdk:
        with pytest.raises(openai.NotFoundError, match="did you mean 'blind'") as raised:
            sdk.models.retrieve("blindd")
        assert raised.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError) as raised:
            sdk.chat.completions.create(model="blindd", messages=[{"role": "user", "content": "hi"}])
        assert raised.value.code == "model_not_found"
