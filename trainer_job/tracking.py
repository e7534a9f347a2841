"""Experiment trackers by the Trainer's own integrations: one run of the tracker for each unit.

The Trainer opens a run when training begins and leaves it open for what may follow; several units in one
process would then share it. It does not know what is logged.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from trainer_job.errors import ConfigError

PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}
CLOSERS = {"mlflow": "end_run", "wandb": "finish"}


def check_trackers(report_to: Sequence[str]) -> None:
    """Raises ConfigError where the package of a tracker is not installed."""
    missing = [name for name in report_to if find_spec(PACKAGES[name]) is None]
    if missing:
        raise ConfigError(
            f"report_to={list(report_to)}: {missing[0]} is not installed; pip install {missing[0]}"
        )


def log_final(report_to: Sequence[str], figures: Mapping[str, float]) -> None:
    """Add the unit's final figures to its run, then close the run."""
    for name in report_to:
        library = importlib.import_module(PACKAGES[name])
        if name == "mlflow" and library.active_run() is not None:
            library.log_metrics(dict(figures))
        if name == "wandb" and library.run is not None:
            library.log(dict(figures))
        getattr(library, CLOSERS[name])()
