"""Shapes of recordings, and what runs without one. Playing them back needs a GPU: skipped without one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from serving.engines.cuda_graphs import LARGEST, GraphedForward, rounded, widened
from serving.engines.torch import TorchEngine
from serving.types import EngineItem
from stratified_models.bundle import Bundle, load_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        ((1, 1), (1, 32)),
        ((1, 32), (1, 32)),
        ((3, 33), (4, 64)),
        ((256, 64), (256, 64)),
        ((257, 1), None),
        ((256, 65), None),
    ],
)
def test_few_shapes_serve_many_batches(batch: tuple[int, int], shape: tuple[int, int] | None) -> None:
    assert rounded(*batch) == shape
    if shape:
        assert shape[0] * shape[1] <= LARGEST


def test_a_widened_batch_gives_the_same_answers(exported: Bundle) -> None:
    model = load_model(exported)
    ids = torch.tensor([[2, 40, 41, 3], [2, 77, 3, 0], [2, 5, 6, 3]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]])
    tensors = {"input_ids": ids, "attention_mask": mask, "domain_id": torch.tensor([0, -1, 1])}
    wide = widened(tensors, (4, 32), pad=0)
    assert {name: tuple(value.shape) for name, value in wide.items()} == {
        "input_ids": (4, 32), "attention_mask": (4, 32), "domain_id": (4,),
    }  # fmt: skip
    with torch.inference_mode():
        found, expected = model(**wide), model(**tensors)
    assert torch.isfinite(found.logits).all()
    torch.testing.assert_close(found.logits[:3], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.occupancy[:3], expected.occupancy, atol=1e-4, rtol=0)


def test_what_cannot_be_recorded_runs_as_before() -> None:
    calls: list[tuple[int, ...]] = []

    def forward(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        calls.append(tuple(tensors["input_ids"].shape))
        return {"logits": tensors["input_ids"].float()}

    graphed = GraphedForward(forward, device=CPU, pad=0)
    too_many = {"input_ids": torch.ones(300, 4, dtype=torch.long)}
    assert graphed(too_many)["logits"].shape == (300, 4)
    assert calls == [(300, 4)]


class Played:
    """Stands for a recording: what it was given last is what it writes, into memory of its own."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.inputs = {
            name: torch.zeros(shape if name != "domain_id" else shape[:1], dtype=torch.long)
            for name in ("input_ids", "attention_mask", "domain_id")
        }
        self.outputs = {"logits": torch.zeros(shape[0], 1)}
        self.graph = self

    def replay(self) -> None:
        time.sleep(0.001)  # so that another thread comes between, where it may
        self.outputs["logits"].copy_(self.inputs["input_ids"][:, :1])


def test_threads_get_their_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    graphed = GraphedForward(lambda tensors: tensors, device=CPU, pad=0)
    one = Played((1, 32))
    monkeypatch.setattr(graphed, "_recording", lambda *_: one)

    def ask(number: int) -> float:
        ids = torch.full((1, 4), number)
        batch = {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "domain_id": torch.tensor([0]),
        }  # fmt: skip
        found = graphed(batch)["logits"]
        time.sleep(0.001)
        return float(found)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(1, 101))) == list(range(1, 101))


def test_bf16_stays_near(exported: Bundle) -> None:
    items = [EngineItem((2, 40, 41, 60, 3), 0, per_token=True), EngineItem((2, 77, 3))]
    exact = TorchEngine(load_model(exported), device=CPU).run(items)
    engine = TorchEngine(load_model(exported), device=CPU, precision="bf16")
    assert engine.precision == "bf16"
    for found, wanted in zip(engine.run(items), exact, strict=True):
        assert found.logits == pytest.approx(wanted.logits, abs=0.1)
        assert found.logits != wanted.logits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recordings need a GPU, and there is none")
def test_replays_equal_plain_runs(exported: Bundle) -> None:
    plain = TorchEngine(load_model(exported), device=CPU)
    engine = TorchEngine(load_model(exported), device=torch.device("cuda"))
    for length in (3, 9, 3, 40):
        items = [EngineItem((2, *range(10, 10 + length), 3), 0), EngineItem((2, 77, 3))]
        for found, wanted in zip(engine.run(items), plain.run(items), strict=True):
            assert found.logits == pytest.approx(wanted.logits, abs=1e-3)
