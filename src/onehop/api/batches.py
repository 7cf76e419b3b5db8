"""Several executions and commands in one request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta

from onehop import errors
from onehop.api import examples, replay, sse
from onehop.api.asgi import JSON, Call, encode_json, problem_body
from onehop.api.executions import ACCEPT, EXECUTE_PROBLEMS, Executions
from onehop.api.resources import Body, Operation
from onehop.errors import InvalidRequestError, ProblemError
from onehop.lambdas.lane import LambdaRequest, Lane
from onehop.sessions import Engine
from onehop.sessions.batches import Batch, BatchAnswer, BatchItem, ItemEvents, Work, located
from onehop.sessions.caller import EXECUTE, Caller
from onehop.sessions.requests import PositiveInt, decode


class AnyItem(BatchItem, kw_only=True, forbid_unknown_fields=True, rename={"lambda_": "lambda"}):
    """One thing to do: code, a shell command, a call of a registered tool, or a lambda.

    Args:
        execute, command, session, tool, arguments: as in BatchItem.
        lambda_: small code and its arguments, as in LambdaRequest.
    """

    lambda_: LambdaRequest | None = None


class BatchRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Several things to do side by side.

    Args:
        items: those of the same session and context run one after the other, in this order (commands with `main`).
        parallel: most that run at once.
    """

    items: Annotated[list[AnyItem], Meta(min_length=1)]
    parallel: PositiveInt | None = None


_decode = msgspec.json.Decoder(BatchRequest)


class Batches:
    def __init__(self, engine: Engine, executions: Executions, lane: Lane) -> None:
        self._engine = engine
        self._lane = lane
        self._executions = executions

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST",
                "/api/batch",
                self.run,
                "batch",
                "Executions",
                "Several executions and commands at once",
                "They run side by side; items of the same session and context one after the other. All are checked "
                "before any runs. What one is refused with later is its answer and touches no other.",
                scope=EXECUTE,
                body=Body("What to do.", BatchRequest, example=examples.BATCH),
                answers={
                    200: (
                        Body(
                            "An answer for each item, in their order.",
                            BatchAnswer,
                            example=examples.BATCH_ANSWER,
                        ),
                        Body(
                            "The events of all items as they come, each with its item; `problem` for an item that "
                            "was refused, `answer` for a lambda or a command in the background, and last `batch_end`.",
                            media_type="text/event-stream",
                            example=examples.BATCH_EVENTS,
                        ),
                    )
                },
                problems=(*EXECUTE_PROBLEMS, errors.ForbiddenError),
                parameters=(ACCEPT, replay.PARAMETER),
                headers={
                    replay.REPLAYED[
                        0
                    ].decode(): "`true` when the request came before: what ran then is not run again"
                },
            )
        ]

    async def run(self, call: Call) -> None:
        call.require_type(b"application/json")
        body = await self._executions.body(call)
        key = call.header(b"idempotency-key").decode("latin-1")
        request = decode(_decode, body)
        batch = await self._engine.batches.start(
            request.items,
            call.caller,
            parallel=request.parallel,
            others=self._lambdas(request.items, call.caller),
            key=key,
            body=body,
        )
        headers = [replay.REPLAYED] if batch.replayed else []
        try:
            if sse.wanted(call):
                events = batch.listen(pause_s=sse.KEEP_ALIVE_S)
                await sse.send(call, self._formatted(call, batch, events), headers=headers)
            elif not await call.gone_before(batch.done):
                answers = b",".join(self._document(call, one) for one in batch.outcomes)
                await call.answer(b'{"answers":[%b]}' % answers, headers=(JSON, *headers))
        finally:
            if not batch.done.done():
                await batch.abandon()

    def _lambdas(self, items: list[AnyItem], caller: Caller) -> dict[int, Work]:
        """The lambdas among the items, checked, by index."""
        found: dict[int, Work] = {}
        for index, item in enumerate(items):
            asked = item.lambda_
            if asked is None:
                continue
            place = f"items[{index}]"
            if any(getattr(item, name) is not None for name in BatchItem.__struct_fields__):
                raise InvalidRequestError(f"{place}: a lambda stands alone", field=place)
            try:
                self._lane.check_request(asked.code, asked)
            except ProblemError as error:
                raise located(error, f"{place}.lambda", place) from None

            async def work(asked: LambdaRequest = asked) -> bytes:
                return encode_json(await self._lane.run(asked.code, asked, caller))

            found[index] = work
        return found

    async def _formatted(
        self, call: Call, batch: Batch, events: AsyncIterator[ItemEvents | None]
    ) -> AsyncIterator[bytes]:
        number = 0
        async for one in events:
            if one is None:
                yield sse.COMMENT
                continue
            index, execution, several = one
            if several:
                head = b'{"item":%d,"execution":"%b","number":' % (index, execution.encode())
                parts = [(kind, b'%b%d,"data":%b}' % (head, place, data)) for place, kind, data in several]
            else:
                outcome = batch.outcomes[index]
                kind = "problem" if isinstance(outcome, ProblemError) else "answer"
                parts = [(kind, b'{"item":%d,"data":%b}' % (index, self._document(call, outcome)))]
            yield sse.formatted([(number + n, *part) for n, part in enumerate(parts, 1)])
            number += len(parts)
        yield sse.formatted([(number + 1, "batch_end", b'{"items":%d}' % len(batch.outcomes))])

    @staticmethod
    def _document(call: Call, outcome: bytes | ProblemError) -> bytes:
        if isinstance(outcome, bytes):
            return outcome
        return problem_body(outcome, call.scope["request_id"])
