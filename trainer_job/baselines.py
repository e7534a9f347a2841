"""Baselines: what a sweep must beat — the most frequent label, and TF-IDF with logistic regression.

Both are fitted on exactly the training rows of the corpus and measured like a model. It does not know the
models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer_job.data import Corpus
from trainer_job.metrics import evaluate

Result = dict[str, Any]
EVALUATED = ("validation", "test")
FEW_ROWS = 500  # below, a word that occurs once is worth keeping
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)


def majority(corpus: Corpus) -> Result:
    """Always the label shares of the training rows, so always their most frequent label.

    Returns:
        `validation` and `test`: what `metrics.evaluate` gives.
    """
    counts = np.bincount(_column(corpus, "train", "label"), minlength=len(corpus.labels))
    row = _log((counts / counts.sum())[None, :])
    return {
        split: _measure(corpus, split, np.repeat(row, len(corpus.splits[split]), axis=0))
        for split in EVALUATED
    }


def tfidf_logreg(corpus: Corpus) -> Result:
    """Word and word-pair TF-IDF with logistic regression; C is chosen by macro-F1 on validation, as the
    sweep chooses.

    Returns:
        `validation`, `test` and `c`, the chosen inverse regularisation.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rare = 2 if len(corpus.splits["train"]) >= FEW_ROWS else 1
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=rare, sublinear_tf=True, max_features=200_000)
    train = vectorizer.fit_transform(list(corpus.splits["train"]["text"]))
    features = {split: vectorizer.transform(list(corpus.splits[split]["text"])) for split in EVALUATED}
    gold = _column(corpus, "train", "label")
    best: tuple[float, float, Any] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, solver="newton-cg", tol=1e-3, max_iter=1000).fit(train, gold)
        score = _measure(corpus, "validation", _spread(model, features["validation"], corpus))["macro_f1"]
        if best is None or score > best[0]:
            best = (score, strength, model)
    _, chosen, model = best if best is not None else (0.0, STRENGTHS[0], None)
    return {
        **{split: _measure(corpus, split, _spread(model, features[split], corpus)) for split in EVALUATED},
        "c": chosen,
    }


def _spread(model: Any, features: Any, corpus: Corpus) -> npt.NDArray[np.float64]:
    """Log-probabilities (n, C) over all labels; a label without training rows gets next to nothing."""
    known = model.predict_proba(features)
    every = np.zeros((known.shape[0], len(corpus.labels)))
    every[:, model.classes_] = known
    return _log(every)


def _log(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = np.log(np.maximum(probabilities, 1e-12))
    return result


def _column(corpus: Corpus, split: str, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(corpus.splits[split][name], dtype=np.int64)


def _measure(corpus: Corpus, split: str, logits: npt.NDArray[np.float64]) -> Result:
    return evaluate(
        logits,
        _column(corpus, split, "label"),
        _column(corpus, split, "domain_id"),
        domains=corpus.domains,
        label_names=corpus.labels,
        domain_labels=corpus.domain_labels,
    )
