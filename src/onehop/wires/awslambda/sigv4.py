"""AWS Signature Version 4, checked where the server wants keys.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. The access key id is
a key of this server, and so is the secret: the server stores neither, and knows both from the request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from calendar import timegm
from urllib.parse import parse_qsl, quote

from starlette.types import Scope

from onehop.wires.awslambda.errors import SignatureError

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_AGE_S = 900
"""As AWS has it: a signed request is of no use later."""
FORM = re.compile(
    ALGORITHM
    + r" Credential=(?P<key>[^/,\s]+)/(?P<date>\d{8})/(?P<region>[\w-]+)/(?P<service>\w+)/aws4_request"
    r",\s*SignedHeaders=(?P<headers>[\w;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


def access_key(scope: Scope) -> bytes:
    """The key of a signed request, empty for others."""
    found = FORM.fullmatch(_header(scope, "authorization"))
    return found["key"].encode("latin-1") if found is not None else b""


def check(scope: Scope, body: bytes | bytearray) -> None:
    """Raises SignatureError unless the request is as its signature says; one without any has shown its key as it is."""
    found = FORM.fullmatch(_header(scope, "authorization"))
    if found is None:
        return
    when = _header(scope, "x-amz-date")
    try:
        age_s = time.time() - timegm(time.strptime(when, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise SignatureError("the signed request has no X-Amz-Date") from None
    if abs(age_s) > MAX_AGE_S or not when.startswith(found["date"]):
        raise SignatureError("the signed request is too old, or the clocks differ by more than 15 minutes")
    names = found["headers"].split(";")
    if "host" not in names:
        raise SignatureError("the signature has to cover the Host header")
    scope_line = f"{found['date']}/{found['region']}/{found['service']}/aws4_request"
    request = "\n".join([
        scope["method"],
        _path(scope),
        _query(scope),
        *(f"{name}:{' '.join(_header(scope, name).split())}" for name in names),
        "",
        found["headers"],
        hashlib.sha256(body).hexdigest(),
    ])  # fmt: skip
    hashed = hashlib.sha256(request.encode("utf-8", "surrogateescape")).hexdigest()
    signed = "\n".join([ALGORITHM, when, scope_line, hashed])
    key = ("AWS4" + found["key"]).encode("latin-1")
    for part in (found["date"], found["region"], found["service"], "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.new(key, signed.encode(), "sha256").hexdigest(), found["signature"]):
        raise SignatureError(
            "the signature does not fit: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY both have to be the key"
        )


def _header(scope: Scope, name: str) -> str:
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]
    return ",".join(values)


def _path(scope: Scope) -> str:
    """Quoted once more, as every service but S3 wants it."""
    raw = scope.get("raw_path", scope["path"].encode()).partition(b"?")[0].decode("latin-1")
    return quote(raw, safe="/-_.~")


def _query(scope: Scope) -> str:
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    quoted = sorted(
        (quote(name, safe="-_.~", encoding="latin-1"), quote(value, safe="-_.~", encoding="latin-1"))
        for name, value in pairs
    )
    return "&".join(f"{name}={value}" for name, value in quoted)
