"""Which weights a unit goes on from and ends with: averages, the best evaluation's, corrected priors.

It knows the unit's folder and its trainer, not how training went.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainerState

from trainer_job.averaging import WeightAverage
from trainer_job.callbacks import Averaging
from trainer_job.training import UnitTrainer
from trainer_job.weights import correct_priors_, strict_load

if TYPE_CHECKING:
    from trainer_job.unit_run import UnitRun


def start_average(run: UnitRun, trainer: UnitTrainer, resumed: Path | None) -> None:
    """Keep a moving average of the weights, if wished: from now, or from a checkpoint's."""
    decay = run.config.training.weight_average
    if decay is None:
        return
    trainer.average = WeightAverage(trainer.model, decay)
    if resumed is not None:
        trainer.average.load(resumed)
    trainer.add_callback(Averaging(trainer.average))


def correct_priors(run: UnitRun, trainer: UnitTrainer) -> dict[str, dict[str, float]] | None:
    """Move the class biases to the labels' natural shares, if wished; returns what was added."""
    if not run.config.training.prior_correction:
        return None
    corpus = run.prepared.corpus
    trainer.seen = None  # the last evaluation knew no such correction
    return correct_priors_(trainer.model, corpus.counts, domains=corpus.domains, labels=corpus.labels)


def restore_finished(trainer: UnitTrainer, checkpoint: Path) -> None:
    """Training was over when the unit was interrupted: take its end instead of a step too many."""
    from safetensors.torch import load_file

    weights = checkpoint / "model.safetensors"
    strict_load(trainer.model, load_file(weights), origin=str(weights))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def load_best(run: UnitRun, trainer: UnitTrainer) -> None:
    """Put the weights of the best evaluation into the model, on every rank; averaged, where they are."""
    from safetensors.torch import load_file

    best = trainer.state.best_global_step or trainer.state.global_step
    folder = run.folder / f"checkpoint-{best}"
    if best != trainer.state.global_step:
        path = folder / "model.safetensors"
        strict_load(trainer.model, load_file(path), origin=str(path))
    if trainer.average is not None:
        trainer.average.load(folder)
        trainer.average.exchange()
        trainer.average = None
