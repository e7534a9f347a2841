"""The models of a running server: brought up, replaced while they answer, and let go; one change at a time.

A change reads, verifies and warms up on a worker thread, beside whatever answers; only then, in one step on
the event loop, do new requests go to the new model. The old one answers what it accepted, and is freed. What
fails changes nothing. It knows no file and no wire: who asks for a change is elsewhere (`serving.watch`,
`rpc/admin.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from serving.bringing import Bringer, refuse_other_labels
from serving.deploying import Deployer
from serving.errors import BadStore, ModelIsDefault, ModelNotFound, ModelUnusable, NoRoom, NoRoomForModel
from serving.logs import describe
from serving.memory import Memory
from serving.metrics import Metrics
from serving.models import Models
from serving.settings import Settings
from serving.source import Announce, Found, Loaded, Source, Store
from serving.types import ModelCard, ModelState

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Fleet:
    """Build and use it on one event loop. `open_source` blocks: it may import for seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        metrics: Metrics,
        deployer: Deployer,
        memory: Memory,
        open_source: Callable[[], tuple[Source, Store]],
    ) -> None:
        self._settings, self._open_source = settings, open_source
        self._models, self._metrics, self._deployer = models, metrics, deployer
        self._bringer = Bringer(
            models=models, metrics=metrics, memory=memory, deployer=deployer, load=self._load
        )
        self._cramped: set[str] = set()  # what there was no room for
        memory.on_free = self._roomier
        self._source: Source | None = None
        self._lock = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._kept: set[str] = set()  # what an operator named: another selection does not free it
        self.tried: dict[str, Found] = {}
        """What was last read for each variant that shall be loaded, whether or not it could be used."""

    async def start(self) -> Store:
        """Load the default model, then the others; raises `BadStore` when the default cannot be loaded."""
        log.info("opening the store", path=str(self._settings.models))
        self._source, store = await asyncio.to_thread(self._open_source)
        chosen = store.chosen(self._settings.load)
        parts = [store.variants[name] for name in self._settings.traffic.check_store(store)]
        chosen += [found for found in parts if found not in chosen]
        self._kept.update(found.name for found in parts)
        if self._settings.load != "selected":
            self._kept.update(found.name for found in chosen)
        for found in store.variants.values():
            state = ModelState.LOADING if found in chosen else ModelState.AVAILABLE
            self._bringer.record(found, ModelState.FAILED if found.error else state, found.error)
        self._models.default = store.default
        async with self._lock:
            for found in chosen:
                try:
                    await self._bring(found, labels=self._labels if found in parts else ())
                except BadStore as error:
                    if found.name == store.default:
                        raise
                    log.error("model failed", model=found.name, error=str(error))
        return store

    @property
    def _labels(self) -> tuple[str, ...]:
        """Those of the default model, which callers know."""
        default = self._models.loaded(self._models.default)
        return () if default is None else default.card.labels

    async def look(self) -> Store:
        """Survey the store again; raises `BadStore` and `OSError`."""
        return await asyncio.to_thread(self._opened.look)

    def note(self, store: Store) -> None:
        """Show the variants that are not loaded as the store has them now."""
        taken = {found.path for found in self.tried.values()}
        for found in store.variants.values():
            if found.name not in self.tried and not (found.error and found.path in taken):
                self._bringer.record(
                    found, ModelState.FAILED if found.error else ModelState.AVAILABLE, found.error
                )
        for summary in self._models.summaries():
            if summary.name not in store.variants and summary.name not in self.tried:
                self._models.forget(summary.name)
                self._metrics.ready.remove(summary.name)

    def try_again(self, name: str) -> None:
        """What was last tried is no reason not to try it again: it was away in between."""
        self.tried[name] = replace(self.tried[name], sha256="", stamp=())

    def serves(self, found: Found) -> bool:
        """Whether this very bundle is loaded."""
        deployment = self._models.loaded(found.name)
        return deployment is not None and deployment.card.version.sha256 == found.sha256

    async def swap(self, found: Found) -> None:
        """Let this bundle answer instead of the one under its name; raises `BadStore`, and all goes on."""
        async with self._lock:
            with self._judged(found.name):
                old = self._models.loaded(found.name)
                await self._bring(found, labels=() if old is None else old.card.labels)
                self._metrics.swaps.labels("swapped").inc()

    async def select(self, found: Found) -> None:
        """Let this variant answer by default, and free the former default unless an operator named it.

        Raises `BadStore`, and all goes on as it was.
        """
        async with self._lock:
            before = self._models.default
            if found.name == before and self.serves(found):
                return
            with self._judged(found.name):
                old, new = self._models.loaded(before), self._models.loaded(found.name)
                labels = () if old is None else old.card.labels
                if new is None or not self.serves(found):
                    await self._bring(found, labels=labels)
                else:
                    refuse_other_labels(new.card, labels)
                self._models.choose(found.name)
                self._metrics.swaps.labels("swapped").inc()
                log.info("default model changed", model=found.name, before=before)
            if before != found.name and before not in self._kept and old is not None:
                self._release(before)

    async def load(self, name: str) -> tuple[ModelCard, str]:
        """Load what the store has under this name now: the model, and the sha256 of the one before, or "".

        Raises `ModelNotFound` and `ModelUnusable`.
        """
        return await self._finished(self._load_named(name))

    async def unload(self, name: str) -> None:
        """Let a model go; returns when its memory is free. Raises `ModelNotFound` and `ModelIsDefault`."""
        await self._finished(self._unload_named(name))

    async def set_default(self, name: str) -> str:
        """Let this variant answer by default, loading it if need be; the former default. Raises as `load`."""
        return await self._finished(self._default_named(name))

    async def close(self) -> None:
        """Stop for good: give up the changes under way, then close every lane."""
        for task in self._changes:
            task.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)
        await self._deployer.close()

    async def _load_named(self, name: str) -> tuple[ModelCard, str]:
        async with self._lock:
            result = await self._latest(name)
            self._kept.add(name)
            return result

    async def _default_named(self, name: str) -> str:
        async with self._lock:
            before = self._models.default
            if self._models.loaded(name) is None:
                await self._latest(name)
            summary = self._models.summary(name)
            if summary is not None and summary.state is ModelState.FAILED:
                raise ModelUnusable(f"model {name!r} does not answer: {summary.error}")
            self._models.choose(name)
            self._kept.update((before, name))
            log.info("default model changed", model=name, before=before)
            return before

    async def _unload_named(self, name: str) -> None:
        async with self._lock:
            if self._models.loaded(name) is None:
                raise ModelNotFound(f"model {name[:40]!r} is not loaded; ListModels says which are")
            if name == self._models.default:
                raise ModelIsDefault(f"model {name!r} is the default; SetDefaultModel to another one first")
            retired = self._release(name)
        await retired

    async def _latest(self, name: str) -> tuple[ModelCard, str]:
        try:
            store = await self.look()
        except (BadStore, OSError) as error:
            raise ModelUnusable(f"the store cannot be read: {error}") from error
        found = store.variants.get(name)
        if found is None:
            known = ", ".join(sorted(store.variants))
            raise ModelNotFound(f"model {name[:40]!r} is not in the store; choose one of: {known}")
        old = self._models.loaded(name)
        before = "" if old is None else old.card.version.sha256
        if old is not None and self.serves(found):
            return old.card, before
        try:
            with self._judged(name):
                card = await self._bring(found, labels=() if old is None else old.card.labels)
                self._metrics.swaps.labels("swapped").inc()
        except NoRoom as error:
            raise NoRoomForModel(str(error)) from error
        except BadStore as error:
            raise ModelUnusable(str(error)) from error
        return card, before

    async def _bring(self, found: Found, *, labels: tuple[str, ...] = ()) -> ModelCard:
        """Load and let answer; what fails is not tried again until its files, or the room, change."""
        self.tried[found.name] = found
        self._cramped.discard(found.name)
        try:
            return await self._bringer.bring(found, labels=labels)
        except NoRoom:
            self._cramped.add(found.name)
            raise

    def _roomier(self) -> None:
        """A model was let go: what there was no room for may be tried again."""
        for name in self._cramped & self.tried.keys():
            self.try_again(name)
        self._cramped.clear()

    def _load(self, found: Found, announce: Announce) -> Loaded:
        return self._opened.load(found, announce)

    @property
    def _opened(self) -> Source:
        if self._source is None:
            raise BadStore("the store is still being opened; try again")
        return self._source

    def _release(self, name: str) -> asyncio.Task[None]:
        self.tried.pop(name, None)
        self._kept.discard(name)
        return self._deployer.release(name)

    async def _finished(self, work: Coroutine[Any, Any, T]) -> T:
        """The result; the work goes on even when its caller leaves."""
        task = asyncio.create_task(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    @contextmanager
    def _judged(self, name: str) -> Iterator[None]:
        """Count a change that failed, and log one line of it."""
        try:
            yield
        except BadStore as error:
            self._metrics.swaps.labels("rejected").inc()
            log.error("new bundle rejected", model=name, error=str(error))
            raise
        except Exception as error:
            self._metrics.swaps.labels("failed").inc()
            log.error("new bundle failed", model=name, **describe(error))
            raise
