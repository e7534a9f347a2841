"""After training: fit the out-of-domain score that the configuration chose, on training rows.

It does not know how the scores are computed; see `stratified_models.unknown`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer_job.prepare import calibration_batches
from trainer_job.training import UnitTrainer

if TYPE_CHECKING:
    from trainer_job.unit_run import UnitRun

ROWS = 200  # a domain


def fit_unknown(run: UnitRun, trainer: UnitTrainer) -> None:
    """Fit the chosen score to the same rows on every rank; energy needs no fit."""
    score = run.config.model.out_of_domain_score
    if score == "energy":
        return
    from stratified_models.unknown import fit_unknown_

    names = ("input_ids", "attention_mask", "domain_id")
    batches = calibration_batches(run.prepared, rows_per_domain=ROWS, names=names)
    model: Any = trainer.model
    fit_unknown_(model, batches, score=score, seed=run.unit.seed)
    trainer.seen = None  # the last evaluation knew no such score
