"""Each stage is told twice: to the metrics, and to the trace where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.metrics import Metrics
from serving.series import STAGES
from serving.stages import NoTracing, Span, Stages


class Noted(NoTracing):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, float, dict[str, int]]] = []

    def stage(self, name: str, began: float, ended: float, **attributes: int) -> None:
        self.told.append((name, began, ended, attributes))

    def call(self, service: str, method: str, metadata: Mapping[str, Any]) -> AbstractContextManager[Span]:
        return super().call(service, method, metadata)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_told_to_both(stage: str) -> None:
    metrics, noted = Metrics(CollectorRegistry()), Noted()
    Stages(metrics, noted).took(stage, 1.0, 1.25, tokens=7)
    assert noted.told == [(stage, 1.0, 1.25, {"tokens": 7})]
    total = metrics.registry.get_sample_value("stratified_stage_duration_seconds_sum", {"stage": stage})
    assert total == pytest.approx(0.25)


def test_a_clock_that_steps_back_makes_no_negative_time() -> None:
    metrics = Metrics(CollectorRegistry())
    Stages(metrics, NoTracing()).took("queue", 5.0, 4.0)
    assert metrics.registry.get_sample_value("stratified_stage_duration_seconds_sum", {"stage": "queue"}) == 0


def test_without_tracing_a_call_is_followed_by_nobody() -> None:
    tracing = NoTracing()
    with tracing.call("package.Service", "Method", {"traceparent": "00-00-00-00"}) as span:
        span.note(request_id="r")
        span.fail("INTERNAL")
    tracing.stage("queue", 0.0, 1.0)
    tracing.close()
