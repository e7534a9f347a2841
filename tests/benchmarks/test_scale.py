"""Exponents of known functions, and one axis for seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scale


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    sizes = [4, 8, 16, 32, 64]
    assert scale.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_a_fixed_cost_lowers_the_fitted_exponent_more_than_the_last() -> None:
    sizes = [10, 100, 1000]
    row = scale.row("rows", "made up", sizes, [5 + size for size in sizes], [7.0] * 3)
    time, memory = row["exponents"]["seconds"], row["exponents"]["memory"]
    assert time["fitted"] < time["last"] < 1
    assert memory["last"] == pytest.approx(0)


def test_an_axis_grows_what_it_names_and_nothing_else() -> None:
    rows, strata = scale.AXES[0], scale.AXES[4]
    assert rows.at(32) == (32, rows.length, {})
    assert strata.at(32) == (strata.rows, strata.length, {"num_strata": 32})


def test_a_run_of_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brief = ["--axes", "experts", "--largest", "2", "--rounds", "1", "--data-rows", "60", "120"]
    scale.main([*brief, "--out", str(tmp_path)])
    [path] = tmp_path.glob("scale-*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    table = record["table"]
    assert record["threads"] == scale.THREADS
    assert [(row["axis"], row["sizes"]) for row in table] == [
        ("experts", [2, 4]), ("experts", [2, 4]), ("data", [60, 120]),
    ]  # fmt: skip
    assert all(value > 0 for row in table for value in (*row["seconds"], *row["memory_mb"]))
    assert "| experts | moe, forward | 2 … 4 |" in capsys.readouterr().out
