"""Scores a share of what was answered a second time, by another variant, and counts the differences.

No caller waits for it, and none learns of it. It works on copies, one request after the other, while nobody
waits for the model that answers; what comes faster than that is skipped and counted. It knows answers, and
neither the wire nor what the other variant is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from serving.errors import ServingError
from serving.logs import describe
from serving.metrics import Metrics
from serving.models import Deployment, Models
from serving.pipeline import Answer, Pipeline
from serving.types import Classification, Item, Manner, Options

BACKLOG = 256  # requests that wait to be scored again: texts are kept in memory until then
PATIENCE = 30.0  # seconds for scoring one request again
PAUSE = 0.01  # seconds between looks whether callers wait

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a caller was told, and what of it can be compared."""

    by: Deployment
    pairs: tuple[tuple[Item, Classification], ...]
    options: Options


class Shadow:
    """`percent` of the requests that the default model answers; `draw` gives numbers in [0, 1), evenly."""

    def __init__(
        self,
        name: str,
        percent: float,
        *,
        models: Models,
        pipeline: Pipeline,
        metrics: Metrics,
        draw: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._name, self._percent = name, percent
        self._models, self._pipeline, self._metrics = models, pipeline, metrics
        self._draw, self._clock = draw, clock
        self._backlog: asyncio.Queue[Answered] = asyncio.Queue(BACKLOG)
        if name:
            metrics.declare_shadow(name)

    def offer(
        self, by: Deployment, items: Sequence[Item], answers: Sequence[Answer], options: Options
    ) -> None:
        """Note an answered request, if it is one of the share; never waits, never raises."""
        name = by.card.version.name
        if not self._name or name == self._name or name != self._models.default:
            return
        if self._draw() * 100 >= self._percent:
            return
        pairs = tuple((i, a) for i, a in zip(items, answers, strict=True) if isinstance(a, Classification))
        if not pairs:
            return
        if self._backlog.full():
            self._count("skipped", len(pairs))
            return
        self._backlog.put_nowait(
            Answered(by, pairs, Options(truncation=options.truncation, strict_domain=False))
        )

    async def run(self) -> None:
        """Score what was noted until cancelled; a bug in one request does not end the others."""
        while True:
            answered = await self._backlog.get()
            try:
                await self._quiet(answered.by)
                await self._score(answered)
            except Exception as error:
                self._count("failed", len(answered.pairs))
                if not isinstance(error, ServingError):
                    log.error("scoring by the shadow failed", model=self._name, **describe(error))
            finally:
                self._backlog.task_done()

    async def caught_up(self) -> None:
        """Wait until everything that was noted is scored."""
        await self._backlog.join()

    async def _quiet(self, by: Deployment) -> None:
        """Wait until nobody waits for the model that answers callers."""
        while by.lane.waiting:  # noqa: ASYNC110  the queue is emptied on other threads, and has no event
            await asyncio.sleep(PAUSE)

    async def _score(self, answered: Answered) -> None:
        deployment = self._models.get(self._name)
        now = self._clock()
        with deployment.holders.one():
            seconds = await self._pipeline.answer(
                deployment,
                [item for item, _ in answered.pairs],
                answered.options,
                started=now,
                deadline=now + PATIENCE,
                manner=Manner("shadow", patient=True, counted=False),
            )
        for (_, first), second in zip(answered.pairs, seconds, strict=True):
            if isinstance(second, ServingError):
                self._count("failed")
                continue
            self._count("same" if first.label == second.label else "different")
            difference = abs(first.score - dict(second.scores).get(first.label, 0.0))
            self._metrics.shadow_difference.labels(self._name).observe(difference)

    def _count(self, outcome: str, items: int = 1) -> None:
        self._metrics.shadow_items.labels(self._name, outcome).inc(items)
