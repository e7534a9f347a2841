"""The handlers: convert, await, convert. No rule lives here."""

# ruff: noqa: N802  gRPC fixes the names of the methods

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from protos.stratified.v1 import model_pb2, model_pb2_grpc, sentiment_pb2, sentiment_pb2_grpc
from serving.errors import Draining, InvalidRequest, ServingError
from serving.pipeline import BREATH
from serving.rpc import converters, model_converters
from serving.rpc.callers import caller_of, time_left
from serving.rpc.interceptors import request_id
from serving.rpc.status import to_status
from serving.service import Answer, Service
from serving.streams import pipelined
from serving.types import Classification, Item, StreamOrder

if TYPE_CHECKING:
    from google.rpc import status_pb2

    from serving.rpc.interceptors import Context


class SentimentServicer(sentiment_pb2_grpc.SentimentServiceServicer):
    """`stratified.v1.SentimentService`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Classify(
        self, request: sentiment_pb2.ClassifyRequest, context: Context
    ) -> sentiment_pb2.ClassifyResponse:
        """One text."""
        answer = await self._service.classify(
            converters.item_from_wire(request),
            model=request.model,
            options=converters.options_from_wire(request.options),
            remaining=context.time_remaining(),
            caller=caller_of(context),
        )
        return sentiment_pb2.ClassifyResponse(result=converters.classification_to_wire(answer))

    async def BatchClassify(
        self, request: sentiment_pb2.BatchClassifyRequest, context: Context
    ) -> sentiment_pb2.BatchClassifyResponse:
        """Many texts, each with its own result or error."""
        items = [converters.item_from_wire(item) for item in request.items]
        options = converters.options_from_wire(request.options)
        answers = await self._service.classify_batch(
            items,
            model=request.model,
            options=options,
            remaining=context.time_remaining(),
            caller=caller_of(context),
        )
        results = []
        for n, (item, answer) in enumerate(zip(items, answers, strict=True)):
            results.append(converters.result_to_wire(item.id, _outcome(answer, f"items[{n}].")))
            if n % BREATH == BREATH - 1:
                await asyncio.sleep(0)
        return sentiment_pb2.BatchClassifyResponse(results=results)

    async def ClassifyStream(
        self, request_iterator: AsyncIterator[sentiment_pb2.ClassifyStreamRequest], context: Context
    ) -> AsyncIterator[sentiment_pb2.ClassifyStreamResponse]:
        """A stream of texts after one message of settings."""
        caller, left = caller_of(context), time_left(context)  # before anything is waited for
        settings, order = await _settings(request_iterator)
        options = converters.options_from_wire(settings.options)
        model = self._service.pin(settings.model, options)

        async def work(item: Item) -> Answer:
            return await self._service.classify_streamed(
                item, model=model, options=options, remaining=left(), caller=caller
            )

        limit, stop = self._service.limits.max_stream_items, self._service.draining
        async for item, answer in pipelined(
            _items(request_iterator), work, limit=limit, order=order, stop=stop
        ):
            yield converters.streamed_to_wire(item.id, _outcome(answer, "item."))
        if stop.is_set():
            raise Draining("the service is stopping; open the stream anew for what was not answered")


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """`stratified.v1.ModelService`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def GetModelInfo(
        self, request: model_pb2.GetModelInfoRequest, context: Context
    ) -> model_pb2.GetModelInfoResponse:
        """One model in full, and the limits of this server."""
        card, is_default = self._service.model_info(request.model)
        return model_pb2.GetModelInfoResponse(
            model=model_converters.info_to_wire(card, is_default),
            limits=model_converters.limits_to_wire(self._service.limits),
        )

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """Every variant of the store."""
        summaries, default = self._service.list_models()
        return model_pb2.ListModelsResponse(
            models=[model_converters.summary_to_wire(summary) for summary in summaries], default_model=default
        )


def _outcome(answer: Answer, path: str) -> Classification | status_pb2.Status:
    if isinstance(answer, ServingError):
        return to_status(answer, request_id=request_id(), path=path)
    return answer


async def _settings(
    messages: AsyncIterator[sentiment_pb2.ClassifyStreamRequest],
) -> tuple[sentiment_pb2.StreamSettings, StreamOrder]:
    first = await anext(aiter(messages), None)
    if first is None or first.WhichOneof("message") != "settings":
        raise InvalidRequest(
            "the first message of a stream must be its settings; send them first", field="settings"
        )
    order = converters.enum_from_wire(StreamOrder, first.settings.order, field="settings.order")
    return first.settings, order or StreamOrder.AS_SENT


async def _items(messages: AsyncIterator[sentiment_pb2.ClassifyStreamRequest]) -> AsyncIterator[Item]:
    async for message in messages:
        if message.WhichOneof("message") != "item":
            raise InvalidRequest(
                "only the first message of a stream may be no item; send items", field="item"
            )
        yield converters.item_from_wire(message.item)
