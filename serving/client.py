"""The service from Python: typed answers, deadlines, retries that honour the server's pushback.

    with Client("127.0.0.1:50051") as client:
        client.classify("The plot drags, but the ending is worth it.", domain="imdb").label

It knows the wire and the values of `serving.types`; it loads no model and needs no torch. Retries are gRPC's
own: UNAVAILABLE and RESOURCE_EXHAUSTED are tried again within the deadline, when the server says, or backing
off. `AsyncClient` is the same for asyncio.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Self

from protos.stratified.v1 import model_pb2, model_pb2_grpc, sentiment_pb2, sentiment_pb2_grpc
from serving import calls
from serving.calls import Answer, CallFailed, Failure
from serving.channel import PLAIN, Security, open_aio_channel, open_channel, token_source
from serving.rpc import converters, model_converters
from serving.types import Classification, Item, Limits, ModelCard, ModelSummary, Options, StreamOrder

__all__ = ["Answer", "AsyncClient", "CallFailed", "Client", "Failure", "Security"]

DEFAULT_TARGET = "127.0.0.1:50051"
DEADLINE = 30.0  # seconds for one call, its retries included
DEFAULTS = Options()
READINESS = "stratified.v1.SentimentService"


class Client:
    """Blocking; safe to share between threads."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        deadline: float = DEADLINE,
        attempts: int = 4,
        security: Security = PLAIN,
    ) -> None:
        """`deadline`: seconds for each call that brings none; `attempts`: how often a call may be sent.

        Raises `BadSettings` for certificates or tokens that are no good.
        """
        self._deadline = deadline
        self._tokens = token_source(security, target)
        self._channel = open_channel(target, security, attempts=attempts)
        self._sentiment = sentiment_pb2_grpc.SentimentServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def classify(
        self,
        text: str,
        *,
        domain: str = "",
        model: str = "",
        options: Options = DEFAULTS,
        deadline: float | None = None,
    ) -> Classification:
        """Classify one text; raises `CallFailed`."""
        with calls.translated():
            reply = self._sentiment.Classify(
                calls.one(text, domain, model, options),
                timeout=deadline or self._deadline,
                metadata=calls.shown(self._tokens),
            )
        return converters.classification_from_wire(reply.result)

    def classify_batch(
        self,
        items: Sequence[Item],
        *,
        model: str = "",
        options: Options = DEFAULTS,
        deadline: float | None = None,
    ) -> list[Answer]:
        """Classify many texts in one call, in order; raises `CallFailed` when the call as a whole fails."""
        with calls.translated():
            reply = self._sentiment.BatchClassify(
                calls.many(items, model, options),
                timeout=deadline or self._deadline,
                metadata=calls.shown(self._tokens),
            )
        return [calls.answer(result) for result in reply.results]

    def classify_stream(
        self,
        items: Iterable[Item],
        *,
        model: str = "",
        options: Options = DEFAULTS,
        order: StreamOrder = StreamOrder.AS_SENT,
    ) -> Iterator[tuple[str, Answer]]:
        """Classify any number of texts: id and answer of each. Items are read no faster than the server takes
        them.
        """
        settings = calls.settings(model, options, order)
        requests = (message for part in ([settings], map(calls.streamed, items)) for message in part)
        with calls.translated():
            call = self._sentiment.ClassifyStream(requests, metadata=calls.shown(self._tokens))
            try:
                for reply in call:
                    yield reply.id, calls.answer(reply)
            finally:
                call.cancel()  # of one that nobody reads on; one that ended does not mind

    def model_info(self, model: str = "") -> tuple[ModelCard, Limits]:
        """What is known about a model, and what the server accepts; raises `CallFailed`."""
        with calls.translated():
            reply = self._models.GetModelInfo(
                model_pb2.GetModelInfoRequest(model=model),
                timeout=self._deadline,
                metadata=calls.shown(self._tokens),
            )
        return model_converters.info_from_wire(reply.model), model_converters.limits_from_wire(reply.limits)

    def list_models(self) -> tuple[list[ModelSummary], str]:
        """Every variant of the store, and the name of the default; raises `CallFailed`."""
        with calls.translated():
            reply = self._models.ListModels(
                model_pb2.ListModelsRequest(), timeout=self._deadline, metadata=calls.shown(self._tokens)
            )
        return [model_converters.summary_from_wire(entry) for entry in reply.models], reply.default_model

    def health(self, service: str = READINESS, *, deadline: float = 1.0) -> bool:
        """Whether `service` is SERVING ("" asks for liveness); raises `CallFailed`."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # asked for by probes, not by every client

        with calls.translated():
            request = health_pb2.HealthCheckRequest(service=service)
            stub: Any = health_pb2_grpc.HealthStub(self._channel)  # the published stubs lack its methods
            reply = stub.Check(request, timeout=deadline)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


class AsyncClient:
    """The same for asyncio; use it on one event loop."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        deadline: float = DEADLINE,
        attempts: int = 4,
        security: Security = PLAIN,
    ) -> None:
        """See `Client`."""
        self._deadline = deadline
        self._tokens = token_source(security, target)
        self._channel = open_aio_channel(target, security, attempts=attempts)
        self._sentiment: Any = sentiment_pb2_grpc.SentimentServiceStub(self._channel)
        self._models: Any = model_pb2_grpc.ModelServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def classify(
        self,
        text: str,
        *,
        domain: str = "",
        model: str = "",
        options: Options = DEFAULTS,
        deadline: float | None = None,
    ) -> Classification:
        """See `Client.classify`."""
        with calls.translated():
            request, timeout = calls.one(text, domain, model, options), deadline or self._deadline
            shown = calls.shown(self._tokens)
            reply = await self._sentiment.Classify(request, timeout=timeout, metadata=shown)
        return converters.classification_from_wire(reply.result)

    async def classify_batch(
        self,
        items: Sequence[Item],
        *,
        model: str = "",
        options: Options = DEFAULTS,
        deadline: float | None = None,
    ) -> list[Answer]:
        """See `Client.classify_batch`."""
        with calls.translated():
            request, timeout = calls.many(items, model, options), deadline or self._deadline
            shown = calls.shown(self._tokens)
            reply = await self._sentiment.BatchClassify(request, timeout=timeout, metadata=shown)
        return [calls.answer(result) for result in reply.results]

    async def classify_stream(
        self,
        items: AsyncIterable[Item],
        *,
        model: str = "",
        options: Options = DEFAULTS,
        order: StreamOrder = StreamOrder.AS_SENT,
    ) -> AsyncGenerator[tuple[str, Answer], None]:
        """See `Client.classify_stream`."""

        async def requests() -> AsyncIterator[sentiment_pb2.ClassifyStreamRequest]:
            yield calls.settings(model, options, order)
            async for item in items:
                yield calls.streamed(item)

        with calls.translated():
            call = self._sentiment.ClassifyStream(requests(), metadata=calls.shown(self._tokens))
            try:
                async for reply in call:
                    yield reply.id, calls.answer(reply)
            finally:
                call.cancel()

    async def model_info(self, model: str = "") -> tuple[ModelCard, Limits]:
        """See `Client.model_info`."""
        with calls.translated():
            request = model_pb2.GetModelInfoRequest(model=model)
            shown = calls.shown(self._tokens)
            reply = await self._models.GetModelInfo(request, timeout=self._deadline, metadata=shown)
        return model_converters.info_from_wire(reply.model), model_converters.limits_from_wire(reply.limits)

    async def list_models(self) -> tuple[list[ModelSummary], str]:
        """See `Client.list_models`."""
        with calls.translated():
            request, shown = model_pb2.ListModelsRequest(), calls.shown(self._tokens)
            reply = await self._models.ListModels(request, timeout=self._deadline, metadata=shown)
        return [model_converters.summary_from_wire(entry) for entry in reply.models], reply.default_model

    async def health(self, service: str = READINESS, *, deadline: float = 1.0) -> bool:
        """See `Client.health`."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # asked for by probes, not by every client

        with calls.translated():
            request = health_pb2.HealthCheckRequest(service=service)
            stub: Any = health_pb2_grpc.HealthStub(self._channel)
            reply = await stub.Check(request, timeout=deadline)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
