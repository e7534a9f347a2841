"""The invariants on pretrained weights: MiniLM as the BERT that it is, and converted to DistilBERT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from stratified_models import (
    StratifiedForSequenceClassification,
    load_pretrained,
    load_tokenizer,
    resolve_backbone,
)
from stratified_models.testing import TINY_LABELS
from tests.stratified_models import test_backbone as bodies
from tests.stratified_models.conftest import DOMAINS, MINILM, TEXTS, VARIANTS, largest, move_, needs_minilm

pytestmark = [needs_minilm, pytest.mark.data]
RATE = 1e-4  # a step of Adam moves each weight by about as much; pretrained ones do not bear more


@dataclass(frozen=True)
class Pretrained(bodies.Case):
    """MiniLM's checkpoint, run as `family`."""

    def model(self, variant: str, **options: Any) -> StratifiedForSequenceClassification:
        model, _ = load_pretrained(
            self.folder,
            family=self.family,
            variant=variant,
            labels=TINY_LABELS,
            domains=DOMAINS,
            domain_labels=[list(range(len(TINY_LABELS)))] * len(DOMAINS),
            max_length=64,
            seed=0,
            **options,
        )
        return model


@pytest.fixture(scope="module", params=["bert", "distilbert"])
def case(request: pytest.FixtureRequest) -> Pretrained:
    tokenizer = load_tokenizer(MINILM, max_length=64)
    rows = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    batch = {
        "input_ids": rows["input_ids"],
        "attention_mask": rows["attention_mask"],
        "labels": torch.tensor([2, 2, 0, 1, 1, 2, 1, 1]),
        "domain_id": torch.tensor([0, 2, 0, -1, 2, 2, 1, -1]),
    }
    return Pretrained(request.param, Path(resolve_backbone(MINILM)), tokenizer, batch, RATE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_holds_on_pretrained_weights(case: Pretrained, variant: str, tmp_path: Path) -> None:
    model = case.model(variant)
    model.calibrate_gate_([case.inputs], seed=0)
    model.prepare_for_inference()
    valid = case.inputs["attention_mask"].bool()
    with torch.no_grad():
        hidden = model.encode(case.inputs["input_ids"], case.inputs["attention_mask"]).hidden
        expected = case.reference(**case.inputs).last_hidden_state  # BERT's own, for both
    assert largest(hidden[valid], expected[valid]) < 1e-5
    moved = move_(model).prepare_for_inference()
    bodies.test_invariant_03_padding_changes_nothing(case, moved)
    bodies.test_invariant_04_a_row_alone_is_as_in_its_batch(case, moved)
    bodies.test_invariant_08_save_and_load_is_the_same_model(case, moved, tmp_path)
    bodies.test_one_step_lowers_the_loss_and_reaches_every_parameter(case, moved)
