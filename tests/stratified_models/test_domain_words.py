"""The table of words beside the domain head: what it finds, what it leaves alone, and that it travels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.domain_words import DomainWords, fit_domain_words_, pair_buckets
from stratified_models.errors import ModelError
from stratified_models.features import features_of
from stratified_models.tracing import trace
from tests.stratified_models.conftest import Build

CLUES = (7, 8, 9)  # the word that each of three domains has in every row
PENALTY = 0.01


def texts(count: int = 60, *, seed: int = 0) -> dict[str, Tensor]:
    """Rows of 3 to 9 words after a special token, one of them the domain's own."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 40, (count, 10), generator=generator)
    domain, length = torch.arange(count) % 3, 4 + torch.arange(count) % 7
    ids[:, 0], ids[:, 1] = 2, torch.tensor(CLUES)[domain]
    mask = (torch.arange(10) < length[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "domain_id": domain}


def fitted(build: Build, variant: str = "routing") -> StratifiedForSequenceClassification:
    model = build(variant, moved=True)
    batch = texts()
    fit_domain_words_(model, [batch], features_of(model, [batch]), penalty=PENALTY)
    return model.prepare_for_inference()


def table_of(model: StratifiedForSequenceClassification) -> Tensor:
    assert model.domain_words is not None
    return model.domain_words.table


def shares(batch: dict[str, Tensor], special: Sequence[int], vocabulary: int) -> np.ndarray:
    """Counts over √n, dense, by loops."""
    rows = np.zeros((len(batch["input_ids"]), vocabulary))
    for row, (ids, mask) in enumerate(zip(batch["input_ids"], batch["attention_mask"], strict=True)):
        content = [int(i) for i, seen in zip(ids, mask, strict=True) if seen and int(i) not in special]
        for word in content:
            rows[row, word] += 1 / np.sqrt(len(content))
    return rows


def test_scores_are_sums_over_words_by_the_root_of_their_number() -> None:
    module = DomainWords(vocabulary=5, domains=2)
    module.table.copy_(torch.arange(10.0).view(5, 2))
    ids = torch.tensor([[1, 3, 3, 4], [2, 4, 0, 0]])
    content = torch.tensor([[True, True, True, False], [False, False, False, False]])
    expected = torch.tensor([[2 + 6 + 6, 3 + 7 + 7], [0, 0]]) / torch.tensor([[3.0], [1.0]]).sqrt()
    assert torch.allclose(module(ids, content), expected)


def test_pairs_are_summed_beside_the_words() -> None:
    module = DomainWords(vocabulary=5, domains=1, pairs=3)
    module.table.copy_(torch.tensor([[0.0], [1], [2], [3], [4], [100], [200], [400]]))
    ids = torch.tensor([[1, 3, 3, 4], [2, 4, 0, 0]])
    content = torch.tensor([[True, True, True, False], [True, False, False, False]])
    buckets = [(a * 7919 + b) % 3 for a, b in ((1, 3), (3, 3))]
    pairs = sum((100, 200, 400)[bucket] for bucket in buckets)
    expected = torch.tensor([[(1 + 3 + 3 + pairs) / 3**0.5], [2.0]])
    assert torch.allclose(module(ids, content), expected)


def test_more_words_than_32_bits_can_pair_are_refused() -> None:
    DomainWords(vocabulary=250_002, domains=2, pairs=16)  # the largest of common encoders
    DomainWords(vocabulary=300_000, domains=2)
    with pytest.raises(ModelError, match=r"domain_pairs 16: 300,000 words are more than 271,\d\d\d, which"):
        DomainWords(vocabulary=300_000, domains=2, pairs=16)


def test_special_tokens_and_padding_are_in_no_pair() -> None:
    ids = torch.tensor([[2, 7, 8, 3, 9, 0]])
    content = torch.tensor([[False, True, True, False, True, False]])
    _, there = pair_buckets(ids, content, pairs=16)
    assert there.tolist() == [[False, True, False, False, False, False]]


def test_the_order_of_words_is_told_by_pairs_alone(build: Build) -> None:
    model = build("none")
    generator, flip = torch.Generator().manual_seed(1), torch.arange(80) % 2
    ids = torch.randint(10, 40, (80, 8), generator=generator)
    ids[:, 0], ids[:, 7] = 2, 3
    ids[:, 3], ids[:, 4] = torch.where(flip == 0, 7, 8), torch.where(flip == 0, 8, 7)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "domain_id": flip}
    rows = features_of(model, [batch])
    found = {}
    for pairs in (0, 512):
        fit = fit_domain_words_(model, [batch], rows, penalty=PENALTY, pairs=pairs)
        assert model.config.domain_pairs == pairs
        assert table_of(model).shape[0] == model.config.backbone_config.vocab_size + pairs
        found[pairs] = fit.after
    assert found[512] < 0.2
    assert found[0] > 2 * found[512]


def test_pairs_travel_with_the_model_and_are_traced(build: Build, tmp_path: Path) -> None:
    model, batch = build("routing", moved=True), texts()
    fit_domain_words_(model, [batch], features_of(model, [batch]), penalty=PENALTY, pairs=64)
    model.prepare_for_inference()
    model.save_pretrained(tmp_path)
    again = StratifiedForSequenceClassification.from_pretrained(tmp_path).prepare_for_inference()
    assert torch.equal(table_of(again), table_of(model))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.inference_mode():
        said = model(ids, mask).domain_logits
        assert torch.equal(again(ids, mask).domain_logits, said)
    assert torch.allclose(trace(model, ids, mask).domain_logits, said, atol=1e-6)
    wide = {name: torch.nn.functional.pad(batch[name], (0, 7)) for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        assert torch.allclose(model(**wide).domain_logits, said, atol=1e-5)


def test_weighted_rows_count_as_often(build: Build) -> None:
    """A row of weight two is that row twice."""
    model, batch = build("none"), texts(30)
    weights = 1.0 + torch.arange(30) % 2
    again = torch.arange(30).repeat_interleave(weights.long())
    # each word in two rows or more both ways, so that the same words are fitted
    twice = {name: torch.cat([part, part]) for name, part in batch.items()}
    both = features_of(model, [twice])
    fit_domain_words_(model, [twice], both, penalty=PENALTY, weights=weights.repeat(2))
    table = table_of(model).clone()
    often = {name: torch.cat([part, part])[torch.cat([again, again + 30])] for name, part in batch.items()}
    fit_domain_words_(model, [often], both.take(torch.cat([again, again + 30])), penalty=PENALTY)
    assert torch.allclose(table_of(model), table, atol=1e-4)


def test_it_finds_what_logistic_regression_finds(build: Build) -> None:
    """Where the head says nothing; an intercept apart, which the head has."""
    model, batch = build("none"), texts()
    rows = features_of(model, [batch])
    special, vocabulary = model.config.special_token_ids, model.config.backbone_config.vocab_size
    assert not model.domain_head.weight.any()
    found = fit_domain_words_(model, [batch], rows, penalty=PENALTY)
    x = shares(batch, special, vocabulary)
    x[:, (x > 0).sum(0) < 2] = 0
    assert found.words == (x.any(0)).sum()
    other = LogisticRegression(C=1 / (PENALTY * len(x)), fit_intercept=False, tol=1e-10, max_iter=10_000)
    other.fit(x, batch["domain_id"].numpy())
    assert np.abs(table_of(model).numpy().T - other.coef_).max() < 1e-4
    assert found.before == pytest.approx(np.log(3), abs=1e-6)
    assert found.after < 0.3


def test_unseen_rows_are_told_by_their_words_and_the_head_stays(build: Build) -> None:
    model, batch = build("routing", moved=True), texts()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_domain_words_(model, [batch], features_of(model, [batch]), penalty=1e-4)
    after = model.prepare_for_inference().state_dict()
    assert {name for name in after if name not in before or not torch.equal(after[name], before[name])} <= {
        "domain_words.table",
        *(name for name in after if name.startswith("gate.")),  # folded for inference
    }
    other = texts(200, seed=5)
    said = model(other["input_ids"], other["attention_mask"]).domain_logits.argmax(-1)
    assert float((said == other["domain_id"]).float().mean()) > 0.95


def test_a_given_domain_and_the_energy_do_not_hear_the_words(build: Build) -> None:
    model, batch = fitted(build), texts(8, seed=2)
    with torch.inference_mode():
        known = model(**batch)
        unknown = model(batch["input_ids"], batch["attention_mask"])
        table_of(model).zero_()
        known_without = model(**batch)
        unknown_without = model(batch["input_ids"], batch["attention_mask"])
    assert torch.equal(known.logits, known_without.logits)
    assert torch.equal(known.energy, known_without.energy)
    assert not torch.equal(unknown.domain_logits, unknown_without.domain_logits)
    assert not torch.equal(unknown.logits, unknown_without.logits)  # the domain guides the strata


def test_padding_and_company_change_nothing(build: Build) -> None:
    model, batch = fitted(build), texts(6, seed=3)
    wide = {name: torch.nn.functional.pad(batch[name], (0, 7)) for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        together = model(**wide).domain_logits
        alone = [
            model(batch["input_ids"][k : k + 1], batch["attention_mask"][k : k + 1]).domain_logits
            for k in range(6)
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_a_trace_says_the_same(build: Build) -> None:
    model, batch = fitted(build), texts(6, seed=3)
    seen = trace(model, batch["input_ids"], batch["attention_mask"])
    with torch.inference_mode():
        said = model(batch["input_ids"], batch["attention_mask"]).domain_logits
    assert torch.allclose(seen.domain_logits, said, atol=1e-6)


def test_it_travels_with_the_model(build: Build, tmp_path: Path) -> None:
    model, batch = fitted(build), texts(6, seed=3)
    model.save_pretrained(tmp_path)
    again = StratifiedForSequenceClassification.from_pretrained(tmp_path).prepare_for_inference()
    assert torch.equal(table_of(again), table_of(model))
    with torch.inference_mode():
        one, other = (m(batch["input_ids"], batch["attention_mask"]) for m in (model, again))
    assert torch.equal(one.domain_logits, other.domain_logits)


def test_without_ids_the_words_are_silent(build: Build) -> None:
    model, batch = fitted(build), texts(4, seed=4)
    vectors = model.get_input_embeddings()(batch["input_ids"])
    with torch.inference_mode():
        mute = model(inputs_embeds=vectors, attention_mask=batch["attention_mask"])
        both = model(batch["input_ids"], batch["attention_mask"], inputs_embeds=vectors)
        plain = model(batch["input_ids"], batch["attention_mask"])
    assert not torch.allclose(mute.domain_logits, plain.domain_logits, atol=1e-3)
    assert torch.allclose(both.domain_logits, plain.domain_logits, atol=1e-5)


def test_rows_of_unknown_domain_are_left_out(build: Build) -> None:
    model, batch = build("none"), texts()
    fit_domain_words_(model, [batch], features_of(model, [batch]))
    expected = table_of(model)
    strange = texts(20, seed=9) | {"domain_id": torch.full((20,), -1)}
    fit_domain_words_(model, [strange, batch], features_of(model, [strange, batch]))
    assert torch.allclose(table_of(model), expected, atol=1e-6)


def test_what_cannot_be_fitted_is_refused(build: Build) -> None:
    model, batch = build("none"), texts()
    rows = features_of(model, [batch])
    with pytest.raises(ModelError, match="120 rows of words, 60 of features"):
        fit_domain_words_(model, [batch, batch], rows)
    with pytest.raises(ModelError, match="known domain"):
        fit_domain_words_(model, [batch], rows._replace(domain_id=torch.full((60,), -1)))
    assert not model.config.domain_words
