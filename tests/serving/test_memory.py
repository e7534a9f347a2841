"""The bound on the memory of models: its book, and what a server does with a model that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import admin_pb2, admin_pb2_grpc, model_pb2
from serving.app import App
from serving.engines.fake import FakeSource, fake_card
from serving.errors import BadStore, NoRoom
from serving.memory import MIB, Memory
from serving.store import survey
from serving.watch import Watcher
from stratified_models.testing import tiny_bundle
from tests.serving.conftest import Start, settings
from tests.serving.rpc.test_servicers import failure_of_error, refused
from tests.serving.test_fleet import NEW, OLD, answered_by, states


def source(*names: str, mib: float = 10) -> FakeSource:
    made = FakeSource(*names)
    made.weights = round(mib * MIB)
    return made


def test_the_book_refuses_what_would_pass_the_bound_and_says_who_has_it() -> None:
    sizes: list[tuple[str, int]] = []
    memory = Memory(25 * MIB, on_change=lambda name, size: sizes.append((name, size)))
    freed: list[int] = []
    memory.on_free = lambda: freed.append(memory.held)
    first, _ = memory.hold("none", 10 * MIB), memory.hold("none", 10 * MIB)
    words = (
        r"moe needs 5\.5 MiB, and none \(10\), none \(10\) take 20 of the 25 MiB of --model-memory; unload"
    )
    with pytest.raises(NoRoom, match=words):
        memory.hold("moe", round(5.5 * MIB))
    first.free()
    first.free()
    assert freed == [10 * MIB]
    memory.hold("moe", round(5.5 * MIB))
    assert sizes == [("none", 10 * MIB), ("none", 20 * MIB), ("none", 10 * MIB), ("moe", round(5.5 * MIB))]


def test_without_a_bound_everything_fits() -> None:
    memory = Memory(0)
    memory.hold("none", 10**15)
    assert memory.held == 10**15


async def test_a_default_that_does_not_fit_ends_the_start() -> None:
    app = App(settings(model_memory=5), registry=CollectorRegistry(), source=source("none"))
    with pytest.raises(BadStore, match="none needs 10 MiB, and no models take 0 of the 5 MiB"):
        await app.load_models()
    await app.stop(settle=0)


async def test_others_that_do_not_fit_are_left_out_and_taken_when_there_is_room(start: Start) -> None:
    running = await start(
        source("none", "moe", "layers"), load="all", model_memory=20, watch_seconds=0, admin_port=0
    )
    found = await states(running)
    assert found["layers"][0] == model_pb2.MODEL_STATE_READY
    assert found["moe"][0] == model_pb2.MODEL_STATE_FAILED
    assert "moe needs 10 MiB" in found["moe"][1]
    assert running.sample("stratified_model_memory_bytes", model="layers") == 10 * MIB

    admin: Any = admin_pb2_grpc.AdminServiceStub(
        grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.admin}")
    )
    error = await refused(admin.LoadModel(admin_pb2.LoadModelRequest(model="moe")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failure_of_error(error).reason == "NO_ROOM_FOR_MODEL"

    watcher = Watcher(running.app.fleet, running.app.metrics, selected="")
    await watcher.look()
    rejected = running.sample("stratified_model_swaps_total", outcome="rejected")
    await watcher.look()
    assert running.sample("stratified_model_swaps_total", outcome="rejected") == rejected, "told once"
    await admin.UnloadModel(admin_pb2.UnloadModelRequest(model="layers"))
    assert running.sample("stratified_model_memory_bytes", model="layers") == 0
    await watcher.look()
    assert (await states(running))["moe"][0] == model_pb2.MODEL_STATE_READY


@pytest.mark.parametrize(("bound", "answers"), [(15, OLD), (20, NEW)])
async def test_the_bound_holds_also_while_a_bundle_is_replaced(
    start: Start, bound: int, answers: str
) -> None:
    running = await start(source("none"), model_memory=bound, watch_seconds=0)
    running.source.publish(fake_card(sha256=NEW))
    await Watcher(running.app.fleet, running.app.metrics, selected="").look()
    assert await answered_by(running) == answers


async def test_a_model_that_cannot_be_loaded_gives_its_room_back(start: Start) -> None:
    made = source("none", "moe")
    made.broken.add("moe")
    running = await start(made, load="all", model_memory=20, watch_seconds=0)
    assert running.sample("stratified_model_memory_bytes", model="moe") == 0
    made.broken.clear()
    await running.app.fleet.load("moe")


def test_weights_count_in_their_largest_form(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    tiny_bundle(folder, variant="none")
    plain = (folder / "model.safetensors").stat().st_size
    assert survey(tmp_path)["none"].weights == plain
    (folder / "model.onnx").write_bytes(b"x" * (plain + 5))
    (folder / "notes.txt").write_bytes(b"x" * (plain + 9))
    assert survey(tmp_path)["none"].weights == plain + 5
