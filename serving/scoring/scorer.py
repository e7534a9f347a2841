"""Answers for many texts in this very process: the service's models, rules, scheduler and engine, no wire.

    with Scorer("results/hf_trainer_stratified") as scorer:
        scorer.score(["Worth every minute."], ["imdb"])[0].label
        scorer.table(texts, domains)      # the columns of `stratified-serve score`, as lists

The texts of one call are batched by length, all of them known before the first batch is formed, so the same
call on the same machine gives the same bits. It knows no file.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from serving.calls import Answer, Failure
from serving.cpu import available_cores
from serving.errors import EngineCrashed, ServingError, Unavailable
from serving.files.columns import answer_columns, flat
from serving.rpc.status import status_code
from serving.settings import Settings, read_settings
from serving.types import Classification, Item, ModelCard, Options

if TYPE_CHECKING:
    from serving.app import App
    from serving.source import Source

FOREVER = 1e9  # seconds; nobody waits for one text
UNBOUNDED = 2**40  # tokens and items; what is in memory is the caller's choice
ATTEMPTS = 3  # of a call whose engine crashed
OFFLINE: Mapping[str, Any] = {
    "watch_seconds": 0,
    "queue_tokens": UNBOUNDED,
    "caller_share": 1,
    "age_cap": FOREVER,  # likeness of length is all that counts
    "max_items": UNBOUNDED,
    "default_deadline": FOREVER,
}


class Scorer:
    """One model, loaded and warmed up; blocking, and safe to share between threads. Close it."""

    def __init__(
        self, models: str | Path, *, source: Source | None = None, pause: float = 1.0, **settings: Any
    ) -> None:
        """`models`: a sweep's results or one bundle; `settings`: those of `stratified-serve`, by name.

        Raises `BadSettings`, and `BadStore` when there is no usable model.
        """
        threads = int(settings.pop("threads", 0)) or available_cores()
        given = {"models": models, **settings, "threads": threads, **OFFLINE}
        self._settings = read_settings(given, {})
        self._source, self._pause = source, pause
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scorer", daemon=True)
        self._thread.start()
        self._app: App | None = None
        try:
            self._app, self.made = self._run(self._open(self._settings))
        except BaseException:
            self.close()
            raise
        self.card: ModelCard = self._app.service.model_info("")[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model."""
        if not self._loop.is_closed():
            if self._app is not None:
                self._run(self._app.stop(settle=0))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's labels."""
        return self.card.labels

    @property
    def columns(self) -> tuple[str, ...]:
        """The names in `table`, in their order."""
        return tuple(column.name for column in answer_columns(self.labels))

    def score(
        self, texts: Sequence[str], domains: Sequence[str] | None = None, *, options: Options | None = None
    ) -> list[Answer]:
        """One answer a text, in their order; a text without one has a `Failure`.

        Raises `ServingError` for options that no text could be answered with.
        """
        named = [""] * len(texts) if domains is None else domains
        items = [Item(text or "", domain or "") for text, domain in zip(texts, named, strict=True)]
        answers: list[Answer] = self._run(self.answer(items, options or Options()))
        return answers

    def table(self, texts: Sequence[str], domains: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """The same as columns: a list for each of `columns`."""
        rows = [flat(answer, self.labels) for answer in self.score(texts, domains)]
        return {name: [row[name] for row in rows] for name in self.columns}

    async def elsewhere(self, items: Sequence[Item], options: Options) -> list[Answer]:
        """The same as `score`, awaited on a loop of the caller's."""
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self.answer(items, options), self._loop)
        )

    async def answer(self, items: Sequence[Item], options: Options) -> list[Answer]:
        """On the scorer's own loop; an engine that crashes is waited for."""
        if not items or self._app is None:
            return []
        service = self._app.service
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answers = await service.classify_batch(items, options=options)
            except Unavailable:
                if attempt == ATTEMPTS:
                    raise
            else:
                crashed = any(isinstance(answer, EngineCrashed) for answer in answers)
                if not crashed or attempt == ATTEMPTS:
                    return [_told(answer) for answer in answers]
            await asyncio.sleep(self._pause)
        raise AssertionError("unreachable")

    async def _open(self, settings: Settings) -> tuple[App, dict[str, Any]]:
        import structlog
        from prometheus_client import CollectorRegistry

        from serving.app import App
        from serving.logs import configure

        if not structlog.is_configured():  # by default it would print every step
            configure(level="WARNING", fmt="auto")
        app = App(settings, registry=CollectorRegistry(), source=self._source)
        try:
            await app.load_models()
        except BaseException:
            await app.stop(settle=0)
            raise
        deployment = app.models.get("")
        card = deployment.card
        made = {
            "model": card.version.name,
            "sha256": card.version.sha256,
            "engine": card.engine,
            "precision": card.precision,
            "threads": settings.threads,
            "batch_tokens": deployment.lane.batch_tokens,
            "padding_tokens": deployment.lane.padding_tokens,
        }
        return app, made

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _told(answer: Classification | ServingError) -> Answer:
    if isinstance(answer, Classification):
        return answer
    field = getattr(answer, "field", "")
    return Failure(status_code(answer), answer.reason, answer.message, field, answer.retry_after)
