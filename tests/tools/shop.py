"""A service with an OpenAPI document, for the tests: FastAPI, in a process of its own. Prints its port."""

from __future__ import annotations

import asyncio
import gzip
import socket
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import uvicorn
from fastapi import Body, Cookie, Depends, FastAPI, Form, Header, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel

TOKEN = "bearer-of-the-shop"
app = FastAPI(title="Shop", servers=[{"url": "/"}])
items: dict[int, dict[str, Any]] = {}
elsewhere = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:1/"


class Size(BaseModel):
    width: float
    height: float | None = None


class Item(BaseModel):
    name: str
    price: float = 0.0
    size: Size | None = None
    parts: list[Item] = []


class Stored(Item):
    id: int


class Secured(HTTPBearer):
    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise HTTPException(401, f"not {request.headers.get('authorization')}")


@app.post("/items", operation_id="createItem", status_code=201)
def create(item: Item) -> Stored:
    """Puts an item into the shop."""
    number = len(items) + 1
    items[number] = item.model_dump()
    return Stored(id=number, **items[number])


@app.get("/items", operation_id="listItems")
def listed(
    response: Response, after: int = 0, limit: Annotated[int, Query(ge=1, le=100)] = 10
) -> list[Stored]:
    found = [Stored(id=number, **item) for number, item in items.items() if number > after][:limit]
    if found:
        response.headers["Link"] = f'</items?after={found[-1].id}>; rel="next"'
    return found


@app.put("/items/{id}", operation_id="updateItem")
def update(
    id: int, item_id: Annotated[int, Body(alias="id")], name: Annotated[str, Body()]
) -> dict[str, Any]:
    return {"path": id, "body": item_id, "name": name}


@app.get("/items/{id}", operation_id="getItem")
def get(id: int) -> Stored:
    if id not in items:
        raise HTTPException(404, f"there is no item {id}")
    return Stored(id=id, **items[id])


@app.get("/echo/{one}/{two}", operation_id="echo")
async def echo(
    request: Request,
    one: str,
    two: str,
    q: Annotated[list[str] | None, Query()] = None,
    x_trace: Annotated[str | None, Header()] = None,
    crumb: Annotated[str | None, Cookie()] = None,
) -> dict[str, Any]:
    return await whole(request)


@app.get("/echo/{rest:path}", include_in_schema=False)  # a %2F has become a / before routes are compared
@app.api_route("/raw/{rest:path}", methods=["GET", "POST", "HEAD"], include_in_schema=False)
async def raw(request: Request, rest: str) -> dict[str, Any]:
    return await whole(request)


async def whole(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": request.query_params.multi_items(),
        "headers": dict(request.headers),
        "cookies": request.cookies,
        "body": (await request.body()).decode(),
    }


@app.get("/secured", operation_id="secured", dependencies=[Depends(Secured())])
def secured(request: Request) -> dict[str, str]:
    return {"said": request.headers["authorization"]}


@app.post("/form", operation_id="sendForm")
def form(name: Annotated[str, Form()], tags: Annotated[list[str], Form()]) -> dict[str, Any]:
    return {"name": name, "tags": tags}


@app.get("/text", operation_id="text", response_class=PlainTextResponse)
def text() -> Response:
    return Response("grüß Gott".encode("latin-1"), media_type="text/plain; charset=latin-1")


@app.get("/picture", operation_id="picture")
def picture() -> Response:
    return Response(
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        media_type="image/png",
        headers={"Content-Disposition": 'attachment; filename="../map.png"'},
    )


@app.delete("/items/{id}", operation_id="deleteItem", status_code=204)
def delete(id: int) -> None:
    items.pop(id, None)


@app.get("/liar", operation_id="liar")
def liar() -> Response:
    return Response(b"{nothing", media_type="application/json")


@app.get("/nan", operation_id="nan")
def nan() -> Response:
    return Response(b'{"x": NaN}', media_type="application/json")


@app.get("/broken", operation_id="broken")
def broken() -> Response:
    return Response(b"boom " * 10_000, status_code=500, media_type="text/plain")


@app.get("/slow", operation_id="slow")
async def slow(s: float = 60.0) -> str:
    await asyncio.sleep(s)
    return "done"


@app.get("/flood", operation_id="flood")
def flood() -> Response:
    async def without_end() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(without_end(), media_type="text/plain")


@app.get("/bomb", operation_id="bomb")
def bomb() -> Response:
    headers = {"Content-Encoding": "gzip"}
    return Response(gzip.compress(bytes(100 << 20), 9), media_type="text/plain", headers=headers)


@app.get("/moved", operation_id="moved")
def moved() -> Response:
    return RedirectResponse("/raw/here", status_code=302)


@app.get("/away", operation_id="away")
def away() -> Response:
    return RedirectResponse(f"{elsewhere}raw/away?token=x", status_code=302)


@app.get("/circle", operation_id="circle")
def circle() -> Response:
    return RedirectResponse("/circle", status_code=302)


@app.get("/cookies", operation_id="cookies")
def cookies(request: Request, response: Response) -> dict[str, str]:
    response.set_cookie("session", "somebody")
    return dict(request.cookies)


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run(sockets=[listening])
