"""What every variant returns: one `ModelOutput` of tensors, loss first and logits second.

It does not know how any of them is computed. B rows, T tokens, C classes, N domains, K strata, E experts, M
expert blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput

__all__ = ["StratifiedOutput"]


@dataclass
class StratifiedOutput(ModelOutput):
    """Reply of `StratifiedForSequenceClassification`; a field is None where the variant has no such thing.

    Attributes:
        loss: total loss, shape (); None without labels.
        logits: class scores before temperature scaling, (B, C).
        domain_logits: domain scores, (B, N).
        energy: −logsumexp of the domain scores, in nats; high = unlike every known domain, (B,).
        geometry: negative log-density per gate coordinate, in nats, mean over content tokens, (B,).
        mahalanobis, nearest: distances of the text's features from the training rows' (see `unknown`), (B,).
        unknown: the score that the configuration chose of these four; high = out of domain, (B,).
        occupancy: mean stratum posterior over content tokens, (B, K).
        strata: stratum posterior of every position, (B, T, K).
        loss_ce, loss_domain, loss_geometry, loss_balance: the unweighted parts, each ().
        expert_load: top-2 assignments over valid tokens, (M, E).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    domain_logits: Tensor | None = None
    energy: Tensor | None = None
    geometry: Tensor | None = None
    mahalanobis: Tensor | None = None
    nearest: Tensor | None = None
    unknown: Tensor | None = None
    occupancy: Tensor | None = None
    strata: Tensor | None = None
    loss_ce: Tensor | None = None
    loss_domain: Tensor | None = None
    loss_geometry: Tensor | None = None
    loss_balance: Tensor | None = None
    expert_load: Tensor | None = None
