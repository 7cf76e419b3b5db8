"""`POST /execute`, as tutorials build it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest


def execute(client: httpx2.Client, code: str) -> Any:
    answer = client.post("/execute", json={"code": code})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.compat("Tutorial", "POST /execute, code in the body or the query")
def test_output(client: httpx2.Client) -> None:
    assert execute(client, "output = 6 * 7") == {"output": 42}
    assert client.post("/execute", params={"code": "output = [1, 'ü']"}).json() == {"output": [1, "ü"]}
    frame = "import pandas as pd\noutput = pd.DataFrame({'a': [1, 2]})"
    assert "to_dict('records')" in execute(client, frame)["error"]
    assert execute(client, frame + ".to_dict('records')") == {"output": [{"a": 1}, {"a": 2}]}
    assert execute(client, "x = 1  # no output") == {"output": None}
    assert execute(client, "print('unseen')\ndef double(n):\n    return 2 * n\noutput = double(4)") == {
        "output": 8
    }
    # Nothing stays.
    assert execute(client, "output = globals().get('x')") == {"output": None}


@pytest.mark.compat("Tutorial", "errors of code")
def test_errors(client: httpx2.Client) -> None:
    assert execute(client, "1 / 0") == {"error": "division by zero"}
    assert "was never closed" in execute(client, "output = (1")["error"]
    assert "JSON" in execute(client, "output = object()")["error"]
    assert execute(client, "output = print")["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'{"code": 7}', b'{"code": ""}'])
def test_what_is_no_request(client: httpx2.Client, body: bytes) -> None:
    answer = client.post("/execute", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"][0] == "body"
