"""Models swapped, selected, loaded and let go while calls are answered: nobody loses an answer."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest

from protos.stratified.v1 import model_pb2, sentiment_pb2
from serving.engines.fake import FakeEngine, FakeSource, fake_card
from serving.errors import BadStore, ModelIsDefault, ModelNotFound, ModelUnusable
from serving.fleet import Fleet
from tests.serving.conftest import Running, Start
from tests.serving.test_lane import until

OLD, NEW = "0" * 64, "1" * 64
Request = sentiment_pb2.ClassifyRequest


def fleet_of(running: Running) -> Fleet:
    return running.app.fleet


async def newest(running: Running, name: str = "none") -> Any:
    return (await fleet_of(running).look()).variants[name]


async def answered_by(running: Running, model: str = "") -> str:
    reply = await running.sentiment.Classify(Request(text="good film", model=model))
    return str(reply.result.model.sha256)


async def states(running: Running) -> dict[str, tuple[int, str]]:
    listed = await running.models.ListModels(model_pb2.ListModelsRequest())
    return {entry.name: (entry.state, entry.error) for entry in listed.models}


async def test_a_swap_lets_the_new_model_answer(start: Start) -> None:
    running = await start(watch_seconds=0)
    assert await answered_by(running) == OLD
    running.source.publish(fake_card(sha256=NEW))
    await fleet_of(running).swap(await newest(running))
    assert await answered_by(running) == NEW
    assert running.sample("stratified_model_swaps_total", outcome="swapped") == 1


async def test_what_was_accepted_before_a_swap_is_answered_by_the_old_model(start: Start) -> None:
    running = await start(watch_seconds=0)
    old = running.engine
    old.gate.clear()
    calls = [running.sentiment.Classify(Request(text="the first"))]
    await until(lambda: old.started >= 1)
    calls += [running.sentiment.Classify(Request(text=f"word{index}")) for index in range(9)]
    await until(lambda: running.sample("stratified_queue_items", model="none") >= 9)
    running.source.publish(fake_card(sha256=NEW))
    await fleet_of(running).swap(await newest(running))
    assert await answered_by(running) == NEW, "answered while the old one still works"
    old.gate.set()
    replies = await asyncio.gather(*calls)
    assert {reply.result.model.sha256 for reply in replies} == {OLD}
    assert running.sample("stratified_dropped_total", reason="closed") == 0


async def test_the_old_model_is_freed_and_its_numbers_with_it(start: Start) -> None:
    running = await start(watch_seconds=0)
    await answered_by(running)
    old = weakref.ref(running.engine)
    running.source.publish(fake_card(sha256=NEW, strata=2))
    running.source.replaced.clear()
    await fleet_of(running).swap(await newest(running))

    def freed() -> bool:
        gc.collect()
        return old() is None

    await until(freed)
    labels = {"model": "none", "version": "0", "engine": "fake", "precision": "fp64"}
    registry = running.app.metrics.registry
    assert registry.get_sample_value("stratified_model_info", {**labels, "sha256": OLD}) is None
    assert running.sample("stratified_model_info", **labels, sha256=NEW) == 1
    assert (
        registry.get_sample_value("stratified_stratum_occupancy", {"model": "none", "stratum": "3"}) is None
    )
    assert running.sample("stratified_queue_items", model="none") == 0


async def test_a_new_model_may_know_other_domains_while_the_old_one_still_answers(start: Start) -> None:
    running = await start(watch_seconds=0)
    old = running.engine
    old.gate.clear()
    call = running.sentiment.Classify(Request(text="good film"))
    await until(lambda: old.started >= 1)
    running.source.publish(replace(fake_card(sha256=NEW), domains=fake_card().domains[:1]))
    running.source.engines["none"] = FakeEngine(domains=1)
    await fleet_of(running).swap(await newest(running))
    assert await answered_by(running) == NEW
    old.gate.set()
    assert (await call).result.model.sha256 == OLD


async def test_a_bundle_that_cannot_be_loaded_changes_nothing_and_is_told(start: Start) -> None:
    running = await start(watch_seconds=0)
    running.source.publish(fake_card(sha256=NEW))
    running.source.broken.add("none")
    with pytest.raises(BadStore, match="told to be broken"):
        await fleet_of(running).swap(await newest(running))
    assert await answered_by(running) == OLD
    state, error = (await states(running))["none"]
    assert state == model_pb2.MODEL_STATE_READY
    assert "a newer bundle is not used: none was told to be broken" in error
    assert running.sample("stratified_model_swaps_total", outcome="rejected") == 1
    assert running.app.models.ready


async def test_a_fault_while_loading_changes_nothing_either(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start(watch_seconds=0)
    running.source.publish(fake_card(sha256=NEW))

    def load(found: object, announce: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(running.source, "load", load)
    with pytest.raises(MemoryError):
        await fleet_of(running).swap(await newest(running))
    assert await answered_by(running) == OLD
    assert (await states(running))["none"][1].endswith("a fault of MemoryError")
    assert running.sample("stratified_model_swaps_total", outcome="failed") == 1


async def test_other_labels_are_not_swapped_in(start: Start) -> None:
    running = await start(watch_seconds=0)
    running.source.publish(replace(fake_card(sha256=NEW), labels=("bad", "good", "so so")))
    with pytest.raises(BadStore, match="restart the server to serve other labels"):
        await fleet_of(running).swap(await newest(running))
    assert await answered_by(running) == OLD


async def test_a_bundle_that_became_another_variant_while_it_was_read_is_refused(start: Start) -> None:
    running = await start(watch_seconds=0)
    found = await newest(running)
    running.source.cards["none"] = fake_card("moe")
    with pytest.raises(BadStore, match="became a bundle of 'moe' while it was read"):
        await fleet_of(running).swap(replace(found, sha256=NEW))


async def test_the_health_of_a_model_on_its_way_out_is_not_that_of_its_successor(start: Start) -> None:
    running = await start(watch_seconds=0)
    old = running.engine
    old.gate.clear()
    call = running.sentiment.Classify(Request(text="good film"))
    await until(lambda: old.started >= 1)
    running.source.publish(fake_card(sha256=NEW))
    await fleet_of(running).swap(await newest(running))
    old.die.set()
    old.gate.set()
    with pytest.raises(Exception, match="the engine crashed"):
        await call
    assert running.app.models.ready
    assert running.sample("stratified_model_ready", model="none") == 1


async def test_another_selection_becomes_the_default_and_frees_the_former_one(start: Start) -> None:
    running = await start(watch_seconds=0)
    await fleet_of(running).select(await newest(running, "routing"))
    assert running.app.models.default == "routing"
    await until(lambda: len(running.app.models.deployments) == 1)
    assert (await states(running))["none"][0] == model_pb2.MODEL_STATE_AVAILABLE
    await until(lambda: running.app.metrics.registry.get_sample_value(
        "stratified_queue_items", {"model": "none"}) is None)  # fmt: skip
    await fleet_of(running).select(await newest(running, "routing"))
    assert running.sample("stratified_model_swaps_total", outcome="swapped") == 1, "nothing to be done"


async def test_what_an_operator_named_stays_when_another_is_selected(start: Start) -> None:
    running = await start(watch_seconds=0, load="all")
    await fleet_of(running).select(await newest(running, "routing"))
    assert await answered_by(running, "none") == OLD
    assert running.app.models.default == "routing"


async def test_a_selection_with_other_labels_is_refused_also_when_it_is_loaded(start: Start) -> None:
    source = FakeSource("none", "routing")
    source.publish(replace(fake_card("routing"), labels=("bad", "good", "so so")))
    running = await start(source, watch_seconds=0, load="all")
    with pytest.raises(BadStore, match="restart the server"):
        await fleet_of(running).select(await newest(running, "routing"))
    assert running.app.models.default == "none"


async def test_load_unload_and_the_way_back(start: Start) -> None:
    running = await start(watch_seconds=0)
    fleet = fleet_of(running)
    card, before = await fleet.load("routing")
    assert (card.version.name, before) == ("routing", "")
    assert (await fleet.load("routing"))[1] == OLD, "nothing to be done"
    assert await fleet.set_default("routing") == "none"
    assert await fleet.set_default("none") == "routing"
    await fleet.unload("routing")
    assert (await states(running))["routing"][0] == model_pb2.MODEL_STATE_AVAILABLE
    assert await fleet.set_default("routing") == "none", "loads what is not loaded"
    assert await answered_by(running, "none") == OLD, "the former default stays"


async def test_what_is_not_possible_is_said(start: Start) -> None:
    running = await start(watch_seconds=0)
    fleet = fleet_of(running)
    with pytest.raises(ModelIsDefault, match="SetDefaultModel to another one first"):
        await fleet.unload("none")
    with pytest.raises(ModelNotFound, match="is not loaded"):
        await fleet.unload("routing")
    with pytest.raises(ModelNotFound, match="choose one of: none, routing"):
        await fleet.load("mars")
    running.source.broken.add("routing")
    with pytest.raises(ModelUnusable, match="told to be broken"):
        await fleet.set_default("routing")
    assert (await states(running))["routing"] == (
        model_pb2.MODEL_STATE_FAILED, "routing was told to be broken")  # fmt: skip
    assert running.app.models.default == "none"


async def test_a_model_whose_engine_is_down_does_not_become_the_default(start: Start) -> None:
    running = await start(watch_seconds=0, load="all")
    running.app.models.set_health("routing", False)
    with pytest.raises(ModelUnusable, match="being restarted"):
        await fleet_of(running).set_default("routing")


async def test_before_the_store_is_open_nothing_can_be_loaded(start: Start) -> None:
    running = await start(loaded=False)
    with pytest.raises(ModelUnusable, match="still being opened"):
        await fleet_of(running).load("none")


async def test_a_change_is_finished_when_its_caller_leaves(start: Start) -> None:
    running = await start(watch_seconds=0)
    calling = asyncio.create_task(fleet_of(running).load("routing"))
    await asyncio.sleep(0)
    calling.cancel()
    await until(lambda: running.app.models.loaded("routing") is not None)


async def test_a_change_under_way_does_not_keep_the_server_from_stopping(start: Start) -> None:
    running = await start(watch_seconds=0)
    old = running.engine
    old.gate.clear()
    call = running.sentiment.Classify(Request(text="good film"))
    await until(lambda: old.started >= 1)
    running.source.publish(fake_card(sha256=NEW))
    await fleet_of(running).swap(await newest(running))
    stopping = asyncio.create_task(running.app.stop(settle=0))
    await asyncio.sleep(0.05)
    old.gate.set()
    await stopping
    assert (await call).result.model.sha256 == OLD
