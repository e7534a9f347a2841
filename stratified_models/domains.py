"""The domain head: which domain a row comes from, how unlike all of them it is, and what that adds to logits.

It does not know tokens or strata. It reads pooled hidden states behind a stop-gradient, so no domain gradient
reaches the encoder, and gives weights behind another, so no sentiment gradient reaches the head.

B rows, D width, N domains, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

__all__ = ["DomainHead", "DomainReading"]

ABSENT_IN_TRAINING = -1e4  # finite: a mislabelled row costs much, but never NaN
ABSENT_AT_INFERENCE = 1e-4


class DomainReading(NamedTuple):
    """What the head says: scores (B, N), weights q (B, N), energy (B,), and which rows' domain is known
    (B,)."""

    logits: Tensor
    weights: Tensor
    energy: Tensor
    known: Tensor


class DomainHead(nn.Module):
    """Linear domain classifier, zero-initialised, with an optional class bias per domain.

    `gain` multiplies what it reads. The features of a text are means over tokens and lie close together (a
    spread of 0.16 about values of up to 1.9, on MiniLM), and Adam moves every weight about equally per step:
    with 1 the head is still learning when the encoder is done.
    """

    allowed: Tensor

    def __init__(
        self,
        *,
        width: int,
        domains: int,
        classes: int,
        allowed: list[list[int]],
        bias: bool,
        dropout: float,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(domains, width))
        self.bias = nn.Parameter(torch.empty(domains))
        self.class_bias = nn.Parameter(torch.empty(domains, classes)) if bias else None
        self.dropout, self.gain = dropout, gain
        self._allowed = [[1.0 if c in ids else 0.0 for c in range(classes)] for ids in allowed]
        self.register_buffer("allowed", torch.empty(domains, classes), persistent=False)

    def initialise_(self) -> None:
        """Set every parameter to 0, and the table of allowed classes from the configuration."""
        init.zeros_(self.weight)
        init.zeros_(self.bias)
        if self.class_bias is not None:
            init.zeros_(self.class_bias)
        init.copy_(self.allowed, torch.tensor(self._allowed))

    def forward(self, pooled: Tensor, domain_id: Tensor | None, words: Tensor | None = None) -> DomainReading:
        """Read the domain of each row.

        Args:
            pooled: mean hidden state over content tokens, (B, D).
            domain_id: given domains, (B,), −1 (or any id that does not exist) where unknown; None is all
                unknown.
            words: scores to add, (B, N); energy is that of the head's own.

        In training each given id is hidden from the weights with probability `dropout`, drawn from torch's
        global generator; the head's own loss still sees it through `known`.
        """
        with torch.autocast(device_type=pooled.device.type, enabled=False):
            read = self.gain * pooled.detach().to(self.weight.dtype)
            logits = read @ self.weight.T + self.bias  # (B, N)
            energy = -torch.logsumexp(logits, dim=-1)
            logits = logits if words is None else logits + words.to(logits.dtype)
            inferred = torch.softmax(logits.detach(), dim=-1)
            if domain_id is None:
                return DomainReading(logits, inferred, energy, torch.zeros_like(energy, dtype=torch.bool))
            known = (domain_id >= 0) & (domain_id < self.weight.shape[0])  # (B,)
            used = known
            if self.training and self.dropout > 0:
                used = known & (torch.rand(known.shape, device=known.device) >= self.dropout)
            names = torch.arange(self.weight.shape[0], device=known.device)
            given = (domain_id[:, None] == names).to(inferred.dtype)  # (B, N), one-hot
            return DomainReading(logits, torch.where(used[:, None], given, inferred), energy, known)

    def add_bias(self, logits: Tensor, weights: Tensor) -> Tensor:
        """Add the weighted class bias q·b to `logits` (B, C)."""
        if self.class_bias is None:
            return logits
        if torch.compiler.is_exporting():
            # The same sum as no product: after the head's and a softmax, OpenVINO takes it for attention, and
            # in an int8 graph its code for that needs more registers than there are.
            return logits + (weights[:, :, None] * self.class_bias).sum(1)
        return logits + weights @ self.class_bias

    def rule_out_absent(self, logits: Tensor, reading: DomainReading, domain_id: Tensor | None) -> Tensor:
        """Rule out the classes that a row's domain lacks: by its true domain in training, by its weights
        after."""
        if not self.training:
            return logits + torch.log(reading.weights @ self.allowed + ABSENT_AT_INFERENCE)
        if domain_id is None:
            return logits
        row = torch.where(reading.known, domain_id, torch.zeros_like(domain_id))
        absent = reading.known[:, None] & (self.allowed[row] == 0)  # (B, C)
        return logits.masked_fill(absent, ABSENT_IN_TRAINING)
