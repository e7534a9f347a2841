"""Start and stop, in the order that callers and orchestrators rely on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import sentiment_pb2
from serving.app import App
from serving.engines.fake import FakeSource
from serving.errors import BadStore, PortInUse
from serving.running import serve
from tests.serving.conftest import Start, settings
from tests.serving.test_lane import until

Request = sentiment_pb2.ClassifyRequest


async def test_metrics_are_scraped_over_http(start: Start) -> None:
    running = await start()
    await running.sentiment.Classify(Request(text="a"))
    url = f"http://127.0.0.1:{running.ports.metrics}/metrics"
    text = await asyncio.to_thread(lambda: urlopen(url, timeout=5).read().decode())
    assert "stratified_items_total{domain=" in text
    assert "stratified_event_loop_lag_seconds_count" in text


async def test_the_loops_lag_is_measured(start: Start) -> None:
    running = await start()
    await until(lambda: running.sample("stratified_event_loop_lag_seconds_count") >= 1)


async def test_a_default_model_that_cannot_be_loaded_ends_the_start(start: Start) -> None:
    running = await start(FakeSource("none", broken=("none",)), loaded=False)
    with pytest.raises(BadStore, match="told to be broken"):
        await running.app.load_models()
    assert not running.app.models.ready


async def test_stopping_answers_what_was_accepted(start: Start) -> None:
    running = await start(settle_seconds=0)
    running.engine.gate.clear()
    calls = [running.sentiment.Classify(Request(text="the first"))]
    await until(lambda: running.engine.started == 1)
    calls += [running.sentiment.Classify(Request(text=f"word{index}")) for index in range(9)]
    await until(lambda: running.sample("stratified_queue_items", model="none") == 9)
    stopping = asyncio.create_task(running.app.stop(settle=0))
    await asyncio.sleep(0.1)
    running.engine.gate.set()
    replies = await asyncio.gather(*calls)
    assert len(replies) == 10
    await stopping
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.sentiment.Classify(Request(text="too late"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_while_endpoints_settle_calls_are_still_answered(start: Start) -> None:
    running = await start()
    stopping = asyncio.create_task(running.app.stop(settle=0.3))
    await asyncio.sleep(0.05)
    await running.sentiment.Classify(Request(text="a"))
    await stopping


async def test_an_open_stream_is_answered_and_told_when_the_service_stops(start: Start) -> None:
    running = await start()
    call = running.sentiment.ClassifyStream()
    await call.write(sentiment_pb2.ClassifyStreamRequest(settings=sentiment_pb2.StreamSettings()))
    await call.write(sentiment_pb2.ClassifyStreamRequest(item=sentiment_pb2.BatchItem(id="1", text="a")))
    assert (await call.read()).id == "1"
    async with asyncio.timeout(60):
        await running.app.stop(settle=0)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_ports_in_use_end_the_start_and_free_what_was_bound(start: Start) -> None:
    running = await start()
    for name, port in (("port", running.ports.service), ("probe_port", running.ports.probe),
                       ("metrics_port", running.ports.metrics)):  # fmt: skip
        app = App(settings(**{name: port}), registry=CollectorRegistry(), source=FakeSource())
        with pytest.raises(PortInUse, match=f"--{name.replace('_', '-')}"):
            await app.listen()
        await app.stop(settle=0)


def begin(**values: float) -> tuple[asyncio.Task[None], Callable[[signal.Signals], Awaitable[None]]]:
    """A server that runs until a signal, and what sends one to this very process once it is handled.

    Sent earlier, it would end pytest; that the kernel knows the handler is looked at too.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    serving = asyncio.create_task(
        serve(settings(**values), registry=CollectorRegistry(), source=FakeSource())
    )

    async def send(number: signal.Signals) -> None:
        def handled() -> bool:
            assert not serving.done(), f"it ended by itself: {serving}"
            status = Path("/proc/self/status").read_text(encoding="ascii").split()
            caught = int(status[status.index("SigCgt:") + 1], 16) >> (number - 1) & 1
            return bool(caught) and signal.getsignal(number) != before[number]

        await until(handled)
        os.kill(os.getpid(), number)

    return serving, send


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_returns(number: signal.Signals) -> None:
    serving, send = begin()
    await send(number)
    async with asyncio.timeout(60):
        await serving


async def test_a_second_signal_ends_the_patience() -> None:
    serving, send = begin(settle_seconds=60, grace_seconds=60)
    for _ in range(2):
        await send(signal.SIGTERM)
        await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        await serving


async def test_a_signal_while_loading_is_obeyed_after_the_step_in_hand() -> None:
    class Slow(FakeSource):
        def load(self, found, announce):  # type: ignore[no-untyped-def]  # as the base class
            signal.raise_signal(signal.SIGTERM)
            return super().load(found, announce)

    async with asyncio.timeout(60):
        await serve(settings(), registry=CollectorRegistry(), source=Slow("none", "moe"))


async def test_serve_raises_what_loading_raised() -> None:
    with pytest.raises(BadStore):
        await serve(settings(), registry=CollectorRegistry(), source=FakeSource(broken=("none",)))
