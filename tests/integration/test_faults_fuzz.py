"""Random messages to every servicer: any bytes, messages of any content, and those with bytes changed.

Whatever comes, the caller is told what is wrong with its request, never of a bug, and the server answers on.
FUZZ_EXAMPLES (per method) and FUZZ_MINUTES make it longer: `make fuzz`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from protos.inference import open_inference_pb2
from protos.stratified.v1 import admin_pb2, model_pb2, sentiment_pb2
from serving.app import App
from serving.engines.fake import FakeSource
from tests.serving import conftest

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
SECONDS = 60 * float(os.environ.get("FUZZ_MINUTES", "1"))
BUGS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
FILES = (sentiment_pb2, model_pb2, admin_pb2, open_inference_pb2)
METHODS = {
    f"{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
Ports = dict[str, grpc.Channel]


@pytest.fixture(scope="module")
def channels() -> Iterator[Ports]:
    """A server on a loop of its own; by service, the channel that reaches it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def begin() -> tuple[App, Any]:
        chosen = conftest.settings(admin_port=0, load="all", queue_tokens=512)
        app = App(chosen, registry=CollectorRegistry(), source=FakeSource("none", "routing"))
        ports = await app.listen()
        await app.load_models()
        return app, ports

    app, ports = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
    service, admin = (grpc.insecure_channel(f"127.0.0.1:{port}") for port in (ports.service, ports.admin))
    yield {"service": service, "AdminService": admin}
    service.close()
    admin.close()
    asyncio.run_coroutine_threadsafe(app.stop(settle=0), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: st.text(max_size=30)
    | st.sampled_from(["none", "routing", "imdb", "text"]),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1) | st.integers(0, 5),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 9),
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Any, depth: int = 3) -> Message:
    """A message of this kind with any of its fields filled."""
    from google.protobuf.message_factory import GetMessageClass

    message: Message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()) or (field.message_type and field.message_type.GetOptions().map_entry):
            continue
        if field.message_type is not None:
            if depth == 0:
                continue
            count = draw(st.integers(0, 3)) if field.is_repeated else 1
            for _ in range(count):
                part = draw(messages(field.message_type, depth - 1))
                slot = getattr(message, field.name)
                (slot.add() if field.is_repeated else slot).CopyFrom(part)
            continue
        strategy = (
            st.binary(max_size=20) if field.type == FieldDescriptor.TYPE_BYTES else SCALARS[field.cpp_type]
        )
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(strategy, max_size=3)))
        else:
            setattr(message, field.name, draw(strategy))
    return message


@st.composite
def blobs(draw: st.DrawFn, descriptor: Any) -> bytes:
    """Bytes of any kind, a message, or a message with some bytes changed."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200))
    raw = bytearray(draw(messages(descriptor)).SerializeToString())
    for _ in range(draw(st.integers(0, 3)) if raw else 0):
        place = draw(st.integers(0, len(raw) - 1)) if raw else 0
        raw[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(raw)


class Enough(KeyboardInterrupt):
    """The time is over. At this kind alone hypothesis stops at once, instead of drawing on."""


def status(channel: grpc.Channel, method: str, sent: list[bytes]) -> grpc.StatusCode:
    """What becomes of a call with these messages."""
    streams = METHODS[method].client_streaming
    make: Any = channel.stream_stream if streams else channel.unary_unary
    call = make(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
    try:
        if streams:
            list(call(iter(sent), timeout=20))
        else:
            call(sent[0], timeout=20)
    except grpc.RpcError as error:
        found: grpc.StatusCode = error.code()
        return found
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.timeout(1200)
def test_whatever_comes_is_no_bug(channels: Ports, method: str) -> None:
    channel = channels["AdminService" if "AdminService" in method else "service"]
    began, one = time.monotonic(), blobs(METHODS[method].input_type)
    many = METHODS[method].client_streaming

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize="FUZZ_MINUTES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(one, min_size=0 if many else 1, max_size=6 if many else 1))
    def check(sent: list[bytes]) -> None:
        if time.monotonic() - began > SECONDS / len(METHODS):
            raise Enough
        found = status(channel, method, sent)
        assert found not in BUGS, (found, sent)

    with suppress(Enough):
        check()
    good = sentiment_pb2.ClassifyRequest(text="good").SerializeToString()
    classify = "stratified.v1.SentimentService/Classify"
    assert status(channels["service"], classify, [good]) in {
        grpc.StatusCode.OK,
        grpc.StatusCode.UNAVAILABLE,  # when AdminService let the model go
    }
