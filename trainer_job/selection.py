"""Which variant to serve, by validation alone, and what may be said about the others, in words.

Input: unit records and their predictions as arrays. It does not read files and does not know how units are
trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from trainer_job.significance import holm, mcnemar, minimum_detectable_difference, paired_bootstrap

BASELINE = "none"
ALPHA = 0.05
RULE = (
    "none, unless a variant's validation macro-F1 is higher with p < 0.05 (paired bootstrap over rows and "
    "seeds, "
    "Holm-corrected over the variants); among several, the highest; its seed is the best on validation"
)


METHOD = "Percentile bootstrap, paired over rows and, with several, over seeds"


@dataclass(frozen=True)
class Predictions:
    """One split: gold labels (n,), for each variant predicted classes (S, n) of the same rows, and the seed
    numbers of these S runs; 0 … S-1 where they are not given.
    """

    labels: np.ndarray
    by_variant: Mapping[str, np.ndarray]
    seeds: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def paired(self, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
        """The runs of both variants with the seeds that both have, (common, n) each, seed by seed."""
        places = [
            {seed: place for place, seed in enumerate(self.seeds.get(name, range(len(runs))))}
            for name, runs in ((a, self.by_variant[a]), (b, self.by_variant[b]))
        ]
        common = sorted(places[0].keys() & places[1].keys())
        one, other = ([place[seed] for seed in common] for place in places)
        return self.by_variant[a][one], self.by_variant[b][other]


def standard_error(predicted: np.ndarray, labels: np.ndarray, *, samples: int) -> float:
    """Standard error of macro-F1 over rows and seeds, by bootstrap: the 95 % interval's width / 3.92."""
    found = paired_bootstrap(predicted, labels, labels, "macro_f1", samples=samples)
    low, high = found["ci95"]
    return float((high - low) / 3.92)


def is_control(name: str) -> bool:
    """Whether a sweep's name of a variant names a control, as `moe:shuffled` does."""
    return ":" in name


def compare(split: str, predictions: Predictions, *, samples: int) -> list[dict[str, Any]]:
    """Differences in macro-F1 on one split, with 95 % interval, p, Holm-corrected p and McNemar.

    Two families, each corrected by itself: every variant against `none`, by which selection goes; and what
    the controls are for: each variant against its own controls and `none:matched`, and each control against
    `none`. Only seeds that both have are compared: a seed fixes the order of rows and the new modules' first
    weights, so other seeds would be other experiments. A pair without a common seed is left out.
    """
    names = list(predictions.by_variant)
    proper = [name for name in names if not is_control(name) and name != BASELINE]
    controls = [name for name in names if is_control(name)]
    against = [(a, b) for b in controls for a in proper if b.startswith((f"{a}:", f"{BASELINE}:"))]
    families = [[(name, BASELINE) for name in proper], [*against, *((name, BASELINE) for name in controls)]]
    found = []
    for pairs in families:
        runs = [(a, b, *predictions.paired(a, b)) for a, b in pairs if {a, b} <= set(names)]
        family = [
            {"a": a, "b": b, **_difference(split, one, other, predictions.labels, samples=samples)}
            for a, b, one, other in runs
            if len(one)
        ]
        for entry, corrected in zip(family, holm([entry["p"] for entry in family]), strict=True):
            entry["p_corrected"] = corrected
        found += family
    return found


def _difference(
    split: str, one: np.ndarray, other: np.ndarray, labels: np.ndarray, *, samples: int
) -> dict[str, Any]:
    """Of the runs `one` over `other`, (S, n) each; the corrected p is left to the family."""
    result = paired_bootstrap(one, other, labels, "macro_f1", samples=samples)
    discordant = mcnemar(one, other, labels)
    share = (discordant["only_a"] + discordant["only_b"]) / len(labels)
    return {
        "split": split,
        "metric": "macro_f1",
        "method": METHOD,
        "n": len(labels),
        "seeds": len(one),
        "delta": result["delta"],
        "ci95": result["ci95"],
        "se": (result["ci95"][1] - result["ci95"][0]) / 3.92,
        "p": result["p"],
        "p_corrected": None,
        "mcnemar": discordant,
        "detectable_accuracy_difference": minimum_detectable_difference(share, len(labels)),
    }


def _rivals(comparisons: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    """The variants proper against `none`."""
    return [
        entry
        for entry in comparisons
        if entry["split"] == split and entry["b"] == BASELINE and not is_control(entry["a"])
    ]


def best_seed(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The record with the highest validation macro-F1; the lowest seed among equals."""
    return max(records, key=lambda record: (record["validation"]["macro_f1"], -record["seed"]))


def select(
    records: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """{variant, seed, path, rule, reason}: what to serve by RULE; None while no variant is finished."""
    records = [record for record in records if not is_control(record["variant"])]
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
        reason = (
            f"highest validation macro-F1 ({means[chosen]:.3f}) among the trained; "
            "the baseline `none` was not trained"
        )
    else:
        better = [
            entry
            for entry in _rivals(comparisons, "validation")
            if entry["delta"] > 0 and entry["p_corrected"] < ALPHA
        ]
        if better:
            entry = max(better, key=lambda item: item["delta"])
            chosen = str(entry["a"])
            ours, theirs = _means_on_common_seeds(by_variant[chosen], by_variant[BASELINE])
            reason = (
                f"validation macro-F1 {ours:.3f} against {theirs:.3f} of `none` "
                f"({entry['delta']:+.3f}, corrected p = {entry['p_corrected']:.3f})"
            )
        else:
            chosen = BASELINE
            reason = _why_none(means, comparisons)
    seed = best_seed(by_variant[chosen])["seed"]
    return {"variant": chosen, "seed": seed, "path": chosen, "rule": RULE, "reason": reason, "by": "rule"}


def _means_on_common_seeds(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]
) -> tuple[float, float]:
    """Mean validation macro-F1 of two variants, over the seeds by which they were compared."""
    scores = [{record["seed"]: record["validation"]["macro_f1"] for record in items} for items in (a, b)]
    common = scores[0].keys() & scores[1].keys()
    one, other = (fmean(score[seed] for seed in common) for score in scores)
    return one, other


def _why_none(means: Mapping[str, float], comparisons: Sequence[Mapping[str, Any]]) -> str:
    rivals = _rivals(comparisons, "validation")
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
    test = _rivals(comparisons, "test")
    if test:
        within = [entry for entry in test if entry["delta"] >= -2 * entry["se"]]
        parts = ", ".join(f"{entry['a']} {entry['delta']:+.3f} ± {entry['se']:.3f}" for entry in test)
        sentences.append(f"On test, macro-F1 against `none` (difference ± standard error): {parts}.")
        sentences.append(
            f"{len(within)} of {len(test)} variants are within two standard errors of `none` or better; with "
            f"{test[0]['n']} rows and {test[0]['seeds']} seed(s), differences in accuracy below about "
            f"{100 * max(entry['detectable_accuracy_difference'] for entry in test):.1f} points cannot be "
            "told from chance."
        )
    sentences += _against_controls(comparisons) + _against_tfidf(variants, baselines)
    return " ".join(sentences)


def _against_controls(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """What may be said about strata: a variant uses them only if it beats its controls on test."""
    pairs = [entry for entry in comparisons if entry["split"] == "test" and is_control(entry["b"])]
    sentences = []
    for name in dict.fromkeys(entry["a"] for entry in pairs):
        own = [entry for entry in pairs if entry["a"] == name]
        lost = [entry["b"] for entry in own if not (entry["delta"] > 0 and entry["p_corrected"] < ALPHA)]
        parts = ", ".join(f"{entry['b']} {entry['delta']:+.3f} ± {entry['se']:.3f}" for entry in own)
        outcome = f"it does not beat {' and '.join(lost)}" if lost else "it beats them all"
        sentences.append(f"{name} against its controls: {parts}; {outcome} (corrected p < {ALPHA}).")
    return sentences


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
