"""One unit on `transformers.Trainer`: its arguments, optimizer groups, row order, and predictions by row.

Traps that this file closes, all of them silent: a loss multiplied by the number of processes (the model says
`accepts_loss_kwargs = False`), NaN losses hidden from the log, nn.DataParallel, predictions in another order
than the data set, unsynchronised stops, checkpoints that look finished, and an epoch that goes on in the
order of the first. It does not know where rows come from, nor what becomes of the predictions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import EvalPrediction, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.training_args import ParallelMode

from trainer_job.averaging import WeightAverage
from trainer_job.batches import GlobalBatches
from trainer_job.callbacks import InEpoch
from trainer_job.config import RunConfig
from trainer_job.errors import JobError
from trainer_job.fetchers import Apart
from trainer_job.launch import split_batch
from trainer_job.meter import Meter
from trainer_job.ranks import sum_over_ranks
from trainer_job.rates import parameter_groups

CARRIED = ("labels", "domain_id", "row_id")
KEPT = ("logits", "domain_logits", "energy", "geometry", "mahalanobis", "nearest", "occupancy")


def build_arguments(
    config: RunConfig,
    *,
    folder: Path,
    seed: int,
    processes: int,
    device: str,
    total_steps: int,
    name: str | None = None,
) -> TrainingArguments:
    """The Trainer's arguments. Evaluation and saving are asked for by our schedule, hence their far-off
    intervals. `name` is what experiment trackers call the run.
    """
    training, hardware = config.training, config.hardware
    micro, accumulation = split_batch(config, processes)
    precision = _precision(hardware.precision, device)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total_steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        per_device_eval_batch_size=training.eval_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup,
        lr_scheduler_type=training.schedule,
        max_grad_norm=training.max_grad_norm,
        logging_strategy="steps",
        logging_steps=training.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="steps",
        save_steps=total_steps + 1,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        label_names=list(CARRIED),
        seed=seed,
        data_seed=seed,
        report_to=list(config.report_to) or "none",
        run_name=name,
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        tf32=True if precision == "tf32" else None,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        dataloader_num_workers=hardware.workers,
        dataloader_pin_memory=device == "cuda",
        # Kept ones would draw a seed once a run, and once more after going on inside an epoch: other dropout.
        dataloader_persistent_workers=False,
        activation_checkpointing=training.activation_checkpointing,
        torch_compile=training.torch_compile,
        fsdp=cast(Any, hardware.fsdp and processes > 1),  # its annotation is older than its meaning
        fsdp_config={"version": 2, "auto_wrap_policy": "NO_WRAP", "reshard_after_forward": False},
    )
    _refuse_data_parallel(arguments, processes)
    return arguments


def _precision(wanted: str, device: str) -> str:
    if wanted != "auto":
        return wanted
    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def _refuse_data_parallel(arguments: TrainingArguments, processes: int) -> None:
    """More than one process trains as DDP or not at all; one process has at most one GPU."""
    mode = arguments.parallel_mode
    if (processes > 1) != (mode == ParallelMode.DISTRIBUTED) or arguments.n_gpu > 1:
        raise JobError(
            f"{processes} process(es) in parallel mode {mode.value!r} with {arguments.n_gpu} GPU(s) each: "
            "only DDP "
            "through torchrun is used; start the job with `stratified-train run`"
        )


class UnitTrainer(Trainer):
    """The Trainer with our row order, our optimizer groups, our outputs, and a meter."""

    def __init__(
        self,
        *,
        config: RunConfig,
        model: Any,
        arguments: TrainingArguments,
        train_rows: Any,
        batches: GlobalBatches,
        validation_rows: Any,
        collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None,
        watch: torch.Tensor,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.config = config
        self.watch = watch
        self.meter = Meter()
        self.average: WeightAverage | None = None
        self.domain_given = False
        self.output_names: tuple[str, ...] = ()
        self.seen: tuple[int, dict[str, np.ndarray]] | None = None  # step and outputs of the last evaluation
        self.batches = batches
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=train_rows,
            eval_dataset=validation_rows,
            data_collator=collator,
            compute_metrics=compute_metrics,
            callbacks=[InEpoch(self.batches), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # our own callback speaks

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """Whole global batches of like length; the Trainer's own length grouping would also reorder
        evaluation.
        """
        return self.batches

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, whose fetchers outlive a SIGTERM."""
        loader: Any = super()._get_dataloader(*args, **kwargs)
        inner = getattr(loader, "base_dataloader", loader)  # accelerate's wrapper reads through
        inner.worker_init_fn = Apart(inner.worker_init_fn)
        return loader

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the model's groups: learning rate times the group's multiplier, no decay on geometry and
        norms.
        """
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            chosen: Any = model or self.model
            decayed = set(self.get_decay_parameter_names(chosen))
            groups = parameter_groups(chosen, self.config.training, decayed=decayed)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One forward and backward pass, metered; raises the watch when the loss is not finite."""
        began = time.perf_counter()
        self.meter.add(inputs["attention_mask"])
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        torch.maximum(self.watch, (~torch.isfinite(loss)).to(self.watch.dtype), out=self.watch)
        self.meter.seconds["train"] += time.perf_counter() - began
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The Trainer's evaluation, timed; of the averaged weights where they are kept."""
        began = time.perf_counter()
        with self.average.in_place() if self.average is not None else nullcontext():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        self.meter.seconds["evaluate"] += time.perf_counter() - began
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        began = time.perf_counter()
        super()._save_checkpoint(model, trial)
        if self.average is not None and self.is_world_process_zero():
            self.average.save(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")
        self.meter.seconds["save"] += time.perf_counter() - began

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:  # (loss, outputs, carried columns): the base class declares less than it accepts
        """Outputs by name and in a fixed order; the domain travels with the rows but is shown to the model
        only on demand.
        """
        inputs = self._prepare_inputs(inputs)
        carried = tuple(inputs[name].detach() for name in CARRIED)
        shown = dict(inputs)
        if not self.domain_given:
            shown["domain_id"] = torch.full_like(inputs["domain_id"], -1)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**shown)
        named = {name: outputs[name].detach() for name in KEPT if outputs.get(name) is not None}
        self.output_names = tuple(named)
        return outputs["loss"].detach().mean(), tuple(named.values()), carried

    def predict_rows(self, rows: Any, *, domain_given: bool) -> dict[str, np.ndarray]:
        """Outputs and carried columns of every row, in order of `row_id`. Raises JobError unless each row
        came once.
        """
        self.domain_given = domain_given
        metrics, self.compute_metrics = self.compute_metrics, None
        try:
            result = self.predict(rows)
        finally:
            self.domain_given = False
            self.compute_metrics = metrics
        return self.named_rows(result.predictions, result.label_ids, expected=len(rows))

    def named_rows(self, predictions: Any, carried: Any, *, expected: int) -> dict[str, np.ndarray]:
        """Gathered arrays by name, in order of `row_id`. Raises JobError unless each row came once."""
        found = dict(zip(CARRIED, _as_tuple(carried), strict=True))
        found |= dict(zip(self.output_names, _as_tuple(predictions), strict=True))
        check_rows(found["row_id"], expected)
        order = np.argsort(found["row_id"], kind="stable")
        return {name: np.asarray(values)[order] for name, values in found.items()}

    def watch_evaluation(self, prediction: EvalPrediction, *, expected: int) -> dict[str, np.ndarray]:
        """The rows of an evaluation during training, kept so that the last one need not be made again."""
        rows = self.named_rows(prediction.predictions, prediction.label_ids, expected=expected)
        self.seen = (self.state.global_step, rows)
        return rows

    def throughput(self) -> dict[str, float | None]:
        """Tokens and rows a second in training, over all ranks, and the share of padding."""
        counts = torch.tensor(self.meter.counts, dtype=torch.float64, device=self.args.device)
        return self.meter.rates(*sum_over_ranks(counts).tolist())


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, tuple | list) else (values,)


def check_rows(row_ids: np.ndarray, expected: int) -> None:
    """Every row once: the distributed loader may repeat or drop some. Raises JobError."""
    if len(row_ids) != expected or len(np.unique(row_ids)) != expected:
        raise JobError(
            f"evaluation returned {len(row_ids)} rows, {len(np.unique(row_ids))} distinct, of {expected}; "
            "each row must "
            "come once: this is a fault of the job, please report it"
        )
