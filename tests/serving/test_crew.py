"""Engines that hang, come back too late, hang for good, or work on several threads at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from serving.costs import CostModel
from serving.crew import LOST, Job
from serving.engines.base import Shareable
from serving.engines.fake import FakeEngine
from serving.errors import Draining, EngineHung, ServingError
from serving.lane import Lane
from serving.metrics import Metrics
from serving.scheduler import Policy, Scheduler
from serving.types import EngineItem, EngineOutput
from tests.serving.test_lane import count, row, until

HANG = 0.2  # seconds


class Sticky(FakeEngine):
    """Hangs on token 13 as often as it is told to, each time until it is let go.

    `clock` moves on only while it hangs: a machine that pauses for longer than HANG looks like no other hang.
    """

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times, self.go_on = times, threading.Event()
        self.stuck, self.returned = 0, 0
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        probed = self.stuck and items[0].ids == (0, 0, 0, 0)
        if self.times > 0 and (probed or any(13 in item.ids for item in items)):
            self.times -= 1
            self.stuck += 1
            self.now += 2 * HANG
            self.go_on.wait()
            self.returned += 1
        return super().run(items)


@dataclass
class Crewed:
    lane: Lane
    engine: FakeEngine
    health: list[bool] = field(default_factory=list)
    hopeless: list[bool] = field(default_factory=list)


@asynccontextmanager
async def crewed(engine: FakeEngine, workers: int = 1, hang: float = HANG) -> AsyncIterator[Crewed]:
    queue: Scheduler[Job] = Scheduler(
        policy=Policy(workers=workers, batch_items=1), costs=CostModel(initial=1e9)
    )
    health: list[bool] = []
    hopeless: list[bool] = []
    lane = Lane(
        name="none",
        engines=[engine] * workers,
        scheduler=queue,
        metrics=Metrics(CollectorRegistry()),
        clock=engine.clock if isinstance(engine, Sticky) else time.monotonic,
        on_health=health.append,
        on_hopeless=lambda: hopeless.append(True),
        hang_seconds=hang,
    )
    lane.start()
    try:
        yield Crewed(lane, engine, health, hopeless)
    finally:
        engine.gate.set()
        if isinstance(engine, Sticky):
            engine.times = 0
            engine.go_on.set()
        await lane.close()


async def test_callers_of_a_hanging_engine_are_told_and_the_next_thread_serves_on() -> None:
    async with crewed(Sticky()) as made:
        hanging = asyncio.create_task(made.lane.submit([row(13)]))
        waiting = asyncio.create_task(made.lane.submit([row(1)]))
        [outcome] = await hanging
        assert isinstance(outcome, EngineHung)
        assert outcome.retry_after is not None
        assert not isinstance((await waiting)[0], ServingError), "who only waited is answered"
        assert made.health == [False, True]
        assert count(made.lane, "engine_hangs_total") == 1
        assert count(made.lane, "dropped_total", reason="hung") == 1


async def test_what_comes_back_too_late_is_thrown_away() -> None:
    engine, before = Sticky(), set(threading.enumerate())
    async with crewed(engine) as made:
        [outcome] = await made.lane.submit([row(13)])
        assert isinstance(outcome, EngineHung)
        await until(lambda: made.health == [False, True])
        engine.go_on.set()
        await until(lambda: engine.returned == 1)
        assert not isinstance((await made.lane.submit([row(1, 2)]))[0], ServingError)
        others = [thread for thread in set(threading.enumerate()) - before if thread.name == "engine-none-0"]
        await until(lambda: sum(thread.is_alive() for thread in others) == 1)
        assert made.lane._scheduler.predicted_wait(engine.clock()) == 0


async def test_an_engine_that_hangs_for_good_is_given_up_and_its_queue_is_answered_at_the_end() -> None:
    engine = Sticky(times=100)
    async with crewed(engine) as made:
        [outcome] = await made.lane.submit([row(13)])
        assert isinstance(outcome, EngineHung)
        await until(lambda: made.hopeless == [True])
        assert engine.stuck == LOST
        assert made.health == [False]
        waiting = asyncio.create_task(made.lane.submit([row(1)]))
        await until(lambda: made.lane.waiting == 1)
        async with asyncio.timeout(60):
            await made.lane.close()
        assert isinstance((await waiting)[0], Draining)


async def test_a_lane_whose_engine_hangs_can_be_closed() -> None:
    async with crewed(Sticky()) as made:
        hanging = asyncio.create_task(made.lane.submit([row(13)]))
        await until(lambda: made.engine.stuck == 1)  # type: ignore[attr-defined]  # it is a Sticky
        async with asyncio.timeout(60):
            await made.lane.close()
        assert isinstance((await hanging)[0], EngineHung)


async def test_a_slow_engine_that_comes_back_in_time_is_no_hang() -> None:
    async with crewed(FakeEngine(seconds_per_token=0.02), hang=5) as made:
        assert not isinstance((await made.lane.submit([row(1, 2, 3)]))[0], ServingError)
        made.lane._crew.check()
        assert made.health == []


async def test_several_workers_compute_at_once_and_one_that_hangs_leaves_the_model_ready() -> None:
    engine = Sticky()
    async with crewed(engine, workers=3) as made:
        engine.gate.clear()
        calls = [asyncio.create_task(made.lane.submit([row(1, n)])) for n in range(3)]
        await until(lambda: engine.started == 3)
        engine.gate.set()
        await asyncio.gather(*calls)
        [outcome] = await made.lane.submit([row(13)])
        assert isinstance(outcome, EngineHung)
        assert not isinstance((await made.lane.submit([row(1)]))[0], ServingError)
        assert made.health == []


async def test_an_engine_that_gives_too_few_outputs_is_broken() -> None:
    class Short(FakeEngine):
        def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
            return [] if 7 in items[0].ids else super().run(items)

    async with crewed(Short(), hang=5) as made:
        [outcome] = await made.lane.submit([row(7)])
        assert isinstance(outcome, ServingError)
        assert outcome.reason == "ENGINE_CRASHED"


@pytest.mark.parametrize("seed", range(3))
async def test_every_item_is_answered_once_whatever_hangs_fails_dies_or_leaves(seed: int) -> None:
    """Random callers against an engine that hangs, raises and dies at random."""
    import random

    chance = random.Random(seed)

    class Moody(FakeEngine):
        lost = 0

        def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
            mood = chance.random()
            if mood < 0.03 and self.lost < 2:
                self.lost += 1
                time.sleep(3 * HANG)
            elif mood < 0.08:
                raise SystemExit(1)
            elif mood < 0.15:
                raise ValueError("in a mood")
            return super().run(items)

    async with crewed(Moody(), workers=2) as made:

        async def one(number: int) -> list[object]:
            items = [row(5, number, place) for place in range(chance.randint(1, 4))]
            await asyncio.sleep(chance.random() * 0.2)
            outcomes = await made.lane.submit(items)
            assert len(outcomes) == len(items)
            for item, outcome in zip(items, outcomes, strict=True):
                if not isinstance(outcome, ServingError):
                    assert outcome[0] == FakeEngine().run([item])[0], "its own answer"
            return list(outcomes)

        tasks = [asyncio.create_task(one(number)) for number in range(120)]
        await asyncio.sleep(0.1)
        for task in tasks[::7]:
            task.cancel()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(a, list | asyncio.CancelledError) for a in answers)
        assert made.lane.waiting == 0
        assert sum(isinstance(a, list) for a in answers) >= 100


def test_the_shipped_engines_say_that_they_can_be_shared() -> None:
    engine = FakeEngine()
    assert isinstance(engine, Shareable)
    assert engine.share() is engine
