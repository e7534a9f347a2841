"""The moving average of weights is the formula's, is swapped in whole, and survives on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trainer_job.averaging import WeightAverage


def model() -> torch.nn.Linear:
    torch.manual_seed(0)
    made = torch.nn.Linear(3, 2)
    made.bias.requires_grad_(False)
    return made


def moved(made: torch.nn.Linear, average: WeightAverage, steps: int) -> list[torch.Tensor]:
    seen = [made.weight.detach().clone()]
    for _ in range(steps):
        with torch.no_grad():
            made.weight += torch.randn(2, 3)
        average.update()
        seen.append(made.weight.detach().clone())
    return seen


def test_the_average_is_that_of_the_formula_and_of_torch() -> None:
    made = model()
    average = WeightAverage(made, 0.5)
    seen = moved(made, average, 40)
    expected = seen[0]
    for number, weights in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        torch_average = [expected.clone()]
        multiply: Any = get_ema_multi_avg_fn
        multiply(decay)(torch_average, [weights], 1)
        expected = decay * expected + (1 - decay) * weights
        assert torch.allclose(expected, torch_average[0])
    assert torch.allclose(average.average["weight"], expected, atol=1e-5)


def test_it_is_in_place_inside_the_block_only_and_frozen_weights_are_left_alone() -> None:
    made = model()
    average = WeightAverage(made, 0.9)
    moved(made, average, 3)
    own, held = made.weight.detach().clone(), average.average["weight"].clone()
    with average.in_place():
        assert torch.equal(made.weight, held)
    assert torch.equal(made.weight, own)
    assert average.average.keys() == {"weight"}


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    made = model()
    average = WeightAverage(made, 0.99)
    moved(made, average, 5)
    average.save(tmp_path)
    other = WeightAverage(model(), 0.99)
    other.load(tmp_path)
    assert other.updates == 5
    assert torch.equal(other.average["weight"], average.average["weight"])


def test_weights_come_back_when_an_evaluation_fails() -> None:
    made = model()
    average = WeightAverage(made, 0.9)
    moved(made, average, 2)
    own = made.weight.detach().clone()
    with pytest.raises(ValueError, match="evaluation"), average.in_place():
        raise ValueError("evaluation")
    assert torch.equal(made.weight, own)
