"""The library's own ways in: Auto classes and pipelines on a bundle, with and without a domain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from stratified_models import ModelError, StratifiedForSequenceClassification, load_tokenizer
from stratified_models.bundle import Bundle
from stratified_models.pipeline import DomainTextClassification
from stratified_models.testing import tiny_bundle
from stratified_models.tiny import TINY_FAMILIES
from tests.stratified_models.conftest import TEXTS, move_

DOMAINS = ("imdb", "tweets")


@pytest.fixture(scope="module", params=TINY_FAMILIES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    return tiny_bundle(folder, family=request.param, variant="routing", domains=DOMAINS)


@pytest.fixture(scope="module")
def classify(bundle: Bundle) -> DomainTextClassification:
    made = pipeline("text-classification", model=str(bundle.path))
    assert isinstance(made, DomainTextClassification)
    assert isinstance(made.model, StratifiedForSequenceClassification)
    assert not made.model.training
    move_(made.model).prepare_for_inference()
    return made


def test_auto_class_loads_a_bundle(bundle: Bundle) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(bundle.path)
    assert isinstance(model, StratifiedForSequenceClassification)
    assert model.config.label2id == {"negative": 0, "neutral": 1, "positive": 2}


def test_pipeline_gives_the_model_s_own_probabilities(
    bundle: Bundle, classify: DomainTextClassification
) -> None:
    rows = load_tokenizer(bundle.path, max_length=64)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = classify.model(**rows).logits.softmax(-1)[0]
    scores = {answer["label"]: answer["score"] for answer in classify(TEXTS[0], top_k=None)}
    found = torch.tensor([scores[label] for label in ("negative", "neutral", "positive")])
    assert float((found - expected).abs().max()) < 1e-6


def test_a_domain_changes_what_it_should(bundle: Bundle, classify: DomainTextClassification) -> None:
    rows = load_tokenizer(bundle.path, max_length=64)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = classify.model(**rows, domain_id=torch.tensor([1])).logits.softmax(-1).max()
    (named,) = classify(TEXTS[0], domain="tweets")
    assert named["score"] == pytest.approx(float(expected), abs=1e-6)
    assert named["score"] != pytest.approx(classify(TEXTS[0])[0]["score"], abs=1e-6)
    (first, second) = classify([{"text": TEXTS[0], "domain": "tweets"}, {"text": TEXTS[0]}], batch_size=2)
    assert first["score"] == pytest.approx(named["score"], abs=1e-5)
    assert second["score"] == pytest.approx(classify(TEXTS[0])[0]["score"], abs=1e-5)


def test_texts_of_any_length_in_batches(classify: DomainTextClassification) -> None:
    texts = ["", "good", "bad " * 500]
    together = classify(texts, batch_size=3)
    for text, answer in zip(texts, together, strict=True):
        assert answer["score"] == pytest.approx(classify(text)[0]["score"], abs=1e-5)


def test_an_unknown_domain_is_refused(classify: DomainTextClassification) -> None:
    with pytest.raises(ModelError, match=r"'cars' is unknown.*choose one of imdb, tweets, or none"):
        classify("good", domain="cars")


def test_a_word_that_no_one_takes_is_refused(classify: DomainTextClassification) -> None:
    with pytest.raises(TypeError, match=r"takes no 'domian'.*given as domain="):
        classify("good", domian="imdb")
    with pytest.raises(TypeError, match=r"takes no 'domain_id'.*given as domain="):
        classify({"text": "good", "domain_id": "1"})
    (cut,) = classify("good " * 90, truncation=True, max_length=8, return_special_tokens_mask=True)
    assert cut["score"] != classify("good " * 90)[0]["score"]


def test_other_models_run_as_before(tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from stratified_models.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    sizes = {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "vocab_size": len(tokenizer)}
    config = DistilBertConfig.from_dict(sizes)
    other = pipeline(
        "text-classification", model=DistilBertForSequenceClassification(config), tokenizer=tokenizer
    )
    (answer,) = other("good film")
    assert answer["label"].startswith("LABEL_")
