"""An engine is measured on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from serving.costs import CostModel
from serving.engines.fake import FakeEngine
from serving.types import EngineItem, EngineOutput
from serving.warmup import BUDGETS, best_batch_tokens, best_padding_tokens, seed_costs


class Timed(FakeEngine):
    """Takes `seconds(tokens)` of a clock that only it moves."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        super().__init__()
        self.now, self._cost = 0.0, seconds

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        self.now += self._cost(sum(len(item.ids) for item in items))
        return super().run(items)

    def clock(self) -> float:
        return self.now


def test_every_length_bucket_is_measured() -> None:
    engine, costs = Timed(lambda tokens: tokens / 500), CostModel(initial=1)
    seed_costs(engine, costs, max_tokens=100, clock=engine.clock)
    assert [costs.rate(length) for length in (16, 32, 64, 100)] == pytest.approx([500] * 4)
    assert max(len(ids) for batch in engine.batches for ids in batch) == 100


def test_a_processor_without_gain_gets_small_batches() -> None:
    engine = Timed(lambda tokens: tokens / 1e5)
    assert best_batch_tokens(engine, max_tokens=128, clock=engine.clock) == BUDGETS[0]


def test_a_device_with_a_fixed_cost_a_call_gets_large_batches() -> None:
    engine = Timed(lambda tokens: 0.01 + tokens / 1e7)
    assert best_batch_tokens(engine, max_tokens=128, clock=engine.clock) == BUDGETS[-1]


def test_a_slow_device_is_not_measured_for_long() -> None:
    engine = Timed(lambda tokens: 0.5 + tokens / 1e4)
    assert best_batch_tokens(engine, max_tokens=128, clock=engine.clock) < 2048
    assert engine.now < 3


def test_a_full_row_always_fits_a_batch() -> None:
    engine = Timed(lambda tokens: 0.0)
    assert best_batch_tokens(engine, max_tokens=99_999, clock=engine.clock) == 99_999


@pytest.mark.parametrize(("fixed", "worth"), [(0.0, 1), (0.002, 10), (0.01, 50), (10.0, 256)])
def test_padding_is_worth_half_of_what_a_batch_of_its_own_costs(fixed: float, worth: int) -> None:
    """A token takes 0.1 ms here; no more than one full row of 256."""
    engine = Timed(lambda tokens: fixed + tokens * 1e-4)
    assert best_padding_tokens(engine, max_tokens=256, clock=engine.clock) == worth


def test_padding_is_measured_on_an_engine_without_cost_too() -> None:
    engine = Timed(lambda tokens: 0.0)
    assert best_padding_tokens(engine, max_tokens=64, clock=engine.clock) == 64
