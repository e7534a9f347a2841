"""Plots: what is drawn of several seeds."""

from __future__ import annotations

import copy
from typing import Any

from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from tests.trainer_job.conftest import Swept
from trainer_job.plots import learning, over_seeds


def test_a_learning_curve_is_the_mean_over_seeds_with_its_deviation() -> None:
    first: list[dict[str, Any]] = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": None},
    ]
    second: list[dict[str, Any]] = [{"step": 1, "loss": 2.0}]  # stopped early
    steps, means, deviations = over_seeds([first, second], "loss")
    assert (steps, means) == ([1, 2], [1.5, 0.5])
    assert deviations is not None
    assert [round(value, 4) for value in deviations] == [0.7071, 0.0]
    assert over_seeds([first], "loss") == ([1, 2], [1.0, 0.5], None)


def test_learning_curves_have_error_bars_where_there_are_several_seeds(swept: Swept) -> None:
    def bars(units: list[dict[str, object]]) -> list[bool]:
        figure = Figure()
        learning({**copy.deepcopy(swept.record), "units": units}, figure)
        drawn = [part for axes in figure.axes for part in axes.containers]
        return [part.has_yerr for part in drawn if isinstance(part, ErrorbarContainer)]

    units = swept.record["units"]
    assert bars(units) == [True] * 6  # two panels, three variants
    assert bars([unit for unit in units if unit["seed"] == 0]) == [False] * 6
