"""The end of a unit: predictions, bundle, unit.json and, last, the status `complete`.

It does not know how the weights came about.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainer_job.batches import by_length
from trainer_job.bundling import refresh_variant, write_unit_bundle
from trainer_job.checkpoints import drop_all
from trainer_job.evaluation import scores, strata_of, write_predictions
from trainer_job.files import write_json
from trainer_job.ranks import barrier, world_size
from trainer_job.training import UnitTrainer
from trainer_job.units import config_hash
from trainer_job.weights import weights_digest

if TYPE_CHECKING:
    from trainer_job.unit_run import UnitRun


def finish(
    run: UnitRun,
    trainer: UnitTrainer,
    report: Any,
    *,
    seconds: dict[str, float],
    resumed: Path | None,
    began: float,
) -> None:
    """Predict on validation and test, then write predictions, bundle, record and, last, the status."""
    tables = run.prepared.tables
    started = time.perf_counter()
    if trainer.seen is not None and trainer.seen[0] == trainer.state.best_global_step:
        validation = trainer.seen[1]  # made with these very weights
    else:
        validation = trainer.predict_rows(by_length(tables["validation"]), domain_given=False)
    test_rows = by_length(tables["test"])
    test = trainer.predict_rows(test_rows, domain_given=False)
    given = (
        trainer.predict_rows(test_rows, domain_given=True) if run.config.training.test_given_domain else None
    )
    seconds |= trainer.meter.seconds | {"predict": time.perf_counter() - started}
    throughput = trainer.throughput()
    if run.rank == 0:
        started = time.perf_counter()
        figures = scores(
            validation, test, run.prepared.corpus, given, score=run.config.model.out_of_domain_score
        )
        splits = {"validation": validation, "test": test, "test_given_domain": given}
        write_predictions(
            run.folder / "predictions.parquet",
            splits,
            labels=run.prepared.corpus.labels,
            temperature=figures["calibration"]["temperature"],
        )
        record = {
            **_describe(run, trainer, report, throughput, resumed),
            **figures,
            "strata": strata_of(validation, run.prepared.corpus),
        }
        write_unit_bundle(
            run.folder / "bundle",
            model=trainer.model,
            tokenizer=run.prepared.tokenizer,
            corpus=run.prepared.corpus,
            max_length=run.config.model.max_length,
            record=record,
        )
        refresh_variant(run.layout, record, config_digest=record["config_hash"])
        seconds |= {"bundle": time.perf_counter() - started, "total": time.perf_counter() - began}
        write_json(run.folder / "unit.json", {**record, "seconds": seconds})
        run.status("complete")
        if not run.config.training.keep_checkpoints:
            drop_all(run.folder)
    barrier()


def _describe(
    run: UnitRun, trainer: UnitTrainer, report: Any, throughput: dict[str, Any], resumed: Path | None
) -> dict[str, Any]:
    """Everything in the record that is not a figure of quality."""
    from stratified_models.cost import flops_per_token

    state = trainer.state
    model: Any = trainer.model
    history = state.log_history
    lengths = run.prepared.tables["test"]["length"]
    return {
        "schema_version": 1,
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
        "flops_per_token": flops_per_token(model.config, int(np.mean(lengths))),
        "throughput": throughput,
        "peak_memory_bytes": _peak_memory(run.device),
        "processes": world_size(),
        "device": run.device,
        "precision": "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32",
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


def _peak_memory(device: str) -> int:
    """Bytes: of the GPU's allocator, or the process's resident peak."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
