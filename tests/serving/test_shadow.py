"""The shadow over the wire: it counts what differs, and no caller waits for it or fails with it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from protos.stratified.v1 import sentiment_pb2
from serving.engines.fake import FakeEngine
from serving.shadow import BACKLOG
from tests.serving.conftest import Running, Start
from tests.serving.rpc.test_servicers import FakeTokens
from tests.serving.test_lane import until

Request = sentiment_pb2.ClassifyRequest
SHADOWED = {"shadow_model": "routing", "shadow_percent": 100}


def count(running: Running, outcome: str) -> float:
    return running.sample("stratified_shadow_items_total", model="routing", outcome=outcome)


async def ask(running: Running, *texts: str) -> list[str]:
    replies = [await running.sentiment.Classify(Request(text=text)) for text in texts]
    assert {reply.result.model.name for reply in replies} == {"none"}, "the caller's answer is the default's"
    return [reply.result.label for reply in replies]


async def test_equal_models_are_counted_as_the_same_and_different_ones_as_different(start: Start) -> None:
    running = await start(**SHADOWED)
    await ask(running, "a", "b c", "d e f")
    await running.app.shadow.caught_up()
    assert (count(running, "same"), count(running, "different")) == (3, 0)
    other = Contrary()
    running.app.models.deployments[1].lane._crew._shifts[0].engine = other
    labels = await ask(running, "a", "b c")
    await running.app.shadow.caught_up()
    assert len(labels) == 2
    assert (count(running, "same"), count(running, "different")) == (3, 2)
    assert running.sample("stratified_shadow_score_difference_count", model="routing") == 5
    assert running.sample("stratified_items_total", model="routing", domain="imdb", label="negative") == 0


class Contrary(FakeEngine):
    """Says the opposite of the shipped double."""

    def run(self, items):  # type: ignore[no-untyped-def]  # as the base class
        return [replace(out, logits=tuple(-value for value in out.logits)) for out in super().run(items)]


async def test_only_its_share_is_scored_twice(start: Start) -> None:
    draw = itertools.cycle([place / 4 for place in range(4)]).__next__
    running = await start(shadow_model="routing", shadow_percent=50, draw=draw)
    await ask(running, *"abcdefgh")
    await running.app.shadow.caught_up()
    assert count(running, "same") == 4


async def test_requests_that_name_another_model_are_left_alone(start: Start) -> None:
    running = await start(**SHADOWED)
    await running.sentiment.Classify(Request(text="a", model="routing"))
    await running.app.shadow.caught_up()
    assert count(running, "same") == 0


async def test_a_hanging_shadow_delays_nobody_and_its_backlog_is_bounded(start: Start) -> None:
    running = await start(**SHADOWED)
    shadow = running.source.engines["routing"]
    shadow.gate.clear()
    items = [sentiment_pb2.BatchItem(text="a")]
    for _ in range(BACKLOG + 10):
        await running.sentiment.BatchClassify(sentiment_pb2.BatchClassifyRequest(items=items))
    assert count(running, "skipped") >= 9
    shadow.gate.set()
    await running.app.shadow.caught_up()
    assert count(running, "same") + count(running, "skipped") == BACKLOG + 10


async def test_a_failing_shadow_fails_nobody(start: Start) -> None:
    running = await start(**SHADOWED)
    running.source.engines["routing"].raise_on.add(FakeTokens.of("poison"))
    await ask(running, "poison", "good")
    await running.app.shadow.caught_up()
    assert (count(running, "failed"), count(running, "same")) == (1, 1)
    await running.app.fleet.unload("routing")
    await ask(running, "good")
    await running.app.shadow.caught_up()
    assert count(running, "failed") == 2
    assert running.sample("stratified_item_errors_total", reason="ITEM_FAILED") == 0


async def test_it_scores_while_nobody_waits_for_the_default(start: Start) -> None:
    running = await start(**SHADOWED)
    await ask(running, "a")
    await running.app.shadow.caught_up()
    running.engine.gate.clear()
    begun = running.engine.started
    busy = [asyncio.create_task(ask(running, "b"))]
    await until(lambda: running.engine.started > begun)
    busy += [asyncio.create_task(ask(running, text)) for text in ("c", "d")]
    await until(lambda: running.sample("stratified_queue_items", model="none") == 2)
    before = running.source.engines["routing"].started
    await asyncio.sleep(0.05)
    assert running.source.engines["routing"].started == before
    running.engine.gate.set()
    await asyncio.gather(*busy)
    await running.app.shadow.caught_up()
    assert count(running, "same") == 4


def test_the_share_is_a_percentage() -> None:
    from serving.errors import BadSettings
    from serving.settings import read_settings

    for value in ("-1", "101", "nan", "many"):
        with pytest.raises(BadSettings, match="--shadow-percent"):
            read_settings({"models": "x", "shadow_model": "moe", "shadow_percent": value}, {})
