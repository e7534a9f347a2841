"""Descriptions of models, there and back again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.engines.fake import fake_card
from serving.rpc import model_converters
from serving.types import Limits, ModelState, ModelSummary, Truncation


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5])
@pytest.mark.parametrize("created", ["", "2026-01-02T03:04:05+00:00"])
def test_a_card_survives_the_wire(threshold: float | None, created: str) -> None:
    card = replace(
        fake_card(),
        out_of_domain_threshold=threshold,
        created=created,
        metrics={"test.macro_f1": 0.75},
        load_seconds=1.5,
    )
    message = model_converters.info_to_wire(card, True)
    assert message.is_default
    assert model_converters.info_from_wire(message) == card


def test_limits_survive_the_wire() -> None:
    limits = Limits(max_items=3, default_deadline=1.5, truncation=Truncation.TAIL, strict_domain=True)
    assert model_converters.limits_from_wire(model_converters.limits_to_wire(limits)) == limits


@pytest.mark.parametrize("state", list(ModelState))
def test_a_summary_survives_the_wire(state: ModelState) -> None:
    summary = ModelSummary("moe", state, "1", "ab", "why")
    assert model_converters.summary_from_wire(model_converters.summary_to_wire(summary)) == summary
