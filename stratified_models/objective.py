"""From what the encoder found to one loss: which rows and tokens count, and how the parts are weighed.

It does not know how anything was computed, nor whether there are other ranks: `average` is handed in.

B rows, T tokens, S tokens of the last block, D width, M expert blocks, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from stratified_models import losses
from stratified_models.config import StratifiedConfig
from stratified_models.domains import DomainReading
from stratified_models.gate import GateReading
from stratified_models.hooks import ExpertTrace

__all__ = ["Encoded", "content_mean", "describe", "geometry", "objective"]


class Encoded(NamedTuple):
    """What the encoder gives: hidden states (B, S, D), readings, expert traces, which tokens count (B, T),
    what the domain head reads (B, D), the out-of-domain scores fitted on that, each (B,), and what probes of
    later blocks read, (B, D) each."""

    hidden: Tensor
    domain: DomainReading
    gate: GateReading | None
    traces: list[ExpertTrace]
    content: Tensor
    valid: Tensor
    pooled: Tensor
    scores: dict[str, Tensor]
    deeper: list[Tensor]


def content_mean(hidden: Tensor, content: Tensor) -> Tensor:
    """Mean of `hidden` (B, T, D) over `content` (B, T), in at least single precision; 0 for an empty row."""
    share = content.to(torch.promote_types(hidden.dtype, torch.float32))
    total = torch.einsum("bt,btd->bd", share, hidden.to(share.dtype))
    return total / share.sum(-1, keepdim=True).clamp(min=1)


def objective(
    encoded: Encoded,
    logits: Tensor,
    config: StratifiedConfig,
    *,
    labels: Tensor,
    domain_id: Tensor | None,
    average: Callable[[Tensor], Tensor] | None,
) -> dict[str, Tensor]:
    """`loss` and its unweighted parts: CE + domain + geometry + balance, weighed by `config`.

    Every count goes through `average` in one call, in an order that is the same on every rank. The terms are
    always built, also without known domains or content tokens, so every parameter is in every graph.
    """
    counts, load = _counts(encoded, labels, average)
    targets = torch.full_like(labels, -1) if domain_id is None else domain_id
    parts = {
        "loss_ce": losses.classification(
            logits=logits, labels=labels, count=counts[0], smoothing=config.label_smoothing
        ),
        "loss_domain": losses.domain(
            logits=encoded.domain.logits, domain_id=targets, known=encoded.domain.known, count=counts[1]
        ),
    }
    loss = parts["loss_ce"] + config.domain_loss * parts["loss_domain"]
    if (
        encoded.gate is not None
        and encoded.gate.log_likelihood is not None
        and config.control != "random_gate"
    ):
        parts["loss_geometry"] = losses.geometry(
            log_likelihood=encoded.gate.log_likelihood,
            content=encoded.content,
            coordinates=config.gate_dim,
            count=counts[2],
        )
        loss = loss + config.geometry_loss * parts["loss_geometry"]
    if load is not None:
        probability = torch.stack([trace.probability for trace in encoded.traces])
        parts["loss_balance"] = losses.balance(load=load, probability=probability, count=counts[3])
        loss = loss + config.balance_loss * parts["loss_balance"]
    return {"loss": loss, **parts}


def _counts(
    encoded: Encoded, labels: Tensor, average: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor | None]:
    """Labelled rows, known domains, content and valid tokens (4,), and expert loads (M, E), averaged over
    ranks."""
    own = [(labels != -100).sum(), encoded.domain.known.sum(), encoded.content.sum(), encoded.valid.sum()]
    counts = torch.stack(own).float()
    load = torch.stack([trace.load for trace in encoded.traces]).float() if encoded.traces else None
    if average is None:
        return counts, load
    flat = average((counts if load is None else torch.cat([counts, load.flatten()])).detach())
    return flat[: len(own)], None if load is None else flat[len(own) :].view_as(load)


def geometry(log_likelihood: Tensor, content: Tensor, gate_dim: int) -> Tensor:
    """How unlikely the gate finds a row's tokens: −(1/g) · mean over content tokens of log Σ_k e^{ℓ_k}, (B,).

    Args:
        log_likelihood: log Σ_k e^{ℓ_k} of every token, (B, T); `content` which of them count, (B, T) bool.
    """
    return -(log_likelihood * content).sum(-1) / (gate_dim * content.sum(-1).clamp(min=1))


def describe(encoded: Encoded, config: StratifiedConfig) -> dict[str, Tensor]:
    """What the readings say, by output field."""
    fields = {"domain_logits": encoded.domain.logits, "energy": encoded.domain.energy, **encoded.scores}
    if encoded.gate is not None:
        if encoded.gate.log_likelihood is not None:
            fields["geometry"] = geometry(encoded.gate.log_likelihood, encoded.content, config.gate_dim)
        fields["occupancy"], fields["strata"] = encoded.gate.occupancy, encoded.gate.posterior
    if encoded.traces:
        fields["expert_load"] = torch.stack([trace.load for trace in encoded.traces])
    fields["unknown"] = fields[config.unknown_score]
    return fields
