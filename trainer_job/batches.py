"""In which order rows are trained on, and after which steps the run is evaluated and saved.

Both are functions of the configuration and the number of rows alone, never of the number of processes. It
does not know the Trainer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from trainer_job.config import RunConfig
from trainer_job.data import length_grouped_order


class GlobalBatches(Sampler[int]):
    """Rows in the order of whole global batches, so that any number of ranks sees the same ones.

    Rank r of R takes every R-th micro-batch of what this yields. The rows of an epoch's last, incomplete
    batch are left out (other ones in each epoch); fewer rows than one batch are repeated to fill it.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch, by the Trainer and by `callbacks.InEpoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.batch_size

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return max(1, len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[int]:
        order = length_grouped_order(
            self.lengths, batch_size=self.batch_size, seed=self.seed, epoch=self.epoch
        )
        full = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        rows = [row for batch in full if len(batch) == self.batch_size for row in batch]
        if not rows:
            rows = (order * math.ceil(self.batch_size / len(order)))[: self.batch_size]
        return iter(rows)


def planned_steps(config: RunConfig, *, steps_per_epoch: int) -> tuple[int, frozenset[int]]:
    """(number of optimizer steps, steps after which to evaluate and save); the last step is always among
    them.
    """
    training = config.training
    total = training.max_steps or max(1, math.ceil(training.epochs * steps_per_epoch))
    if training.evaluations is None:
        stops = set(range(steps_per_epoch, total, steps_per_epoch))
    else:
        stops = {round(total * part / training.evaluations) for part in range(1, training.evaluations)}
    return total, frozenset(step for step in stops if 0 < step < total) | {total}


def by_length(table: Any) -> Any:
    """A table's rows from short to long, so that evaluation pads little; order is restored by `row_id`."""
    return table.select(np.argsort(np.asarray(table["length"]), kind="stable"))
