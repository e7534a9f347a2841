"""Final figures reach the run of their own unit, and the next unit gets another one."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from trainer_job.errors import ConfigError
from trainer_job.tracking import check_trackers, log_final


class Wandb(types.ModuleType):
    """Stands in for the library."""

    run: Any = "open"

    def __init__(self) -> None:
        super().__init__("wandb")
        self.logged: list[dict[str, float]] = []

    def log(self, figures: dict[str, float]) -> None:
        self.logged.append(figures)

    def finish(self) -> None:
        self.run = None


def test_figures_go_into_the_open_run_which_is_then_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log_final(["wandb"], {"test/macro_f1": 0.5})
    assert wandb.logged == [{"test/macro_f1": 0.5}]
    assert wandb.run is None
    log_final(["wandb"], {"test/macro_f1": 0.6})
    assert len(wandb.logged) == 1  # there is no run to log to


def test_a_tracker_that_is_not_installed_is_refused_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers([])
    monkeypatch.setattr("trainer_job.tracking.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb is not installed; pip install wandb"):
        check_trackers(["wandb"])
