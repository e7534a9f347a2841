"""predictions.parquet of a unit: what it said about each row, enough to compute every figure again.

One line a row and split. It does not know figures, models or the Trainer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer_job.evaluation import SCORES, Arrays, domain_said, softmax

OCCUPANCY = "occupancy_"
LOGIT = "logit_"


def write_predictions(
    path: Path, splits: Mapping[str, Arrays], *, labels: tuple[str, ...], temperature: float
) -> None:
    """Write all splits, whole or not at all.

    Columns: `split`, `row_id`, `domain_id` (-1 where unknown), `domain_said`, `label`, `prediction`,
    `logit_L` and `probability_L` (calibrated) for each label L, the out-of-domain scores, and for variants
    with strata `occupancy_K` (the share of the row's content tokens in each). A figure that a model does not
    give is null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [_table(split, rows, labels, temperature) for split, rows in splits.items()]
    aside = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.concat_tables(tables, promote_options="default"), aside)
    with aside.open("rb") as stream:
        os.fsync(stream.fileno())
    aside.replace(path)


def _table(split: str, rows: Arrays, labels: tuple[str, ...], temperature: float) -> Any:
    import pyarrow as pa

    probabilities = softmax(rows["logits"], temperature=temperature)
    said = domain_said(rows)
    columns: dict[str, Any] = {
        "split": pa.array([split] * len(rows["labels"])),
        "row_id": rows["row_id"].astype(np.int64),
        "domain_id": rows["domain_id"].astype(np.int64),
        "domain_said": pa.nulls(len(rows["labels"]), pa.int64()) if said is None else said.astype(np.int64),
        "label": rows["labels"].astype(np.int64),
        "prediction": rows["logits"].argmax(axis=1).astype(np.int64),
    }
    for place, name in enumerate(labels):
        columns[f"{LOGIT}{name}"] = rows["logits"][:, place].astype(np.float32)
        columns[f"probability_{name}"] = probabilities[:, place].astype(np.float32)
    for name in SCORES:
        if name in rows:
            columns[name] = rows[name].astype(np.float32)
    occupancy = rows.get("occupancy")
    for stratum in range(0 if occupancy is None else occupancy.shape[1]):
        columns[f"{OCCUPANCY}{stratum}"] = rows["occupancy"][:, stratum].astype(np.float32)
    return pa.table(columns)


def read_predictions(path: Path, split: str) -> dict[str, np.ndarray]:
    """row_id, domain_id, label and prediction of one split, in order of row_id."""
    import pyarrow.parquet as pq

    table = pq.read_table(
        path, columns=["row_id", "domain_id", "label", "prediction"], filters=[("split", "=", split)]
    )
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    order = np.argsort(columns["row_id"], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def read_arrays(path: Path, *, labels: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """All splits as the arrays that `evaluation` computes from, in order of row_id."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    whole = pq.read_table(path)
    found: dict[str, dict[str, np.ndarray]] = {}
    for split in whole.column("split").unique().to_pylist():
        table = whole.filter(pc.equal(whole.column("split"), split)).sort_by("row_id")
        given = [name for name in table.column_names if table.column(name).null_count < len(table)]
        column = {name: table.column(name).to_numpy() for name in given if name != "split"}
        rows = {
            "row_id": column["row_id"],
            "domain_id": column["domain_id"],
            "labels": column["label"],
            "logits": np.stack([column[f"{LOGIT}{name}"] for name in labels], axis=1),
        }
        rows |= {name: column[name] for name in (*SCORES, "domain_said") if name in column}
        strata = sorted(
            (name for name in column if name.startswith(OCCUPANCY)), key=lambda name: (len(name), name)
        )
        if strata:
            rows["occupancy"] = np.stack([column[name] for name in strata], axis=1)
        found[str(split)] = rows
    return found
