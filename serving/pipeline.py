"""The way of a request through one model: fill in the options → tokenise → ride in batches → interpret.

It knows one deployment at a time; which model answers whom, and what a request may ask, is decided in
`serving.service`. No wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import structlog

from serving.encoding import LONG
from serving.errors import BatchTooLarge, EmptyText, InvalidRequest, ServingError, TextTooLong, UnknownDomain
from serving.interpret import interpret, resolve_domain
from serving.lane import Outcome
from serving.logs import fingerprint
from serving.metrics import Metrics
from serving.models import Deployment
from serving.stages import Stages
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
    Options,
    Ride,
    Timings,
)

log = structlog.get_logger(__name__)

BREATH = 8  # answers that are made in one go: some 2 ms

Answer = Classification | ServingError


class Pipeline:
    """`workers` runs the tokenizer off the event loop."""

    def __init__(
        self,
        *,
        limits: Limits,
        metrics: Metrics,
        stages: Stages,
        workers: Executor,
        clock: Callable[[], float],
    ) -> None:
        self._limits, self._metrics, self._stages = limits, metrics, stages
        self._workers, self._clock = workers, clock

    def filled(self, options: Options, card: ModelCard) -> Options:
        """The options with the server's own settings where the caller did not say.

        Raises `InvalidRequest` for options that no item could be answered with.
        """
        if options.top_k > len(card.labels):
            raise InvalidRequest(
                f"top_k {options.top_k} is above this model's {len(card.labels)} labels; set 0 for all",
                field="options.top_k",
            )
        limits = self._limits
        strict = limits.strict_domain if options.strict_domain is None else options.strict_domain
        return replace(options, truncation=options.truncation or limits.truncation, strict_domain=strict)

    async def answer(
        self,
        deployment: Deployment,
        items: Sequence[Item],
        options: Options,
        *,
        started: float,
        deadline: float,
        manner: Manner,
    ) -> list[Answer]:
        """One answer or error for each item, in order; times are of the clock.

        Raises what concerns all items at once: bad options, a refusal, the deadline.
        """
        options = self.filled(options, deployment.card)
        if not manner.patient and deployment.results is None:  # a kept answer needs no room in the queue
            deployment.lane.knock(len(items), deadline=deadline, caller=manner.caller)
        if len(items) == 1 and len(items[0].text) < LONG:
            encoded = self._encode_all(deployment, items, options)
        else:
            encoded = await asyncio.get_running_loop().run_in_executor(
                self._workers, self._encode_all, deployment, items, options
            )
        tokenized = self._clock()
        rows = [entry for entry in encoded if isinstance(entry, Encoded)]
        if manner.counted:
            tokens = sum(len(row.ids) for row in rows)
            self._stages.took("tokenize", started, tokenized, items=len(items), tokens=tokens)
        outcomes = iter(await self._ride(deployment, items, encoded, rows, options, deadline, manner))
        answers: list[Answer] = []
        for place, (item, entry) in enumerate(zip(items, encoded, strict=True)):
            if place % BREATH == BREATH - 1:
                await asyncio.sleep(0)  # a large batch must not keep the event loop from everybody else
            outcome = entry if isinstance(entry, ServingError) else next(outcomes)
            if isinstance(outcome, ServingError) or isinstance(entry, ServingError):
                error = outcome if isinstance(outcome, ServingError) else entry
                answers.append(self.failed(item, error, manner))  # type: ignore[arg-type]  # one of them is an error
            else:
                answers.append(
                    self._interpreted(
                        deployment.card, item, entry, outcome, options, (started, tokenized), manner
                    )
                )
        return answers

    def failed(self, item: Item, error: ServingError, manner: Manner) -> ServingError:
        """Count an item that is answered with an error, and log what may be said of it."""
        if manner.counted:
            self._metrics.item_errors.labels(error.reason).inc()
            log.info("item refused", reason=error.reason, **fingerprint(item.text))
        return error

    def _encode_all(
        self, deployment: Deployment, items: Sequence[Item], options: Options
    ) -> list[Encoded | ServingError]:
        """Tokens, or what is wrong with the item; on a worker thread unless it is one short text, which takes
        less time than to hand it over, and would keep the interpreter's lock there too.
        """
        return [self._encode(deployment, item, options) for item in items]

    def _encode(self, deployment: Deployment, item: Item, options: Options) -> Encoded | ServingError:
        size = len(item.text.encode("utf-8", "surrogatepass"))
        if not item.text.strip():
            return EmptyText(f"the text is empty ({size} bytes); send at least one word", field="text")
        if size > self._limits.max_text_bytes:
            return TextTooLong(
                f"the text has {size} bytes, above this server's {self._limits.max_text_bytes}; split it",
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
            return deployment.encoder.encode(item.text, options.truncation or self._limits.truncation)
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

        async def compute(items: Sequence[EngineItem]) -> Sequence[Outcome]:
            return await deployment.lane.submit(
                items, deadline=deadline, patient=manner.patient, caller=manner.caller
            )

        if deployment.results is None:
            return list(await compute(engine_items))
        return await deployment.results.through(engine_items, compute)

    def _interpreted(
        self,
        card: ModelCard,
        item: Item,
        encoded: Encoded,
        outcome: tuple[EngineOutput, Ride],
        options: Options,
        times: tuple[float, float],
        manner: Manner,
    ) -> Classification:
        output, ride = outcome
        received = self._clock()
        answer = interpret(card, named=item.domain, encoded=encoded, output=output, options=options)
        done = self._clock()
        if manner.counted:
            self._count(answer, card, ride, received, done)
        return replace(answer, timings=_timings(ride, times, done)) if options.timings else answer

    def _count(
        self, answer: Classification, card: ModelCard, ride: Ride, received: float, done: float
    ) -> None:
        began, size = ride.began, {"items": ride.batch_items, "tokens": ride.batch_tokens}
        self._stages.took("queue", began - ride.queue_seconds, began, tokens=answer.token_count)
        self._stages.took("inference", began, began + ride.inference_seconds, **size)
        self._stages.took("interpret", received, done)
        self._metrics.answered(answer, card.domains)


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
