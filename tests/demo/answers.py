"""Answers made by hand."""

from __future__ import annotations

from typing import Any

from serving.types import Classification, DomainSource, ModelVersion, Timings, TokenStrata

TEXT = "Plots drag <b>on</b>"


def token(text: str, start: int, end: int, *strata: float) -> TokenStrata:
    return TokenStrata(text, start, end, tuple(strata), 0.25)


def answer(**values: Any) -> Classification:
    """An answer to `TEXT` with two strata; `values` replace fields."""
    plain: dict[str, Any] = {
        "label": "negative",
        "label_index": 0,
        "score": 0.75,
        "scores": (("negative", 0.75), ("positive", 0.25)),
        "domain": "imdb",
        "domain_source": DomainSource.INFERRED,
        "domain_scores": (("imdb", 0.6), ("tweets", 0.4)),
        "out_of_domain_score": -1.25,
        "out_of_domain": False,
        "strata": (0.7, 0.3),
        "token_count": 4,
        "original_token_count": 4,
        "model": ModelVersion("moe", "7", "ab" * 32),
        "tokens": (
            token("[CLS]", 0, 0, 0.5, 0.5),
            token("plots", 0, 5, 0.9, 0.1),
            token("drag", 6, 10, 0.2, 0.8),
            token("[SEP]", 0, 0, 0.5, 0.5),
        ),
        "timings": Timings(0.001, 0.002, 0.003, 0.0065, 3, 48),
    }
    return Classification(**(plain | values))
