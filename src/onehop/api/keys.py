"""Keys over HTTP, and what was used with them. The key itself is in one answer only: the one that made it."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from onehop import errors
from onehop.api import examples
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.caller import ADMIN, READ
from onehop.sessions.keys import KeyList, KeyRequest, NewKey, key_info, make_key
from onehop.sessions.requests import decode
from onehop.sessions.usage import UsageList, period, usage_list

BODY_BYTES = 64 * 1024


_decode = msgspec.json.Decoder(KeyRequest)


class Keys:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        days: tuple[dict[str, object], ...] = tuple(
            {
                "name": name,
                "in": "query",
                "description": f"{what} day, as YYYY-MM-DD (UTC).",
                "schema": {"type": "string", "format": "date"},
            }
            for name, what in (("from", "First"), ("to", "Last"))
        )
        return [
            Operation(
                "GET",
                "/api/keys",
                self.list,
                "listKeys",
                "Keys",
                "All keys",
                scope=ADMIN,
                answers={200: (Body("The keys.", KeyList, example={"keys": [examples.KEY]}),)},
            ),
            Operation(
                "POST",
                "/api/keys",
                self.create,
                "createKey",
                "Keys",
                "Make a key",
                "The first key ends the time in which everybody on this machine needs none.",
                scope=ADMIN,
                body=Body("What it may do.", KeyRequest, example=examples.KEY_REQUEST),
                answers={201: (Body("The key.", NewKey, example={**examples.KEY, "key": examples.A_KEY}),)},
                problems=(
                    errors.InvalidJsonError,
                    errors.InvalidRequestError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                    errors.QuotaExceededError,
                ),
            ),
            Operation(
                "DELETE",
                "/api/keys/{key_id}",
                self.revoke,
                "revokeKey",
                "Keys",
                "Revoke a key",
                "Sessions and results that it made stay with their owner.",
                scope=ADMIN,
                answers={204: ()},
                problems=(errors.KeyNotFoundError,),
            ),
            Operation(
                "GET",
                "/api/usage",
                self.usage,
                "getUsage",
                "Keys",
                "What was used, by day and key",
                "That of the key's owner; with the scope `admin` that of all.",
                scope=READ,
                answers={200: (Body("The usage.", UsageList, example=examples.USAGE),)},
                problems=(errors.InvalidRequestError,),
                parameters=days,
            ),
        ]

    async def list(self, call: Call) -> None:
        rows = self._engine.keyring.rows()
        await call.answer(encode_json(KeyList([key_info(row, used_at) for row, used_at in rows])))

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode, await call.body(BODY_BYTES) or b"{}")
        key, row = make_key(
            name=request.name,
            owner=request.owner,
            scopes=request.scopes,
            expires_in_s=request.expires_in_s,
            limits=request.limits.limits(),
            e2b=request.e2b,
        )
        await self._engine.keyring.add(row)
        made = NewKey(**msgspec.structs.asdict(key_info(row, 0.0)), key=key)
        await call.answer(encode_json(made), status=201, headers=[JSON])

    async def revoke(self, call: Call) -> None:
        await self._engine.keyring.revoke(call.path["key_id"])
        await call.empty()

    async def usage(self, call: Call) -> None:
        query = parse_qs(call.scope["query_string"].decode("ascii", "replace"))
        first, last = period(*(query.get(name, [None])[-1] for name in ("from", "to")))
        caller = call.caller
        owner = None if ADMIN in caller.scopes else caller.owner
        rows = await self._engine.usage(first, last, owner)
        await call.answer(encode_json(usage_list(rows, self._engine.settings)))
