"""Optimisation: steps, rates, regularisation, and when to evaluate and save.

It does not know on what hardware; `hardware` does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer_job.config.base import Settings


class TrainingConfig(Settings):
    """Optimisation. `batch_size` is global: the same on one process and on many."""

    epochs: float = Field(10, gt=0, description="passes over the training rows")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps, in place of epochs")
    batch_size: int = Field(
        32, ge=1, description="rows of the global batch, whatever the number of processes"
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="rows of one forward pass of one process; the rest is accumulated"
    )
    eval_batch_size: int = Field(64, ge=1, description="rows of one evaluation pass of one process")
    learning_rate: float = Field(5e-5, gt=0, description="of the backbone, at its peak")
    new_multiplier: float = Field(10, gt=0, description="of new modules, times learning_rate")
    geometry_multiplier: float = Field(20, gt=0, description="of the strata's density, times learning_rate")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="each block's rate is this times that of the block above; 1: equal rates"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, on weights but not on biases and norms")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps in which the rate rises")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="how the rate falls after warm-up"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    frozen_blocks: int = Field(0, ge=0, description="embeddings and so many lowest blocks stay as pretrained")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over all labels")
    weight_average: float | None = Field(
        None, gt=0, lt=1, description="decay of a moving average of the weights, which is what is evaluated"
    )
    prior_correction: bool = Field(
        False,
        description="after training, add log(natural / training label share) to each domain's class bias",
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after so many evaluations without a new best"
    )
    evaluations: int | None = Field(
        None, ge=1, description="evaluations over the run, each with a checkpoint; null: one an epoch"
    )
    save_total_limit: int = Field(2, ge=1, description="checkpoints kept beside the best one")
    keep_checkpoints: bool = Field(False, description="keep them after a unit is bundled")
    test_given_domain: bool = Field(
        True, description="read the test split a second time with each row's domain given"
    )
    log_every: int = Field(10, ge=1, description="steps between two lines of the log")
    activation_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, more time"
    )
    torch_compile: bool = Field(False, description="compile the model; pays for long runs alone")
