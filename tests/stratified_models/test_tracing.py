"""Seeing inside: layers as the model makes them, and saliency that adds up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from stratified_models.saliency import token_saliency
from stratified_models.testing import tiny_model
from stratified_models.tracing import trace
from tests.stratified_models.conftest import Build, largest, move_


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


def test_trace_says_whom_the_model_chose(build: Build, inputs: dict[str, Tensor]) -> None:
    model = build("moe", moved=True).prepare_for_inference()
    for block in model.variant.blocks.values():
        block.get_buffer("bias").copy_(torch.tensor([-0.1, 0.0, 0.15, 0.05]))
    seen = trace(model, **inputs)
    with torch.no_grad():
        own = [found.load for found in model.encode(inputs["input_ids"], inputs["attention_mask"]).traces]
    valid = inputs["attention_mask"].bool()
    assert len(own) == len(seen.chosen) == 2
    for load, chosen, probability in zip(own, seen.chosen, seen.router, strict=True):
        assert torch.equal(chosen[valid].flatten().bincount(minlength=4), load.long())
        likeliest = probability[valid].topk(2).indices.flatten().bincount(minlength=4)
        assert not torch.equal(likeliest, load.long())  # the bias decides somewhere


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


def test_gpt2_is_traced_and_explained_as_it_is_run(tmp_path: Path) -> None:
    model = move_(tiny_model(tmp_path, family="gpt2", variant="routing")).prepare_for_inference()
    ids = torch.tensor([[70, 71, 72, 73], [80, 81, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    seen = trace(model, ids, mask)
    with torch.no_grad():
        reply = model(ids, mask)
        encoded = model.encode(ids, mask)
    assert seen.gate is not None
    assert torch.equal(seen.gate.posterior, reply.strata)
    assert torch.equal(seen.pooled, encoded.pooled)
    assert torch.equal(seen.content, mask.bool())
    values, _ = token_saliency(model, ids[1, :2])
    assert bool((values != 0).all())  # no frame: every token is content, the one that also pads too


def test_an_empty_text_without_a_frame_is_traced_and_explained(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, family="gpt2", variant="layers").prepare_for_inference()
    nothing = torch.zeros(1, 0, dtype=torch.long)
    seen = trace(model, nothing, nothing)
    assert not seen.content.any()
    values, target = token_saliency(model, nothing[0])
    assert values.shape == (0,)
    assert 0 <= target < 3


def test_saliency_of_a_chosen_class_and_of_nothing(build: Build) -> None:
    model = build("moe", moved=True).prepare_for_inference()
    values, target = token_saliency(model, torch.tensor([2, 3]), target=1, domain_id=0)
    assert target == 1
    assert torch.equal(values, torch.zeros(2))
