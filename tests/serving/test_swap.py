"""Real bundles exchanged on disk below a real server, under a light load: every call is answered, and what is
broken stays out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import admin_pb2, admin_pb2_grpc, sentiment_pb2, sentiment_pb2_grpc
from serving.app import App
from serving.settings import Settings
from stratified_models.bundle import copy_bundle, read_bundle
from stratified_models.testing import tiny_bundle
from tests.serving.bundles import copied
from tests.serving.conftest import settings
from tests.serving.test_lane import until

TEXTS = ("The plot drags.", "good", "worth every minute of it, and the ending too", "bad, bad film")
PATIENCE = 60.0  # seconds for a swap: two busy cores


@cache
def newer() -> Path:
    """The next bundle of `routing`; not to be changed."""
    folder = Path(mkdtemp(prefix="stratified-newer-"))
    tiny_bundle(folder, variant="routing", seed=1, version="2")
    return folder


@cache
def other_labels() -> Path:
    """A bundle of `routing` that knows two labels."""
    folder = Path(mkdtemp(prefix="stratified-labels-"))
    tiny_bundle(folder, variant="routing", labels=("negative", "positive"))
    return folder


def sha(folder: Path) -> str:
    return read_bundle(folder, verify=False).sha256


@dataclass
class Traffic:
    """What a few callers, one call after the other each, were answered: statuses and sha256 sums."""

    codes: Counter[str] = field(default_factory=Counter)
    models: list[tuple[float, str]] = field(default_factory=list)
    """When a call began, and what answered it."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, stub: Any, number: int) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            request = sentiment_pb2.ClassifyRequest(text=TEXTS[number % len(TEXTS)])
            try:
                reply = await stub.Classify(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                self.codes[error.code().name] += 1
                continue
            self.codes["OK"] += 1
            self.models.append((began, reply.result.model.sha256))
            await asyncio.sleep(0.01)


@dataclass
class Live:
    app: App
    root: Path
    admin: Any
    traffic: Traffic

    def swaps(self, outcome: str) -> float:
        name = "stratified_model_swaps_total"
        return self.app.metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0

    async def when(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  what is waited for has no event
                await asyncio.sleep(0.02)

    async def answers(self, count: int = 10) -> set[str]:
        """What answers the calls that begin from now on."""
        now = time.monotonic()

        def later() -> list[str]:
            return [model for began, model in self.traffic.models if began > now]

        await self.when(lambda: len(later()) >= count)
        return set(later())


@asynccontextmanager
async def live(root: Path, **values: Any) -> AsyncIterator[Live]:
    """A server of the bundles in `root` that looks often, and callers who never pause; every call is OK."""
    plain = {"models": root, "watch_seconds": 0.1, "admin_port": 0, "engine": "torch", "batch_tokens": 256}
    chosen: Settings = settings(**{**plain, **values})
    app = App(chosen, registry=CollectorRegistry())
    ports = await app.listen()
    await app.load_models()
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in (ports.service, ports.admin)]
    traffic = Traffic()
    stub: Any = sentiment_pb2_grpc.SentimentServiceStub(channels[0])
    callers = [asyncio.create_task(traffic.call(stub, number)) for number in range(4)]
    try:
        yield Live(app, root, admin_pb2_grpc.AdminServiceStub(channels[1]), traffic)
        traffic.stop.set()
        await asyncio.gather(*callers)
        assert set(traffic.codes) == {"OK"}, traffic.codes
    finally:
        traffic.stop.set()
        await asyncio.gather(*callers)
        for channel in channels:
            await channel.close()
        await app.stop(settle=0)


async def test_under_load_every_answer_is_of_the_old_or_of_the_new_bundle(tmp_path: Path) -> None:
    root = copied(tmp_path)
    old, new = sha(root / "routing"), sha(newer())
    async with live(root) as server:
        assert await server.answers() == {old}
        copy_bundle(newer(), root / "routing")
        await server.when(lambda: server.swaps("swapped") == 1)
        assert await server.answers() == {new}
    assert {model for _, model in server.traffic.models} == {old, new}
    assert server.swaps("rejected") == server.swaps("failed") == 0


def truncated(folder: Path) -> None:
    copy_bundle(newer(), folder)
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)


def wrong_sum(folder: Path) -> None:
    copy_bundle(newer(), folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def other_logits(folder: Path) -> None:
    """A bundle that agrees with itself, but for what its model computed when it was written."""
    copy_bundle(newer(), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes((folder.parent / "old.safetensors").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    data = weights.read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"]["model.safetensors"] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))


def another_architecture(folder: Path) -> None:
    shutil.rmtree(folder)
    copy_bundle(folder.parent / "none", folder)


def fewer_labels(folder: Path) -> None:
    copy_bundle(other_labels(), folder)


@pytest.mark.parametrize("damage", [truncated, wrong_sum, other_logits, another_architecture, fewer_labels])
async def test_a_bundle_that_is_no_good_is_kept_out_until_it_is(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    root = copied(tmp_path)
    shutil.copy(root / "routing" / "model.safetensors", root / "old.safetensors")
    old, new = sha(root / "routing"), sha(newer())
    async with live(root) as server:
        damage(root / "routing")
        await server.when(lambda: server.swaps("rejected") >= 1)
        assert await server.answers() == {old}
        assert server.app.models.ready
        copy_bundle(newer(), root / "routing")
        await server.when(lambda: server.swaps("swapped") == 1)
        assert await server.answers() == {new}


def mappings() -> str:
    """The files that this process has mapped."""
    return Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the mappings are read from /proc")
async def test_the_served_weights_do_not_hang_on_their_file(tmp_path: Path) -> None:
    root = copied(tmp_path)
    old = sha(root / "routing")
    async with live(root, load="all") as server:
        assert str(root) not in mappings(), "cutting a mapped file kills the process"
        weights = root / "routing" / "model.safetensors"
        with weights.open("r+b") as file:
            file.truncate(100)
        assert await server.answers() == {old}


async def test_a_deleted_bundle_and_a_lost_disk_are_counted_and_answered_through(tmp_path: Path) -> None:
    root = copied(tmp_path)
    old = sha(root / "routing")
    async with live(root) as server:
        shutil.rmtree(root / "routing")
        await server.when(lambda: server.swaps("missing") == 1)
        root.rename(tmp_path / "away")
        await server.when(lambda: server.swaps("missing") == 2)
        assert await server.answers() == {old}
        (tmp_path / "away").rename(root)
        copy_bundle(newer(), root / "routing")
        await server.when(lambda: server.swaps("swapped") == 1)


async def test_another_selection_is_followed_and_an_operator_rolls_it_back(tmp_path: Path) -> None:
    root = copied(tmp_path)
    routing, none = sha(root / "routing"), sha(root / "none")
    async with live(root) as server:
        (root / "results.json").write_text('{"selected": {"variant": "none", "path": "none"}}')
        await server.when(lambda: server.app.models.default == "none")
        assert await server.answers() == {none}
        request = admin_pb2.SetDefaultModelRequest(model="routing")
        assert (await server.admin.SetDefaultModel(request)).previous_model == "none"
        assert await server.answers() == {routing}
        looks = server.app.models
        await asyncio.sleep(0.5)
        assert looks.default == "routing", "the same selection is not followed twice"
        await until(lambda: {entry.card.version.name for entry in looks.deployments} == {"none", "routing"})
