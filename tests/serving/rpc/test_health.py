"""Health as orchestrators ask for it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stratified.v1 import sentiment_pb2
from serving.engines.fake import FakeSource
from serving.rpc.health import LIVENESS, READINESS
from tests.serving.conftest import Running, Start
from tests.serving.rpc.test_servicers import failure_of_error
from tests.serving.test_lane import until

Status = health_pb2.HealthCheckResponse


def stub(port: int) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))


async def check(running: Running, port: int, name: str) -> int:
    reply = await stub(port).Check(health_pb2.HealthCheckRequest(service=name))  # type: ignore[attr-defined]  # stubs
    return int(reply.status)


async def test_live_at_once_and_ready_when_a_model_is_loaded_on_both_ports(start: Start) -> None:
    running = await start(loaded=False)
    for port in (running.ports.service, running.ports.probe):
        assert await check(running, port, LIVENESS) == Status.SERVING
        assert await check(running, port, READINESS) == Status.NOT_SERVING
    await running.app.load_models()
    for port in (running.ports.service, running.ports.probe):
        assert await check(running, port, READINESS) == Status.SERVING


async def test_an_unknown_name_is_not_found_by_check_and_unknown_to_watch(start: Start) -> None:
    running = await start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(running, running.ports.probe, "nope")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    call = stub(running.ports.service).Watch(health_pb2.HealthCheckRequest(service="nope"))  # type: ignore[attr-defined]  # stubs
    assert (await call.read()).status == Status.SERVICE_UNKNOWN
    call.cancel()


async def test_list_names_everything(start: Start) -> None:
    running = await start()
    reply = await stub(running.ports.service).List(health_pb2.HealthListRequest())  # type: ignore[attr-defined]  # stubs
    assert {name: entry.status for name, entry in reply.statuses.items()} == {
        LIVENESS: Status.SERVING,
        READINESS: Status.SERVING,
    }


async def test_watch_tells_each_change_and_lets_go_at_the_end(start: Start) -> None:
    running = await start(loaded=False)
    call = stub(running.ports.service).Watch(health_pb2.HealthCheckRequest(service=READINESS))  # type: ignore[attr-defined]  # stubs
    seen = [(await call.read()).status]
    for ready in (True, True, False):
        running.app.health.set_ready(ready)
        await asyncio.sleep(0.02)
    seen += [(await call.read()).status, (await call.read()).status]
    running.app.health.close()
    assert await call.read() is grpc.aio.EOF
    assert seen == [Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]
    running.app.health.set_ready(True)
    assert await check(running, running.ports.probe, READINESS) == Status.NOT_SERVING
    assert await check(running, running.ports.probe, LIVENESS) == Status.NOT_SERVING


async def test_an_engine_that_hangs_for_good_turns_liveness_off(start: Start) -> None:
    running = await start(FakeSource("none"), hang_seconds=0.05)
    running.engine.gate.clear()
    call = running.sentiment.Classify(sentiment_pb2.ClassifyRequest(text="a"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failure_of_error(caught.value).reason == "ENGINE_HUNG"
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    async with asyncio.timeout(60):
        while await check(running, running.ports.probe, LIVENESS) == Status.SERVING:  # noqa: ASYNC110  as a probe
            await asyncio.sleep(0.02)
    assert await check(running, running.ports.probe, READINESS) == Status.NOT_SERVING
    running.engine.gate.set()
    running.app.health.set_ready(True)
    assert await check(running, running.ports.probe, READINESS) == Status.NOT_SERVING, "until a new process"


async def test_a_model_beside_the_default_that_hangs_for_good_costs_no_life(start: Start) -> None:
    running = await start(FakeSource("none", "routing"), hang_seconds=0.05, load="all")
    running.source.engines["routing"].gate.clear()
    with pytest.raises(grpc.aio.AioRpcError):
        await running.sentiment.Classify(sentiment_pb2.ClassifyRequest(text="a", model="routing"))
    await until(lambda: running.sample("stratified_engine_hangs_total") == 3)
    await running.sentiment.Classify(sentiment_pb2.ClassifyRequest(text="a"))
    for name in (LIVENESS, READINESS):
        assert await check(running, running.ports.probe, name) == Status.SERVING
