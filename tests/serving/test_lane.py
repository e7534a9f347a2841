"""Items through an engine: answered exactly once, whatever is cancelled, fails, or dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from serving.costs import CostModel
from serving.engines.fake import FakeEngine
from serving.errors import (
    Draining,
    EngineCrashed,
    ItemFailed,
    ServingError,
)
from serving.lane import Job, Lane
from serving.metrics import Metrics
from serving.scheduler import Policy, Scheduler
from serving.types import EngineItem


def row(*ids: int) -> EngineItem:
    return EngineItem(ids=ids)


@asynccontextmanager
async def lane(
    engine: FakeEngine,
    *,
    initial: float = 1e9,
    on_health: Callable[[bool], None] = lambda healthy: None,
    **policy: int,
) -> AsyncIterator[Lane]:
    queue: Scheduler[Job] = Scheduler(policy=Policy(**policy), costs=CostModel(initial=initial))
    made = Lane(
        name="none",
        engines=[engine],
        scheduler=queue,
        metrics=Metrics(CollectorRegistry()),
        clock=time.monotonic,
        on_health=on_health,
    )
    made.start()
    try:
        yield made
    finally:
        engine.gate.set()
        engine.die.clear()
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  the conditions are those of another thread
            await asyncio.sleep(0.005)


def count(made: Lane, name: str, **labels: str) -> float:
    value = made._metrics.registry.get_sample_value(f"stratified_{name}", labels)
    assert value is not None
    return value


async def test_outcomes_come_in_the_order_of_the_items() -> None:
    engine = FakeEngine()
    async with lane(engine) as made:
        items = [row(5, 6), row(7), row(8, 9, 10)]
        outcomes = await made.submit(items)
        alone = [engine.run([item])[0] for item in items]
    assert [outcome[0] for outcome in outcomes if not isinstance(outcome, ServingError)] == alone


async def test_what_gathers_while_the_engine_runs_rides_together() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine) as made:
        first = asyncio.create_task(made.submit([row(1, 2)]))
        await until(lambda: engine.started == 1)
        others = [asyncio.create_task(made.submit([row(3, index)])) for index in range(5)]
        await until(lambda: made._scheduler.queued_items == 5)
        engine.gate.set()
        await asyncio.gather(first, *others)
        assert [len(batch) for batch in engine.batches] == [1, 5]
        assert count(made, "batches_total", close_reason="drained") == 2
        assert count(made, "processed_tokens_total") == 12


async def test_a_caller_rides_beside_the_flood_of_another() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine, batch_items=4) as made:
        first = asyncio.create_task(made.submit([row(1, 1)], caller="flood"))
        await until(lambda: engine.started == 1)
        flood = [asyncio.create_task(made.submit([row(2, n)], caller="flood")) for n in range(40)]
        await until(lambda: made._scheduler.queued_items == 40)
        new = asyncio.create_task(made.submit([row(3, 3)], caller="new"))
        await until(lambda: made._scheduler.queued_items == 41)
        engine.gate.set()
        await asyncio.gather(first, new, *flood)
        assert (3, 3) in engine.batches[1]


async def test_cancelled_callers_cost_nothing_and_harm_nobody() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine) as made:
        running = asyncio.create_task(made.submit([row(1, 1)]))
        await until(lambda: engine.started == 1)
        tasks = [asyncio.create_task(made.submit([row(2, index)])) for index in range(20)]
        await until(lambda: made._scheduler.queued_items == 20)
        for task in (running, *tasks[::2]):
            task.cancel()
        await until(lambda: made._scheduler.queued_items == 10)
        engine.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        for index in range(1, 20, 2):
            answer = answers[index]
            assert isinstance(answer, list)
            assert not isinstance(answer[0], ServingError)
            assert answer[0][0] == FakeEngine().run([row(2, index)])[0]
        computed = {ids for batch in engine.batches for ids in batch}
        assert computed == {(1, 1), *((2, index) for index in range(1, 20, 2))}
        assert count(made, "dropped_total", reason="cancelled") == 10


async def test_only_the_item_at_fault_pays_for_a_failing_batch() -> None:
    engine = FakeEngine()
    engine.raise_on.add(666)
    async with lane(engine) as made:
        outcomes = await made.submit([row(1), row(2), row(666), row(4), row(5)])
    assert [isinstance(outcome, ItemFailed) for outcome in outcomes] == [False, False, True, False, False]


async def test_an_item_that_always_fails_does_not_make_the_engine_unhealthy() -> None:
    engine, changes = FakeEngine(), list[bool]()
    engine.raise_on.add(666)
    async with lane(engine, on_health=changes.append) as made:
        assert isinstance((await made.submit([row(666)]))[0], ItemFailed)
    assert changes == []


async def test_an_engine_that_fails_on_everything_is_a_crash() -> None:
    engine, changes = FakeEngine(), list[bool]()
    engine.raise_on.update({0, 1, 2})  # 0 is what the lane probes with
    async with lane(engine, on_health=changes.append) as made:
        outcomes = await made.submit([row(1), row(2)])
        assert all(isinstance(outcome, EngineCrashed) for outcome in outcomes)
        await until(lambda: changes == [False])
        engine.raise_on.clear()
        await until(lambda: changes == [False, True])
        assert not isinstance((await made.submit([row(1)]))[0], ServingError)


async def test_a_dead_engine_answers_its_callers_is_reported_and_revived() -> None:
    engine, changes = FakeEngine(), list[bool]()
    async with lane(engine, on_health=changes.append) as made:
        engine.die.set()
        [outcome] = await made.submit([row(1)])
        assert isinstance(outcome, EngineCrashed)
        assert outcome.retry_after is not None
        await until(lambda: changes == [False])
        waiting = asyncio.create_task(made.submit([row(3)]))
        await asyncio.sleep(0.15)  # at least one attempt to revive it fails
        engine.die.clear()
        assert not isinstance((await waiting)[0], ServingError)
        assert changes == [False, True]
        assert count(made, "dropped_total", reason="crashed") == 1


async def test_even_system_exit_does_not_end_the_thread() -> None:
    class Leaving(FakeEngine):
        left = False

        def run(self, items):  # type: ignore[no-untyped-def]  # as the base class
            if not self.left:
                self.left = True
                raise SystemExit(1)
            return super().run(items)

    async with lane(Leaving()) as made:
        assert isinstance((await made.submit([row(1)]))[0], EngineCrashed)
        assert not isinstance((await made.submit([row(1)]))[0], ServingError)


async def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine, queue_tokens=1) as made:
        running = asyncio.create_task(made.submit([row(1)]))
        await until(lambda: engine.started == 1)
        waiting = asyncio.create_task(made.submit([row(2)]))
        await until(lambda: made._scheduler.queued_items == 1)
        patient = asyncio.create_task(made.submit([row(3)], patient=True))
        await asyncio.sleep(0.02)
        closing = asyncio.create_task(made.close())
        assert isinstance((await waiting)[0], Draining)
        with pytest.raises(Draining):
            await patient
        engine.gate.set()
        assert not isinstance((await running)[0], ServingError)
        await closing
        with pytest.raises(Draining):
            await made.submit([row(4)])


async def test_the_queue_can_be_read_at_scrape_time() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine) as made:
        tasks = [asyncio.create_task(made.submit([row(1, 2)]))]
        await until(lambda: engine.started == 1)
        tasks += [asyncio.create_task(made.submit([row(1, 2)])) for _ in range(2)]
        await until(lambda: made._scheduler.queued_items == 2)
        assert count(made, "queue_items", model="none") == 2
        assert count(made, "queue_tokens", model="none") == 4
        assert count(made, "queue_oldest_age_seconds", model="none") > 0
        assert count(made, "estimated_wait_seconds", model="none") >= 0
        engine.gate.set()
        await asyncio.gather(*tasks)
