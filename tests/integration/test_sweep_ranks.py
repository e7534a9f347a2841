"""Two processes through torchrun train like one: same losses at the same global batch, same record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.tiny import Tiny, make_tiny
from trainer_job.__main__ import main
from trainer_job.config import VARIANTS

pytestmark = pytest.mark.slow

SETTINGS = (
    "training.max_steps=20",
    "training.evaluations=1",
    "training.log_every=1",
    "training.test_given_domain=false",
    "model.dropout=0.0",
    "model.domain_dropout=0.0",
)


def sweep(tiny: Tiny, place: Path, *settings: str) -> dict[str, Any]:
    """Run the whole job in `place`; returns its record."""
    overrides = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    assert main(["run", "--config", str(tiny.yaml(place)), *overrides]) == 0
    record: dict[str, Any] = json.loads((place / "results" / "results.json").read_text(encoding="utf-8"))
    return record


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same five variants on one and on two processes."""
    import os

    tiny = make_tiny(tmp_path_factory.mktemp("tiny"))
    earlier = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        one = sweep(tiny, tmp_path_factory.mktemp("one"))
        two = sweep(
            tiny,
            tmp_path_factory.mktemp("two"),
            "hardware.processes=2",
            "hardware.strategy=ddp",
            "training.micro_batch_size=8",
        )
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if earlier is not None:
            os.environ["OMP_NUM_THREADS"] = earlier
    return one, two


def shape(value: Any) -> Any:
    """The keys of a record, without its values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return None


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_are_those_of_one_process(
    records: tuple[dict[str, Any], dict[str, Any]], variant: str
) -> None:
    curves = [
        next(unit for unit in record["units"] if unit["variant"] == variant)["curves"]["train"]
        for record in records
    ]
    assert [len(curve) for curve in curves] == [20, 20]
    for one, two in zip(*curves, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5), one["step"]
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=2e-4), one["step"]


def test_the_record_has_the_same_shape(records: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = records
    assert shape(one) == shape(two)
    assert [unit["processes"] for unit in two["units"]] == [2] * len(VARIANTS)
    assert two["run"]["devices"]["text"] == "CPU, 2 processes over gloo, through torchrun"


def test_every_row_is_predicted_once_on_two_processes(
    records: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for one, two in zip(records[0]["units"], records[1]["units"], strict=True):
        assert two["test"]["n"] == one["test"]["n"]
        assert two["test"]["accuracy"] == pytest.approx(one["test"]["accuracy"], abs=0.03)
