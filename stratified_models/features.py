"""What domain head and gate read, of many rows: for whatever is fitted to it after training.

M rows, D width, S tokens of a row, g coordinates of the gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from stratified_models.errors import ModelError
from stratified_models.tokens import token_masks
from stratified_models.windows import short_windows

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["PooledRows", "Windows", "features_of", "pooled_of"]


class Windows(NamedTuple):
    """What the domain head reads of a short window of each row, (M, D), and of how many content tokens, (M,),
    0 where the row has none; on the CPU."""

    features: Tensor
    tokens: Tensor


class PooledRows(NamedTuple):
    """Rows as the blocks below the gate leave them; all on the CPU.

    Attributes:
        features: what the domain head reads, (M, D).
        tokens: of how many content tokens, (M,).
        domain_id: the rows' domains, (M,), −1 where unknown.
        coordinates: what the gate reads of up to S tokens, (M, S, g), NaN beyond; None without a density.
        windows: a short text out of each row; None where none was asked for.
    """

    features: Tensor
    tokens: Tensor
    domain_id: Tensor
    coordinates: Tensor | None = None
    windows: Windows | None = None

    def take(self, chosen: Tensor) -> PooledRows:
        """The rows that `chosen` names by place, or by a truth value for each of the M."""
        coordinates = None if self.coordinates is None else self.coordinates[chosen]
        windows = None if self.windows is None else Windows(*(part[chosen] for part in self.windows))
        rows = self.features[chosen], self.tokens[chosen], self.domain_id[chosen]
        return PooledRows(*rows, coordinates, windows)


def features_of(
    model: StratifiedForSequenceClassification, batches: Iterable[Mapping[str, Tensor]], *, seed: int = 0
) -> PooledRows:
    """What domain head and gate read of training rows, and of a short window of each; the model's mode is as
    before.

    Args:
        model: only its blocks below the gate are run.
        batches: each holds `input_ids`, `attention_mask` (B, T) and `domain_id` (B,), −1 where unknown.
        seed: of the draw of windows.

    Raises:
        ModelError: there is no batch.
    """
    training, generator = model.training, torch.Generator().manual_seed(seed)
    model.train(False)
    found = [
        (*model.pooled_features(batch), batch["domain_id"].cpu(), *_windows_of(model, batch, generator))
        for batch in batches
    ]
    model.train(training)
    if not found:
        raise ModelError("no training rows came, so nothing can be fitted to them; give batches of them")
    features, tokens, coordinates, domain_id, *windows = zip(*found, strict=True)
    sample = None if coordinates[0] is None else torch.cat(coordinates)
    cut = Windows(*(torch.cat(part) for part in windows))
    return PooledRows(torch.cat(features), torch.cat(tokens), torch.cat(domain_id), sample, cut)


def pooled_of(
    model: StratifiedForSequenceClassification, batches: Iterable[Mapping[str, Tensor]]
) -> PooledRows:
    """What the domain head alone reads of rows: no coordinates and no windows; else as `features_of`."""
    training = model.training
    model.train(False)
    found = [(*model.pooled_features(batch)[:2], batch["domain_id"].cpu()) for batch in batches]
    model.train(training)
    if not found:
        raise ModelError("no rows came, so nothing can be read of them; give batches of them")
    features, tokens, domain_id = (torch.cat(part) for part in zip(*found, strict=True))
    return PooledRows(features, tokens, domain_id)


def _windows_of(
    model: StratifiedForSequenceClassification, batch: Mapping[str, Tensor], generator: torch.Generator
) -> Windows:
    """Of each row of a batch."""
    ids, mask = batch["input_ids"].cpu(), batch["attention_mask"].cpu()
    _, content = token_masks(ids, mask, ids[..., None], special=model.config.special_token_ids)
    short, shown, owners = short_windows(ids, mask, content, generator=generator)
    features = torch.zeros(len(ids), model.config.hidden_size)
    tokens = torch.zeros(len(ids), dtype=torch.long)
    if len(owners):
        features[owners], tokens[owners], _ = model.pooled_features(
            {"input_ids": short, "attention_mask": shown}
        )
    return Windows(features, tokens)
