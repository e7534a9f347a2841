"""Probes of the blocks above the gate: what they read, what they leave alone, and that they travel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.config import VARIANTS
from stratified_models.domain_probes import deeper_features, fit_domain_probes_
from stratified_models.domain_words import fit_domain_words_
from stratified_models.errors import ModelError
from stratified_models.features import features_of
from stratified_models.objective import content_mean
from stratified_models.tracing import trace
from tests.stratified_models.conftest import Build
from tests.stratified_models.test_domain_words import texts

BATCH = texts()
TOKENS = {name: BATCH[name] for name in ("input_ids", "attention_mask")}


def fitted(build: Build, variant: str = "routing") -> StratifiedForSequenceClassification:
    model = build(variant, moved=True).prepare_for_inference()
    features = deeper_features(model, [BATCH], blocks=2)
    fit_domain_probes_(model, features, BATCH["domain_id"], blocks=2)
    return model


def by_hand(model: StratifiedForSequenceClassification) -> Tensor:
    """Scores from the states that every layer made, domain unknown."""
    seen, probes = trace(model, **TOKENS), model.domain_probes
    assert probes is not None
    states = seen.states[model.config.gate_layer + 1 :][:2]
    means = [content_mean(model.family.gate_input(state), seen.content) for state in states]
    return torch.cat(means, -1) @ probes.weight.T + probes.bias


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_linear_in_the_means_after_the_first_stratified_blocks(build: Build, variant: str) -> None:
    model = fitted(build, variant)
    with torch.no_grad():
        said = model(**TOKENS).domain_logits
    assert torch.allclose(said, by_hand(model), atol=1e-5)
    assert torch.allclose(trace(model, **TOKENS).domain_logits, said, atol=1e-5)
    assert (said.argmax(-1) == BATCH["domain_id"]).float().mean() > 0.9


@pytest.mark.parametrize("variant", VARIANTS)
def test_probes_change_nothing_but_what_is_said_of_the_domain(build: Build, variant: str) -> None:
    model = build(variant, moved=True).prepare_for_inference()
    with torch.no_grad():
        before = model(**TOKENS)
        features = deeper_features(model, [BATCH], blocks=1)
        fit_domain_probes_(model, features, BATCH["domain_id"], blocks=1)
        after = model(**TOKENS)
    for name in before:
        same = torch.equal(before[name], after[name])
        assert same == (name != "domain_logits"), name


def test_the_table_of_words_adds_to_the_probes_and_leaves_the_heads_weights(build: Build) -> None:
    model = fitted(build)
    with torch.no_grad():
        plain, said = model.encode(*TOKENS.values()), by_hand(model)
        rows = features_of(model, [BATCH])
        fit_domain_words_(model, [BATCH], rows, penalty=0.01, said=said)
        worded = model.encode(*TOKENS.values())
    assert model.domain_words is not None
    words = model.domain_words(TOKENS["input_ids"], worded.content)
    assert torch.allclose(worded.domain.logits, said + words, atol=1e-5)
    assert torch.equal(worded.domain.weights, plain.domain.weights)
    assert torch.equal(worded.hidden, plain.hidden)


def test_in_training_the_head_speaks_for_itself(build: Build) -> None:
    model, plain = fitted(build), build("routing", moved=True)
    labels = torch.zeros(len(BATCH["domain_id"]), dtype=torch.long)
    losses = []
    for one in (model, plain):
        one.train()
        for module in one.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        one.domain_head.dropout = 0.0
        found = one(**BATCH, labels=labels)
        found.loss.backward()
        losses.append(found.loss_domain)
    assert torch.allclose(losses[0], losses[1], atol=1e-6)
    assert model.domain_head.weight.grad is not None
    assert bool(model.domain_head.weight.grad.any())


def test_a_row_alone_reads_as_among_others(build: Build) -> None:
    model = fitted(build, "moe")
    with torch.no_grad():
        together = model(**TOKENS).domain_logits[3:4]
        length = int(TOKENS["attention_mask"][3].sum())
        alone = model(**{name: rows[3:4, :length] for name, rows in TOKENS.items()}).domain_logits
    assert torch.allclose(together, alone, atol=1e-4)


def test_they_travel_with_the_weights(build: Build, tmp_path: Path) -> None:
    model = fitted(build)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16).prepare_for_inference()
    assert again.config.domain_blocks == 2
    assert again.domain_probes is not None
    assert again.domain_probes.weight.dtype == torch.float32  # as the head
    again = type(model).from_pretrained(tmp_path).prepare_for_inference()
    with torch.no_grad():
        assert torch.equal(again(**TOKENS).domain_logits, model(**TOKENS).domain_logits)


def test_rows_of_unknown_domain_count_nothing_and_are_read_all_the_same(build: Build) -> None:
    model = build("none", moved=True).prepare_for_inference()
    features, domain = deeper_features(model, [BATCH], blocks=1), BATCH["domain_id"].clone()
    domain[::4] = -1
    found = fit_domain_probes_(model, features, domain, blocks=1)
    assert found.rows == int((domain >= 0).sum())
    assert found.after < found.before
    with torch.no_grad():
        assert torch.allclose(found.said.float(), model(**TOKENS).domain_logits, atol=1e-4)


@pytest.mark.parametrize("blocks", [0, 4, -1])
def test_so_many_blocks_as_there_are_below_the_last(build: Build, blocks: int) -> None:
    model = build("none")
    with pytest.raises(ModelError, match=rf"domain_blocks {blocks}: this encoder has 3 blocks .*; set 1 … 3"):
        deeper_features(model, [BATCH], blocks=blocks)
    model.config.domain_blocks = blocks
    if blocks:
        with pytest.raises(ModelError, match=rf"domain_blocks {blocks}"):
            type(model)(model.config)


def test_what_cannot_be_fitted_is_refused_and_leaves_the_model(build: Build) -> None:
    model = build("none")
    with pytest.raises(ModelError, match="no rows came"):
        deeper_features(model, [], blocks=1)
    features = deeper_features(model, [BATCH], blocks=1)
    with pytest.raises(ModelError, match="no row has a known domain"):
        fit_domain_probes_(model, features, torch.full((60,), -1), blocks=1)
    features[3, 2] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        fit_domain_probes_(model, features, BATCH["domain_id"], blocks=1)
    assert model.domain_probes is None
    assert model.config.domain_blocks == 0
