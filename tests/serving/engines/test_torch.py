"""The torch engine against the model itself."""

from __future__ import annotations

import pytest
import torch

from serving.engines.torch import TorchEngine, choose_device
from serving.types import EngineItem
from stratified_models.bundle import load_model, read_bundle
from tests.serving.bundles import results

ROWS = [
    EngineItem((2, 30, 31, 3), 0),
    EngineItem((2, 40, 41, 42, 43, 44, 3), -1, True),
    EngineItem((2, 50, 3), 1, True),
]


@pytest.fixture(scope="module", params=["none", "routing"])
def engine(request: pytest.FixtureRequest) -> TorchEngine:
    model = load_model(read_bundle(results() / request.param, verify=False))
    return TorchEngine(model, device=torch.device("cpu"))


def test_a_row_says_the_same_alone_and_in_a_batch(engine: TorchEngine) -> None:
    together = engine.run(ROWS)
    for row, output in zip(ROWS, together, strict=True):
        [alone] = engine.run([row])
        assert output.logits == pytest.approx(alone.logits, abs=1e-5)
        assert output.domain_logits == pytest.approx(alone.domain_logits, abs=1e-5)
        assert output.energy == pytest.approx(alone.energy, abs=1e-5)
        assert output.occupancy == pytest.approx(alone.occupancy, abs=1e-5)


def test_strata_are_given_per_token_to_rows_that_ask(engine: TorchEngine) -> None:
    outputs = engine.run(ROWS)
    if not outputs[0].occupancy:
        assert all(output.strata == () for output in outputs)
        return
    assert [len(output.strata) for output in outputs] == [0, 7, 3]
    assert [sum(token) for token in outputs[1].strata] == pytest.approx([1.0] * 7, abs=1e-5)
    content = torch.tensor(outputs[1].strata[1:-1]).mean(0)
    assert outputs[1].occupancy == pytest.approx(content.tolist(), abs=1e-5)


def test_it_names_itself(engine: TorchEngine) -> None:
    assert (engine.name, engine.precision) == ("torch", "fp32")


def test_the_device_is_chosen() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
