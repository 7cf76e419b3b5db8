"""The models that clients may name: https://platform.openai.com/docs/api-reference/models."""

from __future__ import annotations

from typing import Any

from onehop.agent.upstreams.router import ModelInfo, Models
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Operation
from onehop.errors import ModelNotFoundError
from onehop.sessions.caller import READ

TAG = "OpenAI"


def operations(prefix: str, models: Models) -> list[Operation]:
    """Both routes."""

    async def list(call: Call) -> None:
        data = [_document(one) for one in await models.names()]
        await call.answer(encode_json({"object": "list", "data": data}))

    async def retrieve(call: Call) -> None:
        await call.answer(encode_json(_document(await models.info(call.path["model"]))))

    path = prefix + "/models"
    return [
        Operation("GET", path, list, "openaiListModels", TAG, "The models", scope=READ),
        Operation(
            "GET",
            path + "/{model:path}",
            retrieve,
            "openaiGetModel",
            TAG,
            "One model",
            scope=READ,
            problems=(ModelNotFoundError,),
        ),
    ]


def _document(model: ModelInfo) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": model.upstream}
