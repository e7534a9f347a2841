"""The loss terms, as pure functions of tensors.

It knows no model. Each divides a *sum* by a *count* that the caller passes, because under data parallelism
the count is averaged over ranks: the mean of the ranks' gradients is then the gradient of the global batch.
A count of 0 divides by 1, so a batch without such rows adds 0 and never NaN.

B rows, T tokens, C classes, N domains, E experts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["balance", "classification", "domain", "geometry", "safe_count"]


def safe_count(count: Tensor) -> Tensor:
    """`count`, with 1 in place of 0. Not a maximum with 1: an average over ranks may lie between 0 and 1."""
    return torch.where(count > 0, count, torch.ones_like(count))


def classification(*, logits: Tensor, labels: Tensor, count: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats of `logits` (B, C) and `labels` (B,), where −100 marks a row without a label."""
    total = F.cross_entropy(
        logits.float(), labels, ignore_index=-100, reduction="sum", label_smoothing=smoothing
    )
    return total / safe_count(count)


def domain(*, logits: Tensor, domain_id: Tensor, known: Tensor, count: Tensor) -> Tensor:
    """Cross-entropy in nats of `logits` (B, N) over the rows that are `known` (B,), the others weighing 0.

    Not `cross_entropy(ignore_index=-1)`: its mean is NaN on a batch without known rows.
    """
    target = torch.where(known, domain_id, torch.zeros_like(domain_id))
    row = F.cross_entropy(logits.float(), target, reduction="none")
    return (row * known).sum() / safe_count(count)


def geometry(*, log_likelihood: Tensor, content: Tensor, coordinates: int, count: Tensor) -> Tensor:
    """Negative log-density in nats per coordinate, of `log_likelihood` (B, T) over `content` tokens (B,
    T)."""
    return -(log_likelihood * content).sum() / (coordinates * safe_count(count))


def balance(*, load: Tensor, probability: Tensor, count: Tensor) -> Tensor:
    """E Σ_e f_e π̄_e (Fedus et al. 2021, eq. 4), mean over blocks.

    Args:
        load: assignments to each expert, (M, E); no gradient. Averaged over ranks, like `count`.
        probability: sum of router probabilities over this rank's valid tokens, (M, E).
        count: number of valid tokens, ().

    It is 1 when both are uniform, E/2 when one pair of experts takes everything with certainty, and also 1
    when selection has collapsed but probabilities are uniform: so log the loads too.
    """
    share = load / safe_count(load.sum(-1, keepdim=True))
    mean = probability / safe_count(count)
    return load.shape[-1] * (share * mean).sum(-1).mean()
