"""AWS Lambda's API by an unmodified boto3: functions are made, changed, invoked, and run warm."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from onehop.environments import Environment
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway

ROLE = "arn:aws:iam::000000000000:role/x"
SOURCE = """\
import json, os, sys
count = 0

def handler(event, context):
    global count
    count += 1
    print("count", count)
    return {"event": event, "count": count, "region": os.environ.get("STAGE"), "id": context.aws_request_id,
            "name": context.function_name, "left": context.get_remaining_time_in_millis() > 0}

def fails(event, context):
    print("before")
    raise ValueError("no " + event["what"])

def slow(event, context):
    import time
    time.sleep(event["s"])
    return "slept"

def odd(event, context):
    return {1, 2}

def leaves(event, context):
    sys.exit(3)

def dies(event, context):
    os._exit(3)
"""


def client(url: str, key: str = "any", secret: str = "any") -> Any:
    return boto3.client(
        "lambda", endpoint_url=url + "/lambda", region_name="eu-west-1", aws_access_key_id=key,
        aws_secret_access_key=secret, config=Config(retries={"max_attempts": 0}, read_timeout=60),
    )  # fmt: skip


def zipped(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


def create(aws: Any, name: str, handler: str = "app.handler", **more: Any) -> Any:
    package = zipped({"app.py": SOURCE})
    return aws.create_function(
        FunctionName=name, Runtime="python3.12", Role=ROLE, Handler=handler,
        **{"Code": {"ZipFile": package}, "Timeout": 10, **more},
    )  # fmt: skip


@pytest.fixture
def aws(gateway: Gateway) -> Iterator[Any]:
    made = client(gateway.url)
    yield made
    for one in made.list_functions()["Functions"]:
        made.delete_function(FunctionName=one["FunctionName"])


def invoke(aws: Any, name: str, event: object = None, **more: Any) -> tuple[Any, Any]:
    answer = aws.invoke(FunctionName=name, Payload=json.dumps(event or {}), **more)
    raw = answer["Payload"].read()
    return answer, json.loads(raw) if raw else None


@pytest.mark.compat("AWS Lambda", "create, get, list, update, delete a function")
def test_the_life_of_a_function(aws: Any) -> None:
    made = create(aws, "first", Environment={"Variables": {"STAGE": "one"}}, Description="d", MemorySize=256)
    assert (made["FunctionName"], made["State"], made["Version"]) == ("first", "Active", "$LATEST")
    assert made["FunctionArn"].endswith(":function:first")
    assert made["CodeSize"] == len(zipped({"app.py": SOURCE}))
    aws.get_waiter("function_active_v2").wait(FunctionName="first")
    got = aws.get_function(FunctionName=made["FunctionArn"])["Configuration"]
    for name in (
        "CodeSha256",
        "Description",
        "Environment",
        "Handler",
        "MemorySize",
        "Role",
        "Runtime",
        "Timeout",
    ):
        assert got[name] == made[name], name
    assert invoke(aws, "first")[1]["region"] == "one"
    changed = aws.update_function_configuration(
        FunctionName="first", Environment={"Variables": {"STAGE": "two"}}, Timeout=7
    )
    assert (changed["Timeout"], changed["Description"]) == (7, "d")
    assert invoke(aws, "first")[1]["region"] == "two"
    with pytest.raises(ClientError, match="changed since"):
        aws.update_function_code(FunctionName="first", ZipFile=b"x", RevisionId=made["RevisionId"])
    aws.update_function_code(
        FunctionName="first", ZipFile=zipped({"app.py": "def handler(e, c): return 'new'"})
    )
    assert invoke(aws, "first")[1] == "new"
    for n in range(3):
        create(aws, f"more-{n}")
    pages = list(aws.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
    names = [one["FunctionName"] for page in pages for one in page["Functions"]]
    assert names == ["first", "more-0", "more-1", "more-2"]
    assert len(pages) >= 2
    aws.delete_function(FunctionName="first")
    with pytest.raises(aws.exceptions.ResourceNotFoundException):
        aws.get_function(FunctionName="first")
    with pytest.raises(aws.exceptions.ResourceNotFoundException):
        invoke(aws, "first")


@pytest.mark.compat("AWS Lambda", "invoke: event and context, environment, warm reuse of a process")
def test_warm_processes(aws: Any) -> None:
    create(aws, "warm", Environment={"Variables": {"STAGE": "x"}})
    answer, first = invoke(aws, "warm", {"a": ["Grüße", 1.5, None]})
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert first == {
        "event": {"a": ["Grüße", 1.5, None]}, "count": 1, "region": "x", "id": first["id"], "name": "warm", "left": True,
    }  # fmt: skip
    assert [invoke(aws, "warm")[1]["count"] for _ in range(3)] == [2, 3, 4]
    create(aws, "slow", "app.slow")
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: invoke(aws, "slow", {"s": 0.5})[1], range(3)))
    assert done == ["slept"] * 3


@pytest.mark.compat("AWS Lambda", "invoke: log tail, function errors, timeouts")
def test_errors_of_functions(aws: Any) -> None:
    create(aws, "fails", "app.fails")
    answer, told = invoke(aws, "fails", {"what": "luck"}, LogType="Tail")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert (told["errorType"], told["errorMessage"]) == ("ValueError", "no luck")
    assert "raise ValueError" in told["stackTrace"][-1]
    log = base64.b64decode(answer["LogResult"]).decode()
    assert log.startswith("START RequestId: ")
    assert "before\n" in log
    assert "Billed Duration:" in log
    assert len(base64.b64decode(answer["LogResult"])) <= 4096
    for name, handler, kind in (
        ("odd", "app.odd", "Runtime.MarshalError"), ("leaves", "app.leaves", "Runtime.ExitError"),
        ("dies", "app.dies", "Runtime.ExitError"), ("none", "app.none", "Runtime.HandlerNotFound"),
        ("module", "missing.handler", "Runtime.ImportModuleError"),
    ):  # fmt: skip
        create(aws, name, handler)
        answer, told = invoke(aws, name)
        assert (answer["FunctionError"], told["errorType"]) == ("Unhandled", kind), told
    create(aws, "late", "app.slow", Timeout=1)
    answer, told = invoke(aws, "late", {"s": 50})
    assert (answer["FunctionError"], told["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert told["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert invoke(aws, "late", {"s": 0})[1] == "slept"


@pytest.mark.compat("AWS Lambda", "invoke: event and dry run")
def test_kinds_of_invocation(aws: Any) -> None:
    create(aws, "kinds")
    assert aws.invoke(FunctionName="kinds", InvocationType="DryRun")["StatusCode"] == 204
    assert aws.invoke(FunctionName="kinds", InvocationType="Event", Payload="{}")["StatusCode"] == 202

    def count() -> int:
        return int(invoke(aws, "kinds")[1]["count"])

    # The event is the first in one process; while it runs, others get processes of their own.
    assert 2 in (count(), count(), count())
    context = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    create(
        aws,
        "context",
        Code={"ZipFile": zipped({"app.py": "def handler(e, c): return c.client_context.custom"})},
    )
    assert invoke(aws, "context", ClientContext=context)[1] == {"k": "v"}


@pytest.mark.compat("AWS Lambda", "inline code; packages with several modules and data")
def test_packages(aws: Any) -> None:
    create(
        aws,
        "inline",
        "index.handler",
        Code={"ZipFile": b"def handler(event, context):\n    return event['x'] * 2\n"},
    )
    assert invoke(aws, "inline", {"x": 21})[1] == 42
    package = zipped({
        "src/main.py": "from lib.tools import twice\ndef go(e, c):\n    return twice(open('src/data.txt').read())",
        "src/data.txt": "ab", "lib/tools.py": "def twice(x): return x * 2", "lib/__init__.py": "",
    })  # fmt: skip
    create(aws, "several", "src/main.go", Code={"ZipFile": package})
    assert invoke(aws, "several")[1] == "abab"


def test_bad_input(aws: Any, gateway: Gateway) -> None:
    exceptions = aws.exceptions
    create(aws, "there")
    with pytest.raises(exceptions.ResourceConflictException):
        create(aws, "there")
    for more in (
        {"Runtime": "nodejs20.x"}, {"Code": {"S3Bucket": "bucket", "S3Key": "key"}}, {"Code": {"ZipFile": b"PK broken"}},
        {"Handler": "nodot"}, {"Handler": "a.b c"}, {"Timeout": 901}, {"MemorySize": 100_000},
        {"PackageType": "Image", "Code": {"ImageUri": "image"}}, {"Layers": ["arn:aws:lambda:us-east-1:1:layer:x:1"]}, {"VpcConfig": {"SubnetIds": ["s"]}},
        {"Environment": {"Variables": {"1 x": "y"}}},
    ):  # fmt: skip
        given: dict[str, Any] = {
            "FunctionName": "bad",
            "Runtime": "python3.12",
            "Role": ROLE,
            "Handler": "app.handler",
        }
        given["Code"] = {"ZipFile": b"x = 1"}
        with pytest.raises(ClientError) as told:
            aws.create_function(**{**given, **more})
        assert told.value.response["Error"]["Code"] == "InvalidParameterValueException", more
    assert [one["FunctionName"] for one in aws.list_functions()["Functions"]] == ["there"]
    with pytest.raises(exceptions.InvalidRequestContentException):
        aws.invoke(FunctionName="there", Payload=b"{")
    with pytest.raises(exceptions.ResourceNotFoundException):
        aws.invoke(FunctionName="there", Qualifier="7")
    with pytest.raises(exceptions.RequestTooLargeException):
        aws.invoke(FunctionName="there", Payload=b'"' + b"x" * 7_000_000 + b'"')
    answer = httpx2.post(gateway.url + "/lambda/2015-03-31/functions", content=b"{", timeout=20)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "InvalidRequestContentException")


@pytest.fixture(scope="module")
def keyed(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[str]]]:
    home = tmp_path_factory.mktemp("lambda")
    keys = [tenants.tenant(home, name, "execute", "read") for name in ("first", "second")]
    keys.append(tenants.tenant(home, "third", "execute", "read", max_sessions=1))
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, home) as gateway:
        yield gateway.url, keys


@pytest.mark.compat("AWS Lambda", "SigV4, with a key as access key id and secret")
def test_signatures(keyed: tuple[str, list[str]]) -> None:
    url, (key, *_) = keyed
    aws = client(url, key, key)
    create(aws, "signed")
    assert invoke(aws, "signed")[1]["count"] == 1
    assert aws.get_function(FunctionName="signed")["Configuration"]["FunctionName"] == "signed"
    assert len(aws.list_functions(MaxItems=5)["Functions"]) == 1
    for wrong in (client(url, key, "other"), client(url, key, key[:-1])):
        with pytest.raises(ClientError) as told:
            invoke(wrong, "signed")
        assert told.value.response["Error"]["Code"] == "InvalidSignatureException"
    with pytest.raises(ClientError) as told:
        invoke(client(url, "oh_wrong", "oh_wrong"), "signed")
    assert told.value.response["Error"]["Code"] == "UnrecognizedClientException"
    assert told.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    # What was signed cannot be changed on its way.
    signed: dict[str, Any] = {}
    aws.meta.events.register("before-send.lambda.Invoke", lambda request, **_: signed.update(request=request))
    invoke(aws, "signed", {"a": 1})
    request = signed["request"]
    headers = {
        name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    again = httpx2.post(request.url, content=request.body, headers=headers, timeout=30)
    assert again.status_code == 200, again.text
    forged = httpx2.post(
        request.url, content=b'{"a": 2}', headers={**headers, "Content-Length": "8"}, timeout=30
    )
    assert (forged.status_code, forged.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    old = httpx2.post(
        request.url, content=request.body, headers={**headers, "X-Amz-Date": "20200101T000000Z"}, timeout=30
    )
    assert old.status_code == 403
    # The key as everywhere else works, too.
    plain = httpx2.get(url + "/lambda/2015-03-31/functions", headers={"x-api-key": key}, timeout=30)
    assert plain.json()["Functions"][0]["FunctionName"] == "signed"


def test_another_tenants_function(keyed: tuple[str, list[str]]) -> None:
    url, (first, second, _) = keyed
    mine, other = client(url, first, first), client(url, second, second)
    create(mine, "mine")
    missing = other.exceptions.ResourceNotFoundException
    looks: list[Any] = [
        lambda: other.get_function(FunctionName="mine"),
        lambda: invoke(other, "mine"),
        lambda: other.update_function_code(FunctionName="mine", ZipFile=b"x = 1"),
        lambda: other.update_function_configuration(FunctionName="mine", Timeout=5),
        lambda: other.delete_function(FunctionName="mine"),
    ]
    for look in looks:
        with pytest.raises(missing):
            look()
    assert other.list_functions()["Functions"] == []
    create(other, "mine", Code={"ZipFile": b"def handler(e, c): return 'other'"})
    assert invoke(other, "mine")[1] == "other"
    assert invoke(mine, "mine")[1]["count"] == 1
    files = httpx2.get(url + "/v1/files", headers={"authorization": f"Bearer {first}"}, timeout=30).json()[
        "data"
    ]
    assert files == [], "packages are no files of other protocols"


def test_over_a_limit(keyed: tuple[str, list[str]]) -> None:
    url, keys = keyed
    aws, other = (client(url, keys[2], keys[2]) for _ in range(2))
    create(aws, "one", "app.slow")
    with ThreadPoolExecutor(1) as threads, tenants.client(url, keys[2]) as own:
        running = threads.submit(invoke, aws, "one", {"s": 3})
        tenants.until(lambda: running.done() or bool(own.get("/api/sessions").json()["sessions"]))
        assert not running.done(), "its sandbox was not seen while it ran"
        with pytest.raises(other.exceptions.TooManyRequestsException) as refused:
            invoke(other, "one", {"s": 0})
        assert int(refused.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) >= 1
        assert running.result()[1] == "slept"


def test_the_page(aws: Any, gateway: Gateway) -> None:
    """The example of docs/wires/awslambda.md, at this server."""
    page = (Path(__file__).parents[3] / "docs" / "wires" / "awslambda.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example.replace("http://127.0.0.1:8000", gateway.url)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "{'sum': 6}\n", done.stderr
