"""One unit from pristine backbone to finished record: calibrate the gate, train, take the best weights.

It does not know which units come before or after, and leaves a status that says how far it came.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from transformers import TrainerCallback, set_seed
from transformers.utils import logging as library_logging

from trainer_job.batches import GlobalBatches, by_length, planned_steps
from trainer_job.callbacks import (
    BalanceExperts,
    Beating,
    EarlyStop,
    MarkComplete,
    Schedule,
    StopTogether,
)
from trainer_job.checkpoints import drop_all, find_resumable, is_last
from trainer_job.config import RunConfig
from trainer_job.energy import EnergyMeter
from trainer_job.errors import Preempted
from trainer_job.evaluation import metrics_of
from trainer_job.fitting import fit_to_encoder
from trainer_job.heartbeat import Heartbeat
from trainer_job.inspection.log import strata_log
from trainer_job.prepare import Prepared, calibration_batches, check_backbone, load_model
from trainer_job.progress import Progress
from trainer_job.ranks import StopFlag, barrier, mean_over_ranks, world_size
from trainer_job.standing import Standing
from trainer_job.training import UnitTrainer, build_arguments
from trainer_job.unit_record import Outcome, finish
from trainer_job.unit_weights import correct_priors, load_best, restore_finished, start_average
from trainer_job.units import Layout, Unit, config_hash, identity, write_status
from trainer_job.weights import freeze_lower, strict_load


@dataclass(frozen=True)
class UnitRun:
    """Everything that one unit needs. `shortages` are the out-of-memory failures that made its batches
    smaller; `callbacks` are added to the Trainer's.
    """

    unit: Unit
    config: RunConfig
    layout: Layout
    prepared: Prepared
    device: str
    rank: int
    flag: StopFlag
    heart: Heartbeat
    shortages: tuple[Mapping[str, Any], ...] = ()
    callbacks: tuple[TrainerCallback, ...] = field(default=())

    @property
    def folder(self) -> Path:
        """Where the unit lives."""
        return self.layout.unit(self.unit)

    @property
    def identity(self) -> str:
        """Digest that names this work."""
        return identity(
            self.unit,
            fingerprint=self.prepared.corpus.fingerprint,
            config_digest=config_hash(self.config),
        )

    def status(self, state: Any, **more: Any) -> None:
        """Write status.json, on rank 0."""
        if self.rank == 0:
            write_status(self.folder, state, identity=self.identity, **more)


def run_unit(run: UnitRun) -> None:
    """Train and finish one unit. Raises Preempted after saving when asked to stop."""
    log = structlog.get_logger("unit").bind(unit=run.unit.name)
    began, energy = time.perf_counter(), EnergyMeter(run.device)
    run.status("running")
    run.heart.beat("preparing")
    bar: Any = library_logging.disable_progress_bar
    bar()  # of writing weights; training has its own
    set_seed(run.unit.seed)
    model, report = load_model(run.config, run.prepared.corpus, variant=run.unit.variant, seed=run.unit.seed)
    if run.rank == 0:
        check_backbone(run.layout, report.backbone_sha256)
    freeze_lower(model, run.config.training.frozen_blocks)
    trainer, stop = build_trainer(run, model)
    resumed = _resumable(run, log)
    if resumed is None:
        calibrate_gate(run, model)
    start_average(run, trainer, resumed)
    loaded = time.perf_counter() - began
    set_seed(run.unit.seed)
    run.heart.beat("training", step=trainer.state.global_step)
    if resumed is not None and is_last(resumed):
        restore_finished(trainer, resumed)
    else:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if stop.stopped:
        run.status("preempted", step=trainer.state.global_step, of=trainer.state.max_steps)
        raise Preempted(
            f"{run.unit.name}: stopped at step {trainer.state.global_step}; its checkpoint is saved"
        )
    trainer = unsharded(run, trainer)
    load_best(run, trainer)
    corrected = correct_priors(run, trainer)
    left_out = fit_to_encoder(run, trainer)
    finish(run, trainer, Outcome(report, {"load": loaded}, began, energy, resumed, corrected, left_out))
    log.info(
        "unit_complete",
        seconds=round(time.perf_counter() - began, 1),
        best_step=trainer.state.best_global_step,
    )


def build_trainer(run: UnitRun, model: Any) -> tuple[UnitTrainer, StopTogether]:
    """The unit's trainer with its callbacks, in the order in which they must see each step."""
    config, tables = run.config, run.prepared.tables
    batches = GlobalBatches(
        tables["train"]["length"], batch_size=config.training.batch_size, seed=run.unit.seed
    )
    total, stops = planned_steps(config, steps_per_epoch=batches.steps)
    arguments = build_arguments(
        config,
        folder=run.folder,
        seed=run.unit.seed,
        processes=world_size(),
        device=run.device,
        total_steps=total,
        name=run.unit.name,
    )
    if world_size() > 1:
        model.average_over_ranks = mean_over_ranks
    watch = torch.zeros((), device=arguments.device)
    stop = StopTogether(run.flag, watch, every=10 if run.device == "cuda" else 1)
    standing = Standing(run.folder)
    callbacks = [
        Schedule(stops),
        BalanceExperts(model.balance_experts_),
        MarkComplete(run.folder, identity=run.identity, keep=config.training.save_total_limit, stop=stop),
        standing,
        Progress(name=run.unit.name, logs=run.layout.unit_logs(run.unit)),
        Beating(run.heart),
        *run.callbacks,
    ]
    if config.training.early_stopping_patience is not None:
        callbacks.append(EarlyStop(config.training.early_stopping_patience))
    trainer = UnitTrainer(
        config=config,
        model=model,
        arguments=arguments,
        train_rows=tables["train"],
        batches=batches,
        validation_rows=by_length(tables["validation"]),
        collator=run.prepared.collator,
        compute_metrics=None,
        watch=watch,
        callbacks=[*callbacks, stop],
    )
    standing.meter = trainer.meter
    expected = len(tables["validation"])
    trainer.compute_metrics = lambda prediction: validation_metrics(
        run, trainer.watch_evaluation(prediction, expected=expected)
    )
    return trainer, stop


def validation_metrics(run: UnitRun, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Figures of one evaluation during training: pooled ones, and macro-F1 for each domain."""
    tree = metrics_of(rows, run.prepared.corpus)
    figures = {name: float(tree[name]) for name in ("accuracy", "macro_f1", "ece")}
    for name, entry in tree["per_domain"].items():
        figures[f"per_domain/{name}/macro_f1"] = float(entry["macro_f1"])
    return figures | strata_log(rows)


def _resumable(run: UnitRun, log: Any) -> Path | None:
    """The checkpoint to go on from, agreed by all ranks; without one, leftovers are removed."""

    def warn(name: str, reason: str) -> None:
        if run.rank == 0:
            log.warning("checkpoint_passed_over", checkpoint=name, reason=reason)

    barrier()
    found = find_resumable(run.folder, world_size=world_size(), identity=run.identity, warn=warn)
    barrier()
    if run.rank == 0 and found is None:
        drop_all(run.folder)
    if found is not None:
        log.info("resuming", checkpoint=found.name)
    barrier()
    return found


def calibrate_gate(run: UnitRun, model: Any) -> None:
    """Fit the gate to training rows on rank 0, then give every rank the same parameters and buffers."""
    if run.rank == 0:
        training = model.training
        model.eval()
        device = next(model.parameters()).device
        batches = [
            {name: tensor.to(device) for name, tensor in batch.items()}
            for batch in calibration_batches(run.prepared)
        ]
        model.calibrate_gate_(batches, seed=run.unit.seed)
        model.train(training)
    if world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)


def unsharded(run: UnitRun, trainer: UnitTrainer) -> UnitTrainer:
    """With FSDP, a trainer over whole weights: those of the last checkpoint, which every rank reads."""
    if not run.config.hardware.fsdp or world_size() == 1:
        return trainer
    from safetensors.torch import load_file

    model, _ = load_model(run.config, run.prepared.corpus, variant=run.unit.variant, seed=run.unit.seed)
    weights = run.folder / f"checkpoint-{trainer.state.global_step}" / "model.safetensors"
    strict_load(model, load_file(weights), origin=str(weights))
    # accelerate keeps for the whole process that it shards: the next Trainer would too, by other defaults.
    os.environ.pop("ACCELERATE_USE_FSDP", None)
    AcceleratorState._reset_state(reset_partial_state=True)
    plain = run.config.model_copy(update={"hardware": run.config.hardware.model_copy(update={"fsdp": False})})
    whole, _ = build_trainer(replace(run, config=plain), model)
    whole.state, whole.meter, whole.seen = trainer.state, trainer.meter, trainer.seen
    whole.output_names = trainer.output_names
    return whole
