"""The documentation page and its own assets. Nothing comes from anywhere else, and its policy says so."""

from __future__ import annotations

import hashlib
from pathlib import Path

from onehop.api.asgi import Call, Header
from onehop.api.resources import Handler
from onehop.errors import NotFoundError

STATIC = Path(__file__).parent / "static"

# React sets styles through the CSSOM, which no policy forbids: nothing inline is needed.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

ASSETS: dict[str, tuple[str, bytes]] = {
    "swagger-ui.js": ("swagger-ui/swagger-ui-bundle.js", b"text/javascript; charset=utf-8"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", b"text/css; charset=utf-8"),
    "favicon.png": ("swagger-ui/favicon-32x32.png", b"image/png"),
    "docs.js": ("docs.js", b"text/javascript; charset=utf-8"),
}


async def page(call: Call) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", POLICY)]
    await call.answer((STATIC / "docs.html").read_bytes(), headers=headers)


async def asset(call: Call) -> None:
    found = ASSETS.get(call.path["name"])
    if found is None:
        raise NotFoundError("there is no such file in the documentation")
    content = (STATIC / found[0]).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'.encode()
    headers: list[Header] = [(b"content-type", found[1]), (b"cache-control", b"no-cache"), (b"etag", tag)]
    if call.header(b"if-none-match") == tag:
        await call.answer(b"", status=304, headers=headers)
    else:
        await call.answer(content, headers=headers)


async def to_docs(call: Call) -> None:
    await call.answer(b"", status=307, headers=[(b"location", b"/docs")])


PAGES: dict[str, Handler] = {"/": to_docs, "/docs": page, "/docs/assets/{name}": asset}
