"""After training: what is fitted on training rows to the finished encoder, the domain head and the
out-of-domain score.

It does not know how either is computed; see `stratified_models.domain_fit` and `stratified_models.unknown`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
import torch.distributed as dist

from trainer_job.prepare import calibration_batches
from trainer_job.ranks import world_size
from trainer_job.training import UnitTrainer

if TYPE_CHECKING:
    from trainer_job.unit_run import UnitRun

SCORE_ROWS = 200  # a domain
NAMES = ("input_ids", "attention_mask", "domain_id")


def fit_domain_head(run: UnitRun, trainer: UnitTrainer) -> None:
    """Fit the domain head to the end, unless `model.domain_fit_rows` is 0; every rank gets that of rank 0."""
    rows = run.config.model.domain_fit_rows
    if rows == 0:
        return
    from stratified_models.domain_fit import fit_domain_head_

    model: Any = trainer.model
    found = fit_domain_head_(model, calibration_batches(run.prepared, rows_per_domain=rows, names=NAMES))
    if world_size() > 1:
        for parameter in (model.domain_head.weight, model.domain_head.bias):
            dist.broadcast(parameter.data, src=0)
    trainer.seen = None  # the last evaluation knew another head
    if run.rank == 0:
        log = structlog.get_logger("unit").bind(unit=run.unit.name)
        before, after = round(found.before, 4), round(found.after, 4)
        log.info("domain_head_fitted", rows=found.rows, loss_before=before, loss_after=after)


def fit_unknown(run: UnitRun, trainer: UnitTrainer) -> None:
    """Fit the chosen score to the same rows on every rank; energy needs no fit."""
    score = run.config.model.out_of_domain_score
    if score == "energy":
        return
    from stratified_models.unknown import fit_unknown_

    model: Any = trainer.model
    batches = calibration_batches(run.prepared, rows_per_domain=SCORE_ROWS, names=NAMES)
    fit_unknown_(model, batches, score=score, seed=run.unit.seed)
    trainer.seen = None  # the last evaluation knew no such score
