"""What a unit said about each row comes back as it was, whatever the order in which it was computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.trainer_job.test_evaluation import CORPUS, LABELS, rows
from trainer_job.evaluation import figures_of
from trainer_job.files import plain
from trainer_job.predictions import read_arrays, read_predictions, write_predictions
from trainer_job.recompute import differences


def single(n: int, *, seed: int = 0, strata: bool = False) -> dict[str, np.ndarray]:
    """Rows in the precision that models give."""
    found = rows(n, seed=seed, strata=strata)
    return {name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in found.items()}


def test_predictions_come_back_in_order_of_row(tmp_path: Path) -> None:
    found = single(50, strata=True)
    shuffled = {name: values[::-1] for name, values in found.items()}
    path = tmp_path / "predictions.parquet"
    write_predictions(path, {"validation": single(20), "test": shuffled}, labels=LABELS, temperature=2.0)
    back = read_predictions(path, "test")
    assert back["row_id"].tolist() == list(range(50))
    assert (back["label"] == found["labels"]).all()
    assert (back["prediction"] == found["logits"].argmax(axis=1)).all()
    assert len(read_predictions(path, "validation")["label"]) == 20
    assert list(tmp_path.iterdir()) == [path]


def test_every_figure_can_be_computed_again(tmp_path: Path) -> None:
    splits = {
        "validation": single(300, strata=True),
        "test": single(200, seed=1, strata=True),
        "held_out": single(90, seed=2, strata=True),
    }
    path = tmp_path / "predictions.parquet"
    held = {"domain": "games", "label_ids": [0, 1, 2]}
    figures = plain(figures_of(splits, CORPUS, held_out=held, score="energy"))
    write_predictions(path, splits, labels=LABELS, temperature=figures["calibration"]["temperature"])
    again = figures_of(read_arrays(path, labels=LABELS), CORPUS, held_out=held, score="energy")
    assert list(differences(figures, plain(again))) == []


def test_a_figure_that_a_model_does_not_give_is_null(tmp_path: Path) -> None:
    without = {name: values for name, values in single(30).items() if name != "domain_logits"}
    path = tmp_path / "predictions.parquet"
    write_predictions(
        path, {"validation": without, "test": single(10, strata=True)}, labels=LABELS, temperature=1
    )
    table = pq.read_table(path)
    assert table.column("domain_said").null_count == 30
    assert table.column("occupancy_3").null_count == 30
    back = read_arrays(path, labels=LABELS)
    assert "domain_said" not in back["validation"]
    assert back["test"]["occupancy"].shape == (10, 4)


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ({"a": 1.0}, {"a": 1.0 + 1e-9}, 0),
        ({"a": 1.0, "b": [1, 2]}, {"a": 1.1, "b": [1, 3]}, 2),
        ({"a": None}, {"a": 0.5}, 1),
        ({"a": 1}, {}, 1),
        ([1], [1, 2], 1),
    ],
)
def test_differences_are_found_where_they_are(one: object, other: object, count: int) -> None:
    assert len(list(differences(one, other))) == count
