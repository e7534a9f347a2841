"""One variant on its way from the store to answering: room for it, loading, the last checks, and the step in
which new requests go to it.

What fails changes nothing: whatever answered before answers on, and ListModels says why the newer one does
not. It knows one variant at a time; which ones shall be loaded is decided in `serving.fleet`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from serving.deploying import Deployer
from serving.errors import BadStore
from serving.memory import Memory
from serving.metrics import Metrics
from serving.models import Models
from serving.source import Announce, Found, Loaded
from serving.types import ModelCard, ModelState, ModelSummary

log = structlog.get_logger(__name__)


class Bringer:
    """Build and use it on one event loop. `load` blocks, and is called on a worker thread."""

    def __init__(
        self,
        *,
        models: Models,
        metrics: Metrics,
        memory: Memory,
        deployer: Deployer,
        load: Callable[[Found, Announce], Loaded],
    ) -> None:
        self._models, self._metrics, self._memory = models, metrics, memory
        self._deployer, self._load = deployer, load

    async def bring(self, found: Found, *, labels: tuple[str, ...] = ()) -> ModelCard:
        """Load and let answer; raises `BadStore`. `labels`: the only ones that it may have, () for any."""
        summary = self._models.summary(found.name)
        answers = self._models.loaded(found.name) is not None
        if not answers:
            self.record(found, ModelState.LOADING, "")
        try:
            return await self._installed(found, labels)
        except Exception as error:
            text = str(error) if isinstance(error, BadStore) else f"a fault of {type(error).__name__}"
            if answers and summary is not None:
                self._models.record(replace(summary, error=f"a newer bundle is not used: {text}"))
            else:
                self.record(found, ModelState.FAILED, text)
            raise

    def record(self, found: Found, state: ModelState, error: str) -> None:
        """Note a variant that does not answer."""
        self._models.record(ModelSummary(found.name, state, found.version, found.sha256, error))
        self._metrics.ready.labels(found.name).set(0)

    async def _installed(self, found: Found, labels: tuple[str, ...]) -> ModelCard:
        if found.error:
            raise BadStore(found.error)
        lease = self._memory.hold(found.name, found.weights)
        try:
            loaded = await asyncio.to_thread(self._load, found, _announcing(found.name))
            _refuse_other_name(loaded.card, found)
            refuse_other_labels(loaded.card, labels)
            self._deployer.install(loaded, lease)
        except BaseException:
            lease.free()
            raise
        return loaded.card


def refuse_other_labels(card: ModelCard, labels: tuple[str, ...]) -> None:
    """Callers hold indices of labels: these change between two processes, never between two answers."""
    if labels and card.labels != labels:
        raise BadStore(
            f"{card.version.name}: its labels {list(card.labels)} are not {list(labels)}, which callers "
            "know; restart the server to serve other labels"
        )


def _refuse_other_name(card: ModelCard, found: Found) -> None:
    if card.version.name != found.name:
        raise BadStore(f"{found.path} became a bundle of {card.version.name!r} while it was read; try again")


def _announcing(name: str) -> Announce:
    def announce(step: str) -> None:
        log.info(step, model=name)

    return announce
