"""Collating: rows of like length in one batch, padded no further than needed.

It does not know data sets or models. Padding is the largest waste in this job, so both halves live here:
which rows share a batch, and how far a batch is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

KEYS = ("labels", "domain_id", "row_id")
POOL = 50  # batches that are sorted together: lengths are close inside a batch, and batches stay random


@dataclass(frozen=True)
class Collator:
    """Rows → tensors, padded on the right to the longest row, rounded up to a multiple of `multiple`.

    Rounding never passes `limit`: an encoder has no position for padding beyond its last.

    Args:
        pad_token_id: the id that fills.
        multiple: 8 suits tensor cores; 1 pads to the longest row exactly.
        limit: most tokens of a row, to which they were cut; None rounds up freely.
    """

    pad_token_id: int
    multiple: int = 8
    limit: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` (B, T) and what rows have of `labels`, `domain_id`, `row_id` (B,)."""
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        width = -(-longest // self.multiple) * self.multiple
        if self.limit is not None:
            width = max(longest, min(width, self.limit))
        ids = np.full((len(rows), width), self.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[place, :length] = row["input_ids"]
            mask[place, :length] = 1
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        for key in KEYS:
            if key in rows[0]:
                batch[key] = torch.tensor([int(row[key]) for row in rows], dtype=torch.int64)
        return batch


def length_grouped_order(
    lengths: Sequence[int] | np.ndarray, *, batch_size: int, seed: int, epoch: int
) -> list[int]:
    """A random order of all rows in which each run of `batch_size` rows is of like length.

    Rows are shuffled, sorted by length inside pools of 50 batches, cut into batches, and the batches
    shuffled; a last batch that is not full stays last. R ranks that take consecutive micro-batches of one
    global batch so see the same global batches as one rank does.

    Args:
        lengths: (n,) tokens of each row.
        batch_size: rows of a global batch.
        seed: of the run.
        epoch: each has its own order.
    """
    size = np.asarray(lengths)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(size))
    pool = batch_size * POOL
    grouped = [
        rows[np.argsort(-size[rows], kind="stable")]
        for rows in np.split(order, range(pool, len(order), pool))
    ]
    rows = np.concatenate(grouped)
    full = len(rows) // batch_size
    batches = rows[: full * batch_size].reshape(full, batch_size)
    shuffled = batches[rng.permutation(full)].ravel()
    return [int(row) for row in np.concatenate([shuffled, rows[full * batch_size :]])]
