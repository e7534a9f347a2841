"""From predictions of a unit to the figures that are recorded: metrics, calibration, thresholds, strata.

Pure numpy over arrays that are already in order of `row_id`; it does not know the Trainer or torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer_job.data import Corpus
from trainer_job.metrics import evaluate, fit_temperature

Arrays = Mapping[str, np.ndarray]
OUT_OF_DOMAIN_QUANTILE = 0.95


def metrics_of(rows: Arrays, corpus: Corpus, *, temperature: float = 1.0) -> dict[str, Any]:
    """The metric tree of `trainer_job.metrics.evaluate` for predicted rows."""
    return evaluate(
        rows["logits"],
        rows["labels"],
        rows["domain_id"],
        domains=corpus.domains,
        label_names=corpus.labels,
        domain_labels=corpus.domain_labels,
        temperature=temperature,
        domain_logits=rows.get("domain_logits"),
    )


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
    validation: Arrays, test: Arrays, corpus: Corpus, test_given: Arrays | None, *, score: str = "energy"
) -> dict[str, Any]:
    """Everything about quality: validation, test (domain inferred, and given), and calibration before and
    after.
    """
    calibration = calibrate(validation, score=score)
    temperature = calibration["temperature"]
    plain_validation, plain_test = metrics_of(validation, corpus), metrics_of(test, corpus)
    scaled_validation = metrics_of(validation, corpus, temperature=temperature)
    scaled_test = metrics_of(test, corpus, temperature=temperature)
    for split, before, after in (
        ("validation", plain_validation, scaled_validation),
        ("test", plain_test, scaled_test),
    ):
        calibration[split] = {
            name: {"before": before[name], "after": after[name]} for name in ("ece", "nll", "brier")
        }
    given = metrics_of(test_given, corpus, temperature=temperature) if test_given is not None else None
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


def strata_of(validation: Arrays, corpus: Corpus) -> dict[str, Any] | None:
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
        "domains": list(corpus.domains),
    }


def write_predictions(
    path: Path, splits: Mapping[str, Arrays | None], *, labels: tuple[str, ...], temperature: float
) -> None:
    """predictions.parquet: one line a row and split, with logits, calibrated probabilities, prediction and
    domain.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for split, rows in splits.items():
        if rows is None:
            continue
        probabilities = softmax(rows["logits"], temperature=temperature)
        columns: dict[str, Any] = {
            "split": pa.array([split] * len(rows["labels"])),
            "row_id": rows["row_id"].astype(np.int64),
            "domain_id": rows["domain_id"].astype(np.int64),
            "label": rows["labels"].astype(np.int64),
            "prediction": rows["logits"].argmax(axis=1).astype(np.int64),
        }
        for place, name in enumerate(labels):
            columns[f"logit_{name}"] = rows["logits"][:, place].astype(np.float32)
            columns[f"probability_{name}"] = probabilities[:, place].astype(np.float32)
        for name in ("energy", "geometry"):
            values = rows.get(name)
            columns[name] = (
                np.full(len(rows["labels"]), np.nan, np.float32)
                if values is None
                else values.astype(np.float32)
            )
        tables.append(pa.table(columns))
    aside = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.concat_tables(tables), aside)
    aside.replace(path)


def read_predictions(path: Path, split: str) -> dict[str, np.ndarray]:
    """row_id, domain_id, label and prediction of one split, in order of row_id."""
    import pyarrow.parquet as pq

    table = pq.read_table(
        path, columns=["row_id", "domain_id", "label", "prediction"], filters=[("split", "=", split)]
    )
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    order = np.argsort(columns["row_id"], kind="stable")
    return {name: values[order] for name, values in columns.items()}
