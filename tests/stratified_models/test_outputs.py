"""The output is a plain `ModelOutput`: Trainer, autocast and DataParallel take it apart and rebuild it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor
from torch.nn.parallel import scatter_gather
from transformers import PreTrainedTokenizerFast

from stratified_models import StratifiedForSequenceClassification
from stratified_models.keywords import READ
from stratified_models.outputs import StratifiedOutput
from tests.stratified_models.conftest import TEXTS, VARIANTS, Build, largest


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_first_then_logits(variant: str, build: Build, batch: dict[str, Tensor]) -> None:
    model = build(variant).prepare_for_inference()
    with torch.no_grad():
        plain, labelled = model(batch["input_ids"], batch["attention_mask"]), model(**batch)
    assert plain[0] is plain.logits
    assert (labelled[0], labelled[1]) == (labelled.loss, labelled.logits)
    assert all(isinstance(value, Tensor) for value in labelled.values())
    hidden = set(model.config.keys_to_ignore_at_inference)
    rows = len(batch["labels"])
    shown = [value for name, value in labelled.items() if name != "loss" and name not in hidden]
    assert all(value.shape[0] == rows for value in shown)


def test_trainer_s_keywords_neither_crash_nor_scale_the_loss(build: Build, batch: dict[str, Tensor]) -> None:
    model = build("moe").prepare_for_inference()
    extra: dict[str, Any] = {
        "num_items_in_batch": torch.tensor(1000),
        "return_dict": True,
        "use_cache": False,
    }
    extra |= {"token_type_ids": torch.zeros_like(batch["input_ids"]), "output_attentions": False}
    assert model.accepts_loss_kwargs is False
    with torch.no_grad():
        assert torch.equal(model(**batch).loss, model(**batch, **extra).loss)


@pytest.mark.parametrize("name", ["domain", "domian_id", "label"])
def test_an_unknown_keyword_is_refused_and_not_swallowed(
    name: str, build: Build, inputs: dict[str, Tensor]
) -> None:
    model = build("none").prepare_for_inference()
    with pytest.raises(TypeError, match=rf"no keyword '{name}'; it reads input_ids.*given as domain_id="):
        model(**inputs, **{name: torch.zeros(8, dtype=torch.long)})


def test_the_keywords_that_are_read_are_those_of_the_model() -> None:
    found = inspect.signature(StratifiedForSequenceClassification.forward).parameters
    assert list(found) == ["self", *READ, "unread"]


def test_all_that_a_tokenizer_makes_is_taken(
    build: Build, inputs: dict[str, Tensor], tokenizer: PreTrainedTokenizerFast
) -> None:
    asked = ("token_type_ids", "special_tokens_mask", "offsets_mapping", "length")
    more: dict[str, Any] = {f"return_{name}": True for name in asked}
    rows = tokenizer(list(TEXTS), padding=True, return_tensors="pt", **more)
    assert len(rows) == 6
    model = build("layers").prepare_for_inference()
    with torch.no_grad():
        assert torch.equal(model(**rows).logits, model(**inputs).logits)


class Join:
    """Stands for the device copies of `Gather`, which needs GPUs."""

    @staticmethod
    def apply(device: object, dim: int, *tensors: Tensor) -> Tensor:
        return torch.cat([tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in tensors], dim)


@pytest.mark.parametrize("variant", VARIANTS)
def test_data_parallel_rebuilds_it_from_its_replicas(
    variant: str, build: Build, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scatter_gather, "Gather", Join)
    model = build(variant, moved=True).prepare_for_inference()
    halves = [{name: tensor[part] for name, tensor in batch.items()} for part in (slice(0, 4), slice(4, 8))]
    with torch.no_grad():
        whole, parts = model(**batch), [model(**half) for half in halves]
    joined = scatter_gather.gather(parts, torch.device("cpu"))
    assert isinstance(joined, StratifiedOutput)
    assert joined.loss is not None
    assert joined.logits is not None
    assert joined.loss.shape == (2,)  # Trainer takes its mean
    assert largest(joined.logits, whole.logits) < 1e-5


def test_autocast_wrappers_rebuild_it_in_single_precision(build: Build, batch: dict[str, Tensor]) -> None:
    model = build("layers").prepare_for_inference()

    def half() -> StratifiedOutput:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output: StratifiedOutput = model(**batch)
        return output

    output = convert_outputs_to_fp32(half)()
    assert isinstance(output, StratifiedOutput)
    assert output.logits is not None
    assert output.logits.dtype == torch.float32
