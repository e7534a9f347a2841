"""Who may wait in a lane: deadlines that pass, full queues, refusals before any work is done."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from serving.engines.fake import FakeEngine
from serving.errors import (
    DeadlineMissed,
    Draining,
    QueueFull,
    WouldMissDeadline,
)
from tests.serving.test_lane import count, lane, row, until


async def test_a_deadline_that_passes_in_the_queue_is_missed_and_not_computed() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine) as made:
        running = asyncio.create_task(made.submit([row(1)]))
        await until(lambda: engine.started == 1)
        with pytest.raises(DeadlineMissed):
            await made.submit([row(2)], deadline=time.monotonic() + 0.05)
        engine.gate.set()
        await running
        assert engine.batches == [[(1,)]]
        assert count(made, "dropped_total", reason="expired") == 1


async def test_a_full_queue_refuses_the_impatient_and_holds_back_the_patient() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine, queue_tokens=4) as made:
        running = asyncio.create_task(made.submit([row(1)]))
        await until(lambda: engine.started == 1)
        queued = asyncio.create_task(made.submit([row(2, 2, 2)]))
        await until(lambda: made._scheduler.queued_items == 1)
        with pytest.raises(QueueFull):
            await made.submit([row(3, 3)])
        patient = asyncio.create_task(made.submit([row(4, 4)], patient=True))
        await asyncio.sleep(0.05)
        assert not patient.done()
        engine.gate.set()
        assert len(await patient) == 1
        await asyncio.gather(running, queued)
        assert count(made, "rejected_total", reason="QUEUE_FULL") == 1


async def test_who_knocks_is_told_as_soon_as_no_text_however_short_would_be_let_in() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine, queue_tokens=8) as made:
        running = asyncio.create_task(made.submit([row(1)]))
        await until(lambda: engine.started == 1)
        made.knock(2, deadline=math.inf, caller="")
        made.knock(3, deadline=math.inf, caller="")  # never fits: it is for the counting of tokens to say
        assert made.waiting == 0, "a knock queues nothing"
        queued = asyncio.create_task(made.submit([row(2, 2, 2)]))
        await until(lambda: made.waiting == 1)
        made.knock(1, deadline=math.inf, caller="")
        with pytest.raises(QueueFull) as refusal:
            made.knock(2, deadline=math.inf, caller="")
        assert refusal.value.retry_after is not None
        assert count(made, "rejected_total", reason="QUEUE_FULL") == 1
        engine.gate.set()
        await asyncio.gather(running, queued)
        await made.close()
        with pytest.raises(Draining):
            made.knock(1, deadline=math.inf, caller="")


async def test_a_predicted_miss_is_refused_before_any_work() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with lane(engine, initial=1.0) as made:
        running = asyncio.create_task(made.submit([row(*range(1, 101))]))
        await until(lambda: engine.started == 1)
        with pytest.raises(WouldMissDeadline):
            await made.submit([row(2)], deadline=time.monotonic() + 5)
        with pytest.raises(WouldMissDeadline):
            await made.submit([row(2)], deadline=time.monotonic() - 1, patient=True)
        engine.gate.set()
        await running
