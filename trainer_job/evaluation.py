"""From predictions of a unit to the figures that are recorded: metrics, calibration, thresholds, strata.

Pure numpy over arrays that are already in order of `row_id`, so that everything can be computed again from
kept predictions. It does not know the Trainer, torch or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from trainer_job.metrics import evaluate, fit_temperature

Arrays = Mapping[str, np.ndarray]
SCORES = ("energy", "geometry", "mahalanobis", "nearest")  # how unlike the training rows a text is
OUT_OF_DOMAIN_QUANTILE = 0.95


class Names(Protocol):
    """Names in order of their ids, and for each domain the ids of the labels that it has. A corpus is one."""

    @property
    def labels(self) -> tuple[str, ...]:
        """C names."""

    @property
    def domains(self) -> tuple[str, ...]:
        """N names."""

    @property
    def domain_labels(self) -> tuple[tuple[int, ...], ...]:
        """N tuples of label ids."""


def figures_of(
    splits: Mapping[str, Arrays], names: Names, *, held_out: Mapping[str, Any] | None, score: str
) -> dict[str, Any]:
    """Every figure of quality of a unit.

    Args:
        splits: `validation`, `test`, and where they were read `test_given_domain` and `held_out`.
        names: of labels and domains.
        held_out: name and label ids of the domain that was only tested.
        score: by which a text counts as out of domain.
    """
    validation, test = splits["validation"], splits["test"]
    figures = scores(validation, test, names, splits.get("test_given_domain"), score=score)
    outside = splits.get("held_out")
    figures["strata"] = strata_of(validation, names)
    figures["held_out"] = None
    if outside is not None and held_out is not None:
        figures["held_out"] = held_out_figures(outside, test, names, held_out, figures["calibration"])
    return figures


def metrics_of(rows: Arrays, names: Names, *, temperature: float = 1.0) -> dict[str, Any]:
    """The metric tree of `trainer_job.metrics.evaluate` for predicted rows."""
    return evaluate(
        rows["logits"],
        rows["labels"],
        rows["domain_id"],
        domains=names.domains,
        label_names=names.labels,
        domain_labels=names.domain_labels,
        temperature=temperature,
        domain_said=domain_said(rows),
    )


def domain_said(rows: Arrays) -> np.ndarray | None:
    """The domain that each row was taken for, (n,); None where the model did not say."""
    if "domain_said" in rows:
        return np.asarray(rows["domain_said"])
    return rows["domain_logits"].argmax(axis=1) if "domain_logits" in rows else None


def calibrate(
    validation: Arrays, *, quantile: float = OUT_OF_DOMAIN_QUANTILE, score: str = "energy"
) -> dict[str, Any]:
    """Temperature by validation NLL, and the score above which a text counts as out of domain."""
    strangeness = np.asarray(validation[score], dtype=np.float64)
    return {
        "temperature": float(fit_temperature(validation["logits"], validation["labels"])),
        "out_of_domain": {
            "score": score,
            "quantile": quantile,
            "threshold": float(np.quantile(strangeness, quantile)),
        },
    }


def scores(
    validation: Arrays, test: Arrays, names: Names, test_given: Arrays | None, *, score: str = "energy"
) -> dict[str, Any]:
    """Everything about quality: validation, test (domain inferred, and given), and calibration before and
    after.
    """
    calibration = calibrate(validation, score=score)
    temperature = calibration["temperature"]
    plain_validation, plain_test = metrics_of(validation, names), metrics_of(test, names)
    scaled_validation = metrics_of(validation, names, temperature=temperature)
    scaled_test = metrics_of(test, names, temperature=temperature)
    for split, before, after in (
        ("validation", plain_validation, scaled_validation),
        ("test", plain_test, scaled_test),
    ):
        calibration[split] = {
            name: {"before": before[name], "after": after[name]} for name in ("ece", "nll", "brier")
        }
    given = metrics_of(test_given, names, temperature=temperature) if test_given is not None else None
    return {
        "validation": scaled_validation,
        "test": scaled_test,
        "test_given_domain": given,
        "calibration": calibration,
        "reliability": reliability(test, temperature=temperature),
    }


def reliability(rows: Arrays, *, temperature: float, bins: int = 10) -> list[dict[str, Any]]:
    """Per confidence bin: rows, mean confidence and accuracy on the calibrated probabilities (empty bins left
    out).
    """
    probabilities = softmax(rows["logits"], temperature=temperature)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == rows["labels"]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "n": int((place == number).sum()),
            "confidence": float(confidence[place == number].mean()),
            "accuracy": float(correct[place == number].mean()),
        }
        for number in range(bins)
        if (place == number).any()
    ]


def softmax(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (n, C) of logits (n, C) divided by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def strata_of(validation: Arrays, names: Names) -> dict[str, Any] | None:
    """How the validation rows use the strata, by row means; None for a variant without strata."""
    if "occupancy" not in validation:
        return None
    from stratified_models import diagnostics

    strata = np.asarray(validation["occupancy"], dtype=np.float64)
    return {
        "occupancy": strata.mean(axis=0),
        "effective": diagnostics.effective_strata(strata),
        "information_with_domain_nats": diagnostics.mutual_information(strata, validation["domain_id"]),
        "information_with_label_nats": diagnostics.mutual_information(strata, validation["labels"]),
        "rows": len(strata),
        "domains": list(names.domains),
    }


def held_out_figures(
    rows: Arrays,
    inside: Arrays,
    names: Names,
    held_out: Mapping[str, Any],
    calibration: Mapping[str, Any],
) -> dict[str, Any]:
    """What a unit is worth on a domain that it never saw, and whether it notices.

    Args:
        rows: the held-out domain's rows.
        inside: test rows of the known domains, to tell them from.
        names: of labels and known domains.
        held_out: the held-out domain's name and label ids.
        calibration: temperature and out-of-domain threshold of the unit.

    Returns:
        The domain's metrics; `domain`; `auroc` by score (higher scores should be strangers), ties counting
        half; `flagged`, the shares of both that lie above the threshold.
    """
    tree = evaluate(
        rows["logits"],
        rows["labels"],
        np.zeros(len(rows["labels"]), dtype=np.int64),
        domains=[held_out["domain"]],
        label_names=names.labels,
        domain_labels=[held_out["label_ids"]],
        temperature=calibration["temperature"],
    )
    bound = calibration["out_of_domain"]
    return {
        "domain": held_out["domain"],
        **tree["per_domain"][held_out["domain"]],
        "auroc": {
            name: auroc(rows[name], inside[name]) for name in SCORES if name in rows and name in inside
        },
        "flagged": {
            "held_out": float((rows[bound["score"]] > bound["threshold"]).mean()),
            "known": float((inside[bound["score"]] > bound["threshold"]).mean()),
        },
    }


def auroc(strange: np.ndarray, known: np.ndarray) -> float:
    """Chance that a strange row scores above a known one, by ranks (Hanley and McNeil 1982)."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([strange, known]).astype(np.float64))
    own = ranks[: len(strange)].sum() - len(strange) * (len(strange) + 1) / 2
    return float(own / (len(strange) * len(known)))
