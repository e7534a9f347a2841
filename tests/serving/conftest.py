"""A real server on loopback with the shipped fake engine, on ephemeral ports."""

from __future__ import annotations

import asyncio
import gc
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import model_pb2_grpc, sentiment_pb2_grpc
from serving.app import App, Ports
from serving.engines.fake import FakeEngine, FakeSource
from serving.logs import configure
from serving.settings import Settings


@pytest.fixture(autouse=True)
def _quiet_logs() -> None:
    """Logs go nowhere; a test that wants them captures them."""
    configure(level="DEBUG", fmt="json", stream=io.StringIO())


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """A server that runs in this process lets the collector alone; the next test gets it back."""
    yield
    gc.unfreeze()


def settings(**values: Any) -> Settings:
    """Ephemeral ports, quick stop."""
    plain = {
        "models": Path("unused"),
        "port": 0,
        "probe_port": 0,
        "metrics_port": 0,
        "settle_seconds": 0,
        "threads": 1,
    }
    return Settings.model_validate({**plain, **values})


@dataclass
class Running:
    """A started app, its ports, and stubs to it."""

    app: App
    ports: Ports
    source: FakeSource
    channel: grpc.aio.Channel
    sentiment: Any = field(init=False)
    models: Any = field(init=False)

    def __post_init__(self) -> None:
        self.sentiment = sentiment_pb2_grpc.SentimentServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports.service}"

    @property
    def engine(self) -> FakeEngine:
        return next(iter(self.source.engines.values()))

    def sample(self, name: str, **labels: str) -> float:
        value = self.app.metrics.registry.get_sample_value(name, labels)
        assert value is not None, f"no series {name} {labels}"
        return value


Start = Callable[..., Awaitable[Running]]


async def counted(running: Running, calls: int, **labels: str) -> None:
    """Wait until so many calls are counted as ended: a refusal reaches its caller before it is counted."""
    async with asyncio.timeout(60):
        while running.sample("grpc_server_handled_total", **labels) < calls:  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.005)
    assert running.sample("grpc_server_handled_total", **labels) == calls


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(source, **settings)` gives a running server; all are stopped at the end."""
    started: list[Running] = []

    async def begin(
        source: FakeSource | None = None,
        *,
        loaded: bool = True,
        draw: Callable[[], float] = random.random,
        **values: Any,
    ) -> Running:
        chosen = source or FakeSource("none", "routing")
        app = App(settings(**values), registry=CollectorRegistry(), source=chosen, draw=draw)
        ports = await app.listen()
        running = Running(app, ports, chosen, grpc.aio.insecure_channel(f"127.0.0.1:{ports.service}"))
        started.append(running)
        if loaded:
            await app.load_models()
        return running

    yield begin
    for running in started:
        await running.channel.close()
        for engine in (*running.source.engines.values(), *running.source.replaced):
            engine.gate.set()
        await running.app.stop(settle=0)
