"""Which variant to serve, by validation alone, and what may be said about the others, in words.

Input: unit records and their predictions as arrays. It does not read files and does not know how units are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from trainer_job.significance import holm, mcnemar, minimum_detectable_difference, paired_bootstrap

BASELINE = "none"
ALPHA = 0.05
RULE = (
    "none, unless a variant's validation macro-F1 is higher with p < 0.05 (paired bootstrap over rows and seeds, "
    "Holm-corrected over the variants); among several, the highest; its seed is the best on validation"
)


@dataclass(frozen=True)
class Predictions:
    """One split: gold labels (n,), and for each variant predicted classes (seeds, n) of the same rows."""

    labels: np.ndarray
    by_variant: Mapping[str, np.ndarray]


def standard_error(predicted: np.ndarray, labels: np.ndarray, *, samples: int) -> float:
    """Standard error of macro-F1 over rows (and seeds), by bootstrap: a quarter of the 95 % interval's width."""
    found = paired_bootstrap(predicted, labels, labels, "macro_f1", samples=samples)
    low, high = found["ci95"]
    return float((high - low) / 3.92)


def compare(split: str, predictions: Predictions, *, samples: int) -> list[dict[str, Any]]:
    """Each variant against `none` on one split: difference in macro-F1, 95 % interval, p, Holm-corrected p, McNemar."""
    baseline = predictions.by_variant.get(BASELINE)
    if baseline is None:
        return []
    found = []
    for name, predicted in predictions.by_variant.items():
        if name == BASELINE:
            continue
        result = paired_bootstrap(predicted, baseline, predictions.labels, "macro_f1", samples=samples)
        # McNemar needs one prediction a row: the first seed of both.
        discordant = mcnemar(predicted[0], baseline[0], predictions.labels)
        share = (discordant["only_a"] + discordant["only_b"]) / len(predictions.labels)
        found.append(
            {
                "a": name,
                "b": BASELINE,
                "split": split,
                "metric": "macro_f1",
                "n": len(predictions.labels),
                "seeds": len(predicted),
                "delta": result["delta"],
                "ci95": result["ci95"],
                "se": (result["ci95"][1] - result["ci95"][0]) / 3.92,
                "p": result["p"],
                "p_corrected": None,
                "mcnemar": discordant,
                "detectable_accuracy_difference": minimum_detectable_difference(
                    share, len(predictions.labels)
                ),
            }
        )
    for entry, corrected in zip(found, holm([entry["p"] for entry in found]), strict=True):
        entry["p_corrected"] = corrected
    return found


def best_seed(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The record with the highest validation macro-F1; the lowest seed among equals."""
    return max(records, key=lambda record: (record["validation"]["macro_f1"], -record["seed"]))


def select(
    records: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """{variant, seed, path, rule, reason}: what to serve by RULE; None while nothing is finished."""
    if not records:
        return None
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_variant.setdefault(record["variant"], []).append(record)
    means = {
        name: fmean(record["validation"]["macro_f1"] for record in items)
        for name, items in by_variant.items()
    }
    if BASELINE not in means:
        chosen = max(means, key=lambda name: means[name])
        reason = f"highest validation macro-F1 ({means[chosen]:.3f}) among the trained; the baseline `none` was not trained"
    else:
        better = [
            entry
            for entry in comparisons
            if entry["split"] == "validation" and entry["delta"] > 0 and entry["p_corrected"] < ALPHA
        ]
        if better:
            entry = max(better, key=lambda item: item["delta"])
            chosen = str(entry["a"])
            reason = (
                f"validation macro-F1 {means[chosen]:.3f} against {means[BASELINE]:.3f} of `none` "
                f"({entry['delta']:+.3f}, corrected p = {entry['p_corrected']:.3f})"
            )
        else:
            chosen = BASELINE
            reason = _why_none(means, comparisons)
    seed = best_seed(by_variant[chosen])["seed"]
    return {"variant": chosen, "seed": seed, "path": chosen, "rule": RULE, "reason": reason, "by": "rule"}


def _why_none(means: Mapping[str, float], comparisons: Sequence[Mapping[str, Any]]) -> str:
    rivals = [entry for entry in comparisons if entry["split"] == "validation"]
    if not rivals:
        return "no variant was compared with `none`"
    best = max(rivals, key=lambda entry: entry["delta"])
    return (
        f"no variant beats `none` (validation macro-F1 {means[BASELINE]:.3f}) significantly; the nearest is "
        f"{best['a']} ({best['delta']:+.3f}, corrected p = {best['p_corrected']:.3f})"
    )


def verdict(
    selected: Mapping[str, Any] | None,
    comparisons: Sequence[Mapping[str, Any]],
    variants: Mapping[str, Mapping[str, Any]],
    baselines: Mapping[str, Any],
) -> str:
    """The outcome in a few sentences; figures of test are described, never used to choose."""
    if selected is None:
        return "Nothing is finished yet."
    sentences = [f"Served: {selected['variant']} (seed {selected['seed']}): {selected['reason']}."]
    test = [entry for entry in comparisons if entry["split"] == "test"]
    if test:
        within = [entry for entry in test if entry["delta"] >= -2 * entry["se"]]
        parts = ", ".join(f"{entry['a']} {entry['delta']:+.3f} ± {entry['se']:.3f}" for entry in test)
        sentences.append(f"On test, macro-F1 against `none` (difference ± standard error): {parts}.")
        sentences.append(
            f"{len(within)} of {len(test)} variants are within two standard errors of `none` or better; with "
            f"{test[0]['n']} rows and {test[0]['seeds']} seed(s), differences in accuracy below about "
            f"{100 * max(entry['detectable_accuracy_difference'] for entry in test):.1f} points cannot be told from chance."
        )
    sentences += _against_tfidf(variants, baselines)
    return " ".join(sentences)


def _against_tfidf(variants: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Any]) -> list[str]:
    rival = (baselines.get("tfidf_logreg") or {}).get("test")
    own = variants.get(BASELINE)
    if not rival or not own:
        return []
    ours, error = own["test"]["macro_f1"]["mean"], own["test"]["macro_f1"]["se"]
    gap = ours - rival["macro_f1"]
    word = "beats" if gap > 2 * error else "is not clearly better than" if gap > 0 else "does not beat"
    return [
        f"`none` ({ours:.3f} ± {error:.3f}) {word} TF-IDF with logistic regression on the same rows "
        f"({rival['macro_f1']:.3f}) in pooled test macro-F1, {gap:+.3f}."
    ]
