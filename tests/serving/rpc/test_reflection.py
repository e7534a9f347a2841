"""Tools of both ages discover the services."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from serving.rpc.reflection import V1, V1ALPHA
from tests.serving.conftest import Start


@pytest.mark.parametrize("name", [V1, V1ALPHA])
async def test_services_and_their_files_are_found_under_both_names(start: Start, name: str) -> None:
    running = await start()
    call: Any = running.channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {entry.name for entry in (await call.read()).list_services_response.service}
    assert listed >= {"stratified.v1.SentimentService", "stratified.v1.ModelService", "grpc.health.v1.Health"}
    for service in listed:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        assert (await call.read()).file_descriptor_response.file_descriptor_proto, service
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
