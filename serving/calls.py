"""What both clients share: requests out of values, answers and failures out of replies, channel options.

It knows the wire and opens no connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from protos.stratified.v1 import sentiment_pb2
from serving.rpc import converters
from serving.tokens import TokenSource
from serving.types import Classification, Item, Options, StreamOrder

DETAILS = "grpc-status-details-bin"
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)  # without our details
PASSING = ("DRAINING", "ENGINE_CRASHED")
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a text has no classification: gRPC status, stable reason, message, the field at fault, when to come
    back.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    field: str = ""
    retry_after: float | None = None
    request_id: str = ""

    @property
    def worth_retrying(self) -> bool:
        """Whether the same text may be answered later: the service said so, or the connection broke."""
        if self.retry_after is not None or self.reason in PASSING:
            return self.code in RETRIED
        return not self.reason and self.code in (*RETRIED, *BROKEN)


class CallFailed(Exception):  # noqa: N818  a meaning, as in serving.errors
    """A call as a whole failed; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code.name}: {failure.message}")
        self.failure = failure


Answer = Classification | Failure


def channel_options(*, attempts: int = 4) -> list[tuple[str, Any]]:
    """Retries and, for a name with several addresses (`dns:///host:port`), a turn for each."""
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "3s",
        "backoffMultiplier": 2,
        # CANCELLED is what the core of a stopping server says to the last calls; no other is retried
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
    }
    services = [{"service": "stratified.v1.SentimentService"}, {"service": "stratified.v1.ModelService"}]
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": services, **({"retryPolicy": policy} if attempts > 1 else {})}],
    }
    return [("grpc.service_config", json.dumps(config)), ("grpc.enable_retries", 1)]


def shown(tokens: TokenSource | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that brings a token, or none."""
    return tokens.metadata() if tokens else ()


def one(text: str, domain: str, model: str, options: Options) -> sentiment_pb2.ClassifyRequest:
    """A request for one text."""
    wire = converters.options_to_wire(options)
    return sentiment_pb2.ClassifyRequest(text=text, domain=domain, model=model, options=wire)


def many(items: Sequence[Item], model: str, options: Options) -> sentiment_pb2.BatchClassifyRequest:
    """A request for many texts."""
    wire = converters.options_to_wire(options)
    return sentiment_pb2.BatchClassifyRequest(
        items=[converters.item_to_wire(item) for item in items], model=model, options=wire
    )


def settings(model: str, options: Options, order: StreamOrder) -> sentiment_pb2.ClassifyStreamRequest:
    """The first message of a stream."""
    settings = sentiment_pb2.StreamSettings(
        model=model,
        options=converters.options_to_wire(options),
        order=converters.enum_to_wire(order),  # type: ignore[arg-type]  # the stubs want the enum's own type
    )
    return sentiment_pb2.ClassifyStreamRequest(settings=settings)


def streamed(item: Item) -> sentiment_pb2.ClassifyStreamRequest:
    """An item of a stream."""
    return sentiment_pb2.ClassifyStreamRequest(item=converters.item_to_wire(item))


def answer(result: sentiment_pb2.BatchResult | sentiment_pb2.ClassifyStreamResponse) -> Answer:
    """What became of one item of a batch or a stream."""
    if result.WhichOneof("outcome") == "error":
        return failure_of(result.error)
    return converters.classification_from_wire(result.result)


def failure_of(status: status_pb2.Status) -> Failure:
    """The details of a status, as one value."""
    values: dict[str, Any] = {"reason": "", "field": "", "retry_after": None, "request_id": ""}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry, request = error_details_pb2.RetryInfo(), error_details_pb2.RequestInfo()
        if detail.Unpack(info):
            values["reason"] = info.reason
        elif detail.Unpack(bad):
            values["field"] = bad.field_violations[0].field if bad.field_violations else ""
        elif detail.Unpack(retry):
            values["retry_after"] = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Unpack(request):
            values["request_id"] = request.request_id
    return Failure(CODES.get(status.code, grpc.StatusCode.UNKNOWN), message=status.message, **values)


@contextmanager
def translated() -> Iterator[None]:
    """Turns an error of gRPC into `CallFailed`."""
    try:
        yield
    except grpc.RpcError as error:
        call: Any = error  # both flavours have these methods, and share no type that says so
        trailers = {str(key): value for key, value in call.trailing_metadata() or ()}
        status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
        if isinstance(details := trailers.get(DETAILS), bytes):
            status.ParseFromString(details)
        raise CallFailed(failure_of(status)) from None
