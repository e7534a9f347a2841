"""All the rules of the service and none of the wire: validate → tokenise → admit → batch → interpret →
measure.

It knows requests and answers as the values of `serving.types`, and says no in the words of `serving.errors`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import structlog

from serving.errors import BatchTooLarge, EmptyText, InvalidRequest, ServingError, TextTooLong, UnknownDomain
from serving.interpret import interpret, resolve_domain
from serving.lane import Outcome
from serving.logs import fingerprint
from serving.metrics import Metrics
from serving.models import Deployment, Models
from serving.types import (
    Classification,
    DomainSource,
    Encoded,
    EngineItem,
    EngineOutput,
    Item,
    Limits,
    Manner,
    ModelCard,
    ModelSummary,
    Options,
    Ride,
    Timings,
)

log = structlog.get_logger(__name__)

Answer = Classification | ServingError
DEFAULTS = Options()


class Service:
    """Classifies texts with the models of a registry; `workers` runs the tokenizer off the event loop."""

    def __init__(
        self,
        *,
        models: Models,
        limits: Limits,
        metrics: Metrics,
        workers: Executor,
        clock: Callable[[], float],
    ) -> None:
        self._models, self._metrics = models, metrics
        self._workers, self._clock = workers, clock
        self.limits = limits
        self.draining = asyncio.Event()

    async def classify(
        self,
        item: Item,
        *,
        model: str = "",
        options: Options = DEFAULTS,
        remaining: float | None = None,
        caller: str = "",
    ) -> Classification:
        """Classify one text within `remaining` seconds (None: the default deadline) for `caller`.

        Raises every `ServingError` that concerns the text or the service.
        """
        answer = (await self._answer([item], model, options, remaining, Manner(caller)))[0]
        if isinstance(answer, ServingError):
            raise answer
        return answer

    async def classify_batch(
        self,
        items: Sequence[Item],
        *,
        model: str = "",
        options: Options = DEFAULTS,
        remaining: float | None = None,
        caller: str = "",
    ) -> list[Answer]:
        """Classify many texts; each has its own answer or its own error, in order.

        Raises only what concerns the request as a whole: `BatchTooLarge`, an unknown model, a refusal, the
        deadline.
        """
        if not items:
            raise InvalidRequest("items is empty; send at least one", field="items")
        if len(items) > self.limits.max_items:
            raise BatchTooLarge(
                f"{len(items)} items, above this server's {self.limits.max_items} a call; send several calls",
                field="items",
            )
        return await self._answer(items, model, options, remaining, Manner(caller))

    async def classify_streamed(
        self,
        item: Item,
        *,
        model: str = "",
        options: Options = DEFAULTS,
        remaining: float | None = None,
        caller: str = "",
    ) -> Answer:
        """Classify one item of a stream: held back while the queue is full, and its error is its own."""
        limit = math.inf if remaining is None else remaining
        try:
            return (await self._answer([item], model, options, limit, Manner(caller, patient=True)))[0]
        except ServingError as error:  # the model went away, or the stream's deadline passed
            return self._failed(item, error)

    def pin(self, model: str, options: Options) -> str:
        """The name that `model` stands for now, so that a stream keeps its model.

        Raises as `Models.get`, and `InvalidRequest` for options that no item could be answered with.
        """
        card = self._models.get(model).card
        self._filled(options, card)
        return card.version.name

    def model_info(self, name: str) -> tuple[ModelCard, bool]:
        """What is known about a loaded model, and whether it is the default; raises as `Models.get`."""
        card = self._models.get(name).card
        return card, card.version.name == self._models.default

    def list_models(self) -> tuple[list[ModelSummary], str]:
        """Every variant of the store, and the name of the default."""
        return self._models.summaries(), self._models.default

    async def _answer(
        self, items: Sequence[Item], model: str, options: Options, remaining: float | None, manner: Manner
    ) -> list[Answer]:
        started = self._clock()
        deadline = started + (self.limits.default_deadline if remaining is None else remaining)
        deployment = self._models.get(model)
        with deployment.holders.one():  # a bundle that replaces it meanwhile does not end it
            return await self._answer_with(deployment, items, options, (started, deadline), manner)

    async def _answer_with(
        self,
        deployment: Deployment,
        items: Sequence[Item],
        options: Options,
        times: tuple[float, float],
        manner: Manner,
    ) -> list[Answer]:
        started, deadline = times
        options = self._filled(options, deployment.card)
        encoded = await asyncio.get_running_loop().run_in_executor(
            self._workers, self._encode_all, deployment, items, options
        )
        tokenized = self._clock()
        self._metrics.stage_seconds.labels("tokenize").observe(tokenized - started)
        rows = [entry for entry in encoded if isinstance(entry, Encoded)]
        outcomes = iter(await self._ride(deployment, items, encoded, rows, options, deadline, manner))
        answers: list[Answer] = []
        for item, entry in zip(items, encoded, strict=True):
            if isinstance(entry, ServingError):
                answers.append(self._failed(item, entry))
                continue
            outcome = next(outcomes)
            if isinstance(outcome, ServingError):
                answers.append(self._failed(item, outcome))
            else:
                spent = (started, tokenized)
                answers.append(self._interpreted(deployment.card, item, entry, outcome, options, spent))
        return answers

    def _filled(self, options: Options, card: ModelCard) -> Options:
        """The options with the server's own settings where the caller did not say."""
        if options.top_k > len(card.labels):
            raise InvalidRequest(
                f"top_k {options.top_k} is above this model's {len(card.labels)} labels; set 0 for all",
                field="options.top_k",
            )
        limits = self.limits
        strict = limits.strict_domain if options.strict_domain is None else options.strict_domain
        return replace(options, truncation=options.truncation or limits.truncation, strict_domain=strict)

    def _encode_all(
        self, deployment: Deployment, items: Sequence[Item], options: Options
    ) -> list[Encoded | ServingError]:
        """On a worker thread: tokens, or what is wrong with the item."""
        return [self._encode(deployment, item, options) for item in items]

    def _encode(self, deployment: Deployment, item: Item, options: Options) -> Encoded | ServingError:
        size = len(item.text.encode("utf-8", "surrogatepass"))
        if not item.text.strip():
            return EmptyText(f"the text is empty ({size} bytes); send at least one word", field="text")
        if size > self.limits.max_text_bytes:
            return TextTooLong(
                f"the text has {size} bytes, above this server's {self.limits.max_text_bytes}; split it",
                field="text",
            )
        _, source = resolve_domain(deployment.card, item.domain)
        if source is DomainSource.FALLBACK and options.strict_domain:
            known = ", ".join(domain.name for domain in deployment.card.domains)
            return UnknownDomain(
                f"domain {item.domain[:40]!r} is unknown to this model; leave it empty, or choose: {known}",
                field="domain",
            )
        try:
            return deployment.encoder.encode(item.text, options.truncation or self.limits.truncation)
        except ServingError as error:
            return error

    async def _ride(
        self,
        deployment: Deployment,
        items: Sequence[Item],
        encoded: Sequence[Encoded | ServingError],
        rows: Sequence[Encoded],
        options: Options,
        deadline: float,
        manner: Manner,
    ) -> list[Outcome]:
        if not rows:
            return []
        tokens, bound = sum(len(row.ids) for row in rows), deployment.lane.queue_tokens
        if tokens > bound:
            raise BatchTooLarge(
                f"the items have {tokens} tokens, above the {bound} that may wait; send several calls",
                field="items",
            )
        per_token = options.explain and deployment.card.strata > 0
        engine_items = [
            EngineItem(entry.ids, resolve_domain(deployment.card, item.domain)[0], per_token)
            for item, entry in zip(items, encoded, strict=True)
            if isinstance(entry, Encoded)
        ]
        return await deployment.lane.submit(
            engine_items, deadline=deadline, patient=manner.patient, caller=manner.caller
        )

    def _interpreted(
        self,
        card: ModelCard,
        item: Item,
        encoded: Encoded,
        outcome: tuple[EngineOutput, Ride],
        options: Options,
        times: tuple[float, float],
    ) -> Classification:
        output, ride = outcome
        received = self._clock()
        answer = interpret(card, named=item.domain, encoded=encoded, output=output, options=options)
        done = self._clock()
        self._metrics.stage_seconds.labels("queue").observe(ride.queue_seconds)
        self._metrics.stage_seconds.labels("inference").observe(ride.inference_seconds)
        self._metrics.stage_seconds.labels("interpret").observe(done - received)
        self._metrics.answered(answer, card.domains)
        return replace(answer, timings=_timings(ride, times, done)) if options.timings else answer

    def _failed(self, item: Item, error: ServingError) -> ServingError:
        self._metrics.item_errors.labels(error.reason).inc()
        log.info("item refused", reason=error.reason, **fingerprint(item.text))
        return error


def _timings(ride: Ride, times: tuple[float, float], done: float) -> Timings:
    started, tokenized = times
    return Timings(
        tokenize=tokenized - started,
        queue=ride.queue_seconds,
        inference=ride.inference_seconds,
        total=done - started,
        batch_items=ride.batch_items,
        batch_tokens=ride.batch_tokens,
    )
