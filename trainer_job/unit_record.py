"""The end of a unit: predictions, bundle, unit.json and, last, the status `complete`.

It does not know how the weights came about.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainer_job.batches import by_length
from trainer_job.bundling import refresh_variant, write_unit_bundle
from trainer_job.checkpoints import drop_all
from trainer_job.data.build import HELD_OUT
from trainer_job.energy import EnergyMeter
from trainer_job.evaluation import figures_of
from trainer_job.files import write_json
from trainer_job.lock import exclusive
from trainer_job.peaks import peak_flops, utilisation
from trainer_job.predictions import write_predictions
from trainer_job.progress import write_hparams
from trainer_job.provenance import SCHEMA_VERSION
from trainer_job.ranks import barrier, sum_over_ranks, world_size
from trainer_job.tracking import log_final
from trainer_job.training import UnitTrainer
from trainer_job.units import config_hash
from trainer_job.weights import weights_digest

if TYPE_CHECKING:
    from trainer_job.unit_run import UnitRun


@dataclass(frozen=True)
class Outcome:
    """What training left besides the weights: the loading report, seconds by phase so far, when the unit
    began, its energy meter, the checkpoint that it went on from, what the prior correction added, and the
    AUROC of each out-of-domain score over domains left out.
    """

    report: Any
    seconds: dict[str, float]
    began: float
    energy: EnergyMeter
    resumed: Path | None
    corrected: dict[str, dict[str, float]] | None
    left_out: dict[str, float]


def finish(run: UnitRun, trainer: UnitTrainer, outcome: Outcome) -> None:
    """Predict on every split, then write predictions, bundle, record and, last, the status."""
    started = time.perf_counter()
    splits = predict_all(run, trainer)
    seconds = {**outcome.seconds, **trainer.meter.seconds, "predict": time.perf_counter() - started}
    throughput, joules = trainer.throughput(), total_joules(outcome.energy, trainer)
    run.heart.beat("bundling", step=trainer.state.global_step)
    if run.rank == 0:
        started = time.perf_counter()
        corpus = run.prepared.corpus
        model: Any = trainer.model
        figures = figures_of(splits, corpus, held_out=corpus.held_out, score=model.config.unknown_score)
        figures["calibration"]["out_of_domain"]["left_out"] = outcome.left_out or None
        write_predictions(
            run.folder / "predictions.parquet",
            splits,
            labels=corpus.labels,
            temperature=figures["calibration"]["temperature"],
        )
        record = {**_describe(run, trainer, outcome, throughput, joules), **figures}
        write_unit_bundle(
            run.folder / "bundle",
            model=trainer.model,
            tokenizer=run.prepared.tokenizer,
            corpus=corpus,
            max_length=run.config.model.max_length,
            record=record,
        )
        with exclusive(run.layout.state / "refresh.lock"):  # other units may finish at this moment
            refresh_variant(run.layout, record, config_digest=record["config_hash"])
        seconds |= {"bundle": time.perf_counter() - started, "total": time.perf_counter() - outcome.began}
        write_json(run.folder / "unit.json", {**record, "seconds": seconds})
        tell_trackers(run, record)
        run.status("complete")
        if not run.config.training.keep_checkpoints:
            drop_all(run.folder)
    barrier()


def predict_all(run: UnitRun, trainer: UnitTrainer) -> dict[str, dict[str, np.ndarray]]:
    """Outputs for each split that is read, rows in order of `row_id`."""
    tables = {name: by_length(table) for name, table in run.prepared.tables.items() if name != "train"}
    if trainer.seen is not None and trainer.seen[0] == trainer.state.best_global_step:
        validation = trainer.seen[1]  # made with these very weights
    else:
        validation = trainer.predict_rows(tables["validation"], domain_given=False)
    splits = {
        "validation": validation,
        "test": trainer.predict_rows(tables["test"], domain_given=False),
    }
    if run.config.training.test_given_domain:
        splits["test_given_domain"] = trainer.predict_rows(tables["test"], domain_given=True)
    if HELD_OUT in tables:
        splits[HELD_OUT] = trainer.predict_rows(tables[HELD_OUT], domain_given=False)
    return splits


def total_joules(energy: EnergyMeter, trainer: UnitTrainer) -> float | None:
    """Energy of the GPUs of all ranks in joules; None where any of them cannot tell."""
    own = energy.joules()
    parts = torch.tensor([own or 0.0, float(own is None)], dtype=torch.float64, device=trainer.args.device)
    joules, unknown = sum_over_ranks(parts).tolist()
    return None if unknown else float(joules)


def tell_trackers(run: UnitRun, record: Mapping[str, Any]) -> None:
    """The final figures, for TensorBoard's table of runs and the experiment trackers."""
    figures = {
        f"{split}/{name}": float(record[split][name])
        for split in ("validation", "test")
        for name in ("accuracy", "macro_f1", "ece")
    }
    figures |= {
        f"test/per_domain/{domain}/macro_f1": float(entry["macro_f1"])
        for domain, entry in record["test"]["per_domain"].items()
    }
    settings = {"variant": run.unit.variant, "seed": run.unit.seed, "max_length": run.config.model.max_length}
    settings |= run.config.training.model_dump(mode="json")
    write_hparams(run.layout.unit_logs(run.unit), settings=settings, figures=figures)
    log_final(run.config.report_to, figures)


def _describe(
    run: UnitRun,
    trainer: UnitTrainer,
    outcome: Outcome,
    throughput: dict[str, Any],
    joules: float | None,
) -> dict[str, Any]:
    """Everything in the record that is not a figure of quality."""
    from stratified_models.cost import flops_per_token

    state, report, resumed = trainer.state, outcome.report, outcome.resumed
    model: Any = trainer.model
    history = state.log_history
    lengths = {name: int(np.mean(run.prepared.tables[name]["length"])) for name in ("train", "test")}
    return {
        "schema_version": SCHEMA_VERSION,
        "identity": run.identity,
        "config_hash": config_hash(run.config),
        "fingerprint": run.prepared.corpus.fingerprint,
        "variant": run.unit.variant,
        "control": run.unit.control,
        "seed": run.unit.seed,
        "status": "complete",
        "path": run.unit.path,
        "steps": state.global_step,
        "planned_steps": state.max_steps,
        "epochs": state.epoch,
        "best_step": state.best_global_step,
        "resumed_from_step": int(resumed.name.rpartition("-")[2]) if resumed else None,
        "weights_sha256": weights_digest(model),
        "backbone": {
            "name": run.config.model.backbone,
            "sha256": report.backbone_sha256,
            "family": report.family,
            "converted": report.converted,
            "new_modules": list(report.missing),
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops_per_token": flops_per_token(model.config, lengths["test"]),
        "throughput": throughput,
        "mfu": mfu_of(
            trainer, run.device, throughput, flops_per_token=flops_per_token(model.config, lengths["train"])
        ),
        "peak_memory_bytes": _peak_memory(run.device),
        "processes": world_size(),
        "device": run.device,
        "precision": precision_of(trainer),
        "micro_batch_size": trainer.args.per_device_train_batch_size,
        "accumulation_steps": trainer.args.gradient_accumulation_steps,
        "out_of_memory": [dict(event) for event in run.shortages],
        "energy_joules": joules,
        "prior_correction": outcome.corrected,
        "curves": {
            "train": [
                {name: entry.get(name) for name in ("step", "epoch", "loss", "grad_norm", "learning_rate")}
                for entry in history
                if "loss" in entry
            ],
            "validation": [
                {name.removeprefix("eval_"): value for name, value in entry.items()}
                for entry in history
                if "eval_macro_f1" in entry
            ],
        },
    }


def precision_of(trainer: UnitTrainer) -> str:
    """The precision that the matrices were multiplied in."""
    names = [name for name in ("bf16", "fp16", "tf32") if getattr(trainer.args, name)]
    return names[0] if names else "fp32"


def mfu_of(
    trainer: Any, device: str, throughput: Mapping[str, Any], *, flops_per_token: float
) -> float | None:
    """Model FLOPs utilisation of training, a GPU a rank; None on a CPU or a GPU whose peak is not known."""
    if device != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(), precision_of(trainer))
    return utilisation(flops_per_token, throughput["tokens_per_second"], peak=peak, devices=world_size())


def _peak_memory(device: str) -> int:
    """Bytes: of the GPU's allocator, or the process's resident peak."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
