"""What the domain head reads, of many rows: for whatever is fitted to it after training.

M rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from stratified_models.errors import ModelError

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["PooledRows", "features_of"]


class PooledRows(NamedTuple):
    """What the domain head reads (M, D), from how many content tokens (M,), and the rows' domains (M,), −1
    where unknown; all on the CPU."""

    features: Tensor
    tokens: Tensor
    domain_id: Tensor

    def take(self, chosen: Tensor) -> PooledRows:
        """The rows that `chosen` names by place, or by a truth value for each of the M."""
        return PooledRows(*(part[chosen] for part in self))


def features_of(
    model: StratifiedForSequenceClassification, batches: Iterable[Mapping[str, Tensor]]
) -> PooledRows:
    """What the domain head reads of training rows; the model's mode is as before.

    Args:
        model: only its blocks below the gate are run.
        batches: each holds `input_ids`, `attention_mask` (B, T) and `domain_id` (B,), −1 where unknown.

    Raises:
        ModelError: there is no batch.
    """
    training = model.training
    model.train(False)
    found = [(*model.pooled_features(batch), batch["domain_id"].cpu()) for batch in batches]
    model.train(training)
    if not found:
        raise ModelError("no training rows came, so nothing can be fitted to them; give batches of them")
    return PooledRows(*(torch.cat(part) for part in zip(*found, strict=True)))
