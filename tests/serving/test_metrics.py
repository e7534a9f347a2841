"""Names, pre-created series, and what an answer counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from serving import errors, series
from serving.engines.fake import FakeEngine, fake_card
from serving.interpret import interpret
from serving.metrics import Metrics
from serving.types import Classification, Encoded, EngineItem, Options
from tests.serving.test_errors import descendants

CARD = fake_card()
REFUSALS = (errors.QueueFull, errors.CallerQueueFull, errors.WouldMissDeadline)
NAMES = [
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "stratified_stage_duration_seconds",
    "stratified_batch_items",
    "stratified_batch_tokens",
    "stratified_padding_tokens_total",
    "stratified_processed_tokens_total",
    "stratified_batches_total",
    "stratified_queue_items",
    "stratified_queue_tokens",
    "stratified_queue_oldest_age_seconds",
    "stratified_estimated_wait_seconds",
    "stratified_rejected_total",
    "stratified_dropped_total",
    "stratified_item_errors_total",
    "stratified_items_total",
    "stratified_confidence",
    "stratified_out_of_domain_total",
    "stratified_stratum_occupancy",
    "stratified_canary_calls_total",
    "stratified_shadow_items_total",
    "stratified_shadow_score_difference",
    "stratified_drift",
    "stratified_model_created_timestamp_seconds",
    "stratified_model_info",
    "stratified_model_load_seconds",
    "stratified_cache_lookups_total",
    "stratified_engine_comparison_seconds",
    "stratified_model_memory_bytes",
    "stratified_model_ready",
    "stratified_model_swaps_total",
    "stratified_engine_hangs_total",
    "stratified_event_loop_lag_seconds",
    "stratified_inference_busy_seconds_total",
    "stratified_certificate_expiry_timestamp_seconds",
]


@pytest.fixture
def made() -> Metrics:
    return Metrics(CollectorRegistry())


def answer(domain: str = "imdb", strange: bool = False) -> Classification:
    encoded = Encoded((1, 2), ("a", "b"), ((0, 0), (0, 1)), (False, True), 2)
    [output] = FakeEngine().run([EngineItem((1, 2))])
    return replace(
        interpret(CARD, named=domain, encoded=encoded, output=output, options=Options()),
        out_of_domain=strange,
    )


def value(made: Metrics, name: str, **labels: str) -> float | None:
    return made.registry.get_sample_value(f"stratified_{name}", labels)


def test_the_names_are_those_of_the_contract(made: Metrics) -> None:
    text = generate_latest(made.registry).decode()
    exported = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert exported - {name for name in exported if name.endswith("_created")} == set(NAMES)


def test_every_metric_has_a_help(made: Metrics) -> None:
    text = generate_latest(made.registry).decode()
    assert all(len(line.split()) > 3 for line in text.splitlines() if line.startswith("# HELP"))


def test_reasons_are_closed_sets_that_cover_the_errors() -> None:
    reasons = {kind.reason for kind in descendants(errors.ServingError)}
    assert set(series.ITEM_ERRORS) <= reasons
    assert set(series.REJECT_REASONS) == {kind.reason for kind in REFUSALS}


def test_counters_exist_before_the_first_event(made: Metrics) -> None:
    made.declare_model(CARD)
    made.declare_rpc("unary", "a.B", "C", ["OK"])
    assert value(made, "rejected_total", reason="QUEUE_FULL") == 0
    assert value(made, "batches_total", close_reason="budget") == 0
    assert value(made, "stage_duration_seconds_count", stage="queue") == 0
    assert value(made, "items_total", model="none", domain="tweets", label="neutral") == 0
    assert value(made, "out_of_domain_total", model="none") == 0


def test_a_model_is_described(made: Metrics) -> None:
    made.declare_model(replace(CARD, load_seconds=2.5))
    assert value(made, "model_load_seconds", model="none") == 2.5
    labels = {"model": "none", "version": "0", "sha256": "0" * 64, "engine": "fake", "precision": "fp64"}
    assert value(made, "model_info", **labels) == 1


def test_an_answer_is_counted(made: Metrics) -> None:
    given = answer(strange=True)
    made.answered(given, CARD.domains)
    made.answered(answer(), CARD.domains)
    assert value(made, "items_total", model="none", domain="imdb", label=given.label) == 2
    assert value(made, "confidence_count", model="none") == 2
    assert value(made, "out_of_domain_total", model="none") == 1
    means = [value(made, "stratum_occupancy", model="none", stratum=str(index)) for index in range(4)]
    assert means == pytest.approx(list(given.strata))


def test_drift_rises_when_the_mix_leaves_that_of_training(made: Metrics) -> None:
    away = replace(answer(), domain_scores=(("imdb", 1.0), ("tweets", 0.0)))
    made.answered(away, CARD.domains)
    first = value(made, "drift", model="none")
    for _ in range(3000):
        made.answered(away, CARD.domains)
    last = value(made, "drift", model="none")
    assert first is not None
    assert last is not None
    assert first < 0.01
    assert last == pytest.approx(0.5, abs=0.05)


def test_a_model_tells_when_it_was_made_and_its_successor_goes_on(made: Metrics) -> None:
    old, new = replace(CARD, created="2026-01-02T03:04:05Z"), replace(CARD, created="2026-01-03T03:04:05Z")
    name = CARD.version.name
    for gauge in (made.queue_items, made.queue_tokens, made.queue_age, made.wait):
        gauge.labels(name)
    made.declare_model(old)
    assert value(made, "model_created_timestamp_seconds", model=name) == 1767323045
    made.declare_model(new)
    made.forget_model(old, successor=new)
    assert value(made, "model_created_timestamp_seconds", model=name) == 1767323045 + 86400
    made.forget_model(new, successor=None)
    assert value(made, "model_created_timestamp_seconds", model=name) is None


def test_series_of_canary_and_shadow_exist_before_anything_happens(made: Metrics) -> None:
    made.declare_shadow("moe")
    for outcome in series.SHADOW_OUTCOMES:
        assert value(made, "shadow_items_total", model="moe", outcome=outcome) == 0
    for target in series.CANARY_TARGETS:
        assert value(made, "canary_calls_total", target=target) == 0
    assert value(made, "shadow_score_difference_count", model="moe") == 0
    assert value(made, "engine_hangs_total") == 0
