"""A place as a newcomer's after the quickstart: results with tiny bundles, served, and some files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from examples.make_shoes import main as make_shoes
from stratified_models.testing import tiny_bundle
from tests.live import fake_service

VARIANTS = ("none", "routing")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    results = folder / "results" / "hf_trainer_stratified"
    for variant in VARIANTS:
        tiny_bundle(results / variant, variant=variant)
    selected = {"selected": {"variant": "none", "path": "none"}}
    (results / "results.json").write_text(json.dumps(selected), encoding="utf-8")
    make_shoes(folder / "shoes.csv", 60)
    trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
    (folder / "tokens").write_text("0123456789abcdef0123456789abcdef\n", encoding="utf-8")
    (folder / "reviews.txt").write_text("a good film\na bad one\n", encoding="utf-8")
    rows = "".join(f"k{n},text number {n},{1 + n % 5}\n" for n in range(20))
    (folder / "reviews.csv").write_text(f"key,body,stars\n{rows}", encoding="utf-8")
    (folder / "reviews.jsonl").write_text('{"text": "good", "domain": "imdb", "id": "a"}\n', encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def served(place: Path) -> Iterator[str]:
    with fake_service(None, models=place / "results" / "hf_trainer_stratified") as target:
        yield target
