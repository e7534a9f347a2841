"""What the domain head reads, of many rows: for whatever is fitted to it after training.

M rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stratified_models.errors import ModelError

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["features_of"]


def features_of(
    model: StratifiedForSequenceClassification, batches: Iterable[Mapping[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """(features (M, D), domain ids (M,)) of training rows, on the CPU; the model's mode is as before.

    Args:
        model: only its blocks below the gate are run.
        batches: each holds `input_ids`, `attention_mask` (B, T) and `domain_id` (B,), −1 where unknown.

    Raises:
        ModelError: there is no batch.
    """
    training = model.training
    model.train(False)
    features, domains = [], []
    for batch in batches:
        features.append(model.pooled_features(batch))
        domains.append(batch["domain_id"].cpu())
    model.train(training)
    if not features:
        raise ModelError("no training rows came, so nothing can be fitted to them; give batches of them")
    return torch.cat(features), torch.cat(domains)
