"""Experiment trackers by the Trainer's own integrations: one run of the tracker for each unit.

The Trainer opens a run when training begins and leaves it open for what may follow; several units in one
process would then share it. It does not know what is logged.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from trainer_job.errors import ConfigError

PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}


def check_trackers(report_to: Sequence[str]) -> None:
    """Raises ConfigError where the package of a tracker is not installed."""
    missing = [name for name in report_to if find_spec(PACKAGES[name]) is None]
    if missing:
        raise ConfigError(
            f"report_to={list(report_to)}: {missing[0]} is not installed; pip install {missing[0]}"
        )


def log_final(report_to: Sequence[str], figures: Mapping[str, float]) -> None:
    """Add a unit's final figures to its run, and close the run where the Trainer left it open."""
    for name in report_to:
        library = importlib.import_module(PACKAGES[name])
        (_log_mlflow if name == "mlflow" else _log_wandb)(library, figures)


def _log_mlflow(mlflow: Any, figures: Mapping[str, float]) -> None:
    run = mlflow.active_run() or mlflow.last_active_run()  # some versions of the Trainer end it themselves
    if run is not None:
        mlflow.log_metrics(dict(figures), run_id=run.info.run_id)
    mlflow.end_run()


def _log_wandb(wandb: Any, figures: Mapping[str, float]) -> None:
    if wandb.run is not None:
        wandb.log(dict(figures))
    wandb.finish()
