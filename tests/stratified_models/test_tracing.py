"""Seeing inside: layers as the model makes them, and saliency that adds up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from stratified_models.saliency import token_saliency
from stratified_models.tracing import trace
from tests.stratified_models.conftest import Build, largest


@pytest.mark.parametrize("variant", ["none", "routing", "moe"])
def test_trace_follows_the_model(variant: str, build: Build, inputs: dict[str, Tensor]) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    seen = trace(model, **inputs)
    with torch.no_grad():
        encoded = model.encode(inputs["input_ids"], inputs["attention_mask"])
        reply = model(**inputs)
    assert len(seen.states) == 7
    assert largest(seen.states[-1], encoded.hidden) < 1e-6
    assert torch.equal(seen.pooled, encoded.pooled)
    if variant == "none":
        assert seen.gate is None
    else:
        assert seen.gate is not None
        assert torch.equal(seen.gate.posterior, reply.strata)
    assert len(seen.router) == (2 if variant == "moe" else 0)
    for probability in seen.router:
        assert largest(probability.sum(-1), torch.ones(probability.shape[:2])) < 1e-5


def test_saliencies_sum_to_the_difference_of_scores(build: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    # Without the domain head's bias, whose features are cut off from the gradient.
    model = build("none", moved=True, domain_bias=False).prepare_for_inference()
    ids = torch.tensor(tokenizer("The plot drags, but the ending is worth it.")["input_ids"])
    values, target = token_saliency(model, ids, steps=200)
    blank = ids.clone()
    blank[1:-1] = model.config.pad_token_id or 0
    with torch.no_grad():
        whole = model(ids[None]).logits[0, target]
        mask = torch.ones_like(ids)[None]
        empty = model(blank[None], mask, inputs_embeds=model.get_input_embeddings()(blank[None])).logits
    assert float(values.sum()) == pytest.approx(float(whole - empty[0, target]), abs=0.02)
    assert values[0] == values[-1] == 0  # special tokens stay as they are


def test_saliency_of_a_chosen_class_and_of_nothing(build: Build) -> None:
    model = build("moe", moved=True).prepare_for_inference()
    values, target = token_saliency(model, torch.tensor([2, 3]), target=1, domain_id=0)
    assert target == 1
    assert torch.equal(values, torch.zeros(2))
