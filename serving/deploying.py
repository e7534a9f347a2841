"""Puts a loaded model to work, and lets it go when it has answered its last.

A model is replaced in one step on the event loop: requests that have begun stay with the old one, whose lane
is closed when nobody uses it any more. It knows no store, and not why a model comes or goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from serving import heap
from serving.cache import caches
from serving.engines.base import Engine, Shareable
from serving.errors import BadStore
from serving.lane import Job, Lane
from serving.memory import Lease
from serving.metrics import Metrics
from serving.models import Deployment, Models
from serving.scheduler import Policy, Scheduler
from serving.settings import Settings
from serving.source import Loaded

log = structlog.get_logger(__name__)


class Deployer:
    """Build and use it on one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        metrics: Metrics,
        clock: Callable[[], float],
        threads: int,
        on_hopeless: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_hopeless`: the engine of the default model hangs for good, and a new process is needed."""
        self._settings, self._clock, self._threads = settings, clock, threads
        self._models, self._metrics, self._on_hopeless = models, metrics, on_hopeless
        self._retiring: set[asyncio.Task[None]] = set()

    def install(self, loaded: Loaded, lease: Lease | None = None) -> None:
        """Let the model answer from now on, instead of the one that had its name.

        Raises `BadStore` when its engine works on fewer threads than the settings want.
        """
        name, engines = loaded.card.version.name, self._engines(loaded)
        self._metrics.declare_model(loaded.card)
        policy = self._settings.policy(
            measured_batch_tokens=loaded.batch_tokens, measured_padding_tokens=loaded.padding_tokens
        )
        old = self._models.loaded(name)

        def on_health(healthy: bool) -> None:
            current = self._models.loaded(name)
            if current is not None and current.lane is lane:  # not of one that only finishes its work
                self._metrics.ready.labels(name).set(healthy)
                self._models.set_health(name, healthy)

        def on_hopeless() -> None:
            current = self._models.loaded(name)
            if current is not None and current.lane is lane and name == self._models.default:
                self._on_hopeless()

        lane = Lane(
            name=name,
            engines=engines,
            scheduler=Scheduler[Job](policy=policy, costs=loaded.costs),
            metrics=self._metrics,
            clock=self._clock,
            on_health=on_health,
            on_hopeless=on_hopeless,
            hang_seconds=self._settings.hang_seconds,
        )
        lane.start()
        encoder, results = caches(self._settings, loaded.encoder, metrics=self._metrics, clock=self._clock)
        self._models.add(Deployment(loaded.card, encoder, lane, lease, results=results))
        self._metrics.ready.labels(name).set(1)
        if old is not None:
            self._retire(old)
        self._tell(loaded, policy, replaced=old)

    def release(self, name: str) -> asyncio.Task[None]:
        """Let a loaded model answer no new request; the task ends when it is freed."""
        log.info("model unloaded", model=name)
        return self._retire(self._models.remove(name))

    async def close(self) -> None:
        """Close every lane, also of those that were on their way out; nobody may use one any more."""
        for deployment in self._models.deployments:
            await deployment.lane.close()
        await asyncio.gather(*self._retiring)

    def _engines(self, loaded: Loaded) -> list[Engine]:
        """One for each worker."""
        engine, workers = loaded.engine, self._settings.workers
        if workers > 1 and not isinstance(engine, Shareable):
            raise BadStore(
                f"engine {engine.name!r} works on one thread, not on {workers}; set --workers 1, or take "
                "another --engine"
            )
        more = engine.share if isinstance(engine, Shareable) else None
        return [engine, *(more() for _ in range(workers - 1) if more)]

    def _retire(self, deployment: Deployment) -> asyncio.Task[None]:
        task = asyncio.create_task(self._let_go(deployment))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    async def _let_go(self, deployment: Deployment) -> None:
        await deployment.holders.gone()
        await deployment.lane.close()
        if deployment.lease is not None:
            deployment.lease.free()
        current = self._models.loaded(deployment.card.version.name)
        self._metrics.forget_model(deployment.card, successor=None if current is None else current.card)
        del deployment
        await asyncio.to_thread(heap.give_back)

    def _tell(self, loaded: Loaded, policy: Policy, *, replaced: Deployment | None) -> None:
        card = loaded.card
        before = {} if replaced is None else {"replaces": replaced.card.version.sha256}
        log.info(
            "model ready",
            model=card.version.name,
            version=card.version.version,
            sha256=card.version.sha256,
            engine=card.engine,
            precision=card.precision,
            threads=self._threads,
            workers=self._settings.workers,
            batch_tokens=policy.batch_tokens,
            padding_tokens=policy.padding_tokens,
            tokens_per_second=round(loaded.costs.rate(64)),
            seconds=round(card.load_seconds, 2),
            **before,
        )
