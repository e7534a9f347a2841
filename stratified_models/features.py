"""What domain head and gate read, of many rows: for whatever is fitted to it after training.

M rows, D width, S tokens of a row, g coordinates of the gate.
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
    """Rows as the blocks below the gate leave them; all on the CPU.

    Attributes:
        features: what the domain head reads, (M, D).
        tokens: of how many content tokens, (M,).
        domain_id: the rows' domains, (M,), −1 where unknown.
        coordinates: what the gate reads of up to S tokens, (M, S, g), NaN beyond; None without a density.
    """

    features: Tensor
    tokens: Tensor
    domain_id: Tensor
    coordinates: Tensor | None = None

    def take(self, chosen: Tensor) -> PooledRows:
        """The rows that `chosen` names by place, or by a truth value for each of the M."""
        coordinates = None if self.coordinates is None else self.coordinates[chosen]
        return PooledRows(self.features[chosen], self.tokens[chosen], self.domain_id[chosen], coordinates)


def features_of(
    model: StratifiedForSequenceClassification, batches: Iterable[Mapping[str, Tensor]]
) -> PooledRows:
    """What domain head and gate read of training rows; the model's mode is as before.

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
    features, tokens, coordinates, domain_id = zip(*found, strict=True)
    sample = None if coordinates[0] is None else torch.cat(coordinates)
    return PooledRows(torch.cat(features), torch.cat(tokens), torch.cat(domain_id), sample)
