"""Broken and foreign input: every kind is made, and told from the known where it is far away."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stratified_models.features import PooledRows
from stratified_models.testing import tiny_backbone
from stratified_models.tokenizer import load_tokenizer
from trainer_job.inspection.reading import pooled_rows
from trainer_job.inspection.strange import KINDS, foreign_rows, strange_figures, unseen_domains
from trainer_job.inspection.texts import read_texts

TEXTS = ["the film was good but the ending is sad", "a bad book", "I love this phone"] * 20


def rows(features: np.ndarray, domains: np.ndarray | None = None) -> PooledRows:
    """Texts of 10 tokens; of unknown domain unless given."""
    return pooled_rows(
        features, np.full(len(features), 10), np.full(len(features), -1) if domains is None else domains
    )


def test_every_kind_is_made_and_keeps_what_it_should(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_backbone(tmp_path), max_length=32)
    made = foreign_rows(TEXTS, tokenizer, max_length=32, seed=1)
    assert tuple(made) == KINDS
    assert all(0 < len(row) <= 32 for kind in KINDS for row in made[kind])
    own = {tuple(sorted(row)) for row in tokenizer(TEXTS)["input_ids"]}
    assert all(tuple(sorted(row)) in own for row in made["shuffled words"])  # the same words, elsewhere
    assert {row[0] for row in made["random ids"]} == {tokenizer.cls_token_id}
    assert made == foreign_rows(TEXTS, tokenizer, max_length=32, seed=1)


def test_what_is_far_away_is_found_and_what_is_not_is_chance() -> None:
    rng = np.random.default_rng(0)
    domains = np.arange(200) % 2
    known = (rng.standard_normal((200, 6)) + 4 * domains[:, None]).astype(np.float32)
    inside = (rng.standard_normal((100, 6)) + 4 * (np.arange(100) % 2)[:, None]).astype(np.float32)
    away = (rng.standard_normal((100, 6)) * [1, 1, 1, 1, 1, 30]).astype(np.float32)
    geometry = {"known": np.zeros(200), "far": np.ones(100), "near": np.zeros(100)}
    found = strange_figures(
        rows(known, domains), {"far": rows(away), "near": rows(inside)}, geometry=geometry
    )
    assert found is not None
    assert found["kinds"]["far"]["mahalanobis"] > 0.9
    assert 0.4 < found["kinds"]["near"]["mahalanobis"] < 0.6
    assert (found["kinds"]["far"]["geometry"], found["kinds"]["near"]["geometry"]) == (1.0, 0.5)


def test_one_domain_or_few_texts_give_nothing() -> None:
    known = np.zeros((100, 3), np.float32)
    assert strange_figures(rows(known, np.zeros(100, int)), {}) is None
    assert strange_figures(rows(known[:10], np.arange(10) % 2), {}) is None


def test_domains_that_the_model_does_not_know_are_named_where_enough_texts_are_of_them(
    tmp_path: Path,
) -> None:
    domains = ["books", "films", "plays", None] * 20 + ["news"] * 19
    lines = [json.dumps({"text": f"text {n}", "domain": name}) for n, name in enumerate(domains)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join([*lines, '{"text": "of no domain"}']), encoding="utf-8")
    texts = read_texts(path, labels=["negative", "positive"], domains=["books", "films"])
    found = unseen_domains(texts)
    assert list(found) == ["domain never seen: plays"]
    assert np.flatnonzero(found["domain never seen: plays"]).tolist() == list(range(2, 80, 4))
    assert texts.domains[:4].tolist() == [0, 1, -1, -1]
