"""Exported graphs of every family, of the controls and of the fitted out-of-domain scores.

A choice in which each family, control and score comes once; `make models-table` exports every pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stratified_models import load_tokenizer
from stratified_models.bundle import Bundle, load_model, read_bundle, write_bundle
from stratified_models.config import UNKNOWN_SCORES
from stratified_models.features import features_of
from stratified_models.onnx_export import export_onnx, field_of
from stratified_models.onnx_model import NAMES, OnnxModel
from stratified_models.openvino_int8 import OPENVINO_INT8, open_export
from stratified_models.testing import tiny_backbone, tiny_bundle
from stratified_models.tiny import TINY_FAMILIES
from stratified_models.unknown import fit_unknown_
from tests.stratified_models.conftest import TEXTS, move_

CHOSEN = [
    ("bert", {"variant": "attention", "control": "shuffled"}, "energy"),
    ("roberta", {"variant": "moe", "control": "lexical"}, "nearest"),
    ("gpt2", {"variant": "layers", "control": "domain_only"}, "mahalanobis"),
    ("gpt2", {"variant": "routing", "control": "random_gate", "pooling": "last"}, "geometry"),
    ("distilbert", {"variant": "none", "control": "matched"}, "mahalanobis"),
]
LENGTHS = (1, 2, 3, 17, 40, 64)


def made(folder: Path, family: str, options: dict[str, Any], score: str) -> Bundle:
    """An exported bundle of three blocks, moved away from zero, with the score fitted if it needs that."""
    tiny_backbone(folder / "backbone", family=family, layers=3)
    bundle = tiny_bundle(folder, family=family, **options)
    tokenizer = load_tokenizer(bundle.path, max_length=64)
    model = move_(load_model(bundle))
    if score != "energy":
        texts = [text for text in TEXTS if text]
        rows = tokenizer(texts * 4, padding=True, return_tensors="pt")
        domains = torch.arange(len(texts)).repeat(4) % 2  # each text in one domain, so that the two differ
        batch = {"domain_id": domains, **{name: rows[name] for name in ("input_ids", "attention_mask")}}
        fit_unknown_(model, features_of(model, [batch]), score=score, keep=20)
    write_bundle(folder, model=model, tokenizer=tokenizer, manifest=bundle.manifest, card="# tiny\n")
    export_onnx(folder, texts=TEXTS)
    return read_bundle(folder)


def agree(bundle: Bundle) -> None:
    """Every output within 1e-4 of torch's at lengths the graph was not traced with, alone and together."""
    model = load_model(bundle)
    pad = int(model.config.pad_token_id or 0)
    runner = OnnxModel(bundle.path / NAMES["fp32"], pad=pad, threads=1)
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 200, length).tolist() for length in LENGTHS]
    for chosen, domains in ((rows, [-1, 0, 1, -1, 0, 1]), (rows[:1], [1]), (rows[-1:], [-1])):
        found = runner.run(chosen, domains)
        longest = max(map(len, chosen))
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in chosen])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in chosen])
        with torch.inference_mode():
            reply = model(ids, mask, domain_id=torch.tensor(domains))
        for name, values in found.items():
            expected = reply[field_of(name)].numpy()
            np.testing.assert_allclose(values, expected, atol=1e-4, rtol=1e-4, err_msg=name)


def test_the_choice_holds_every_family_control_and_score() -> None:
    assert {family for family, _, _ in CHOSEN} == set(TINY_FAMILIES)
    assert {score for _, _, score in CHOSEN} == set(UNKNOWN_SCORES)


@pytest.mark.parametrize(("family", "options", "score"), CHOSEN, ids=lambda value: str(value)[:40])
def test_exports_of_families_controls_and_scores_agree(
    family: str, options: dict[str, Any], score: str, tmp_path: Path
) -> None:
    bundle = made(tmp_path, family, options, score)
    agree(bundle)
    if score in ("mahalanobis", "nearest"):
        int8_keeps_the_score(bundle)


def int8_keeps_the_score(bundle: Bundle) -> None:
    """Both int8 files are made of a graph that computes distances in double precision, and keep them."""
    export_onnx(bundle.path, quantize="int8", texts=TEXTS)
    rows = np.random.default_rng(1).integers(5, 200, (40, 12)).tolist()
    exact = OnnxModel(bundle.path / NAMES["fp32"], pad=0, threads=1).run(rows, [-1] * 40)["energy"]
    for name in (NAMES["int8"], OPENVINO_INT8):
        found = open_export(bundle.path / name, pad=0, threads=1).run(rows, [-1] * 40)["energy"]
        assert np.corrcoef(found, exact)[0, 1] > 0.9, name
        assert np.abs(found - exact).mean() < 0.5 * exact.std(), name
