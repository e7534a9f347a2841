"""Every metric of the service but those of calls, its name and its help; the registry is passed in.

It knows how to count, and nothing of what is counted: callers name the event. Label sets are closed: no text,
no id and no name that a caller chose ever becomes a label. Counters whose labels are known in advance exist
from the start, so that a rate is right from the first event on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving import series
from serving.batches import Batch
from serving.rpc_metrics import RpcMetrics
from serving.types import Classification, Domain, ModelCard, ModelVersion

MEMORY = 0.999  # of running means: they remember about the last thousand answers


class Metrics(RpcMetrics):
    """The instruments, grouped by who uses them; attribute names follow the metric names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        super().__init__(registry)
        self._pipeline(registry)
        self._answers(registry)
        self._models(registry)
        self._security(registry)
        # By version: while one bundle follows another, both answer under one name, with domains of their own.
        self._mix: dict[ModelVersion, list[float]] = {}
        self._occupancy: dict[ModelVersion, list[float]] = {}

    def _pipeline(self, r: CollectorRegistry) -> None:
        def counter(name: str, text: str, label: str = "", values: Iterable[str] = ()) -> Counter:
            made = Counter(f"stratified_{name}", text, (label,) if label else (), registry=r)
            for value in values:
                made.labels(value)
            return made

        def histogram(
            name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
        ) -> Histogram:
            return Histogram(f"stratified_{name}", text, labels, buckets=buckets, registry=r)

        self.stage_seconds = histogram(
            "stage_duration_seconds", "Time of one stage.", series.SECONDS, ("stage",)
        )
        for stage in series.STAGES:
            self.stage_seconds.labels(stage)
        self.batch_items = histogram("batch_items", "Items in a batch.", series.ITEMS)
        self.batch_tokens = histogram("batch_tokens", "Tokens in a batch, padding included.", series.TOKENS)
        self.padding_tokens = counter("padding_tokens", "Padding tokens that the engine computed.")
        self.processed_tokens = counter("processed_tokens", "Real tokens that the engine computed.")
        self.batches = counter(
            "batches", "Batches, by why they held no more.", "close_reason", series.CLOSE_REASONS
        )
        self.rejected = counter(
            "rejected", "Calls turned away before any work.", "reason", series.REJECT_REASONS
        )
        self.dropped = counter(
            "dropped", "Accepted items that were not computed.", "reason", series.DROP_REASONS
        )
        self.item_errors = counter(
            "item_errors", "Items answered with an error.", "reason", series.ITEM_ERRORS
        )
        self.cache_lookups = Counter(
            "stratified_cache_lookups",
            "Look-ups in a cache, by what they found.",
            ("cache", "outcome"),
            registry=r,
        )
        self.hangs = counter(
            "engine_hangs", "Threads left behind because the engine did not come back in time."
        )
        self.busy_seconds = counter("inference_busy_seconds", "Time during which an engine was computing.")
        self.loop_lag = histogram(
            "event_loop_lag_seconds", "Delay of the event loop's own heartbeat.", series.LAGS
        )
        self.queue_items = Gauge("stratified_queue_items", "Items that wait.", ("model",), registry=r)
        self.queue_tokens = Gauge("stratified_queue_tokens", "Tokens that wait.", ("model",), registry=r)
        self.queue_age = Gauge(
            "stratified_queue_oldest_age_seconds",
            "How long the oldest item has waited.",
            ("model",),
            registry=r,
        )
        self.wait = Gauge(
            "stratified_estimated_wait_seconds",
            "Predicted wait of an item admitted now.",
            ("model",),
            registry=r,
        )

    def _answers(self, r: CollectorRegistry) -> None:
        labels = ("model", "domain", "label")
        self.items = Counter("stratified_items", "Items answered.", labels, registry=r)
        self.confidence = Histogram(
            "stratified_confidence",
            "Calibrated score of the best label.",
            ("model",),
            buckets=series.SHARES,
            registry=r,
        )
        self.out_of_domain = Counter(
            "stratified_out_of_domain", "Items out of domain.", ("model",), registry=r
        )
        self.occupancy = Gauge(
            "stratified_stratum_occupancy", "Mean share of the stratum in recent answers.",
            ("model", "stratum"), registry=r,
        )  # fmt: skip
        self.canary = Counter(
            "stratified_canary_calls",
            "Calls without a model's name while a canary is set, by who answered; unready: it should have.",
            ("target",), registry=r,
        )  # fmt: skip
        for target in series.CANARY_TARGETS:
            self.canary.labels(target)
        self.shadow_items = Counter(
            "stratified_shadow_items", "Answers that a second variant scored too, by how the labels compare.",
            ("model", "outcome"), registry=r,
        )  # fmt: skip
        self.shadow_difference = Histogram(
            "stratified_shadow_score_difference",
            "How far the two variants' scores of the label that the caller was given are apart.",
            ("model",), buckets=series.DIFFERENCES, registry=r,
        )  # fmt: skip
        self.drift = Gauge(
            "stratified_drift", "Distance (total variation, 0 to 1) of the recent domain mix from training.",
            ("model",), registry=r,
        )  # fmt: skip

    def _models(self, r: CollectorRegistry) -> None:
        self.model_info = Gauge(
            "stratified_model_info", "Always 1; the labels say which model is loaded.",
            ("model", "version", "sha256", "engine", "precision"), registry=r,
        )  # fmt: skip
        self.load_seconds = Gauge(
            "stratified_model_load_seconds",
            "Time to read, verify and warm up the model.",
            ("model",),
            registry=r,
        )
        self.made = Gauge(
            "stratified_model_created_timestamp_seconds", "When the model's bundle was made, as Unix time.",
            ("model",), registry=r,
        )  # fmt: skip
        self.engine_seconds = Gauge(
            "stratified_engine_comparison_seconds", "Time of the same rows on each engine that was compared.",
            ("model", "engine"), registry=r,
        )  # fmt: skip
        self.swaps = Counter(
            "stratified_model_swaps", "Changes of models while serving, by how they ended.",
            ("outcome",), registry=r,
        )  # fmt: skip
        for outcome in series.SWAP_OUTCOMES:
            self.swaps.labels(outcome)
        self.memory = Gauge(
            "stratified_model_memory_bytes", "Bytes of the weights of the loaded bundles of a model.",
            ("model",), registry=r,
        )  # fmt: skip
        self.ready = Gauge("stratified_model_ready", "1 while the model answers.", ("model",), registry=r)

    def _security(self, r: CollectorRegistry) -> None:
        self.certificate_expiry = Gauge(
            "stratified_certificate_expiry_timestamp_seconds",
            "When the certificate in force ends, as Unix time; absent without TLS.", ("port",), registry=r,
        )  # fmt: skip

    def declare_model(self, card: ModelCard) -> None:
        """Create all series of a model that was loaded."""
        version = card.version
        for domain in card.domains:
            for label in card.labels:
                self.items.labels(version.name, domain.name, label)
        self.confidence.labels(version.name)
        self.out_of_domain.labels(version.name)
        for stratum in range(card.strata):
            self.occupancy.labels(version.name, str(stratum))
        self.drift.labels(version.name)
        self.model_info.labels(*_told(card)).set(1)
        self.load_seconds.labels(version.name).set(card.load_seconds)
        for engine, seconds in card.engine_seconds.items():
            self.engine_seconds.labels(version.name, engine).set(seconds)
        if card.created:
            self.made.labels(version.name).set(datetime.fromisoformat(card.created).timestamp())

    def declare_shadow(self, model: str) -> None:
        """Create all series of a variant that scores in the shadow."""
        for outcome in series.SHADOW_OUTCOMES:
            self.shadow_items.labels(model, outcome)
        self.shadow_difference.labels(model)

    def rode(self, batch: Batch[Any]) -> None:
        """Count a batch that an engine begins to compute."""
        self.batches.labels(batch.close_reason).inc()
        self.batch_items.observe(len(batch.tickets))
        self.batch_tokens.observe(batch.padded_tokens)
        self.padding_tokens.inc(batch.padded_tokens - batch.tokens)
        self.processed_tokens.inc(batch.tokens)

    def forget_model(self, card: ModelCard, *, successor: ModelCard | None) -> None:
        """The model has answered its last: its gauges go, but for those that its successor goes on with.

        Counters stay, for they count what has been.
        """
        version = card.version
        self._mix.pop(version, None)
        self._occupancy.pop(version, None)
        if successor is None:
            queue = (self.queue_items, self.queue_tokens, self.queue_age, self.wait)
            for gauge in (*queue, self.load_seconds, self.drift):
                gauge.remove(version.name)
            if card.created:
                self.made.remove(version.name)
            self.ready.labels(version.name).set(0)
        if successor is None or _told(successor) != _told(card):
            self.model_info.remove(*_told(card))
        for engine in set(card.engine_seconds) - set(successor.engine_seconds if successor else ()):
            self.engine_seconds.remove(version.name, engine)
        for stratum in range(successor.strata if successor else 0, card.strata):
            self.occupancy.remove(version.name, str(stratum))

    def watch_queue(
        self,
        model: str,
        *,
        items: Callable[[], float],
        tokens: Callable[[], float],
        age: Callable[[], float],
        wait: Callable[[], float],
    ) -> None:
        """Read the queue's gauges at scrape time."""
        self.queue_items.labels(model).set_function(items)
        self.queue_tokens.labels(model).set_function(tokens)
        self.queue_age.labels(model).set_function(age)
        self.wait.labels(model).set_function(wait)

    def answered(self, answer: Classification, domains: Sequence[Domain]) -> None:
        """Count one answer."""
        model = answer.model.name
        self.items.labels(model, answer.domain, answer.label).inc()
        self.confidence.labels(model).observe(answer.score)
        if answer.out_of_domain:
            self.out_of_domain.labels(model).inc()
        if answer.model not in self._mix:
            self._follow_from_now(answer, [domain.share for domain in domains])
        seen = dict(answer.domain_scores)
        _follow(self._occupancy[answer.model], answer.strata)
        _follow(self._mix[answer.model], [seen[domain.name] for domain in domains])

    def _follow_from_now(self, answer: Classification, shares: list[float]) -> None:
        """Running means of a model from its first answer on; their gauges are computed when they are read."""
        model, means, mix = answer.model.name, list(answer.strata), list(shares)
        self._occupancy[answer.model], self._mix[answer.model] = means, mix
        for index in range(len(means)):
            self.occupancy.labels(model, str(index)).set_function(partial(means.__getitem__, index))
        self.drift.labels(model).set_function(
            lambda: sum(abs(m - share) for m, share in zip(mix, shares, strict=True)) / 2
        )


def _told(card: ModelCard) -> tuple[str, ...]:
    """The labels of `model_info`."""
    version = card.version
    return version.name, version.version, version.sha256, card.engine, card.precision


def _follow(means: list[float], values: Sequence[float]) -> None:
    """Move running means towards the newest values."""
    for index, value in enumerate(values):
        means[index] += (1 - MEMORY) * (value - means[index])
